// SPDX-License-Identifier: MIT
/* Contracts: fault.h, session.h. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "session/fault.h"
#include "session/loop.h"

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline void count_present(struct session *session, uint64_t bytes)
{
	atomic_fetch_add_explicit(&session->stats.present, bytes, memory_order_relaxed);
}

/*
 * A page's byte changes alone, but a futex is a word: who waits sleeps on the word that the byte lies in, and may be woken for one of its
 * neighbours.
 */
static _Atomic uint32_t *word_of(_Atomic uint8_t *state)
{
	return (_Atomic uint32_t *)((uintptr_t)state & ~(uintptr_t)3);
}

/* Marks the page as waited for, if its byte still is `byte`: *look tells on what to sleep. False: it has changed. [signal] */
static bool wait_for(_Atomic uint8_t *state, uint8_t byte, struct look *look)
{
	uint32_t word;
	uint8_t bytes[4];

	if (!(byte & SPACE_WAITED) && !atomic_compare_exchange_strong(state, &byte, (uint8_t)(byte | SPACE_WAITED)))
		return false;
	look->word = word_of(state);
	word = atomic_load(look->word);
	memcpy(bytes, &word, sizeof(bytes));
	look->seen = word;
	return bytes[(uintptr_t)state & 3] == (byte | SPACE_WAITED);
}

bool session_claim(_Atomic uint8_t *state, enum space_page from, enum space_page to)
{
	uint8_t byte = atomic_load_explicit(state, memory_order_relaxed);

	do
		if (page_state(byte) != from)
			return false;
	/* Acquire: sees what the last owner of the page did to it. */
	while (!atomic_compare_exchange_weak_explicit(state, &byte, (uint8_t)((byte & ~SPACE_STATE) | to),
	                                              memory_order_acquire, memory_order_relaxed));
	return true;
}

void session_release(struct session *session, _Atomic uint8_t *state, enum space_page to, unsigned set, unsigned clear)
{
	uint8_t byte = atomic_load_explicit(state, memory_order_relaxed);
	uint8_t keep = (uint8_t) ~(SPACE_STATE | SPACE_WAITED | clear);

	/* Release: whoever claims it next sees what was done. */
	while (!atomic_compare_exchange_weak_explicit(state, &byte, (uint8_t)((byte & keep) | to | set),
	                                              memory_order_release, memory_order_relaxed))
		;
	if (!(byte & SPACE_WAITED))
		return;
	futex_wake(word_of(state), INT_MAX);
	if (!session->options.inline_faults)
		session_retry(session);
}

/* What a request that failed means for who waits: it is tried again, at once or later; or he finds what there is now. */
static enum step could_not(struct session *session, const struct space_range *range, uint64_t addr, bool write, int err)
{
	if (err == -EAGAIN)
		return STEP_POST;
	/* Inline he tries again by himself. */
	if (session->options.inline_faults)
		return STEP_DONE;
	if (err == -ENOMEM)
		session_post(session, addr, write, WHEN_LATER);
	else
		uf_wake(session->uf, pointer(addr), range->unit);
	return STEP_DONE;
}

/* The first write to a page, or one to a page whose protection a failed flush has left. */
static enum step let_write(struct session *session, const struct space_range *range, uint64_t addr,
                           enum space_page state, bool handler)
{
	_Atomic uint8_t *byte = state_at(range, addr);
	int err;

	if (!session_claim(byte, state, SPACE_LEAVING))
		return STEP_AGAIN;
	err = uf_writeprotect(session->uf, pointer(addr), range->unit, handler ? UFFDIO_WRITEPROTECT_MODE_DONTWAKE : 0);
	session_release(session, byte, err ? state : SPACE_DIRTY, err ? 0 : SPACE_ACTIVE, SPACE_AHEAD);
	if (!err && state == SPACE_CLEAN)
		count(&session->stats.write_faults);
	if (err && err != -EAGAIN && handler)
		return STEP_LOST;
	return err ? could_not(session, range, addr, true, err) : STEP_DONE;
}

static void tell(struct session *session, const struct space_range *range, uint64_t addr, uint64_t len,
                 enum session_origin origin)
{
	const struct session_done done = {.addr = addr,
	                                  .len = len,
	                                  .source = source_of(range),
	                                  .offset = offset_at(range, addr),
	                                  .start_ns = session->options.ops->done ? now_ns() : 0,
	                                  .origin = origin};

