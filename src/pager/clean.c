// SPDX-License-Identifier: MIT
/*
 * Pages leave memory: to where they rest (takeout.c), and from there, the oldest first, for good, written if they must be. Where a page rests
 * nobody can change it, so what is written was in memory at one moment. The evictor is the thread that does so in time.
 */
#include <errno.h>

#include "base/clock.h"
#include "pager/write.h"
#include "session/fill.h"

/* Pages that go for good in one step. */
#define RETIRE 512u

static void give_back(void *arg, char *at, size_t len)
{
	(void)arg;
	clean_empty(at, len);
}

/*
 * Claims the oldest, up to `most` slots: clean ones are out of memory with that, dirty ones are pieces to be written. How many slots. It ends
 * before one that is just being brought back.
 */
static uint32_t claim_oldest(struct uf_pager *pager, uint32_t most, struct writing *writing)
{
	struct session *session = &pager->session;
	struct rest *rest = &pager->rest;
	struct rest_slot *slot;
	uint32_t count = 0;

	while (count < most && (slot = rest_oldest(rest, count))) {
		struct space_range range;
		_Atomic uint8_t *state;

		/*
		 * Without the lock: who brings a page back ends its slot while it has the page claimed; so one that can be claimed here
		 * has not been brought back, or was, and came to rest in another slot, which this thread did after it had seen that.
		 */
		if (slot->pages && slot->live && space_find(session->space, slot->addr, &range)) {
			state = state_at(&range, slot->addr);
			if (!session_claim(state, SPACE_RESTING, SPACE_LEAVING))
				break;
			if (slot->dirty && !write_add(writing, &range, slot->addr, rest_at(rest, slot))) {
				session_release(session, state, SPACE_RESTING, 0, 0);
				break;
			}
			if (!slot->dirty) {
				lock_take(&rest->lock);
				slot->live = false;
				lock_release(&rest->lock);
				session_release(session, state, SPACE_MISSING, 0, 0);
			}
		}
		count += slot->pages ? slot->pages : 1;
	}
	return count;
}

/*
 * What could not be written is dirty, and in memory, again: at rest it would keep all that came after it. Its place is emptied at once, so
 * that no more than one unit is there twice. False: it stays.
 */
static bool put_back(struct uf_pager *pager, const struct space_range *range, uint64_t addr, struct rest_slot *slot)
{
	int err;

	fill_copy(&pager->session, range->unit, addr, rest_at(&pager->rest, slot), range->unit, false, &err);
	if (err)
		return false;
	lock_take(&pager->rest.lock);
	slot->live = false;
	slot->back = true;
	lock_release(&pager->rest.lock);
	clean_empty(rest_at(&pager->rest, slot), range->unit);
	return true;
}

/* One unit of what was to be written is, or is back. False: it stays at rest. */
static bool release_unit(struct uf_pager *pager, const struct piece *piece, uint64_t addr, struct rest_slot *slot)
{
	unsigned saved = piece->mapping->flags & UF_PAGER_PRIVATE ? SPACE_SAVED : 0;
	struct session *session = &pager->session;
	struct space_range range;

	if (!space_find(session->space, addr, &range))
		return true;
	if (!piece->request.result) {
		lock_take(&pager->rest.lock);
		slot->live = false;
		lock_release(&pager->rest.lock);
		session_release(session, state_at(&range, addr), SPACE_MISSING, saved, 0);
	} else if (put_back(pager, &range, addr, slot)) {
		session_release(session, state_at(&range, addr), SPACE_DIRTY, SPACE_ACTIVE, 0);
	} else {
		session_release(session, state_at(&range, addr), SPACE_RESTING, 0, 0);
		return false;
	}
	return true;
}

