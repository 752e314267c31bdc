// SPDX-License-Identifier: MIT
/* What a hit in a store's cache costs, beside what it spares: a copy by the system, and the bare copy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <userfault/store.h>

#include "base/clock.h"
#include "bench.h"
#include "store/cache.h"

/* Timed together, as the clock takes a while itself. */
#define READS 64u

static struct uf_store *open_numbered(size_t len)
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY};
	struct uf_store *store;
	char uri[4096], cause[256];

	bench_warm_cache(bench_path(NUMBERED), len);
	snprintf(uri, sizeof(uri), "file:%s", bench_path(NUMBERED));
	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause)))
		bench_refuse("%s", cause);
	return store;
}

static void check_page(const char *buf, uint32_t page)
{
	uint64_t number;

	memcpy(&number, buf, sizeof(number));
	if (number != NUMBER(page))
		bench_refuse("page %u has the number %llu", page, (unsigned long long)number);
}

/* Random pages that are all at hand, from a store or, where there is none, from memory. */
static void read_pages(struct bench *bench, struct uf_store *store, const char *memory)
{
	size_t pages = ((size_t)CACHE_MIB << 20) / bench->page;
	uint32_t *order = bench_order(bench, pages);
	char *buf = bench_memory(bench->page);

	memset(buf, 0, bench->page);
	for (size_t i = 0; i + READS <= pages; i += READS) {
		uint64_t start = now_ns();

		for (size_t j = i; j < i + READS; j++) {
			uint64_t offset = (uint64_t)order[j] * bench->page;

			if (store)
				must(uf_store_try_read(store, buf, bench->page, offset), "uf_store_try_read");
			else
				memcpy(buf, memory + offset, bench->page);
			check_page(buf, order[j]);
		}
		bench_sample(bench, (double)(now_ns() - start) / READS);
	}
	free(order);
}

void cache_hit(struct bench *bench)
{
	size_t len = (size_t)CACHE_MIB << 20;
	struct store_cache_pool *pool;
	struct uf_store *cache;
	char *buf = bench_memory(CHUNK);

	must(store_cache_pool_open(&pool, 2 * len), "store_cache_pool_open");
	must(store_cache_open(&cache, open_numbered(len), pool), "store_cache_open");
	for (size_t at = 0; at < len; at += CHUNK)
		must(uf_store_read(cache, buf, CHUNK, at), "uf_store_read");
	read_pages(bench, cache, NULL);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

void file_hit(struct bench *bench)
{
	struct uf_store *store = open_numbered((size_t)CACHE_MIB << 20);

	read_pages(bench, store, NULL);
	uf_store_close(store);
}

void memory_hit(struct bench *bench)
{
	size_t len = (size_t)CACHE_MIB << 20;
	struct uf_store *store = open_numbered(len);
	char *memory = bench_memory(len);

	must(uf_store_read(store, memory, len, 0), "uf_store_read");
	uf_store_close(store);
	read_pages(bench, NULL, memory);
}
