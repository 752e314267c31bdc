// SPDX-License-Identifier: MIT
/* What is dirty is written where it is: from a copy made behind write protection, so that it was in memory at one moment. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "pager/write.h"
#include "session/fill.h"

struct batch {
	struct writing writing;
	struct piece pieces[WRITES];
	uint64_t copied;
};

/*
 * A dirty page, claimed: copied as it is at this moment, and clean from now on. One that is pinned is let be for system calls again at
 * once, and so stays dirty.
 */
static int copy_dirty(struct uf_pager *pager, const struct space_range *range, uint64_t addr, struct batch *batch)
{
	_Atomic uint8_t *state = state_at(range, addr);
	char *to = pager->copies + batch->copied;
	struct uf *uf = pager->session.uf;
	bool stays = atomic_load(state) & SPACE_PINNED;
	int err = uf_writeprotect(uf, pointer(addr), range->unit, UFFDIO_WRITEPROTECT_MODE_WP);

	if (!err) {
		memcpy(to, pointer(addr), range->unit);
		batch->copied += range->unit;
		write_add(&batch->writing, range, addr, to);
		stays = stays && !uf_writeprotect(uf, pointer(addr), range->unit, 0);
	}
	session_release(&pager->session, state, err || stays ? SPACE_DIRTY : SPACE_CLEAN, 0, 0);
	return err;
}

/* -EAGAIN: it has just gone back, and may be dirty there; -ENOMEM: so may be a part of it, and the rest cannot go. */
static int copy_resting(struct uf_pager *pager, const struct space_range *range, uint64_t addr, struct batch *batch)
{
	struct rest_slot *slot;
	char *to = pager->copies + batch->copied;
	bool torn;

	lock_take(&pager->rest.lock);
	slot = rest_find(&pager->rest, addr);
	torn = slot && slot->torn;
	if (slot && slot->dirty && !torn) {
		memcpy(to, rest_at(&pager->rest, slot), range->unit);
		slot->dirty = false;
		batch->copied += range->unit;
		write_add(&batch->writing, range, addr, to);
	}
	lock_release(&pager->rest.lock);
	if (torn)
		return -ENOMEM;
	return slot ? 0 : -EAGAIN;
}

/* Whether there is room for one more of them. */
static bool has_room(const struct batch *batch, const struct space_range *range)
{
	return batch->copied + range->unit <= COPY_BYTES && batch->writing.count < batch->writing.room;
}

/* Inside the gate: copies what is dirty in [*at, end), until the batch is full; *at: where it stopped. */
static int fill_batch(struct uf_pager *pager, uint64_t *at, uint64_t end, struct batch *batch)
{
	struct space_range range;

	while (*at < end && space_next(pager->session.space, *at, &range) && range.start < end) {
		uint64_t stop = range.start + range.len < end ? range.start + range.len : end;

		if (*at < range.start)
			*at = range.start;
		if (!(mapping_of(&range)->flags & UF_PAGER_SHARED)) {
			*at = range.start + range.len;
			continue;
		}
		for (*at &= ~(range.unit - 1); *at < stop; *at += range.unit) {
			_Atomic uint8_t *state = state_at(&range, *at);
			enum space_page now = page_state(atomic_load(state));
			int err = 0;

			if (!has_room(batch, &range))
				return 0;
			/* Just being let in: an instant. */
			if (now == SPACE_LEAVING)
				return -EAGAIN;
			if (now == SPACE_RESTING)
				err = copy_resting(pager, &range, *at, batch);
			else if (now == SPACE_DIRTY && !session_claim(state, SPACE_DIRTY, SPACE_LEAVING))
				return -EAGAIN;
			else if (now == SPACE_DIRTY)
				err = copy_dirty(pager, &range, *at, batch);
			if (err)
				return err;
		}
	}
	if (*at < end)
		*at = end;
	return 0;
}

/* What could not be written is dirty again, wherever it is now. */
static void undo_failed(struct uf_pager *pager, struct batch *batch)
{
	signal_mask before = session_enter(&pager->session);

	for (size_t i = 0; i < batch->writing.count; i++) {
		struct piece *piece = &batch->writing.pieces[i];

		for (uint64_t at = piece->addr; piece->request.result && at < piece->addr + piece->len;
		     at += piece->unit) {
			struct space_range range;
			struct rest_slot *slot;

			if (!space_find(pager->session.space, at, &range))
				continue;
			lock_take(&pager->rest.lock);
			slot = rest_find(&pager->rest, at);
			if (slot)
				slot->dirty = true;
			lock_release(&pager->rest.lock);
			/* Just being brought back, or let in: an instant. */
			while (!slot && !session_claim(state_at(&range, at), SPACE_CLEAN, SPACE_DIRTY) &&
			       page_state(atomic_load(state_at(&range, at))) == SPACE_LEAVING)
				sched_yield();
		}
	}
	session_leave(&pager->session, before);
}

int clean_write(struct uf_pager *pager, uint64_t addr, uint64_t len)
{
	uint64_t at = addr, end = len ? addr + len : UINT64_MAX;
	struct batch *batch = malloc(sizeof(*batch));
	int err = batch ? 0 : -ENOMEM, first = err;

	while (batch && at < end) {
		signal_mask locked, before;

		*batch = (struct batch){.writing = {.pieces = batch->pieces, .room = WRITES}};
		locked = clean_lock(pager);
		before = session_enter(&pager->session);
		err = fill_batch(pager, &at, end, batch);
		session_leave(&pager->session, before);
		if (!first && err != -EAGAIN)
			first = err;
		err = write_all(pager, &batch->writing);
		if (err)
			undo_failed(pager, batch);
		if (!first)
			first = err;
		clean_unlock(pager, locked);
		if (!batch->copied)
			sched_yield();
		if (first && first != -EAGAIN)
			break;
	}
	free(batch);
	return first;
}
