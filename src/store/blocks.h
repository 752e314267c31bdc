/* SPDX-License-Identifier: MIT */
/*
 * blocks.h - a budget of memory in blocks, each of which may hold a part of a store: the cache's table and its clock
 *
 * A block is free; or taken: entered in the table, and being filled by whoever took it; or ready: whoever finds it may hold it, and while it is
 * held its bytes stay. A block that is ready and not held can be taken for something else.
 *
 * Without the lock only blocks_hold() and block_release() are called. They walk chains that may change under their feet: then they may
 * miss what is there, which a look with the lock would find, but never take one block for another.
 */
#ifndef STORE_BLOCKS_H
#define STORE_BLOCKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/cache.h"

/* block.word: how many hold it, and: */
#define BLOCK_READY (1u << 31)
#define BLOCK_USED  (1u << 30) /* asked for since the hand came by */

struct block {
	_Atomic uint32_t word;
	_Atomic uint32_t next; /* in its chain, or of the free ones: a number, from 1; 0: the last */
	/* What it holds. Changes only with the lock and while it is not ready; BLOCK_READY publishes it together with the bytes. */
	_Atomic uint64_t store, index;
	struct part *waiting; /* the cache's, with the lock: who waits until it is ready */
} __attribute__((aligned(64)));

struct blocks {
	pthread_mutex_t lock;
	struct block *all;
	char *bytes;
	uint32_t count;
	unsigned bits;              /* of a number of a chain */
	_Atomic uint32_t *chains;   /* number of the first block, from 1; 0: none */
	_Atomic uint32_t fresh;     /* those from here on were never taken; written with the lock */
	uint32_t free;              /* number of the first; 0: none */
	uint32_t hand;              /* of the clock: which block it looks at next */
	_Atomic uint64_t evictions; /* written with the lock */
};

/* Of so many bytes, in whole blocks. -EINVAL, -ENOMEM. */
int blocks_init(struct blocks *blocks, uint64_t budget);
void blocks_destroy(struct blocks *blocks);

/* [signal] The block of this part of this store, which may be read until block_release(). NULL: it is not ready. */
struct block *blocks_hold(struct blocks *blocks, uint64_t store, uint64_t index);

static inline void block_release(struct block *block)
{
	/* Release: whoever takes the block next must not write to it before it has been read. */
	atomic_fetch_sub_explicit(&block->word, 1, memory_order_release);
}

static inline char *block_bytes(const struct blocks *blocks, const struct block *block)
{
	return blocks->bytes + (uint64_t)(block - blocks->all) * STORE_CACHE_BLOCK;
}

/*
 * The rest with the lock.
 *
 * find     ready, or just being filled; NULL: neither
 * take     one for what find() did not find, to be filled. NULL: all are in use, or the hand has looked for long enough
 * publish  what was taken is ready, and held by the caller
 * drop     what was taken could not be filled, and is free
 * forget   what there is of a store that nobody reads any more
 */
struct block *blocks_find(struct blocks *blocks, uint64_t store, uint64_t index);
struct block *blocks_take(struct blocks *blocks, uint64_t store, uint64_t index);
void blocks_drop(struct blocks *blocks, struct block *block);
void blocks_forget(struct blocks *blocks, uint64_t store);

static inline void block_publish(struct block *block)
{
	/* Release: the bytes, and what they are of. */
	atomic_fetch_add_explicit(&block->word, BLOCK_READY + 1, memory_order_release);
}

/* Somebody else has asked for it. */
static inline void block_mark_used(struct block *block)
{
	atomic_fetch_or_explicit(&block->word, BLOCK_USED, memory_order_relaxed);
}

/* Of one that was found: it is ready, and held by the caller from now on. */
bool block_hold(struct block *block);

#endif
