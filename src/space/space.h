/* SPDX-License-Identifier: MIT */
/*
 * space.h - what lies at each address of one address space
 *
 * A set of ranges, each with the place in its source that its first byte comes from, and one byte of state for each of its pages.
 * Ranges do not overlap; what is cut out of one, or moved, keeps the rest as it was. Pure data: no system call but for memory, nothing of
 * userfaultfd. A search is O(log n) in the number of ranges.
 *
 * Results: 0 or -errno. Addresses and lengths are bytes, multiples of 4096. -EINVAL: they are not; or a length is 0, an end is behind
 * 2^64 - 1, or one of both would cut a page of a range in two. What fails leaves all as it was.
 *
 * The set of ranges is the caller's to lock; the bytes of state are atomic, and may be read and changed by whoever may search. A search
 * may be made in a signal handler: it takes no lock, no memory and little stack. space_remove() is a
 * search in this respect; the others that are given a `struct space *` change it.
 *
 * Memory: at most a byte for each page (and 1/2048 of that), and a constant for each range. States that nobody has changed take none.
 */
#ifndef SPACE_SPACE_H
#define SPACE_SPACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct space;

/* The state of a page: the low three bits of its byte. */
enum space_page {
	SPACE_MISSING, /* not in memory: its content is the source's */
	SPACE_FILLING, /* somebody fetches it; he puts it in place only if it still is FILLING then */
	SPACE_CLEAN,   /* in memory, and its source has the same */
	SPACE_DIRTY,   /* in memory, and its source may have something else */
	SPACE_LEAVING, /* somebody takes it out, copies it, or lets a writer in */
	SPACE_RESTING, /* out of memory, but its content is still at hand */
	SPACE_REMOVED, /* zeros: the program gave it back. Never the source's content again */
	SPACE_LOST,    /* its content could not be had; a touch is SIGBUS */
	SPACE_STATE = 7,
};

/* The other bits. */
#define SPACE_SAVED  0x08u /* what counts is not the source's content but what was put aside */
#define SPACE_ACTIVE 0x10u /* asked for since the last look */
#define SPACE_PINNED 0x20u /* stays in memory */
#define SPACE_WAITED 0x40u /* a thread sleeps until the state changes */
#define SPACE_AHEAD  0x80u /* brought before it was asked for */

/* As far as it is known when it is searched for; valid as long as the set of ranges does not change. */
struct space_range {
	uint64_t start, len;
	uint64_t id;     /* of the insert that brought it: parts and moved parts keep it, and it is never used again */
	uint64_t turn;   /* another one each time that it went while a page was FILLING */
	void *source;    /* the caller's; NULL: its content is zeros */
	uint64_t offset; /* of `start` in the source */
	uint64_t unit;   /* bytes to a page of this range: a power of two, at least 4096 */
	_Atomic uint8_t *state; /* state[i]: of the page at start + i * unit */
};

int space_new(struct space **out);
void space_free(struct space *space); /* NULL is allowed */

/*
 * Takes start, len, source, offset and unit from `range`; all its pages are MISSING. `id` may be NULL. -EEXIST: something lies there
 * already; -EINVAL: also when start or len is no multiple of the unit, or the unit none that there is, or offset + len overflows.
 */
int space_insert(struct space *space, const struct space_range *range, uint64_t *id);

/* The range that addr lies in; and the first one that ends behind addr. */
bool space_find(const struct space *space, uint64_t addr, struct space_range *out);
bool space_next(const struct space *space, uint64_t addr, struct space_range *out);

/*
 * What the kernel's layout events tell. Parts in which there is no range are passed over.
 *
 * unmap   the ranges end. Whoever waits there is the caller's to wake
 * remove  pages become REMOVED, whatever they were, but for PINNED, which stays with the page. WAITED does not: the caller wakes all
 *         who may wait there
 * move    UFFD_EVENT_REMAP: ranges go to another address with their pages; what lay there ends, also where nothing comes to. A page
 *         that was FILLING, LEAVING or RESTING is MISSING afterwards, with its other bits as they were. A range that goes and in which
 *         one was FILLING has another turn then: whoever filled it does not take it for his when it is FILLING again. -EINVAL: the two
 *         places overlap, or their distance is no multiple of the unit of a range that goes
 *
 * -ENOMEM only where a range is cut, and more is left of it than one part.
 */
int space_unmap(struct space *space, uint64_t start, uint64_t len);
int space_remove(struct space *space, uint64_t start, uint64_t len);
int space_move(struct space *space, uint64_t from, uint64_t to, uint64_t len);

/*
 * Units of more than `unit` bytes that reach into the area become several of `unit` bytes, so that it can be cut there. Each is what all of it
 * was, but MISSING where that was FILLING, LEAVING or RESTING, with another turn. -ENOMEM: some are, some are not yet.
 */
int space_refine(struct space *space, uint64_t start, uint64_t len, uint64_t unit);

/* Bytes of [start, end) that are CLEAN or DIRTY. What nobody has ever touched is passed over quickly. */
uint64_t space_present(const struct space *space, uint64_t start, uint64_t end);

size_t space_ranges(const struct space *space);

/* Bytes of memory that it takes, states included. */
size_t space_memory(const struct space *space);

#endif
