/* SPDX-License-Identifier: MIT */
/*
 * rest.h - where pages rest that were taken out: the second chance
 *
 * The page tables do not tell user space which pages are used. So a page that is to leave is first moved, with its content, into a ring of
 * memory of its own. If it is touched there, it goes back without a read, and stays for a while; if not, it is written if it must be,
 * and its memory is given back, in the order in which pages came.
 *
 * Pages in the ring are slots, found by the address that they came from. A slot's content does not change: nothing is mapped to it but
 * the ring. It is `live` until its page went back, or its mapping ended.
 *
 * rest_put() and rest_pop() are called under the pager's `cleaning`; the rest by anybody, under the lock.
 */
#ifndef PAGER_REST_H
#define PAGER_REST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/lock.h"

struct rest_slot {
	uint64_t addr;
	uint32_t next;  /* of the same hash; 0: none, otherwise index + 1 */
	uint32_t pages; /* of the unit that begins here; 0: none does */
	_Atomic bool live;
	bool dirty;
	bool back; /* its page is in memory again, and what it took is taken there */
	bool torn; /* a part of it may be in memory again, and written to there, since there was no memory for the rest */
};

struct rest {
	struct lock lock; /* taken inside the gate, or with signals blocked; nothing is taken inside it */
	char *memory;     /* the ring */
	size_t page;
	uint32_t slots, buckets; /* powers of two */
	uint32_t head, used;     /* the next to be filled; how many are, before it */
	struct rest_slot *slot;
	uint32_t *bucket;
};

int rest_init(struct rest *rest, size_t page, uint64_t bytes);
void rest_end(struct rest *rest);

/* Where `pages` pages in a row could be put: NULL, there is no room before rest_pop(). It may leave out slots at the end of the ring. */
char *rest_place(struct rest *rest, uint32_t pages);

/* The unit that came from addr, of so many pages, is at what rest_place() said, or further on: in order. With the lock. */
void rest_put(struct rest *rest, uint64_t addr, uint32_t pages, bool live, bool dirty);

/* Its slot, or NULL. With the lock. */
struct rest_slot *rest_find(struct rest *rest, uint64_t addr);

static inline char *rest_at(const struct rest *rest, const struct rest_slot *slot)
{
	return rest->memory + (size_t)(slot - rest->slot) * rest->page;
}

/* The oldest slot, `ahead` behind it; NULL: there are not so many. */
struct rest_slot *rest_oldest(struct rest *rest, uint32_t ahead);

/*
 * The oldest `count` slots are free again, and their memory: `memory` is called for each piece of it, to give it back. How many pages there
 * were in them, without those that are back.
 */
uint32_t rest_pop(struct rest *rest, uint32_t count, void (*memory)(void *arg, char *at, size_t len), void *arg);

#endif
