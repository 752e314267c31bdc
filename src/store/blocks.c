// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/rawsys.h"
#include "store/blocks.h"

/* Chains hold one block on average. Whoever walks one without the lock may be led from chain to chain, but not for ever. */
#define STEPS 64

/* How far the hand goes for one block, so that a miss holds the lock for some microseconds at most. */
#define HAND_STEPS 4096u

#define HUGE_PAGE ((uint64_t)2 << 20)

/* Spread evenly also where numbers follow one another. */
static uint32_t chain_of(const struct blocks *blocks, uint64_t store, uint64_t index)
{
	uint64_t mixed = (index + store * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(mixed >> (64 - blocks->bits));
}

static uint32_t number_of(const struct blocks *blocks, const struct block *block)
{
	return (uint32_t)(block - blocks->all) + 1;
}

static bool is(const struct block *block, uint64_t store, uint64_t index)
{
	return atomic_load_explicit(&block->index, memory_order_relaxed) == index &&
	       atomic_load_explicit(&block->store, memory_order_relaxed) == store;
}

bool block_hold(struct block *block)
{
	uint32_t word = atomic_load_explicit(&block->word, memory_order_relaxed);

	do {
		if (!(word & BLOCK_READY))
			return false;
		/* Acquire: what block_publish() has published. */
	} while (!atomic_compare_exchange_weak_explicit(&block->word, &word, (word + 1) | BLOCK_USED,
	                                                memory_order_acquire, memory_order_relaxed));
	return true;
}

struct block *blocks_hold(struct blocks *blocks, uint64_t store, uint64_t index)
{
	_Atomic uint32_t *chain = &blocks->chains[chain_of(blocks, store, index)];
	uint32_t number = atomic_load_explicit(chain, memory_order_acquire);

	for (unsigned steps = 0; number && steps < STEPS; steps++) {
		struct block *block = &blocks->all[number - 1];

		if (is(block, store, index)) {
			if (!block_hold(block))
				return NULL;
			/* Until it was held it could become another's. */
			if (is(block, store, index))
				return block;
			block_release(block);
			return NULL;
		}
		number = atomic_load_explicit(&block->next, memory_order_acquire);
	}
	return NULL;
}

struct block *blocks_find(struct blocks *blocks, uint64_t store, uint64_t index)
{
	uint32_t number = atomic_load_explicit(&blocks->chains[chain_of(blocks, store, index)], memory_order_relaxed);

	while (number && !is(&blocks->all[number - 1], store, index))
		number = atomic_load_explicit(&blocks->all[number - 1].next, memory_order_relaxed);
	return number ? &blocks->all[number - 1] : NULL;
}

/* Out of its chain. */
static void unlink_block(struct blocks *blocks, struct block *block)
{
	_Atomic uint32_t *at =
		&blocks->chains[chain_of(blocks, atomic_load(&block->store), atomic_load(&block->index))];
	uint32_t number = number_of(blocks, block), seen;

	while ((seen = atomic_load_explicit(at, memory_order_relaxed)) != number)
		at = &blocks->all[seen - 1].next;
	/* Release: whoever comes by here sees that block as its next one was entered. */
	atomic_store_explicit(at, atomic_load_explicit(&block->next, memory_order_relaxed), memory_order_release);
}

static void to_free(struct blocks *blocks, struct block *block)
{
	atomic_store_explicit(&block->next, blocks->free, memory_order_relaxed);
	blocks->free = number_of(blocks, block);
}

/* From READY, and neither held nor used, to nobody's. Acquire: whoever held it has read it. */
static bool seize(struct block *block)
{
	uint32_t ready = BLOCK_READY;

	return atomic_compare_exchange_strong_explicit(&block->word, &ready, 0, memory_order_acquire,
	                                               memory_order_relaxed);
}

/* Twice round, since the first time may only find what was used; but not for long. */
static struct block *turn_clock(struct blocks *blocks)
{
	uint64_t most = 2 * (uint64_t)blocks->count;

	for (unsigned steps = 0; steps < most && steps < HAND_STEPS; steps++) {
		struct block *block = &blocks->all[blocks->hand];

		blocks->hand = blocks->hand + 1 < blocks->count ? blocks->hand + 1 : 0;
		if (seize(block)) {
			unlink_block(blocks, block);
			atomic_fetch_add_explicit(&blocks->evictions, 1, memory_order_relaxed);
			return block;
		}
		/* Of one that is being filled too: its second asker is as good as a hit. */
		if (atomic_load_explicit(&block->word, memory_order_relaxed) & BLOCK_READY)
			atomic_fetch_and_explicit(&block->word, ~BLOCK_USED, memory_order_relaxed);
	}
	return NULL;
}

static struct block *find_room(struct blocks *blocks)
{
	uint32_t fresh = atomic_load_explicit(&blocks->fresh, memory_order_relaxed);
	struct block *block;

	if (blocks->free) {
		block = &blocks->all[blocks->free - 1];
		blocks->free = atomic_load_explicit(&block->next, memory_order_relaxed);
		return block;
	}
	if (fresh == blocks->count)
		return turn_clock(blocks);
	atomic_store_explicit(&blocks->fresh, fresh + 1, memory_order_relaxed);
	return &blocks->all[fresh];
}

struct block *blocks_take(struct blocks *blocks, uint64_t store, uint64_t index)
{
	_Atomic uint32_t *chain = &blocks->chains[chain_of(blocks, store, index)];
	struct block *block = find_room(blocks);

	if (!block)
		return NULL;
	atomic_store_explicit(&block->store, store, memory_order_relaxed);
	atomic_store_explicit(&block->index, index, memory_order_relaxed);
	atomic_store_explicit(&block->next, atomic_load_explicit(chain, memory_order_relaxed), memory_order_relaxed);
	/* Release: what has just been written of the block. */
	atomic_store_explicit(chain, number_of(blocks, block), memory_order_release);
	return block;
}

void blocks_drop(struct blocks *blocks, struct block *block)
{
	unlink_block(blocks, block);
	atomic_store_explicit(&block->word, 0, memory_order_relaxed);
	to_free(blocks, block);
}

void blocks_forget(struct blocks *blocks, uint64_t store)
{
	uint32_t fresh = atomic_load_explicit(&blocks->fresh, memory_order_relaxed);

	for (uint32_t i = 0; i < fresh; i++) {
		struct block *block = &blocks->all[i];

		if (atomic_load_explicit(&block->store, memory_order_relaxed) != store)
			continue;
		if (atomic_load_explicit(&block->word, memory_order_relaxed) & BLOCK_READY)
			atomic_fetch_and_explicit(&block->word, ~BLOCK_USED, memory_order_relaxed);
		/* One that a reader of another store holds by mistake, for a moment, is left to the clock: no number comes twice. */
		if (seize(block)) {
			unlink_block(blocks, block);
			to_free(blocks, block);
		}
	}
}

/* At a border of huge pages, so that they can be had. */
static char *map_bytes(uint64_t len)
{
	char *mapped = raw_map_own(len + HUGE_PAGE), *bytes;
	uint64_t before;

	if (!mapped)
		return NULL;
	before = -(uint64_t)(uintptr_t)mapped & (HUGE_PAGE - 1);
	bytes = mapped + before;
	if (before)
		raw_unmap(mapped, before);
	raw_unmap(bytes + len, HUGE_PAGE - before);
	/* Without it too, only slower. */
	raw_madvise((uint64_t)(uintptr_t)bytes, len, MADV_HUGEPAGE);
	return bytes;
}

static void unmap_all(struct blocks *blocks)
{
	raw_unmap(blocks->bytes, blocks->count * STORE_CACHE_BLOCK);
	raw_unmap(blocks->all, blocks->count * sizeof(*blocks->all));
	raw_unmap((void *)blocks->chains, sizeof(*blocks->chains) << blocks->bits);
}

int blocks_init(struct blocks *blocks, uint64_t budget)
{
	uint64_t count = budget / STORE_CACHE_BLOCK;

	if (!count || count >= UINT32_MAX)
		return -EINVAL;
	memset(blocks, 0, sizeof(*blocks));
	blocks->count = (uint32_t)count;
	/* One at least: a shift by all 64 bits has no meaning. */
	blocks->bits = 1;
	while (blocks->bits < 32 && (uint64_t)1 << blocks->bits < count)
		blocks->bits++;
	blocks->bytes = map_bytes(count * STORE_CACHE_BLOCK);
	blocks->all = raw_map_own(count * sizeof(*blocks->all));
	blocks->chains = raw_map_own(sizeof(*blocks->chains) << blocks->bits);
	if (!blocks->bytes || !blocks->all || !blocks->chains) {
		unmap_all(blocks);
		return -ENOMEM;
	}
	pthread_mutex_init(&blocks->lock, NULL);
	return 0;
}

void blocks_destroy(struct blocks *blocks)
{
	pthread_mutex_destroy(&blocks->lock);
	unmap_all(blocks);
}
