// SPDX-License-Identifier: MIT
/* The cache of a store, over one that does as it is told and counts what it is asked for. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "store/blocks.h"
#include "store/cache.h"
#include "store/store.h"
#include "support/test.h"

#define KIB   ((size_t)1024)
#define MIB   (1024 * KIB)
#define PAGE  (4 * KIB)
#define BLOCK ((size_t)STORE_CACHE_BLOCK)

/* Each offset has its own, near and far. */
static unsigned char byte_at(uint64_t offset)
{
	return (unsigned char)((offset * 0x9e3779b97f4a7c15u) >> 53);
}

static bool is_content(const char *buf, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)buf[i] != byte_at(offset + i))
			return false;
	return true;
}

/*
 * The inner store. Attempts wait in a list until the test completes them, or `crew` does, in any order.
 */

enum { CREW = 3 };

struct inner {
	uint64_t size, bad, bad_len; /* reads that touch [bad, bad + bad_len) fail */
	_Atomic bool holds;          /* what is submitted waits in the list */
	_Atomic unsigned reads;      /* attempts, of any kind */
	_Atomic uint64_t bytes;
	pthread_mutex_t lock;
	struct uf_store_io *list;
	unsigned count;
	bool ending;
	pthread_t crew[CREW];
	bool closed;
};

static int64_t answer(const struct inner *inner, void *buf, size_t len, uint64_t offset)
{
	CHECK(offset + len <= inner->size);
	for (size_t i = 0; i < len; i++)
		((unsigned char *)buf)[i] = byte_at(offset + i);
	return offset < inner->bad + inner->bad_len && offset + len > inner->bad ? -EIO : (int64_t)len;
}

static int64_t inner_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct inner *inner = state;
	int64_t result = answer(inner, buf, len, offset);

	if (result < 0 && cause)
		snprintf(cause->text, sizeof(cause->text), "a bad place");
	return result;
}

static int inner_submit(void *state, struct uf_store_io *io)
{
	struct inner *inner = state;

	atomic_fetch_add(&inner->reads, 1);
	atomic_fetch_add(&inner->bytes, io->len);
	/* A thread of the store's calls inner_read(). */
	if (!atomic_load(&inner->holds))
		return -EAGAIN;
	pthread_mutex_lock(&inner->lock);
	io->next = inner->list;
	inner->list = io;
	inner->count++;
	pthread_mutex_unlock(&inner->lock);
	return 0;
}

static int inner_extent(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	(void)state;
	*extent = (struct uf_extent){.len = len, .zero = offset >= BLOCK};
	return 0;
}

static void inner_close(void *state)
{
	((struct inner *)state)->closed = true;
}

static const struct uf_store_ops inner_ops = {
	.size = sizeof(inner_ops),
	.version = UF_STORE_OPS_VERSION,
	.read = inner_read,
	.extent = inner_extent,
	.close = inner_close,
	.submit = inner_submit,
};

/* The last but `skip` of those that wait. NULL: there is none. */
static struct uf_store_io *take(struct inner *inner, unsigned skip)
{
	struct uf_store_io **at = &inner->list, *io;

	pthread_mutex_lock(&inner->lock);
	for (skip = inner->count ? skip % inner->count : 0; skip; skip--)
		at = &(*at)->next;
	io = *at;
	if (io) {
		*at = io->next;
		inner->count--;
	}
	pthread_mutex_unlock(&inner->lock);
	return io;
}

static void complete(struct inner *inner, struct uf_store_io *io)
{
	struct uf_store_cause cause = {"a bad place"};
	int64_t result = answer(inner, io->buf, io->len, io->offset);

	io->complete(io, result, result < 0 ? &cause : NULL);
}

/* All that wait. How many. */
static unsigned complete_all(struct inner *inner)
{
	struct uf_store_io *io;
	unsigned count = 0;

	for (; (io = take(inner, 0)); count++)
		complete(inner, io);
	return count;
}

