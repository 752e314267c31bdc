/* SPDX-License-Identifier: MIT */
/*
 * trycopy.h - a copy to or from memory that may not be there
 *
 * Memory that is served by the user engine is waited for, as by any other access; what cannot be accessed, or is poisoned, ends the copy with
 * an error, and not the process with a signal. Without a system call. The SIGSEGV handler that makes it so is the user engine's: before that
 * is installed, and while SIGSEGV is blocked, this is memcpy(3).
 */
#ifndef UFFD_TRYCOPY_H
#define UFFD_TRYCOPY_H

#include <stdbool.h>
#include <stddef.h>

/* 0, or -EFAULT with a part copied. */
int try_copy(void *to, const void *from, size_t len);

/* In the handler: whether the access was such a copy's, which then goes on with -EFAULT when the handler returns. */
bool try_copy_failed(void *context);

#endif
