// SPDX-License-Identifier: MIT
/* Opening and closing, changes of the space, and what is brought in before it is asked for. Contracts: session.h. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "session/fault.h"
#include "session/loop.h"
#include "store/store.h"
#include "uffd/durable.h"

/* Read at once by session_bring(). */
#define BRING_BYTES ((uint64_t)1 << 20)
/* What lies between two pages of a set costs less to be read than a second read. */
#define GAP ((uint64_t)16 << 10)
/* Pages of a set whose reads have begun ahead of the one that is waited for. */
#define ANNOUNCED 256u

/* Whoever is interrupted inside, by a handler that touches memory which this session serves, would wait for himself. */
static signal_mask hold_signals(const struct session *session)
{
	return session->options.elsewhere ? 0 : block_signals();
}

static void let_signals(const struct session *session, signal_mask before)
{
	if (!session->options.elsewhere)
		restore_signals(before);
}

signal_mask session_enter(struct session *session)
{
	signal_mask before = hold_signals(session);

	gate_enter(&session->gate);
	return before;
}

bool session_try_enter(struct session *session, signal_mask *before)
{
	*before = hold_signals(session);
	if (gate_try_enter(&session->gate))
		return true;
	let_signals(session, *before);
	return false;
}

void session_leave(struct session *session, signal_mask before)
{
	gate_leave(&session->gate);
	let_signals(session, before);
}

signal_mask session_change_begin(struct session *session)
{
	signal_mask before = hold_signals(session);

	pthread_mutex_lock(&session->change);
	gate_close(&session->gate);
	return before;
}

void session_change_end(struct session *session, signal_mask before)
{
	gate_open(&session->gate);
	pthread_mutex_unlock(&session->change);
	let_signals(session, before);
}