static struct uf_store *open_over(struct inner *inner, struct store_cache_pool *pool, uint64_t size)
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 1, .pause_ms = 1};
	struct uf_store *store, *cache;

	*inner = (struct inner){.size = size, .lock = PTHREAD_MUTEX_INITIALIZER};
	CHECK_EQ(uf_store_create(&store, &inner_ops, inner, size, 0, "inner", &opts), 0);
	CHECK_EQ(store_cache_open(&cache, store, pool), 0);
	return cache;
}

static struct store_cache_pool *open_pool(uint64_t budget)
{
	struct store_cache_pool *pool;

	CHECK_EQ(store_cache_pool_open(&pool, budget), 0);
	return pool;
}

static struct store_cache_stats stats_of(const struct store_cache_pool *pool)
{
	struct store_cache_stats stats;

	store_cache_stats(pool, &stats);
	return stats;
}

static void check_read(struct uf_store *store, size_t len, uint64_t offset)
{
	char *buf = malloc(len);

	CHECK_EQ(uf_store_read(store, buf, len, offset), 0);
	CHECK(is_content(buf, len, offset));
	free(buf);
}

static bool is_there(struct uf_store *store, uint64_t offset)
{
	char byte;
	int err = uf_store_try_read(store, &byte, 1, offset);

	CHECK(err == -EAGAIN || (!err && (unsigned char)byte == byte_at(offset)));
	return !err;
}

/*
 * Requests in the background.
 */

struct request {
	struct uf_store_request request;
	_Atomic bool done;
};

static void note_done(struct uf_store_request *request)
{
	atomic_store(&((struct request *)request)->done, true);
}

static struct request *submit(struct uf_store *store, size_t len, uint64_t offset)
{
	struct request *request = calloc(1, sizeof(*request));

	request->request = (struct uf_store_request){
		.action = UF_STORE_READ, .buf = malloc(len), .len = len, .offset = offset, .done = note_done};
	CHECK_EQ(uf_store_submit(store, &request->request), 0);
	return request;
}

static bool is_done(struct request *request)
{
	return atomic_load(&request->done);
}

/* Its result; the bytes are checked if there are any. */
static int finish(struct request *request)
{
	int result;

	while (!is_done(request))
		sched_yield();
	result = request->request.result;
	if (!result)
		CHECK(is_content(request->request.buf, request->request.len, request->request.offset));
	free(request->request.buf);
	free(request);
	return result;
}

/*
 * What it promises.
 */

TEST(is_an_array, "A cache reads as its store does, at any place and length, and ends where that ends.")
{
	const uint64_t size = 9 * BLOCK + 12345;
	struct store_cache_pool *pool = open_pool(4 * MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, size);
	unsigned seed = 3;
	char buf[200];

	CHECK_EQ(uf_store_size(cache), size);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t offset = ((uint64_t)rand_r(&seed) << 8) % size;
		size_t len = 1 + (size_t)rand_r(&seed) % (i % 2 ? 5 * BLOCK : PAGE);

		check_read(cache, len < size - offset ? len : size - offset, offset);
	}
	memset(buf, 1, sizeof(buf));
	CHECK_EQ(uf_store_read(cache, buf, 200, size - 100), 0);
	CHECK(is_content(buf, 100, size - 100));
	for (unsigned i = 100; i < 200; i++)
		CHECK_EQ(buf[i], 0);
	CHECK_EQ(uf_store_read(cache, buf, 1, size), -ERANGE);
	CHECK_EQ(stats_of(pool).read, size);
	uf_store_close(cache);
	CHECK(inner.closed);
	store_cache_pool_close(pool);
}