	session_count_origin(session, origin, 1);
	session_tell(session, &done);
}

/* Zeros, since the program gave the page back. */
static enum step bring_zeros(struct session *session, const struct space_range *range, uint64_t addr)
{
	_Atomic uint8_t *state = state_at(range, addr);
	int err;

	if (!session->options.ops->admit(session->options.arg, range->unit, range->unit, NEED_TOUCHED))
		return STEP_ROOM;
	err = session_claim(state, SPACE_REMOVED, SPACE_LEAVING) ? 0 : -EBUSY;
	if (!err) {
		err = fill_zero(session, range, addr);
		count(&session->stats.faults);
		tell(session, range, addr, range->unit, ORIGIN_ZEROS);
		if (!err)
			count_present(session, range->unit);
		session_release(session, state, err ? SPACE_REMOVED : SPACE_DIRTY, SPACE_ACTIVE, SPACE_AHEAD);
	}
	if (err)
		session->options.ops->dismiss(session->options.arg, range->unit);
	if (err == -EBUSY)
		return STEP_AGAIN;
	return err ? could_not(session, range, addr, false, err) : STEP_DONE;
}

/* From where it rests, which is no fetch. */
static enum step bring_back(struct session *session, const struct space_range *range, uint64_t addr)
{
	_Atomic uint8_t *state = state_at(range, addr);
	int to;

	if (!session->options.ops->admit(session->options.arg, range->unit, range->unit, NEED_TOUCHED))
		return STEP_ROOM;
	if (!session_claim(state, SPACE_RESTING, SPACE_LEAVING)) {
		session->options.ops->dismiss(session->options.arg, range->unit);
		return STEP_AGAIN;
	}
	to = session->options.ops->restore(session->options.arg, range, addr);
	if (to < 0)
		session->options.ops->dismiss(session->options.arg, range->unit);
	session_release(session, state,
	                to >= 0         ? (enum space_page)to
	                : to == -ENOENT ? SPACE_MISSING
	                                : SPACE_RESTING,
	                SPACE_ACTIVE, SPACE_AHEAD);
	if (to >= 0) {
		count(&session->stats.faults);
		count(&session->stats.refaults);
		count_present(session, range->unit);
	}
	if (to == -ENOENT)
		return STEP_AGAIN;
	return to < 0 ? STEP_POST : STEP_DONE;
}

/*
 * It was there, and may have gone without an event; then the program finds zeros. Whoever faulted before it came finds it: -EEXIST, with
 * which fill_zero() wakes him.
 */
static enum step bring_vanished(struct session *session, const struct space_range *range, uint64_t addr,
                                enum space_page state)
{
	_Atomic uint8_t *byte = state_at(range, addr);
	int err;

	if (!session_claim(byte, state, SPACE_LEAVING))
		return STEP_AGAIN;
	err = fill_zero(session, range, addr);
	session_release(session, byte, state, SPACE_ACTIVE, SPACE_AHEAD);
	return err ? could_not(session, range, addr, false, err) : STEP_DONE;
}

/* It is there. A thread that sleeps all the same faulted before it came. */
static enum step present(struct session *session, const struct space_range *range, uint64_t addr, enum space_page state,
                         bool write, bool handler)
{
	if (write && source_of(range)->writable)
		return let_write(session, range, addr, state, handler);
	tell(session, range, addr, 0, ORIGIN_THERE);
	if (session->options.vanishes)
		return bring_vanished(session, range, addr, state);
	if (!handler)
		uf_wake(session->uf, pointer(addr), range->unit);
	return STEP_DONE;
}

/* A page that has been asked for so long, ns, although nothing is known of it. */
#define STRAY 2000000000u

/*
 * It is registered, or its faults would not come; and it is in no range, or it would not be a stray. An event that explains that would have come by
 * now. Whoever touches it gets a signal, and does not wait, and fault, for ever.
 */
static void give_up_stray(struct session *session, uint64_t page)
{
	struct session_stray *stray = &session->strays[page / session->page % 8];
	uint64_t now = now_ns();

	if (atomic_load_explicit(&stray->page, memory_order_relaxed) != page) {
		atomic_store_explicit(&stray->page, page, memory_order_relaxed);
		atomic_store_explicit(&stray->since, now, memory_order_relaxed);
		return;
	}
	if (now - atomic_load_explicit(&stray->since, memory_order_relaxed) > STRAY)
		fill_poison(session, page, session->page);
}

