/* SPDX-License-Identifier: MIT */
/*
 * uring.h - attempts on a file through io_uring
 *
 * A module, with liburing. One thread owns the ring, sends what the queue brings and completes what the kernel has done: requests belong to
 * the task that sent them, whose end would cancel them, and whose system calls they interrupt.
 */
#ifndef STORE_URING_H
#define STORE_URING_H

#include <userfault/store.h>

#define STORE_URING_SYMBOL "uf_store_module_uring"

/* What the module exports. */
struct store_uring_ops {
	/* 0; or why there is no ring: -EPERM and -ENOSYS where it is refused, as in containers. */
	int (*open)(void **ring, int fd);
	/* As of struct uf_store_ops, for reads and writes. Should the kernel refuse it only now, the attempt ends with -ECANCELED. */
	int (*submit)(void *ring, struct uf_store_io *io);
	/* With nothing in flight. The descriptor is the caller's. */
	void (*close)(void *ring);
};

extern const struct store_uring_ops uf_store_module_uring;

#endif
