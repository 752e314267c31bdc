/* SPDX-License-Identifier: MIT */
/*
 * space.h - what is registered in this process, and the state of each of its pages
 *
 * The engine's picture of one address space: sorted, disjoint ranges, each with one byte a page. It says what a touch of a page
 * means (user_space_judge) and carries out what the requests ask for, through memory.h; it knows nothing of messages and of who
 * waits. A child of a fork has a copy of it, together with the page tables that it describes.
 *
 * One lock guards it all. It is taken with signals blocked, held for the time of a few system calls, and never around a wait:
 * a thread that waits in a fault holds nothing. While it is held, nothing touches registered memory.
 */
#ifndef UFFD_USER_SPACE_H
#define UFFD_USER_SPACE_H

#include <userfault/uffd.h>

#include "base/lock.h"
#include "uffd/user/memory.h"

struct user_object;

#define USER_PAGE_HIDDEN    (1u << 0) /* a touch traps */
#define USER_PAGE_PROTECTED (1u << 1) /* write-protected; together with HIDDEN: a mark on a page that is not there */
#define USER_PAGE_POISONED  (1u << 2) /* HIDDEN for good: SIGBUS */

struct user_range {
	struct user_memory memory;
	struct user_object *object;
	uint64_t mode;  /* UFFDIO_REGISTER_MODE_* */
	uint8_t *pages; /* USER_PAGE_*, one a page of memory.page_size */
};

signal_mask user_space_lock(void);
void user_space_unlock(signal_mask before);

/* The same in the trap, where signals are blocked already and stay so. */
void user_space_lock_in_trap(void);
void user_space_unlock_in_trap(void);

/* Everything below: with the lock held. */

/* The range that holds addr, or NULL. Valid until the next change of the space. */
struct user_range *user_space_at(uint64_t addr);

/*
 * user_space_register - track [start, end) for an object, or change the modes of what it tracks there already
 *
 * Errors as UFFDIO_REGISTER: -EBUSY, -EINVAL, -ENOMEM. With -errno nothing has changed.
 */
int user_space_register(struct user_object *object, uint64_t start, uint64_t end, uint64_t mode, bool protect_only);

/*
 * Makes [start, end) ordinary memory again. -EINVAL: a part belongs to another object, and nothing has changed; -ENOMEM: no
 * memory to cut a range in two. user_space_forget: all that belongs to an object, which cannot fail.
 */
int user_space_unregister(struct user_object *object, uint64_t start, uint64_t end);
void user_space_forget(struct user_object *object);

/* What a touch means. */
enum user_verdict {
	USER_RETRY,    /* nothing is in the way (any more): repeat the access */
	USER_FAULT,    /* a fault of this object; *flags is set to UFFD_PAGEFAULT_FLAG_* */
	USER_POISONED, /* SIGBUS */
	USER_FOREIGN,  /* none of ours: the program's own protection */
};

/* May show a page, or lift its protection, where no fault is to be delivered for it. */
enum user_verdict user_space_judge(struct user_range *range, uint64_t addr, bool write, bool wp_async, uint64_t *flags);

/*
 * The requests that deliver pages: as those of <userfault/uffd.h>, without waking. Each returns how many bytes of
 * [start, start + len) it has done, and sets *err to why it did not do more: 0, -EEXIST, -ENOENT, -EFAULT, -ENOMEM, -EINVAL.
 */
size_t user_space_copy(uint64_t start, const void *src, size_t len, bool protect, int *err);
size_t user_space_zeropage(uint64_t start, size_t len, int *err);
size_t user_space_continue(uint64_t start, size_t len, bool protect, int *err);
size_t user_space_poison(uint64_t start, size_t len, int *err);

/* unpopulated: private pages that are not there are marked too (UFFD_FEATURE_WP_UNPOPULATED). 0, -ENOENT, -ENOMEM. */
int user_space_writeprotect(uint64_t start, size_t len, bool protect, bool unpopulated);

#endif
