/* SPDX-License-Identifier: MIT */
/*
 * scarce.h - pages that have their content and wait for a mapping
 *
 * Where pages are hidden by mprotect(2), an isolated page that is shown is a mapping of its own, and a process has some 65,000
 * (vm.max_map_count). When there is none left a page that is delivered stays hidden, with its content: it is READY. Whoever touches it
 * shows the run of ready pages that it lies in, if that is possible now: a run that ends at pages that are shown needs no mapping of
 * its own. If it is not, the fault becomes one of the page next to the run, so that the monitor makes the run longer, until it meets
 * pages that are shown. With the space's lock held.
 */
#ifndef UFFD_USER_SCARCE_H
#define UFFD_USER_SCARCE_H

#include "uffd/user/deliver.h"

/*
 * Pages whose content is complete could not be shown, with this error. 0: they are ready; what follows will show them. Otherwise the
 * error again: they cannot wait, and are hidden as if nothing had been delivered.
 */
int user_scarce_keep(struct user_range *range, uint64_t start, size_t len, bool protect, int err);

/* A touch of a page that is ready. USER_RETRY, or USER_FAULT of another page, to which *addr is set. */
enum user_verdict user_scarce_judge(struct user_range *range, uint64_t *addr);

#endif