TEST(is_read_only, "A cache cannot be written to; what its store knows of zeros it knows too.")
{
	struct store_cache_pool *pool = open_pool(MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, MIB);
	struct uf_extent extent;

	CHECK_EQ(uf_store_flags(cache), UF_STORE_READ_ONLY | UF_STORE_TRIES_IN_SIGNAL);
	CHECK_EQ(uf_store_write(cache, "x", 1, 0), -EROFS);
	CHECK_EQ(uf_store_extent(cache, 0, BLOCK, &extent), 0);
	CHECK_EQ(extent.zero, 0);
	CHECK_EQ(uf_store_extent(cache, BLOCK, BLOCK, &extent), 0);
	CHECK_EQ(extent.zero, 1);
	CHECK_EQ(inner.reads, 0);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

#define READERS 16

struct reader {
	pthread_t thread;
	struct uf_store *store;
	size_t len;
	uint64_t offset;
};

static void *read_as_told(void *arg)
{
	struct reader *reader = arg;

	check_read(reader->store, reader->len, reader->offset);
	return NULL;
}

TEST(one_read_for_all, "A block that many threads ask for at the same time is read once, and then it is there.")
{
	struct store_cache_pool *pool = open_pool(MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 4 * MIB);
	struct reader readers[READERS];
	struct request *request;

	inner.holds = true;
	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.store = cache, .len = PAGE, .offset = 5 * BLOCK + i * PAGE};
		CHECK_EQ(pthread_create(&readers[i].thread, NULL, read_as_told, &readers[i]), 0);
	}
	while (stats_of(pool).joined < READERS - 1)
		sched_yield();
	request = submit(cache, 100, 5 * BLOCK + 7);
	CHECK(!is_done(request));
	CHECK_EQ(complete_all(&inner), 1);
	for (unsigned i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(readers[i].thread, NULL), 0);
	CHECK_EQ(finish(request), 0);
	CHECK_EQ(inner.reads, 1);
	CHECK_EQ(stats_of(pool).joined, READERS);
	/* At once from now on. */
	request = submit(cache, BLOCK, 5 * BLOCK);
	CHECK(is_done(request));
	CHECK_EQ(finish(request), 0);
	CHECK_EQ(inner.reads, 1);
	CHECK_EQ(stats_of(pool).hits, 1);
	CHECK_EQ(stats_of(pool).misses, READERS + 1);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(long_requests, "A long request is one read for each run of blocks that are missing, wherever it begins and ends.")
{
	struct store_cache_pool *pool = open_pool(32 * MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 16 * MIB);

	check_read(cache, MIB, 0);
	CHECK_EQ(inner.reads, 1);
	check_read(cache, 2 * MIB, MIB + 3 * PAGE);
	CHECK_EQ(inner.reads, 2);
	/* With the blocks in which it began and ended. */
	CHECK_EQ(inner.bytes, 3 * MIB + BLOCK);
	check_read(cache, 3 * MIB + BLOCK, 0);
	CHECK_EQ(inner.reads, 2);
	check_read(cache, PAGE, 5 * MIB);
	check_read(cache, MIB, 4 * MIB + MIB / 2);
	CHECK_EQ(inner.reads, 5);
	CHECK_EQ(inner.bytes, 4 * MIB + BLOCK);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(joins_what_is_on_its_way, "A request joins reads in flight and begins those that are missing, and needs them all.")
{
	struct store_cache_pool *pool = open_pool(32 * MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 16 * MIB);
	struct request *first, *second;
	struct uf_store_io *left, *right;

	inner.holds = true;
	first = submit(cache, 2 * BLOCK, 2 * BLOCK);
	second = submit(cache, 6 * BLOCK, 0);
	CHECK_EQ(inner.reads, 3);
	CHECK_EQ(stats_of(pool).joined, 2);
	right = take(&inner, 0);
	left = take(&inner, 0);
	CHECK_EQ(left->offset, 0);
	CHECK_EQ(right->offset, 4 * BLOCK);
	complete(&inner, left);
	complete(&inner, right);
	CHECK(!is_done(second));
	CHECK_EQ(complete_all(&inner), 1);
	CHECK_EQ(finish(first), 0);
	CHECK_EQ(finish(second), 0);
	CHECK_EQ(inner.bytes, 6 * BLOCK);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(failures,
     "A block that cannot be read fails all who wait for it, with the cause, and nobody else; it is not kept.")
{
	struct store_cache_pool *pool = open_pool(MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 4 * MIB);
	struct request *requests[3];
	char buf[PAGE], cause[512];

	inner.bad = 3 * BLOCK;
	inner.bad_len = BLOCK;
	inner.holds = true;
	requests[0] = submit(cache, BLOCK, 3 * BLOCK);
	requests[1] = submit(cache, 4 * BLOCK, 0);
	requests[2] = submit(cache, 3 * BLOCK, 0);
	/* The block, and all before it. */
	CHECK_EQ(inner.reads, 2);
	while (complete_all(&inner))
		;
	CHECK_EQ(finish(requests[0]), -EIO);
	CHECK_EQ(finish(requests[1]), -EIO);
	CHECK_EQ(finish(requests[2]), 0);
	CHECK_EQ(inner.reads, 2);
	CHECK_EQ(stats_of(pool).failures, 2);
	inner.holds = false;
	CHECK_EQ(uf_store_read(cache, buf, PAGE, 3 * BLOCK), -EIO);
	store_last_failure(cache, cause, sizeof(cause));
	CHECK(strstr(cause, "inner: read of 4096 bytes at 196608") && strstr(cause, "a bad place"));
	CHECK(!is_there(cache, 3 * BLOCK));
	/* It gets better. */
	inner.bad_len = 0;
	check_read(cache, PAGE, 3 * BLOCK);
	CHECK(is_there(cache, 4 * BLOCK - 1));
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(bad_neighbours,
     "A page is lost only if it cannot be read itself, not for a bad place in its block or its neighbours'.")
{
	struct store_cache_pool *pool = open_pool(8 * MIB);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 4 * MIB);
	struct request *all, *good, *bad;
	char buf[PAGE];

	inner.bad = 5 * BLOCK + 7 * PAGE;
	inner.bad_len = 1;
	for (uint64_t offset = 4 * BLOCK; offset < 7 * BLOCK; offset += PAGE) {
		if (offset == inner.bad)
			CHECK_EQ(uf_store_read(cache, buf, PAGE, offset), -EIO);
		else
			check_read(cache, PAGE, offset);
	}
	CHECK(is_there(cache, 4 * BLOCK));
	CHECK(!is_there(cache, 5 * BLOCK));
	/* Also for those who have joined somebody whose read was longer. */
	inner.holds = true;
	inner.bad += MIB;
	all = submit(cache, MIB, MIB);
	good = submit(cache, PAGE, MIB + PAGE);
	bad = submit(cache, PAGE, inner.bad);
	CHECK_EQ(stats_of(pool).joined, 2);
	while (complete_all(&inner))
		;
	CHECK_EQ(finish(all), -EIO);
	CHECK_EQ(finish(good), 0);
	CHECK_EQ(finish(bad), -EIO);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(no_room, "When all blocks are in use a request is read around the cache, and does not wait.")
{
	struct store_cache_pool *pool = open_pool(BLOCK);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 4 * MIB);
	struct request *first, *second;
	struct uf_store_io *io;

	inner.holds = true;
	first = submit(cache, PAGE, 0);
	second = submit(cache, PAGE, 10 * BLOCK + PAGE);
	io = take(&inner, 0);
	/* As much as is asked for, as the rest could not be kept. */
	CHECK_EQ(io->offset, 10 * BLOCK + PAGE);
	CHECK_EQ(io->len, PAGE);
	complete(&inner, io);
	CHECK_EQ(finish(second), 0);
	CHECK(!is_done(first));
	CHECK_EQ(stats_of(pool).no_room, 1);
	CHECK_EQ(complete_all(&inner), 1);
	CHECK_EQ(finish(first), 0);
	CHECK(is_there(cache, 0));
	inner.holds = false;
	check_read(cache, MIB + PAGE, MIB - PAGE);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(scans_pass, "What is asked for again and again stays while a scan of everything goes by.")
{
	enum { HOT = 8 };
	struct store_cache_pool *pool = open_pool(16 * BLOCK);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 64 * MIB);
	unsigned scanned = 0;

	for (unsigned i = 0; i < HOT; i++)
		check_read(cache, PAGE, i * BLOCK);
	for (uint64_t offset = MIB; offset < 64 * MIB; offset += BLOCK, scanned++) {
		for (unsigned i = 0; i < HOT; i++)
			CHECK(is_there(cache, i * BLOCK + scanned));
		check_read(cache, PAGE, offset);
	}
	CHECK_EQ(inner.reads, HOT + scanned);
	CHECK_EQ(stats_of(pool).evictions, HOT + scanned - 16);
	/* One long request is no more than a scan. */
	check_read(cache, 32 * MIB, 16 * MIB);
	for (unsigned i = 0; i < HOT; i++)
		CHECK(is_there(cache, i * BLOCK));
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(stores_share_a_pool,
     "Caches of one pool share its budget, and never each other's bytes; what one held is free at its end.")
{
	struct store_cache_pool *pool = open_pool(16 * BLOCK);
	struct inner inners[2];
	struct uf_store *caches[2];
	char buf[PAGE];

	for (unsigned i = 0; i < 2; i++)
		caches[i] = open_over(&inners[i], pool, MIB);
	inners[1].bad_len = MIB;
	for (unsigned i = 0; i < 16; i++) {
		check_read(caches[0], PAGE, i * BLOCK);
		CHECK_EQ(uf_store_read(caches[1], buf, PAGE, i * BLOCK), -EIO);
	}
	CHECK_EQ(stats_of(pool).used, 16 * BLOCK);
	uf_store_close(caches[0]);
	inners[1].bad_len = 0;
	for (unsigned i = 0; i < 16; i++)
		check_read(caches[1], PAGE, i * BLOCK);
	for (unsigned i = 0; i < 16; i++)
		CHECK(is_there(caches[1], i * BLOCK));
	/* The one that made room for the last that failed. */
	CHECK_EQ(stats_of(pool).evictions, 1);
	uf_store_close(caches[1]);
	store_cache_pool_close(pool);
}

TEST(pools, "A pool has room for one block at least, and never gives more than its budget.")
{
	struct store_cache_pool *pool;
	struct inner inner;
	struct uf_store *cache;

	CHECK_EQ(store_cache_pool_open(&pool, BLOCK - 1), -EINVAL);
	CHECK_EQ(store_cache_pool_open(&pool, UINT64_MAX), -EINVAL);
	CHECK_EQ(store_cache_pool_open(NULL, MIB), -EINVAL);
	store_cache_pool_close(NULL);
	CHECK_EQ(store_cache_open(&cache, NULL, NULL), -EINVAL);
	pool = open_pool(5 * BLOCK + PAGE);
	cache = open_over(&inner, pool, 4 * MIB);
	for (uint64_t offset = 0; offset < 4 * MIB; offset += BLOCK)
		check_read(cache, PAGE, offset);
	CHECK_EQ(stats_of(pool).budget, 5 * BLOCK);
	CHECK_EQ(stats_of(pool).used, 5 * BLOCK);
	uf_store_close(cache);
	store_cache_pool_close(pool);
}

TEST(who_needs_none, "What is in memory, or in the system's page cache, needs no cache.")
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY};
	struct inner inner = {.size = MIB};
	struct uf_store *store;

	CHECK_EQ(uf_store_open(&store, "memory:1M", NULL, NULL, 0), 0);
	CHECK(!store_cache_helps(store));
	uf_store_close(store);
	CHECK_EQ(uf_store_open(&store, "file:/proc/self/exe", &opts, NULL, 0), 0);
	CHECK(!store_cache_helps(store));
	uf_store_close(store);
	CHECK_EQ(uf_store_create(&store, &inner_ops, &inner, MIB, 0, "inner", NULL), 0);
	CHECK(store_cache_helps(store));
	uf_store_close(store);
}

/*
 * The blocks alone: one that is given to another part again and again, while others look for it by the numbers that it had.
 *
 * It cannot be given away while one of them holds it, and who is not running may hold it for long. So the others stand back as long as it
 * is wanted; otherwise there would nearly always be one that holds it, and how long the test takes were a matter of luck.
 */

enum { NUMBERS = 2, LOOKERS = 3, GIVEN = 1000000 };

struct looker {
	pthread_t thread;
	struct blocks *blocks;
	_Atomic bool *wanted, *over;
};

static void *look(void *arg)
{
	struct looker *looker = arg;

	for (uint64_t i = 0; !atomic_load_explicit(looker->over, memory_order_relaxed); i++) {
		struct block *block;

		while (atomic_load_explicit(looker->wanted, memory_order_relaxed))
			sched_yield();
		block = blocks_hold(looker->blocks, 1, i % NUMBERS);
		if (!block)
			continue;
		CHECK_EQ(*(uint64_t *)block_bytes(looker->blocks, block), i % NUMBERS);
		block_release(block);
	}
	return NULL;
}

TEST(blocks_are_not_mistaken,
     "Whoever finds a block holds what he has looked for, also when it has just become another's.")
{
	struct looker lookers[LOOKERS];
	_Atomic bool wanted = false, over = false;
	struct blocks blocks;

	CHECK_EQ(blocks_init(&blocks, BLOCK), 0);
	for (unsigned i = 0; i < LOOKERS; i++) {
		lookers[i] = (struct looker){.blocks = &blocks, .wanted = &wanted, .over = &over};
		CHECK_EQ(pthread_create(&lookers[i].thread, NULL, look, &lookers[i]), 0);
	}
	for (uint64_t i = 0; i < GIVEN; i++) {
		struct block *block = NULL;

		/* Not while somebody holds it. */
		while (!block) {
			pthread_mutex_lock(&blocks.lock);
			block = blocks_take(&blocks, 1, i % NUMBERS);
			pthread_mutex_unlock(&blocks.lock);
			atomic_store_explicit(&wanted, !block, memory_order_relaxed);
			if (!block)
				sched_yield();
		}
		*(uint64_t *)block_bytes(&blocks, block) = i % NUMBERS;
		pthread_mutex_lock(&blocks.lock);
		block_publish(block);
		pthread_mutex_unlock(&blocks.lock);
		block_release(block);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < LOOKERS; i++)
		CHECK_EQ(pthread_join(lookers[i].thread, NULL), 0);
	blocks_destroy(&blocks);
}

/*
 * A crew that completes what waits, in any order.
 */

static void *be_crew(void *arg)
{
	struct inner *inner = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed >> 4;
	bool over = false;

	while (!over) {
		struct uf_store_io *io = take(inner, (unsigned)rand_r(&seed));

		if (!io)
			sched_yield();
		else if (rand_r(&seed) % 16 == 0)
			io->complete(io, -ECANCELED, NULL);
		else if (rand_r(&seed) % 16 == 0 && io->len > 1)
			io->complete(io, 1, NULL);
		else
			complete(inner, io);
		pthread_mutex_lock(&inner->lock);
		over = inner->ending && !inner->count;
		pthread_mutex_unlock(&inner->lock);
	}
	return NULL;
}

static void start_crew(struct inner *inner)
{
	inner->holds = true;
	for (unsigned i = 0; i < CREW; i++)
		CHECK_EQ(pthread_create(&inner->crew[i], NULL, be_crew, inner), 0);
}

static void end_crew(struct inner *inner)
{
	pthread_mutex_lock(&inner->lock);
	inner->ending = true;
	pthread_mutex_unlock(&inner->lock);
	for (unsigned i = 0; i < CREW; i++)
		CHECK_EQ(pthread_join(inner->crew[i], NULL), 0);
}

TEST(closes_in_flight, "Closing waits for what is in flight, and all of it is carried out.")
{
	enum { MANY = 100 };
	struct store_cache_pool *pool = open_pool(4 * BLOCK);
	struct inner inner;
	struct uf_store *cache = open_over(&inner, pool, 16 * MIB);
	struct request *requests[MANY];

	inner.holds = true;
	for (unsigned i = 0; i < MANY; i++)
		requests[i] = submit(cache, i % 10 ? PAGE : 3 * BLOCK, (i % 50) * BLOCK + PAGE);
	for (unsigned i = 0; i < MANY; i++)
		CHECK(!is_done(requests[i]));
	start_crew(&inner);
	uf_store_close(cache);
	for (unsigned i = 0; i < MANY; i++) {
		CHECK(is_done(requests[i]));
		CHECK_EQ(finish(requests[i]), 0);
	}
	CHECK(inner.closed);
	end_crew(&inner);
	store_cache_pool_close(pool);
}

/*
 * Everything at once, against the model. One page of each store cannot be read, and only what touches it may fail.
 */

#define FIRE_SIZE  (6 * MIB + 1234)
#define BAD_PLACE  (2 * MIB + 5 * PAGE)
#define FIRE_STEPS 400

struct attacker {
	pthread_t thread;
	struct uf_store *stores[2];
	struct inner *inners;
	unsigned seed;
};

static void check_result(const struct inner *inner, int result, const char *buf, size_t len, uint64_t offset)
{
	bool bad = offset < inner->bad + inner->bad_len && offset + len > inner->bad;

	CHECK_EQ(result, bad ? -EIO : 0);
	if (!bad)
		CHECK(is_content(buf, len, offset));
}

static void attack_once(struct attacker *attacker, char *buf)
{
	unsigned *seed = &attacker->seed, which = rand_r(seed) % 2;
	struct uf_store *store = attacker->stores[which];
	const struct inner *inner = &attacker->inners[which];
	uint64_t offset = ((uint64_t)rand_r(seed) * 61) % FIRE_SIZE;
	size_t len = 1 + (size_t)rand_r(seed) % (rand_r(seed) % 8 ? 2 * PAGE : MIB);
	struct request requests[4] = {0};
	int err;

	len = len < FIRE_SIZE - offset ? len : FIRE_SIZE - offset;
	switch (rand_r(seed) % 3) {
	case 0:
		err = uf_store_try_read(store, buf, len, offset);
		if (err != -EAGAIN)
			check_result(inner, err, buf, len, offset);
		break;
	case 1:
		check_result(inner, uf_store_read(store, buf, len, offset), buf, len, offset);
		break;
	default:
		/* Close together, so that they join one another. */
		for (unsigned i = 0; i < 4; i++) {
			struct uf_store_request *request = &requests[i].request;

			*request = (struct uf_store_request){.action = UF_STORE_READ,
			                                     .buf = buf + i * MIB,
			                                     .len = i ? 1 + (len - 1) / (i + 1) : len,
			                                     .offset = offset,
			                                     .done = note_done};
			CHECK_EQ(uf_store_submit(store, request), 0);
		}
		for (unsigned i = 0; i < 4; i++) {
			while (!is_done(&requests[i]))
				sched_yield();
			check_result(inner, requests[i].request.result, buf + i * MIB,
			             i ? 1 + (len - 1) / (i + 1) : len, offset);
		}
	}
}

static void *attack(void *arg)
{
	char *buf = malloc(4 * MIB);

	for (unsigned i = 0; i < FIRE_STEPS; i++)
		attack_once(arg, buf);
	free(buf);
	return NULL;
}

static void under_fire(unsigned blocks)
{
	enum { ATTACKERS = 6 };
	struct store_cache_pool *pool = open_pool(blocks * BLOCK);
	struct attacker attackers[ATTACKERS];
	struct store_cache_stats stats;
	struct inner inners[2];
	struct uf_store *stores[2];

	for (unsigned i = 0; i < 2; i++) {
		stores[i] = open_over(&inners[i], pool, FIRE_SIZE);
		inners[i].bad = BAD_PLACE + i * MIB;
		inners[i].bad_len = PAGE;
		start_crew(&inners[i]);
	}
	for (unsigned i = 0; i < ATTACKERS; i++) {
		attackers[i] = (struct attacker){.stores = {stores[0], stores[1]}, .inners = inners, .seed = i + 1};
		CHECK_EQ(pthread_create(&attackers[i].thread, NULL, attack, &attackers[i]), 0);
	}
	for (unsigned i = 0; i < ATTACKERS; i++)
		CHECK_EQ(pthread_join(attackers[i].thread, NULL), 0);
	stats = stats_of(pool);
	CHECK(stats.misses && stats.joined && stats.around && stats.failures);
	CHECK(stats.evictions || blocks > 4);
	for (unsigned i = 0; i < 2; i++)
		uf_store_close(stores[i]);
	for (unsigned i = 0; i < 2; i++)
		end_crew(&inners[i]);
	store_cache_pool_close(pool);
}

TEST(one_block_under_fire, "Every byte is right and no good page fails while many threads fight for one block.")
{
	under_fire(1);
}

TEST(few_blocks_under_fire, "The same for twenty blocks, of which each is wanted for something else all the time.")
{
	under_fire(20);
}

TEST(many_blocks_under_fire, "The same where all there is has room.")
{
	under_fire(300);
}
