/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - memory that system calls are given
 *
 * The kernel's own access to a hidden page fails with EFAULT. So what lies in managed memory is touched before the call, on the thread that
 * calls. A page may be taken away again in between: then the call is repeated, where it has consumed nothing before it failed.
 */
#ifndef PRELOAD_BUFFERS_H
#define PRELOAD_BUFFERS_H

#include <sys/types.h>

/* read(2), of a descriptor that is not ours. */
ssize_t buffers_read(int fd, void *buf, size_t size);

#endif
