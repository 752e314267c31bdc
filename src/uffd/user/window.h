/* SPDX-License-Identifier: MIT */
/*
 * window.h - hidden pages that lie ready for content
 *
 * A page of private memory that a guard hides needs four system calls to be filled, two of which cut a mapping in three and join it
 * again. Memory is mostly touched in rising order, so where one fill has followed another, the guards of the next pages are
 * lifted together: these lie in inaccessible memory then, the *window*, and each needs only its content and one mprotect(2),
 * which moves the border. To everybody else a page in a window is hidden as before.
 *
 * There are a few windows at a time, so they cost a few mappings at most. Whatever is done to hidden pages except filling them closes the
 * windows there first. With the space's lock held.
 */
#ifndef UFFD_USER_WINDOW_H
#define UFFD_USER_WINDOW_H

#include "uffd/user/space.h"

/*
 * Before [start, start + len) of a range, all of it hidden, is filled or shown. True: it lies open (as after user_memory_open()), and is
 * no part of a window any more: the caller must publish or shut it. False: it is hidden as it was. With `filled` a window may be opened
 * for it: not for what could be shown by lifting its guard.
 */
bool user_window_take(struct user_range *range, uint64_t start, size_t len, bool filled);

/*
 * A hidden page for which a thread is about to wait: makes a window of it, unless that is in vain: where its content would open a larger one, or
 * is not what was delivered last. Where no window is free nothing is done.
 */
void user_window_prepare(const struct user_range *range, uint64_t page);

/* Whether any of [start, start + len) lies open. */
bool user_window_has(uint64_t start, size_t len);

/* Hides what lies open in [start, end) in the ordinary way. */
void user_window_close(uint64_t start, uint64_t end);

#endif
