/* SPDX-License-Identifier: MIT */
/* pagemap.h - what /proc/self/pagemap would say, were the pages hidden and protected by the kernel's userfaultfd */
#ifndef UFFD_USER_PAGEMAP_H
#define UFFD_USER_PAGEMAP_H

#include <stddef.h>
#include <stdint.h>

/* Corrects `count` entries, the first of which is for the page at `start`: the bits for write protection (57) and guards (58). */
void user_pagemap_correct(uint64_t *entries, size_t count, uint64_t start);

#endif
