/* SPDX-License-Identifier: MIT */
/*
 * states.h - memory for the states of pages
 *
 * Mappings of their own, since the heap may be registered, and without reservation: what nobody has changed costs nothing. A long
 * array has a block for itself, short ones share a block of one page. Ranges that were one once keep sharing its array;
 * what none of them uses any more is given back by the page, and the block goes with its last range.
 *
 * So they take a byte for each page, 1/2048 of that for a count of what was given up, and at most two pages for each range.
 */
#ifndef SPACE_STATES_H
#define SPACE_STATES_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct space_block;

struct space_states {
	size_t page_size;
	size_t bytes;             /* that all blocks take */
	struct space_block *open; /* a shared one, with room perhaps */
};

/* Room for so many, all 0, that belongs to one range. NULL: there is no memory. */
struct space_block *space_states_new(struct space_states *states, size_t count, _Atomic uint8_t **state);

/* All ranges have dropped theirs. */
void space_states_free(struct space_states *states);

/* One range more has a part of what is in it. */
void space_states_share(struct space_block *block);

/* A range gives up what it has in it. */
void space_states_drop(struct space_states *states, struct space_block *block, const _Atomic uint8_t *state,
                       size_t count);

/* The first i, not below `from`, for which state[i] is not 0; count: none. It writes nothing. */
size_t space_states_used(const _Atomic uint8_t *state, size_t from, size_t count);

#endif
