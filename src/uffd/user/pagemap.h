/* SPDX-License-Identifier: MIT */
/*
 * pagemap.h - what /proc/self/pagemap would say, were the pages hidden and protected by the kernel's userfaultfd
 *
 * Called with no lock held, not in the trap.
 */
#ifndef UFFD_USER_PAGEMAP_H
#define UFFD_USER_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pagemap.h"

/* Corrects `count` entries, the first of which is for the page at `start`: the bits for write protection (57) and guards (58). */
void user_pagemap_correct(uint64_t *entries, size_t count, uint64_t start);

/*
 * The PAGEMAP_SCAN ioctl over [arg->start, arg->end), for pages that are registered; what is not registered has no category at all. Knows
 * PAGE_IS_WPALLOWED, WRITTEN, PRESENT, FILE and HUGE. arg and its vector are touched with the space locked, so may not be registered memory.
 * Returns how many regions were found, or -errno as the kernel would; sets arg->walk_end, and arg->end to the end of its page.
 */
int user_pagemap_scan(struct pm_scan_arg *arg);

/* Whether all of [start, end) is registered, so that the scan says all there is to say. */
bool user_pagemap_covers(uint64_t start, uint64_t end);

#endif
