/* SPDX-License-Identifier: MIT */
/*
 * map-ranges.h - where the mappings of served files lie in this process
 *
 * Pure data in memory of its own, in no order, without overlap. Everything but map_ranges_reach() and map_ranges_bounds() with map_lock() held.
 */
#ifndef PRELOAD_MAP_RANGES_H
#define PRELOAD_MAP_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/lock.h"

struct map_file;

struct map_range {
	uint64_t start, end;         /* whole pages */
	const struct map_file *file; /* NULL: behind its end */
	uint64_t offset;             /* of start, in the file */
	int prot;                    /* as it was mapped */
	bool shared;                 /* may not become writable */
	bool unforked;               /* MADV_DONTFORK: the child has none of it */
};

/* Held with all signals blocked, around calls of the kernel's and of the manager's, and over a fork. No managed memory may be touched. */
signal_mask map_lock(void);
void map_unlock(signal_mask before);

/* Whether any may overlap [start, end): as it was when the lock was released last. */
bool map_ranges_reach(uint64_t start, uint64_t end);

/* What all of them lie in, at that time or between two of them. False: there are none. */
bool map_ranges_bounds(uint64_t *low, uint64_t *high);

/* Room for `count` more, so that nothing below can fail for as many changes. 0 or -ENOMEM. */
int map_ranges_reserve(size_t count);

void map_ranges_add(const struct map_range *range);
void map_ranges_drop(uint64_t start, uint64_t end);                  /* takes up to one more */
void map_ranges_move(uint64_t start, uint64_t end, uint64_t to);     /* up to two more; `to` is free */
void map_ranges_unfork(uint64_t start, uint64_t end, bool unforked); /* up to two more */
size_t map_ranges_count(void);
struct map_range *map_ranges_at(size_t index); /* until the next change */

/* One that overlaps [start, end), or NULL. */
struct map_range *map_ranges_in(uint64_t start, uint64_t end);

#endif