void session_count_latency(struct session *session, uint64_t start_ns)
{
	struct session_stats *stats = &session->stats;
	uint64_t ns = now_ns() - start_ns, max = atomic_load_explicit(&stats->latency_max, memory_order_relaxed);

	atomic_fetch_add_explicit(&stats->latency[hist_bucket(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&stats->latency_sum, ns, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak_explicit(&stats->latency_max, &max, ns, memory_order_relaxed,
	                                                          memory_order_relaxed))
		;
}

void session_count_origin(struct session *session, enum session_origin origin, uint64_t faults)
{
	atomic_fetch_add_explicit(&session->stats.origin[origin], faults, memory_order_relaxed);
}

void session_tell(struct session *session, const struct session_done *done)
{
	if (session->options.ops->done)
		session->options.ops->done(session->options.arg, done);
}

/*
 * Before it is asked for.
 */

/*
 * What can be brought by one read of at most `size` bytes from `at` on: 0 and no fill, if the page at `at` cannot be. -ENOMEM: there is no
 * room; -E2BIG: the page is larger.
 */
static int gather(struct session *session, const struct space_range *range, uint64_t at, uint64_t end, bool again,
                  enum session_need need, uint64_t size, struct fill *fill)
{
	uint64_t most = BRING_BYTES > range->unit ? BRING_BYTES : range->unit, room;
	uint8_t byte = atomic_load(state_at(range, at));

	if (page_state(byte) != SPACE_MISSING && !(again && page_state(byte) == SPACE_LOST))
		return 0;
	if (range->unit > size)
		return -E2BIG;
	if (most > size)
		most = size;
	room = session->options.ops->admit(session->options.arg, end - at < most ? end - at : most, range->unit, need);
	if (!room)
		return -ENOMEM;
	*fill = (struct fill){
		.session = session,
		.range = *range,
		.addr = at,
		.demand = at,
		.saved = byte & SPACE_SAVED,
		.lost = page_state(byte) == SPACE_LOST,
	};
	while (fill->len < room && fill_take(state_at(range, at + fill->len), fill->saved, fill->lost))
		fill->len += range->unit;
	if (room > fill->len)
		session->options.ops->dismiss(session->options.arg, room - fill->len);
	return 0;
}

/* One read of what lies at `at`; *next: where to go on. */
static int bring_one(struct session *session, uint64_t at, uint64_t end, bool again, enum session_need need,
                     uint64_t size, char **buffer, uint64_t *next)
{
	signal_mask before = session_enter(session);
	struct space_range range;
	struct fill fill = {0}, *heap = NULL;
	int err = 0;

	*next = end;
	if (space_next(session->space, at, &range) && range.start < end) {
		if (at < range.start)
			at = range.start;
		at &= ~(range.unit - 1);
		if (end > range.start + range.len)
			end = range.start + range.len;
		err = gather(session, &range, at, (end + range.unit - 1) & ~(range.unit - 1), again, need, size, &fill);
		*next = err == -E2BIG ? at : at + (fill.len ? fill.len : range.unit);
	}
	if (fill.len) {
		fill.buffer = *buffer;
		*buffer = NULL;
		heap = malloc(sizeof(*heap));
		if (heap) {
			*heap = fill;
			fill_begin(heap);
		} else {
			fill_abandon(&fill);
		}
	}
	session_leave(session, before);
	if (heap)
		fill_submit(heap);
	return fill.len && !heap ? -ENOMEM : err;
}

int session_bring(struct session *session, uint64_t addr, uint64_t len, bool again)
{
	uint64_t end = addr + len, size = len < BUFFER_SMALL ? BUFFER_SMALL : BUFFER_LARGE;
	char *buffer = NULL;
	int err = 0;

	while (addr < end && !err) {
		/* Waited for outside the gate, so taken before it is known whether it is needed. */
		if (!buffer)
			buffer = buffers_take(session->buffers, size, BUFFERS_AHEAD);
		err = bring_one(session, addr, end, again, NEED_AHEAD, size, &buffer, &addr);
		/* A few bytes of a large page. */
		if (err == -E2BIG) {
			buffers_give(session->buffers, buffer);
			buffer = NULL;
			size = BUFFER_LARGE;
			err = 0;
		}
	}
	if (buffer)
		buffers_give(session->buffers, buffer);
	return err;
}

/* How many of them one read can bring. */
static size_t close_together(const uint64_t *addrs, size_t count, uint64_t unit)
{
	uint64_t most = BRING_BYTES > unit ? BRING_BYTES : unit;
	size_t n = 1;

	while (n < count && addrs[n] - addrs[n - 1] <= unit + GAP && addrs[n] + unit - addrs[0] <= most)
		n++;
	return n;
}

/* Claims what can be brought of `count` units that are close together: the fill is sparse, and empty if there is nothing. -ENOMEM: no room. */
static int gather_set(struct session *session, const uint64_t *addrs, size_t count, uint64_t unit, struct fill *fill)
{
	struct space_range range;
	uint64_t room;

	if (!space_find(session->space, addrs[0], &range) || range.unit != unit)
		return 0;
	room = session->options.ops->admit(session->options.arg, count * unit, unit, NEED_AHEAD);
	if (!room)
		return -ENOMEM;
	*fill = (struct fill){.session = session, .range = range, .addr = addrs[0], .demand = addrs[0], .sparse = true};
	for (size_t i = 0; i < count && room && addrs[i] - range.start < range.len; i++) {
		uint64_t index = (addrs[i] - fill->addr) / unit;

		if (!fill_take(state_at(&range, addrs[i]), false, false))
			continue;
		fill->own[index / 64] |= (uint64_t)1 << index % 64;
		fill->len = addrs[i] + unit - fill->addr;
		room -= unit;
	}
	if (room)
		session->options.ops->dismiss(session->options.arg, room);
	return 0;
}

/* Begins to read what is close together, for a store that can do so without a thread. */
static bool announce(struct session *session, const uint64_t *addrs, size_t count, uint64_t unit)
{
	signal_mask before = session_enter(session);
	struct fill fill = {.session = session};
	struct uf_store *store = NULL;
	bool can;

	if (space_find(session->space, addrs[0], &fill.range))
		store = source_of(&fill.range)->store;
	/* In flight, so that the store is not closed meanwhile. */
	if (store)
		fill_begin(&fill);
	session_leave(session, before);
	if (!store)
		return false;
	can = store_will_need(store, addrs[count - 1] + unit - addrs[0], offset_at(&fill.range, addrs[0]));
	fill_end(&fill);
	return can;
}

/* Brings what is close together. `fetch`: it is on its way already, and is waited for here. */
static int bring_close(struct session *session, const uint64_t *addrs, size_t count, uint64_t unit, bool fetch)
{
	struct fill *fill = calloc(1, sizeof(*fill));
	signal_mask before;
	char *buffer;
	int err;

	if (!fill)
		return -ENOMEM;
	buffer = buffers_take(session->buffers, addrs[count - 1] + unit - addrs[0], BUFFERS_AHEAD);
	before = session_enter(session);
	err = gather_set(session, addrs, count, unit, fill);
	if (fill->len)
		fill_begin(fill);
	session_leave(session, before);
	fill->buffer = buffer;
	if (!fill->len) {
		buffers_give(session->buffers, buffer);
		free(fill);
	} else if (fetch) {
		fill_fetch(fill);
	} else {
		fill_submit(fill);
	}
	return err;
}

/* Inside the gate: all of [addr, end) but its first unit. What lies there may be something else than what it was asked for. */
static void gather_next(struct session *session, const struct space_range *range, uint64_t addr, uint64_t end,
                        struct fill *fill)
{
	uint64_t unit = range->unit, limit = range->start + range->len, units;

	addr &= ~(unit - 1);
	end = end < limit ? (end + unit - 1) & ~(unit - 1) : limit;
	if (end - addr <= unit ||
	    gather(session, range, addr + unit, end, false, NEED_STREAM, BUFFER_LARGE - unit, fill) || !fill->len)
		return;
	fill->addr = fill->demand = addr;
	fill->len += unit;
	fill->sparse = true;
	units = fill->len / unit;
	for (uint64_t i = 1; i < units; i++)
		fill->own[i / 64] |= (uint64_t)1 << i % 64;
}

void session_bring_next(struct session *session, uint64_t addr, uint64_t len)
{
	struct fill *fill = calloc(1, sizeof(*fill));
	char *buffer = buffers_try(session->buffers, BUFFER_LARGE, BUFFERS_AHEAD);
	signal_mask before = session_enter(session);
	struct space_range range = {0};
	bool begun = fill && buffer && space_find(session->space, addr, &range);

	if (begun)
		gather_next(session, &range, addr, addr + len, fill);
	begun = begun && fill->len;
	if (begun)
		fill_begin(fill);
	session_leave(session, before);
	if (begun) {
		fill->buffer = buffer;
		fill_submit(fill);
		return;
	}
	if (buffer)
		buffers_give(session->buffers, buffer);
	free(fill);
}

int session_bring_set(struct session *session, const uint64_t *addrs, size_t count, uint64_t unit)
{
	size_t announced = 0;
	bool can = true;
	int err = 0;

	for (size_t done = 0, n; !err && done < count; done += n) {
		for (; can && announced < count && announced < done + ANNOUNCED; announced += n) {
			n = close_together(addrs + announced, count - announced, unit);
			can = announce(session, addrs + announced, n, unit);
		}
		n = close_together(addrs + done, count - done, unit);
		err = bring_close(session, addrs + done, n, unit, can);
	}
	return err;
}

void session_settle(struct session *session)
{
	_Atomic uint32_t *in_flight;
	signal_mask before;
	uint32_t left;

	/* Those of the phase before have ended: whoever began this one has waited for them. */
	pthread_mutex_lock(&session->settling);
	before = session_change_begin(session);
	in_flight = &session->in_flight[session->phase];
	session->phase = !session->phase;
	session_change_end(session, before);
	while ((left = atomic_load_explicit(in_flight, memory_order_acquire)))
		futex_wait(in_flight, left);
	pthread_mutex_unlock(&session->settling);
}

/*
 * Opening and closing.
 */

static int start_threads(struct session *session)
{
	unsigned count = session->options.threads ? session->options.threads : 1;
	int err = 0;

	session->threads = calloc(count, sizeof(*session->threads));
	if (!session->threads)
		return -ENOMEM;
	while (!err && session->started < count) {
		err = thread_start(&session->threads[session->started], session_loop, session);
		session->started += !err;
	}
	return err;
}

static void stop_threads(struct session *session)
{
	atomic_store(&session->ending, true);
	if (session->end >= 0)
		eventfd_write(session->end, 1);
	for (unsigned i = 0; i < session->started; i++)
		pthread_join(session->threads[i], NULL);
	free(session->threads);
}

static void give_up(struct session *session)
{
	stop_threads(session);
	session_settle(session);
	loop_forget(session);
	space_free(session->space);
	buffers_end(&session->own_buffers);
	if (session->bell >= 0)
		close(session->bell);
	if (session->end >= 0)
		close(session->end);
	pthread_mutex_destroy(&session->change);
	pthread_mutex_destroy(&session->settling);
}

/* What threads of its own need. */
static int open_loop(struct session *session)
{
	session->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	session->end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->bell < 0 || session->end < 0)
		return -errno;
	return start_threads(session);
}

int session_open(struct session *session, struct uf *uf, const struct session_options *options)
{
	int err = 0;

	*session = (struct session){.uf = uf,
	                            .options = *options,
	                            .buffers = options->buffers ? options->buffers : &session->own_buffers,
	                            .bell = -1,
	                            .end = -1,
	                            .page = (uint64_t)sysconf(_SC_PAGESIZE)};
	session->counts = uf_counts_events(uf);
	session->told_ms = session->counts && options->space && session_is_owed(options->space);
	session->can_protect = uf_features(uf) & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	session->can_poison = options->poisons || (uf_features(uf) & UFFD_FEATURE_POISON);
	pthread_mutex_init(&session->change, NULL);
	pthread_mutex_init(&session->settling, NULL);
	if (!options->buffers)
		err = buffers_init(&session->own_buffers);
	if (!err)
		err = options->space ? 0 : space_new(&session->space);
	if (options->space)
		session->space = options->space;
	if (!err && !options->driven)
		err = open_loop(session);
	if (!err)
		return 0;
	/* On failure it is the caller's still. */
	if (options->space)
		session->space = NULL;
	give_up(session);
	return err;
}

void session_close(struct session *session)
{
	give_up(session);
	uf_close(session->uf);
}
