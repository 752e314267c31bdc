/* SPDX-License-Identifier: MIT */
/*
 * pool.h - threads that carry out a store's requests
 *
 * As many as there is work for, up to a limit; they start when they are needed (base/thread.h), and end with the pool.
 */
#ifndef STORE_POOL_H
#define STORE_POOL_H

#include <pthread.h>
#include <stdbool.h>

#include <userfault/store.h>

#define POOL_THREADS 64

struct store_pool {
	pthread_mutex_t lock; /* all below; held for a few instructions */
	pthread_cond_t work;
	struct uf_store_request *first, **last;
	pthread_t threads[POOL_THREADS];
	unsigned limit, count, idle;
	unsigned queued; /* of those that are idle, so many will find work when they wake */
	bool ending;
	void (*carry_out)(void *arg, struct uf_store_request *request);
	void *arg;
};

void store_pool_init(struct store_pool *pool, unsigned limit,
                     void (*carry_out)(void *arg, struct uf_store_request *request), void *arg);

/* 0, or -EAGAIN: there is no thread, and none can be started. */
int store_pool_add(struct store_pool *pool, struct uf_store_request *request);

/* Carries out what was added, and ends the threads. */
void store_pool_end(struct store_pool *pool);

#endif
