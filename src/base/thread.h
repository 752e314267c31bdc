/* SPDX-License-Identifier: MIT */
/*
 * thread.h - a thread of the library's own, which takes no signals: those are the program's own threads' business
 *
 * But for two that the C library keeps for itself: setuid(2) and its like wait until each thread of the process has taken one, so that a thread
 * which had it blocked would make the program wait for ever. Their handlers are the C library's, and touch no memory of the program's.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "base/lock.h"

#define THREAD_LIBC_SIGNALS ((signal_mask)3 << 31) /* 32 and 33 */

/* 0, or -errno. */
static inline int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	signal_mask mask = ~THREAD_LIBC_SIGNALS, before = 0;
	int err;

	/* Raw: the mask of the caller, who may hold a lock with all signals blocked, is afterwards what it was. */
	raw_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, (long)&before, sizeof(mask), 0, 0);
	err = pthread_create(thread, NULL, run, arg);
	restore_signals(before);
	return -err;
}

#endif
