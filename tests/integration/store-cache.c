// SPDX-License-Identifier: MIT
/* The cache of a store on an NBD server, which is a real one. */
#include <endian.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "nbdkit.h"
#include "store/cache.h"
#include "support/test.h"

#define SIZE    ((uint64_t)8 << 20)
#define PAGE    4096u
#define PAGES   (SIZE / PAGE)
#define BLOCKS  (SIZE / STORE_CACHE_BLOCK)
#define READERS 8

static struct nbdkit server;

static struct uf_store *open_cache(struct store_cache_pool *pool)
{
	struct uf_store *store, *cache;
	char cause[512] = "";

	if (uf_store_open(&store, server.uri, NULL, cause, sizeof(cause)))
		FAIL("%s", cause);
	CHECK(store_cache_helps(store));
	CHECK_EQ(store_cache_open(&cache, store, pool), 0);
	return cache;
}

/* What nbdkit's pattern plugin has: each word is its own offset. */
static void check_page(const uint64_t *words, uint64_t offset)
{
	for (unsigned i = 0; i < PAGE / 8; i++)
		CHECK_EQ(be64toh(words[i]), offset + 8 * i);
}

struct reader {
	pthread_t thread;
	struct uf_store *cache;
	unsigned seed;
};

/* All pages, in an order of its own. */
static void *read_all(void *arg)
{
	struct reader *reader = arg;
	uint32_t *order = malloc(PAGES * sizeof(*order));
	uint64_t words[PAGE / 8];

	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t j = (uint32_t)rand_r(&reader->seed) % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (uint32_t i = 0; i < PAGES; i++) {
		CHECK_EQ(uf_store_read(reader->cache, words, PAGE, (uint64_t)order[i] * PAGE), 0);
		check_page(words, (uint64_t)order[i] * PAGE);
	}
	free(order);
	return NULL;
}

TEST(each_block_once, "The server is asked for each block once, while eight threads read every page.")
{
	struct reader readers[READERS];
	struct store_cache_pool *pool;
	struct uf_store *cache;

	NBDKIT(&server, "pattern", "8M");
	CHECK_EQ(store_cache_pool_open(&pool, 2 * SIZE), 0);
	cache = open_cache(pool);
	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.cache = cache, .seed = i + 1};
		CHECK_EQ(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
	}
	for (unsigned i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(readers[i].thread, NULL), 0);
	CHECK_EQ(nbdkit_logged(&server, " Read id=", NULL), BLOCKS);
	for (uint64_t at = 0; at < SIZE; at += STORE_CACHE_BLOCK) {
		char text[32];

		snprintf(text, sizeof(text), " offset=0x%llx ", (unsigned long long)at);
		CHECK_EQ(nbdkit_logged(&server, " Read id=", text), 1);
	}
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

static _Atomic unsigned completed;

static void count_done(struct uf_store_request *request)
{
	CHECK_EQ(request->result, 0);
	completed++;
}

TEST(asked_while_it_waits, "While the server is slow, requests for one block wait together for one answer.")
{
	static uint64_t words[READERS][PAGE / 8];
	struct uf_store_request requests[READERS];
	struct store_cache_pool *pool;
	struct uf_store *cache;

	NBDKIT(&server, "pattern", "8M");
	CHECK_EQ(store_cache_pool_open(&pool, SIZE), 0);
	cache = open_cache(pool);
	nbdkit_pause(&server);
	for (unsigned i = 0; i < READERS; i++) {
		requests[i] = (struct uf_store_request){
			.action = UF_STORE_READ, .buf = words[i], .len = PAGE, .offset = i * PAGE, .done = count_done};
		CHECK_EQ(uf_store_submit(cache, &requests[i]), 0);
	}
	CHECK_EQ(completed, 0);
	nbdkit_resume(&server);
	while (completed < READERS)
		sched_yield();
	for (unsigned i = 0; i < READERS; i++)
		check_page(words[i], i * PAGE);
	CHECK_EQ(nbdkit_logged(&server, " Read id=", NULL), 1);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}
