// SPDX-License-Identifier: MIT
#include <errno.h>

#include "base/thread.h"
#include "store/pool.h"

void store_pool_init(struct store_pool *pool, unsigned limit,
                     void (*carry_out)(void *arg, struct uf_store_request *request), void *arg)
{
	*pool = (struct store_pool){.limit = limit, .carry_out = carry_out, .arg = arg};
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	pool->last = &pool->first;
}

static struct uf_store_request *take(struct store_pool *pool)
{
	struct uf_store_request *request = pool->first;

	if (request) {
		pool->first = request->next;
		if (!pool->first)
			pool->last = &pool->first;
		pool->queued--;
	}
	return request;
}

static void *run(void *arg)
{
	struct store_pool *pool = arg;
	struct uf_store_request *request;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!(request = take(pool)) && !pool->ending) {
			pool->idle++;
			pthread_cond_wait(&pool->work, &pool->lock);
			pool->idle--;
		}
		if (!request)
			break;
		pthread_mutex_unlock(&pool->lock);
		pool->carry_out(pool->arg, request);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int store_pool_add(struct store_pool *pool, struct uf_store_request *request)
{
	int err = 0;

	pthread_mutex_lock(&pool->lock);
	if (pool->queued >= pool->idle && pool->count < pool->limit &&
	    !thread_start(&pool->threads[pool->count], run, pool))
		pool->count++;
	if (pool->count) {
		request->next = NULL;
		*pool->last = request;
		pool->last = &request->next;
		pool->queued++;
		pthread_cond_signal(&pool->work);
	} else {
		err = -EAGAIN;
	}
	pthread_mutex_unlock(&pool->lock);
	return err;
}

void store_pool_end(struct store_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->count; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
}
