/* SPDX-License-Identifier: MIT */
/*
 * cache.h - a store that remembers what it has read from another, for all who read it
 *
 * A manager serves many clients from one snapshot, and they touch the same pages. Behind a cache each part of the store is read once, however
 * many ask for it at the same time, and stays in memory for the next.
 *
 * It is kept in blocks of 64 KiB, aligned; the last may be short. A round trip to a server takes about as long as 64 KiB take on
 * the way, so a smaller block would save little of the wait and miss sooner; a larger one would make a single touched page wait for what nobody
 * may want. What the cache knows of a block takes a thousandth of it.
 *
 * All caches of one pool share its budget. Replacement is by a clock that spares once what was asked for again: a block that was read once, as by
 * a scan, is the first to go, before any that was hit since the hand came by last. A block that is being read or copied stays. Where no block can
 * be had without waiting, the request is read around the cache.
 *
 * A page is lost only if the inner store cannot read it: where a block cannot be read, everybody who waits for it asks once more for
 * just what he wants, unless that was all that was asked for. Nothing of what failed is kept.
 *
 * The bytes of the inner store must not change while the cache is open: it would not notice. So a cache is read-only.
 *
 * A hit takes no lock: whoever finds a block holds it by a count in one atomic word, which the clock respects. The pool's lock is for
 * misses. It is innermost, held for the look at the blocks of one request, or at all when a cache is closed, and nothing is read, copied
 * or completed under it.
 */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include <stdbool.h>

#include <userfault/store.h>

#define STORE_CACHE_BLOCK ((uint64_t)64 << 10)

struct store_cache_pool;

/*
 * store_cache_pool_open - room for blocks
 *
 * `budget` in bytes, rounded down to blocks; what the pool knows of them comes on top. It is mapped at once and taken from the system as it
 * is used. -EINVAL: less than one block, or more than 2^32 of them; -ENOMEM.
 */
int store_cache_pool_open(struct store_cache_pool **out, uint64_t budget);

/* When all its caches are closed. NULL is allowed. */
void store_cache_pool_close(struct store_cache_pool *pool);

/*
 * store_cache_open - a cache over `inner`, which belongs to it from then on, on success: uf_store_close() closes both
 *
 * It is like any other store, but UF_STORE_READ_ONLY. uf_store_try_read() is async-signal-safe, and must be let return, as it holds a block.
 * uf_store_submit() never waits; it completes on the caller's thread or on one of the inner store's. Attempts are the inner store's, whose
 * options tell of failures; what it says last is the cause here.
 * -EINVAL, -ENOMEM.
 */
int store_cache_open(struct uf_store **out, struct uf_store *inner, struct store_cache_pool *pool);

/*
 * Whether a cache over this store would spare anybody a wait. False for what can be read in a signal handler: that is in memory already,
 * its own or the system's page cache, which is shared by itself.
 */
bool store_cache_helps(const struct uf_store *store);

/* Counts since the pool was opened, over all its caches; a request of any length is one. */
struct store_cache_stats {
	uint64_t budget;    /* bytes */
	uint64_t used;      /* bytes of it that have held something */
	uint64_t hits;      /* requests for which all was there */
	uint64_t misses;    /* and others */
	uint64_t bytes;     /* given out, of both */
	uint64_t joined;    /* blocks on their way already when a request asked for them */
	uint64_t reads;     /* requests to inner stores */
	uint64_t read;      /* bytes of them */
	uint64_t around;    /* of `reads`, those that were not for the cache: after a failure */
	uint64_t no_room;   /* blocks that were read and could not be kept */
	uint64_t evictions; /* blocks */
	uint64_t failures;  /* requests that failed */
};

void store_cache_stats(const struct store_cache_pool *pool, struct store_cache_stats *stats);

#endif
