// SPDX-License-Identifier: MIT
/*
 * The requests of a cache. One that cannot be answered at once becomes a `want`, with a `part` for each block that it touches. A part is there
 * already; or on its way for somebody else, and joins him; or it is read, together with those beside it that are read as well: as one
 * request, which the first of them carries.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "store/blocks.h"
#include "store/store.h"

/* Read at once at most: what is staged takes memory beyond the budget. */
#define RUN_MOST 64u

/* One request takes no more than this share of the blocks, or a single long one would clear the whole cache. */
#define SHARE 4

/* Counted apart, so that hits on different blocks do not meet. */
#define TALLIES 16

struct tally {
	_Atomic uint64_t hits, bytes;
} __attribute__((aligned(64)));

struct store_cache_pool {
	struct blocks blocks;
	_Atomic uint64_t opened; /* caches so far: each has its number, from 1 */
	struct tally tallies[TALLIES];
	_Atomic uint64_t misses, bytes, joined, reads, read, around, no_room, failures;
};

struct cache {
	struct store_cache_pool *pool;
	struct uf_store *inner;
	uint64_t number, size;
};

struct part {
	struct part *next; /* who waits for the same block */
	struct want *want;
	uint64_t index;
	struct block *block; /* held, or being filled; NULL: there was no room */
	bool joined;
	unsigned run; /* so many parts, this one first, come with `read` */
	char *staged; /* where they come to, if there is no better place */
	struct uf_store_request read;
};

struct want {
	struct cache *cache;
	char *buf;
	size_t len;
	uint64_t offset;
	struct uf_store_io *io; /* NULL: a thread waits for `over` */
	_Atomic uint32_t left;  /* what has not come: parts that joined, and reads; and one while these are begun */
	_Atomic int err;        /* that the store has for just this */
	_Atomic bool again;     /* something failed that is more than this, or something else */
	int result;
	_Atomic uint32_t over; /* futex */
	struct uf_store_request exact;
	unsigned count;
	struct part parts[];
};

