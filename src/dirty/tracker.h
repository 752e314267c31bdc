/* SPDX-License-Identifier: MIT */
/*
 * tracker.h - the table every method of dirty tracking fills in, and the tracker
 *
 * tracker.c keeps the list of watched regions and checks arguments; a method watches one region and answers for it.
 *
 * The monitor of the sync method must never wait for a caller: a caller that holds the lock may itself be waiting for the
 * monitor, when its stack or the memory it writes its answer to is watched. So the list is immutable, replaced as a whole,
 * and looked at without a lock (dirty_region_at() between dirty_look_begin() and dirty_look_end()).
 */
#ifndef DIRTY_TRACKER_H
#define DIRTY_TRACKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <userfault/dirty.h>

/* One call of uf_dirty_track(). */
struct dirty_region {
	uint64_t start, end;
	size_t page_size;
	_Atomic uint64_t *bits; /* sync: one bit a page, set by the monitor; NULL with async */
	size_t bits_size;       /* of that mapping, bytes */
};

/* Sorted and disjoint; a mapping of its own. */
struct dirty_list {
	size_t count, capacity;
	struct dirty_region at[];
};

/* Where the answer goes. */
struct dirty_answer {
	struct uf_dirty_range *ranges;
	size_t count, room;
};

/* Whether a range that begins at `start` finds a place, if only by being merged with the last one. */
bool dirty_answer_has_room(const struct dirty_answer *answer, uint64_t start);

/* Appends [start, end), merged with the last range where they touch. There must be room. */
void dirty_answer_add(struct dirty_answer *answer, uint64_t start, uint64_t end);

struct dirty_method {
	enum uf_dirty_method id;
	int (*open)(struct uf_dirty *tracker, const struct uf_dirty_options *opts);

	/* What a region needs before it is watched, and that taken down after it was. */
	int (*prepare)(struct uf_dirty *tracker, struct dirty_region *region);
	void (*dispose)(struct uf_dirty *tracker, struct dirty_region *region);

	/*
	 * The dirty pages of [start, end), which lies in the region. *next: as far as the answer goes; less than `end` only
	 * when the answer is full.
	 */
	int (*collect)(struct uf_dirty *tracker, const struct dirty_region *region, uint64_t start, uint64_t end,
	               unsigned flags, struct dirty_answer *answer, uint64_t *next);
	void (*close)(struct uf_dirty *tracker);
};

struct uf_dirty {
	const struct dirty_method *method;
	struct uf *uf;
	pthread_mutex_t lock;            /* callers among themselves; the monitor never takes it */
	struct dirty_list *_Atomic list; /* replaced under lock; NULL for none */
	struct dirty_list *spare; /* the next one: as large, so that taking a region out needs no memory; under lock */
	_Atomic uint32_t looking; /* futex: odd while the monitor handles a fault */
	_Atomic uint32_t waiting; /* callers that sleep until it has handled it */
	int pagemap;              /* async: /proc/self/pagemap */
	pthread_t monitor;        /* sync */
	int stop;                 /* sync: eventfd that ends the monitor */
};

/*
 * For the monitor, around the handling of one fault: the list stays until dirty_look_end(). dirty_look_wait() returns when
 * a fault that was being handled at the call has been handled. All sequentially consistent, so that what is changed before
 * the wait (the list, a bit) is either seen by the monitor or waited for.
 */
const struct dirty_list *dirty_look_begin(struct uf_dirty *tracker);
void dirty_look_end(struct uf_dirty *tracker);
void dirty_look_wait(struct uf_dirty *tracker);

/* The index of the region that holds addr, or of the first behind it, or list->count. */
size_t dirty_region_at(const struct dirty_list *list, uint64_t addr);

extern const struct dirty_method dirty_async, dirty_sync;

#endif