/*
 * Unmapped meanwhile: the access finds what there is now. It may be to any part of a unit, of which nothing is known any more; who is woken for
 * nothing comes again.
 */
static void wake_around(struct session *session, uint64_t addr)
{
	give_up_stray(session, addr & ~(session->page - 1));
	uf_wake(session->uf, pointer(addr & ~(session->page - 1)), session->page);
	uf_wake(session->uf, pointer(addr & ~(BUFFER_LARGE - 1)), BUFFER_LARGE);
}

enum step fault_look(struct session *session, uint64_t addr, uint64_t more, bool write, bool handler, struct look *look)
{
	struct space_range range;
	_Atomic uint8_t *state;
	uint8_t byte;

	if (!space_find(session->space, addr, &range)) {
		if (!handler)
			wake_around(session, addr);
		return handler ? STEP_LOST : STEP_DONE;
	}
	addr &= ~(range.unit - 1);
	state = state_at(&range, addr);
	byte = atomic_load_explicit(state, memory_order_acquire);
	switch (page_state(byte)) {
	case SPACE_MISSING:
		/* Posted already, by a thread that could not do it. */
		if (handler && (byte & SPACE_WAITED))
			return wait_for(state, byte, look) ? STEP_STATE : STEP_AGAIN;
		return fill_plan(session, &range, addr, more, write, &look->fill);
	case SPACE_CLEAN:
	case SPACE_DIRTY:
		return present(session, &range, addr, page_state(byte), write, handler);
	case SPACE_RESTING:
		return bring_back(session, &range, addr);
	case SPACE_REMOVED:
		return bring_zeros(session, &range, addr);
	case SPACE_LOST:
		if (!handler)
			fill_poison(session, addr, range.unit);
		return handler ? STEP_LOST : STEP_DONE;
	default:
		return wait_for(state, byte, look) ? STEP_STATE : STEP_AGAIN;
	}
}

/*
 * On the thread that faulted.
 */

/* Inside the gate. A page that the loop has to fetch is marked, so that others do not post it too. */
static enum step hand_over(struct session *session, uint64_t addr, bool write, struct look *look)
{
	struct space_range range;
	_Atomic uint8_t *state;
	uint8_t byte;

	if (!space_find(session->space, addr, &range))
		return STEP_AGAIN;
	addr &= ~(range.unit - 1);
	state = state_at(&range, addr);
	byte = atomic_load(state);
	if (page_state(byte) != SPACE_MISSING || (byte & SPACE_WAITED))
		return STEP_AGAIN;
	/* Once the mark is set others wait for it, so it is posted whatever comes next. */
	if (!atomic_compare_exchange_strong(state, &byte, (uint8_t)(byte | SPACE_WAITED)))
		return STEP_AGAIN;
	session_post(session, addr, write, WHEN_SOON);
	return wait_for(state, byte | SPACE_WAITED, look) ? STEP_STATE : STEP_AGAIN;
}

static enum step try_inline(struct session *session, uint64_t addr, bool write, struct look *look)
{
	enum step step = fault_look(session, addr, 0, write, true, look);

	if (step != STEP_FETCH)
		return step;
	if (!fill_read(&look->fill, true)) {
		fill_place(&look->fill);
		return STEP_DONE;
	}
	fill_abandon(&look->fill);
	return hand_over(session, addr, write, look);
}

int session_fault(struct session *session, uint64_t addr, bool write)
{
	uint64_t start = now_ns();
	bool waited = false;
	struct look look;

	for (;;) {
		signal_mask before = session_enter(session);
		enum step step = try_inline(session, addr, write, &look);

		session_leave(session, before);
		switch (step) {
		case STEP_DONE:
			session_count_latency(session, start);
			return 0;
		case STEP_LOST:
			return -EIO;
		case STEP_STATE:
			futex_wait(look.word, look.seen);
			break;
		case STEP_ROOM:
			if (!waited)
				count(&session->stats.waits);
			waited = true;
			session->options.ops->wait_room(session->options.arg);
			break;
		case STEP_BUFFER:
			buffers_wait(session->buffers, look.fill.len);
			break;
		default:
			break;
		}
	}
}
