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
	USER_FAULT,    /* a fault of this object; *flags is set to UFFD_PAGEFAULT_FLAG_* */
	USER_POISONED, /* SIGBUS */
	USER_FOREIGN,  /* none of ours: the program's own protection */
};

/* May show a page, or lift its protection, where no fault is to be delivered for it. */
enum user_verdict user_deliver_judge(struct user_range *range, uint64_t addr, bool write, bool wp_async,
                                     uint64_t *flags);

/*
 * The requests that deliver pages: as those of <userfault/uffd.h>, without waking. Each returns how many bytes of
 * [start, start + len) it has done, and sets *err to why it did not do more: 0, -EEXIST, -ENOENT, -EFAULT, -ENOMEM, -EINVAL.
 */
size_t user_deliver_copy(uint64_t start, const void *src, size_t len, bool protect, int *err);
size_t user_deliver_zeropage(uint64_t start, size_t len, int *err);
size_t user_deliver_continue(uint64_t start, size_t len, bool protect, int *err);
size_t user_deliver_poison(uint64_t start, size_t len, int *err);

/* unpopulated: private pages that are not there are marked too (UFFD_FEATURE_WP_UNPOPULATED). 0, -ENOENT, -ENOMEM. */
int user_deliver_writeprotect(uint64_t start, size_t len, bool protect, bool unpopulated);

#endif