static void count_one(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void count_more(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t start_of(const struct part *part)
{
	return part->index * STORE_CACHE_BLOCK;
}

/* The last block may be short. */
static uint64_t end_of(const struct cache *cache, const struct part *part)
{
	uint64_t end = start_of(part) + STORE_CACHE_BLOCK;

	return end < cache->size ? end : cache->size;
}

/*
 * Hits.
 */

static int cache_try_read(void *state, void *buf, size_t len, uint64_t offset)
{
	const struct cache *cache = state;
	struct blocks *blocks = &cache->pool->blocks;
	struct tally *tally = &cache->pool->tallies[offset / STORE_CACHE_BLOCK % TALLIES];

	for (size_t done = 0, n; done < len; done += n) {
		uint64_t index = (offset + done) / STORE_CACHE_BLOCK, within = (offset + done) % STORE_CACHE_BLOCK;
		struct block *block = blocks_hold(blocks, cache->number, index);

		if (!block)
			return -EAGAIN;
		n = len - done < STORE_CACHE_BLOCK - within ? len - done : STORE_CACHE_BLOCK - within;
		memcpy((char *)buf + done, block_bytes(blocks, block) + within, n);
		block_release(block);
	}
	count_one(&tally->hits);
	count_more(&tally->bytes, len);
	return 0;
}

/*
 * The end of a request.
 */

static void end(struct want *want, int result)
{
	struct store_cache_pool *pool = want->cache->pool;
	struct uf_store_cause cause = {""};
	struct uf_store_io *io = want->io;
	size_t len = want->len;

	if (result)
		count_one(&pool->failures);
	else
		count_more(&pool->bytes, len);
	if (!io) {
		want->result = result;
		/* Release: the bytes. It may be gone before it is woken: the kernel only compares addresses. */
		atomic_store_explicit(&want->over, 1, memory_order_release);
		futex_wake(&want->over, 1);
		return;
	}
	if (result)
		store_last_failure(want->cache->inner, cause.text, sizeof(cause.text));
	free(want);
	io->complete(io, result ? result : (int64_t)len, result ? &cause : NULL);
}

static void exact_done(struct uf_store_request *request)
{
	end(request->user, request->result);
}

/* What failed may have been a byte that nobody here has asked for. */
static void read_exactly(struct want *want)
{
	struct store_cache_pool *pool = want->cache->pool;
	int err;

	count_one(&pool->reads);
	count_one(&pool->around);
	count_more(&pool->read, want->len);
	want->exact = (struct uf_store_request){.action = UF_STORE_READ,
	                                        .buf = want->buf,
	                                        .len = want->len,
	                                        .offset = want->offset,
	                                        .done = exact_done,
	                                        .user = want};
	err = uf_store_submit(want->cache->inner, &want->exact);
	if (err)
		end(want, err);
}

/* One of what the request waits for has come, or will not. */
static void settle(struct want *want)
{
	int err;

	/* Acquire and release: the last one sees what all others have copied and noted. */
	if (atomic_fetch_sub_explicit(&want->left, 1, memory_order_acq_rel) != 1)
		return;
	err = atomic_load_explicit(&want->err, memory_order_relaxed);
	if (!err && atomic_load_explicit(&want->again, memory_order_relaxed))
		read_exactly(want);
	else
		end(want, err);
}

static bool covers(const struct want *want, uint64_t offset, uint64_t len)
{
	return want->offset <= offset && offset + len <= want->offset + want->len;
}

/*
 * One read.
 */

/* The bytes that it wants of a part; `bytes` are what lies at `at` in the store. */
static void copy_out(const struct part *part, const char *bytes, uint64_t at)
{
	const struct want *want = part->want;
	uint64_t from = start_of(part), to = end_of(want->cache, part);
	char *place;

	from = from > want->offset ? from : want->offset;
	to = to < want->offset + want->len ? to : want->offset + want->len;
	place = want->buf + (from - want->offset);
	if (place != bytes + (from - at))
		memcpy(place, bytes + (from - at), to - from);
}

/* Into the blocks, which nobody else uses yet. */
static void keep(const struct part *head)
{
	const struct cache *cache = head->want->cache;

	for (unsigned i = 0; i < head->run; i++) {
		const struct part *part = head + i;
		const char *from = (char *)head->read.buf + (start_of(part) - head->read.offset);
		char *to;

		if (!part->block)
			continue;
		to = block_bytes(&cache->pool->blocks, part->block);
		if (to != from)
			memcpy(to, from, end_of(cache, part) - start_of(part));
	}
}

/* Makes the blocks ready, and then the reader holds them; or gives them up. Who has joined. */
static struct part *settle_blocks(struct blocks *blocks, const struct part *head, bool ready)
{
	struct part *waiting = NULL;

	pthread_mutex_lock(&blocks->lock);
	for (unsigned i = 0; i < head->run; i++) {
		struct block *block = head[i].block;

		if (!block)
			continue;
		for (struct part *part = block->waiting, *next; part; part = next) {
			next = part->next;
			part->next = waiting;
			waiting = part;
		}
		block->waiting = NULL;
		if (ready)
			block_publish(block);
		else
			blocks_drop(blocks, block);
	}
	pthread_mutex_unlock(&blocks->lock);
	return waiting;
}

/* `told`: the store itself has said so, of all that `head` has asked for. */
static void note_failure(struct want *want, const struct part *head, int err, bool told)
{
	if (told && covers(want, head->read.offset, head->read.len))
		atomic_store_explicit(&want->err, err, memory_order_relaxed);
	else
		atomic_store_explicit(&want->again, true, memory_order_relaxed);
}

static void finish_read(struct part *head, int err, bool told)
{
	struct want *want = head->want;
	struct blocks *blocks = &want->cache->pool->blocks;
	struct part *waiting;

	if (!err)
		keep(head);
	waiting = settle_blocks(blocks, head, !err);
	for (struct part *part = waiting, *next; part; part = next) {
		/* The part is gone with its want. */
		next = part->next;
		if (err)
			note_failure(part->want, head, err, told);
		else
			copy_out(part, block_bytes(blocks, part->block), start_of(part));
		settle(part->want);
	}
	for (unsigned i = 0; !err && i < head->run; i++) {
		copy_out(head + i, head->read.buf, head->read.offset);
		if (head[i].block)
			block_release(head[i].block);
	}
	if (err)
		note_failure(want, head, err, told);
	free(head->staged);
	settle(want);
}

static void read_done(struct uf_store_request *request)
{
	finish_read(request->user, request->result, true);
}

/* Right into its block, or into the caller's own buffer, wherever that is possible. NULL: no memory. */
static char *find_place(struct part *head, uint64_t offset, uint64_t len)
{
	struct want *want = head->want;

	if (head->run == 1 && head->block)
		return block_bytes(&want->cache->pool->blocks, head->block);
	if (covers(want, offset, len))
		return want->buf + (offset - want->offset);
	head->staged = malloc(len);
	return head->staged;
}

static void begin_read(struct part *head)
{
	const struct part *last = head + head->run - 1;
	struct want *want = head->want;
	struct store_cache_pool *pool = want->cache->pool;
	uint64_t from = start_of(head), to = end_of(want->cache, last);
	int err = 0;

	/* What is not kept is read as far as it is wanted. */
	if (!head->block && from < want->offset)
		from = want->offset;
	if (!last->block && to > want->offset + want->len)
		to = want->offset + want->len;
	head->read = (struct uf_store_request){.action = UF_STORE_READ,
	                                       .buf = find_place(head, from, to - from),
	                                       .len = to - from,
	                                       .offset = from,
	                                       .done = read_done,
	                                       .user = head};
	if (head->read.buf) {
		count_one(&pool->reads);
		count_more(&pool->read, to - from);
		err = uf_store_submit(want->cache->inner, &head->read);
	} else {
		err = -ENOMEM;
	}
	if (err)
		finish_read(head, err, false);
}

/*
 * One request.
 */

/* Sees how each part comes. With the lock. */
static void sort_parts(struct want *want)
{
	struct cache *cache = want->cache;
	struct blocks *blocks = &cache->pool->blocks;
	uint32_t share = blocks->count > SHARE ? blocks->count / SHARE : 1;
	struct part *head = NULL;

	for (struct part *part = want->parts; part < want->parts + want->count; part++) {
		part->block = blocks_find(blocks, cache->number, part->index);
		/* With the lock a block that is ready stays so. */
		if (part->block && block_hold(part->block)) {
			head = NULL;
		} else if (part->block) {
			head = NULL;
			part->joined = true;
			part->next = part->block->waiting;
			part->block->waiting = part;
			block_mark_used(part->block);
			atomic_fetch_add_explicit(&want->left, 1, memory_order_relaxed);
			count_one(&cache->pool->joined);
		} else {
			part->block = share ? blocks_take(blocks, cache->number, part->index) : NULL;
			share -= part->block != NULL;
			if (!part->block)
				count_one(&cache->pool->no_room);
			if (!head || head->run == RUN_MOST) {
				head = part;
				atomic_fetch_add_explicit(&want->left, 1, memory_order_relaxed);
			}
			head->run++;
		}
	}
}

/* What is there, and the reads. While any of it is left, the request is. */
static void begin_parts(struct want *want)
{
	struct blocks *blocks = &want->cache->pool->blocks;
	unsigned run;

	for (struct part *part = want->parts; part < want->parts + want->count; part += run) {
		run = part->run ? part->run : 1;
		if (part->run) {
			begin_read(part);
		} else if (!part->joined) {
			copy_out(part, block_bytes(blocks, part->block), start_of(part));
			block_release(part->block);
		}
	}
}

static struct want *new_want(struct cache *cache, void *buf, size_t len, uint64_t offset, struct uf_store_io *io)
{
	uint64_t first = offset / STORE_CACHE_BLOCK, count = (offset + len - 1) / STORE_CACHE_BLOCK - first + 1;
	struct want *want = calloc(1, sizeof(*want) + count * sizeof(want->parts[0]));

	if (!want)
		return NULL;
	want->cache = cache;
	want->buf = buf;
	want->len = len;
	want->offset = offset;
	want->io = io;
	want->count = (unsigned)count;
	want->left = 1;
	for (unsigned i = 0; i < count; i++) {
		want->parts[i].want = want;
		want->parts[i].index = first + i;
	}
	return want;
}

static void begin(struct want *want)
{
	struct blocks *blocks = &want->cache->pool->blocks;

	count_one(&want->cache->pool->misses);
	pthread_mutex_lock(&blocks->lock);
	sort_parts(want);
	pthread_mutex_unlock(&blocks->lock);
	begin_parts(want);
	settle(want);
}

static int cache_submit(void *state, struct uf_store_io *io)
{
	struct want *want;

	if (io->action != UF_STORE_READ)
		return -EOPNOTSUPP;
	want = new_want(state, io->buf, io->len, io->offset, io);
	if (!want)
		return -ENOMEM;
	begin(want);
	return 0;
}

static int64_t cache_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct cache *cache = state;
	struct want *want;
	int result;

	if (!cache_try_read(cache, buf, len, offset))
		return (int64_t)len;
	want = new_want(cache, buf, len, offset, NULL);
	if (!want)
		return -ENOMEM;
	begin(want);
	while (!atomic_load_explicit(&want->over, memory_order_acquire))
		futex_wait(&want->over, 0);
	result = want->result;
	free(want);
	if (!result)
		return (int64_t)len;
	if (cause)
		store_last_failure(cache->inner, cause->text, sizeof(cause->text));
	return result;
}

static int cache_extent(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	const struct cache *cache = state;

	return uf_store_extent(cache->inner, offset, len, extent);
}

/*
 * Opening and closing.
 */

static void cache_close(void *state)
{
	struct cache *cache = state;
	struct blocks *blocks = &cache->pool->blocks;

	/* Waits for reads whose last words are still being said. */
	uf_store_close(cache->inner);
	pthread_mutex_lock(&blocks->lock);
	blocks_forget(blocks, cache->number);
	pthread_mutex_unlock(&blocks->lock);
	free(cache);
}

static const struct uf_store_ops cache_ops = {
	.size = sizeof(cache_ops),
	.version = UF_STORE_OPS_VERSION,
	.read = cache_read,
	.try_read = cache_try_read,
	.extent = cache_extent,
	.close = cache_close,
	.submit = cache_submit,
};

int store_cache_open(struct uf_store **out, struct uf_store *inner, struct store_cache_pool *pool)
{
	/* The inner store has made its attempts. */
	struct uf_store_options options = {.size = sizeof(options), .attempts = 1};
	struct cache *cache;
	int err;

	if (!out || !inner || !pool)
		return -EINVAL;
	cache = calloc(1, sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	cache->pool = pool;
	cache->inner = inner;
	cache->number = atomic_fetch_add(&pool->opened, 1) + 1;
	cache->size = uf_store_size(inner);
	err = uf_store_create(out, &cache_ops, cache, cache->size, UF_STORE_READ_ONLY | UF_STORE_TRIES_IN_SIGNAL,
	                      "cache", &options);
	if (err)
		free(cache);
	return err;
}

bool store_cache_helps(const struct uf_store *store)
{
	return !(uf_store_flags(store) & UF_STORE_READS_IN_SIGNAL);
}

int store_cache_pool_open(struct store_cache_pool **out, uint64_t budget)
{
	struct store_cache_pool *pool = out ? aligned_alloc(_Alignof(struct store_cache_pool), sizeof(*pool)) : NULL;
	int err;

	if (!pool)
		return out ? -ENOMEM : -EINVAL;
	memset(pool, 0, sizeof(*pool));
	err = blocks_init(&pool->blocks, budget);
	if (err)
		free(pool);
	else
		*out = pool;
	return err;
}

void store_cache_pool_close(struct store_cache_pool *pool)
{
	if (!pool)
		return;
	blocks_destroy(&pool->blocks);
	free(pool);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void store_cache_stats(const struct store_cache_pool *pool, struct store_cache_stats *stats)
{
	const struct blocks *blocks = &pool->blocks;

	*stats = (struct store_cache_stats){
		.budget = blocks->count * STORE_CACHE_BLOCK,
		.used = atomic_load_explicit(&blocks->fresh, memory_order_relaxed) * STORE_CACHE_BLOCK,
		.misses = get(&pool->misses),
		.bytes = get(&pool->bytes),
		.joined = get(&pool->joined),
		.reads = get(&pool->reads),
		.read = get(&pool->read),
		.around = get(&pool->around),
		.no_room = get(&pool->no_room),
		.evictions = get(&blocks->evictions),
		.failures = get(&pool->failures),
	};
	for (unsigned i = 0; i < TALLIES; i++) {
		stats->hits += get(&pool->tallies[i].hits);
		stats->bytes += get(&pool->tallies[i].bytes);
	}
}