/* The slots that lie before the first that stays. */
static uint32_t release_written(struct uf_pager *pager, struct writing *writing, uint32_t count)
{
	struct rest *rest = &pager->rest;
	uint32_t oldest = (rest->head - rest->used) & (rest->slots - 1);

	for (size_t i = 0; i < writing->count; i++) {
		struct piece *piece = &writing->pieces[i];

		for (uint64_t at = 0; at < piece->len; at += piece->unit) {
			uint32_t index = (uint32_t)((piece->from + at - rest->memory) / (ptrdiff_t)rest->page);
			uint32_t behind = (index - oldest) & (rest->slots - 1);

			if (!release_unit(pager, piece, piece->addr + at, &rest->slot[index]) && behind < count)
				count = behind;
		}
	}
	return count;
}

/* False: nothing left, at this moment. */
static bool retire(struct uf_pager *pager)
{
	struct piece pieces[WRITES];
	struct writing writing = {.pieces = pieces, .room = WRITES};
	signal_mask before = session_enter(&pager->session);
	uint32_t count = claim_oldest(pager, RETIRE, &writing);
	uint64_t bytes = 0;

	session_leave(&pager->session, before);
	write_all(pager, &writing);
	before = session_enter(&pager->session);
	count = release_written(pager, &writing, count);
	if (count)
		bytes = (uint64_t)rest_pop(&pager->rest, count, give_back, pager) * pager->rest.page;
	session_leave(&pager->session, before);
	if (bytes)
		budget_dismiss(pager, bytes);
	return bytes > 0;
}

int clean_restore(void *arg, const struct space_range *range, uint64_t addr)
{
	struct uf_pager *pager = arg;
	struct rest *rest = &pager->rest;
	struct rest_slot *slot;
	int to = -ENOENT, err;

	lock_take(&rest->lock);
	slot = rest_find(rest, addr);
	if (slot) {
		fill_copy(&pager->session, range->unit, addr, rest_at(rest, slot), range->unit,
		          is_writable(range) && !slot->dirty, &err);
		to = err ? err : slot->dirty || slot->torn ? SPACE_DIRTY : SPACE_CLEAN;
		slot->torn = err && range->unit > rest->page;
		slot->live = err;
	}
	lock_release(&rest->lock);
	return to;
}

void clean_forget(struct uf_pager *pager, uint64_t addr, uint64_t len)
{
	signal_mask before = block_signals();

	lock_take(&pager->rest.lock);
	for (uint32_t i = 0; i < pager->rest.slots; i++)
		if (pager->rest.slot[i].pages && pager->rest.slot[i].addr - addr < len)
			pager->rest.slot[i].live = false;
	lock_release(&pager->rest.lock);
	restore_signals(before);
}

signal_mask clean_lock(struct uf_pager *pager)
{
	signal_mask before = block_signals();

	pthread_mutex_lock(&pager->cleaning);
	return before;
}

void clean_unlock(struct uf_pager *pager, signal_mask before)
{
	pthread_mutex_unlock(&pager->cleaning);
	restore_signals(before);
}

/* One step towards more room. False: there was nothing to be done at this moment. */
static bool make_room(struct uf_pager *pager)
{
	uint64_t resting = (uint64_t)pager->rest.used * pager->rest.page;

	return (resting <= pager->rest_target && clean_take_out(pager)) || retire(pager);
}

static void sleep_until_wanted(struct uf_pager *pager)
{
	atomic_fetch_or(&pager->evict, 1);
	if (!budget_wants(pager) && !atomic_load(&pager->ending))
		futex_wait(&pager->evict, 1);
	atomic_fetch_and(&pager->evict, ~1u);
}

void *clean_evictor(void *arg)
{
	struct uf_pager *pager = arg;
	long pause = 20;

	while (!atomic_load(&pager->ending)) {
		bool done;

		if (!budget_wants(pager)) {
			sleep_until_wanted(pager);
			continue;
		}
		pthread_mutex_lock(&pager->cleaning);
		do
			done = make_room(pager);
		while (done && atomic_load(&pager->resident) > pager->evict_to && !atomic_load(&pager->ending));
		pthread_mutex_unlock(&pager->cleaning);
		/* Everything was asked for a moment ago, is on its way, or cannot be written: whoever asked gets the time to use it. */
		if (!done)
			pause_us(pause);
		pause = done ? 20 : pause < 10000 ? 2 * pause : pause;
	}
	return NULL;
}
