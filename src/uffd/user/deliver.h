/* SPDX-License-Identifier: MIT */
/*
 * deliver.h - what a touch of a registered page means, and how a page is delivered
 *
 * On the picture that space.h keeps, through memory.h. Everything here is called with the space's lock held.
 */
#ifndef UFFD_USER_DELIVER_H
#define UFFD_USER_DELIVER_H

#include "uffd/user/space.h"

/* What a touch means. */
enum user_verdict {
	USER_RETRY,    /* nothing is in the way (any more): repeat the access */
	USER_FAULT,    /* a fault of this object, at *addr; *flags is set to UFFD_PAGEFAULT_FLAG_* */
	USER_POISONED, /* SIGBUS */
	USER_FOREIGN,  /* none of ours: the program's own protection */
};

/* May show a page, or lift its protection, where no fault is to be delivered for it. *addr may become another page's (scarce.h). */
enum user_verdict user_deliver_judge(struct user_range *range, uint64_t *addr, bool write, bool wp_async,
                                     uint64_t *flags);

/*
 * The requests that deliver pages: as those of <userfault/uffd.h>, without waking. Each returns how many bytes of
 * [start, start + len) it has done, and sets *err to why it did not do more: 0, -EEXIST, -ENOENT, -EFAULT, -ENOMEM, -EINVAL.
 */
size_t user_deliver_copy(uint64_t start, const void *src, size_t len, bool protect, int *err);
size_t user_deliver_zeropage(uint64_t start, size_t len, int *err);
size_t user_deliver_continue(uint64_t start, size_t len, bool protect, int *err);
size_t user_deliver_poison(uint64_t start, size_t len, int *err);

/* Moves what lies in [from, from + len), registered or not, and is there; holes are passed over, or end it. Also -EBUSY. move.c */
size_t user_deliver_move(uint64_t to, uint64_t from, size_t len, bool allow_holes, int *err);

/* Whether memory that is not registered was ever the source of such a move. Without the lock. */
bool user_deliver_has_moved(void);

/* Shows pages that lie open with their content complete, whose states change with it. 0, or -errno and they are hidden. */
int user_deliver_publish(struct user_range *range, uint64_t start, size_t len, bool protect);

/* unpopulated: private pages that are not there are marked too (UFFD_FEATURE_WP_UNPOPULATED). 0, -ENOENT, -ENOMEM. */
int user_deliver_writeprotect(uint64_t start, size_t len, bool protect, bool unpopulated);

#endif
