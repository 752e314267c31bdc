/* SPDX-License-Identifier: MIT */
/* thread.h - a thread that takes no signals: those are the program's own threads' business */
#ifndef STORE_THREAD_H
#define STORE_THREAD_H

#include <pthread.h>
#include <signal.h>

/* 0, or -errno. */
static inline int store_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

#endif
