// SPDX-License-Identifier: MIT
/* Contracts: fill.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "session/fill.h"
#include "session/loop.h"
#include "store/store.h"

static const char zeros[1 << 16];

/* Streams of which so much is read at once are read ahead. */
#define AHEAD_FROM ((uint64_t)256 << 10)

static inline void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static bool is_inline(const struct session *session)
{
	return session->options.inline_faults;
}

/* Whether pages of it come in protected. Where they cannot be, they count as written to from the start. */
static bool protects(const struct session *session, const struct space_range *range)
{
	return source_of(range)->writable && session->can_protect;
}

/*
 * Planning.
 */

static void dismiss(struct session *session, uint64_t bytes)
{
	if (bytes)
		session->options.ops->dismiss(session->options.arg, bytes);
}

bool fill_take(_Atomic uint8_t *state, bool saved, bool lost)
{
	uint8_t byte = atomic_load_explicit(state, memory_order_relaxed);

	if (page_state(byte) != (lost ? SPACE_LOST : SPACE_MISSING) || !(byte & SPACE_SAVED) == saved)
		return false;
	/* The very byte that was looked at: what counts may have been put aside since. Acquire as in session_claim(). */
	return atomic_compare_exchange_strong_explicit(state, &byte, (uint8_t)((byte & ~SPACE_STATE) | SPACE_FILLING),
	                                               memory_order_acquire, memory_order_relaxed);
}

/* Lengthens the run to [start, end), as far as there is room and the pages are alike. */
static void extend(struct fill *fill, uint64_t start, uint64_t end)
{
	struct session *session = fill->session;
	uint64_t unit = fill->range.unit, wanted = end - start - fill->len, room;

	if (!wanted)
		return;
	room = session->options.ops->admit(session->options.arg, wanted, unit, NEED_STREAM);
	while (room && fill->addr + fill->len < end &&
	       fill_take(state_at(&fill->range, fill->addr + fill->len), fill->saved, false)) {
		fill->len += unit;
		room -= unit;
	}
	while (room && fill->addr > start && fill_take(state_at(&fill->range, fill->addr - unit), fill->saved, false)) {
		fill->addr -= unit;
		fill->len += unit;
		room -= unit;
	}
	dismiss(session, room);
}

/* A buffer for [*start, *end); a smaller window around addr where there is only a small one. */
static char *window_buffer(struct session *session, const struct space_range *range, uint64_t addr, uint64_t *start,
                           uint64_t *end)
{
	char *buffer = buffers_try(session->buffers, *end - *start, BUFFERS_LARGE);

	if (!buffer && *end - *start > range->unit) {
		*start = addr;
		*end = addr + range->unit;
		buffer = buffers_try(session->buffers, range->unit, BUFFERS_LARGE);
	}
	return buffer;
}

static struct uf_store *store_of(const struct fill *fill)
{
	const struct session_source *source = source_of(&fill->range);

	return fill->saved ? source->aside : source->store;
}

/* Where a stream upwards goes on: behind what is there already, or on its way. */
static uint64_t goes_on(const struct fill *fill, uint64_t end)
{
	uint64_t at = fill->addr + fill->len;

	while (at < end &&
	       page_state(atomic_load_explicit(state_at(&fill->range, at), memory_order_relaxed)) != SPACE_MISSING)
		at += fill->range.unit;
	return at;
}

/*
 * What comes next in a long stream upwards is brought by the loop while this is used, from a store that answers from afar: one that is read on
 * the thread that faults reads ahead by itself. But for the first page: its touch tells that the stream goes on, and asks for what follows.
 */
static void ask_ahead(const struct fill *fill, uint64_t end, uint64_t next)
{
	uint64_t len = end - fill->demand, limit = fill->range.start + fill->range.len;
	struct uf_store *store = store_of(fill);

	if (fill->addr < fill->demand || len < AHEAD_FROM || next >= limit || !store ||
	    (uf_store_flags(store) & UF_STORE_READS_IN_SIGNAL))
		return;
	if (len > limit - next)
		len = limit - next;
	if (len > fill->range.unit)
		session_post_ahead(fill->session, next, len);
}

/* In whole units, and no further than the range: what is touched behind that comes from elsewhere. */
static uint64_t within(const struct space_range *range, uint64_t end)
{
	uint64_t limit = range->start + range->len;

	return end >= limit ? limit : (end + range->unit - 1) & ~(range->unit - 1);
}

enum step fill_plan(struct session *session, const struct space_range *range, uint64_t addr, uint64_t more, bool write,
                    struct fill *fill)
{
	_Atomic uint8_t *state = state_at(range, addr);
	uint64_t start, end, next;

	fill_window(range, addr, &start, &end);
	more = within(range, more);
	if (end < more)
		end = more - addr > BUFFER_LARGE ? addr + BUFFER_LARGE : more;
	if (end - start > BUFFER_LARGE)
		start = addr;
	fill->buffer = window_buffer(session, range, addr, &start, &end);
	fill->len = range->unit;
	if (!fill->buffer)
		return STEP_BUFFER;
	if (!session->options.ops->admit(session->options.arg, range->unit, range->unit, NEED_TOUCHED)) {
		buffers_give(session->buffers, fill->buffer);
		return STEP_ROOM;
	}
	if (!session_claim(state, SPACE_MISSING, SPACE_FILLING)) {
		dismiss(session, range->unit);
		buffers_give(session->buffers, fill->buffer);
		return STEP_AGAIN;
	}
	fill->session = session;
	fill->range = *range;
	fill->addr = fill->demand = addr;
	fill->demand_len = range->unit;
	fill->write = write;
	fill->lost = false;
	fill->fetched = false;
	fill->until = 0;
	fill->sparse = false;
	fill->at = NULL;
	fill->saved = atomic_load_explicit(state, memory_order_relaxed) & SPACE_SAVED;
	extend(fill, start, end);
	if (more > addr + range->unit)
		fill->demand_len = (more < fill->addr + fill->len ? more : fill->addr + fill->len) - addr;
	next = goes_on(fill, end);
	fill_window_done(range, addr, fill->addr, next);
	ask_ahead(fill, end, next);
	return STEP_FETCH;
}

/*
 * Reading.
 */

int fill_read(struct fill *fill, bool wait)
{
	struct uf_store *store = store_of(fill);
	uint64_t offset = offset_at(&fill->range, fill->addr);

	if (!store) {
		memset(fill->buffer, 0, fill->len);
		return 0;
	}
	/* Not to wait first, and then to wait, would be one system call more where it has to wait. */
	if (wait && (uf_store_flags(store) & UF_STORE_READS_IN_SIGNAL))
		return store_read_once(store, fill->buffer, fill->len, offset);
	if (is_inline(fill->session) && !(uf_store_flags(store) & UF_STORE_TRIES_IN_SIGNAL))
		return -EAGAIN;
	return uf_store_try_read(store, fill->buffer, fill->len, offset);
}

bool fill_find(struct fill *fill)
{
	struct session_source *source = source_of(&fill->range);
	struct uf_store *store = store_of(fill);

	if (store && fill->session->options.elsewhere && !atomic_load_explicit(&source->cut, memory_order_relaxed))
		fill->at = store_at(store, fill->len, offset_at(&fill->range, fill->addr));
	return fill->at;
}

/*
 * Placing.
 */

/*
 * What is there already: the first part of a unit whose rest had to wait, or a page that nobody has told us of. True, and *n is its size.
 */
static bool there_already(struct session *session, uint64_t unit, uint64_t addr, bool protect, ssize_t *n)
{
	if (*n != -EEXIST)
		return false;
	*n = (ssize_t)(unit < session->page ? unit : session->page);
	if (protect)
		uf_writeprotect(session->uf, pointer(addr), (size_t)*n, UFFDIO_WRITEPROTECT_MODE_WP);
	uf_wake(session->uf, pointer(addr), (size_t)*n);
	return true;
}

/*
 * As fill_copy(), but it ends behind the first unit of which something was there: *there; and what it returns has the part of a unit whose rest could
 * not come.
 */
static uint64_t copy_alike(struct session *session, uint64_t unit, uint64_t addr, const char *from, uint64_t len,
                           bool protect, bool *there, int *err)
{
	/* Inline nobody sleeps in the kernel. */
	uint64_t mode = (protect ? UFFDIO_COPY_MODE_WP : 0) | (is_inline(session) ? UFFDIO_COPY_MODE_DONTWAKE : 0);
	uint64_t done = 0;

	*there = false;
	*err = 0;
	while (done < len) {
		ssize_t n = uf_copy(session->uf, pointer(addr + done), from + done, len - done, mode);

		if ((n >= 0 || n == -EEXIST) && !atomic_load_explicit(&session->told, memory_order_relaxed))
			atomic_store_explicit(&session->told, true, memory_order_relaxed);
		if (there_already(session, unit, addr + done, protect, &n)) {
			*there = true;
			len = (done & ~(unit - 1)) + unit;
		}
		if (n < 0) {
			*err = (int)n;
			break;
		}
		done += (uint64_t)n;
	}
	return done;
}

uint64_t fill_copy(struct session *session, uint64_t unit, uint64_t addr, const char *from, uint64_t len, bool protect,
                   int *err)
{
	uint64_t done = 0;
	bool there;

	do
		done += copy_alike(session, unit, addr + done, from + done, len - done, protect, &there, err);
	while (!*err && done < len);
	return done & ~(unit - 1);
}

static void release_run(struct fill *fill, uint64_t from, uint64_t to, enum space_page state, unsigned set)
{
	for (uint64_t at = from; at < to; at += fill->range.unit)
		session_release(fill->session, state_at(&fill->range, at), state, set, SPACE_ACTIVE | SPACE_AHEAD);
}

static bool demanded(const struct fill *fill, uint64_t addr)
{
	return addr >= fill->demand && addr < fill->demand + fill->demand_len;
}

/* What pages are that could not be had. */
static enum space_page without(const struct fill *fill)
{
	return fill->lost ? SPACE_LOST : SPACE_MISSING;
}

/* Whose pages could not be put in place: they are as they were. */
static void could_not(struct fill *fill, uint64_t from, uint64_t to, int err)
{
	struct session *session = fill->session;

	release_run(fill, from, to, without(fill), 0);
	dismiss(session, to - from);
	/* The store does not have it where it was said to be: it is read, and then it is known why. */
	if (err == -EFAULT && fill->at) {
		atomic_store_explicit(&source_of(&fill->range)->cut, true, memory_order_relaxed);
		err = -EAGAIN;
	}
	if (err == -ESRCH) {
		atomic_store(&session->gone, true);
		return;
	}
	/* Inline he tries again by himself, as often as he likes. */
	if (is_inline(session))
		return;
	for (uint64_t at = from; at < to; at += fill->range.unit) {
		if (!demanded(fill, at))
			continue;
		/* A layout event waits to be read, or there is no memory: it is looked at again. Otherwise there is no such page any more. */
		if (err == -EAGAIN || err == -ENOMEM)
			session_post(session, at, fill->write, err == -ENOMEM ? WHEN_LATER : WHEN_READ);
		else
			uf_wake(session->uf, pointer(at), fill->range.unit);
	}
}

static const char *bytes_of(const struct fill *fill)
{
	return fill->at ? fill->at : fill->buffer;
}

/*
 * Of a unit this part has come, open to writers, and there is no memory for the rest. Protected again it may be missing with the rest, if it still is as
 * it came: whoever would write to it waits for all of it. False: somebody has written to it already.
 */
static bool close_part(const struct fill *fill, uint64_t at, uint64_t len)
{
	return !uf_writeprotect(fill->session->uf, pointer(at), len, UFFDIO_WRITEPROTECT_MODE_WP) &&
	       !memcmp(pointer(at), bytes_of(fill) + (at - fill->addr), len);
}

/* One part of it, of which all is alike. */
static void place_part(struct fill *fill, uint64_t from, uint64_t to, bool demanded)
{
	struct session *session = fill->session;
	bool protect = protects(session, &fill->range), writable = source_of(&fill->range)->writable;
	bool open = writable && ((demanded && fill->write) || !protect), there;
	unsigned set = demanded ? SPACE_ACTIVE : SPACE_AHEAD;
	int err = 0;

	/* From the copy on it can be written to by anybody. */
	for (uint64_t at = from; open && at < to; at += fill->range.unit)
		session_claim(state_at(&fill->range, at), SPACE_FILLING, SPACE_LEAVING);
	while (from < to && !err) {
		uint64_t came = copy_alike(session, fill->range.unit, from, bytes_of(fill) + (from - fill->addr),
		                           to - from, protect && !open, &there, &err);
		uint64_t part = came & (fill->range.unit - 1), end = from + came - part;
		uint64_t known = there && !err ? end - fill->range.unit : end;

		release_run(fill, from, known, open ? SPACE_DIRTY : SPACE_CLEAN, set);
		/* What was there already may have been written to. */
		release_run(fill, known, end, writable ? SPACE_DIRTY : SPACE_CLEAN, set);
		add(&session->stats.present, end - from);
		from = end;
		/* It is whole or missing. Missing it would be passed over by a flush, with what was written to it. */
		if (err == -ENOMEM && part && open && protect && !close_part(fill, from, part)) {
			pause_us(1000);
			err = 0;
		}
	}
	if (from < to)
		could_not(fill, from, to, err);
}

static enum session_origin origin_of(const struct fill *fill)
{
	return fill->fetched ? ORIGIN_STORE : store_of(fill) ? ORIGIN_AT_HAND : ORIGIN_ZEROS;
}

static void tell_done(const struct fill *fill, uint64_t addr, uint64_t len, bool lost)
{
	const struct session_done done = {
		.addr = addr,
		.len = len,
		.source = source_of(&fill->range),
		.offset = offset_at(&fill->range, addr),
		.start_ns = fill->demand_len ? fill->start_ns : 0,
		.origin = origin_of(fill),
		.write = fill->write,
		.lost = lost,
	};

	session_tell(fill->session, &done);
}

/* Once it has come: who cannot fetch it leaves it to another, who plans it anew. */
static void count_filled(struct fill *fill)
{
	struct session_stats *stats = &fill->session->stats;

	add(&stats->faults, fill->demand_len / fill->range.unit);
	session_count_origin(fill->session, origin_of(fill), fill->demand_len / fill->range.unit);
	if (!store_of(fill))
		return;
	add(&stats->read, fill->len);
	if (fill->len > fill->demand_len)
		add(&stats->ahead, fill->len - fill->demand_len);
}

static void tell_touched(const struct fill *fill)
{
	struct session_source *source = source_of(&fill->range);

	if (!fill->demand_len || !atomic_load_explicit(&source->recording, memory_order_relaxed))
		return;
	for (uint64_t at = fill->demand; at < fill->demand + fill->demand_len; at += fill->range.unit)
		fill->session->options.ops->touched(fill->session->options.arg, source, offset_at(&fill->range, at));
}

/* All of it, what is waited for first. The buffer is still taken. */
static void place_parts(struct fill *part)
{
	uint64_t end = part->addr + part->len, demand_end = part->demand + part->demand_len;

	count_filled(part);
	tell_touched(part);
	if (!part->demand_len) {
		place_part(part, part->addr, end, false);
		tell_done(part, part->addr, part->len, false);
		return;
	}
	place_part(part, part->demand, demand_end, true);
	/* Before what nobody waits for, whose time is not the fault's. */
	tell_done(part, part->addr, part->len, false);
	place_part(part, part->addr, part->demand, false);
	place_part(part, demand_end, end, false);
}

void fill_place(struct fill *fill)
{
	place_parts(fill);
	buffers_give(fill->session->buffers, fill->buffer);
}

void fill_abandon(struct fill *fill)
{
	release_run(fill, fill->addr, fill->addr + fill->len, without(fill), 0);
	dismiss(fill->session, fill->len);
	buffers_give(fill->session->buffers, fill->buffer);
}

int fill_zero(struct session *session, const struct space_range *range, uint64_t addr)
{
	bool wake = !is_inline(session);
	uint64_t done = 0;
	ssize_t n = 0;

	if (!source_of(range)->no_zeropage)
		n = uf_zeropage(session->uf, pointer(addr), range->unit, wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE);
	if (n > 0)
		done = (uint64_t)n;
	while (done < range->unit) {
		uint64_t len = range->unit - done < sizeof(zeros) ? range->unit - done : sizeof(zeros);
		int err;

		if (fill_copy(session, session->page, addr + done, zeros, len, false, &err) < len)
			return err;
		done += len;
	}
	return 0;
}

void fill_poison(struct session *session, uint64_t addr, uint64_t unit)
{
	uint64_t done = 0;

	/* Woken without it he would only come again. */
	if (!session->can_poison)
		return;
	while (done < unit) {
		ssize_t n = uf_poison(session->uf, pointer(addr + done), unit - done, 0);

		/* A part of it had come before the rest was lost. */
		if (n == -EEXIST)
			n = (ssize_t)session->page;
		if (n < 0)
			break;
		done += (uint64_t)n;
	}
	/* Also if it could not be: he comes again, and then it is tried again. */
	uf_wake(session->uf, pointer(addr), unit);
}

/*
 * In the background.
 */

/* Inside the gate, so that a phase does not end in between. */
void fill_begin(struct fill *fill)
{
	fill->phase = fill->session->phase;
	atomic_fetch_add_explicit(&fill->session->in_flight[fill->phase], 1, memory_order_relaxed);
}

static void leave_flight(struct session *session, unsigned phase)
{
	/* Release: whoever settles sees what came of it. The session may be gone before it is woken: only addresses are compared. */
	if (atomic_fetch_sub_explicit(&session->in_flight[phase], 1, memory_order_release) == 1)
		futex_wake(&session->in_flight[phase], INT_MAX);
}

void fill_end(const struct fill *fill)
{
	leave_flight(fill->session, fill->phase);
}

/* Whether the page was claimed for it: of a sparse fill not all are. */
static bool is_own(const struct fill *fill, uint64_t addr)
{
	uint64_t index = (addr - fill->addr) / fill->range.unit;

	return !fill->sparse || (fill->own[index / 64] >> index % 64 & 1);
}

/*
 * What is still ours of what it fetched: the layout may have changed meanwhile. A page that is FILLING by another fill than the one that asks
 * must not be taken for its own. What makes a page anything else than FILLING while it is fetched:
 *
 *	unmapped, and mapped again      another insert, with an id of its own
 *	moved, there and back           space_move() gives the range another turn, since it makes the page MISSING
 *	removed                         REMOVED, and DIRTY once it is touched: it is MISSING again only if its owner takes it out of
 *	                                memory. An owner that does, and has UFFD_EVENT_REMOVE, calls session_settle() after the event
 *	                                before it takes anything out. The pager has no such events, others take nothing out
 *	cut in two, or a neighbour of   what is left keeps its id, its turn and its pages
 *	something that is unmapped
 *	forked                          the child has a space, and a session, of its own, where the page is MISSING
 */
static bool still_there(const struct fill *fill, uint64_t addr, struct space_range *range)
{
	return is_own(fill, addr) && space_find(fill->session->space, addr, range) && range->id == fill->range.id &&
	       range->turn == fill->range.turn && range->source == fill->range.source &&
	       offset_at(range, addr) == offset_at(&fill->range, addr) &&
	       page_state(atomic_load(state_at(range, addr))) == SPACE_FILLING;
}

/* A part of the fill as a fill, with a range that is valid now; its buffer stays the whole's. */
static void part_of(const struct fill *fill, const struct space_range *range, uint64_t from, uint64_t to,
                    struct fill *part)
{
	uint64_t demand_end = fill->demand + fill->demand_len;

	*part = *fill;
	part->sparse = false;
	part->range = *range;
	part->addr = from;
	part->len = to - from;
	part->buffer = fill->buffer + (from - fill->addr);
	part->demand = fill->demand > from ? fill->demand : from;
	part->demand_len = demand_end > part->demand ? (demand_end < to ? demand_end : to) - part->demand : 0;
	if (part->demand >= to)
		part->demand_len = 0;
}

static void lose(struct fill *part, int err)
{
	struct session *session = part->session;

	for (uint64_t at = part->addr; at < part->addr + part->len; at += part->range.unit) {
		_Atomic uint8_t *state = state_at(&part->range, at);

		dismiss(session, part->range.unit);
		if (!demanded(part, at)) {
			session_release(session, state, without(part), 0, 0);
		} else if (!session->options.ops->failed(session->options.arg, &part->range, at, err)) {
			session_release(session, state, SPACE_MISSING, SPACE_WAITED, 0);
			session_post(session, at, part->write, WHEN_LATER);
		} else {
			add(&session->stats.poisoned, part->range.unit);
			session_count_origin(session, origin_of(part), 1);
			tell_done(part, at, part->range.unit, true);
			/* Once it is LOST somebody may bring it again. */
			fill_poison(session, at, part->range.unit);
			session_release(session, state, SPACE_LOST, 0, 0);
		}
	}
}

/* Nobody could try to read it: there was no thread to be had. */
static void put_off(struct fill *part, int err)
{
	struct session *session = part->session;

	(void)err;
	for (uint64_t at = part->addr; at < part->addr + part->len; at += part->range.unit) {
		bool waits = demanded(part, at);

		dismiss(session, part->range.unit);
		session_release(session, state_at(&part->range, at), without(part), waits ? SPACE_WAITED : 0, 0);
		if (waits)
			session_post(session, at, part->write, WHEN_LATER);
	}
}

/* Calls `what` for each run that is still ours; what is not is dismissed. */
static void for_parts(struct fill *fill, void (*what)(struct fill *part, int err), int err)
{
	uint64_t at = fill->addr, end = fill->addr + fill->len;

	while (at < end) {
		struct space_range range;
		struct fill part;
		uint64_t to = at;

		while (to < end && still_there(fill, to, &range) && to < range.start + range.len)
			to += range.unit;
		if (to == at) {
			if (is_own(fill, at))
				dismiss(fill->session, fill->range.unit);
			/* Layout events wake nobody: who waits finds what there is now. */
			if (demanded(fill, at))
				uf_wake(fill->session->uf, pointer(at), fill->range.unit);
			at += fill->range.unit;
			continue;
		}
		/* The last page looked at may lie in a neighbour. */
		space_find(fill->session->space, at, &range);
		if (to > range.start + range.len)
			to = range.start + range.len;
		part_of(fill, &range, at, to, &part);
		what(&part, err);
		at = to;
	}
}

static void place_of(struct fill *part, int err)
{
	(void)err;
	place_parts(part);
}

/*
 * What could not be read at once is read unit by unit, if it was asked for: a bad page is not its neighbours' fault. What was not
 * asked for is given back. False: it is one unit already, or nobody has asked.
 */
static bool take_apart(struct fill *fill)
{
	uint64_t from = fill->demand, to = fill->demand + fill->demand_len, unit = fill->range.unit;

	if (fill->lost && !fill->demand_len) {
		from = fill->addr;
		to = fill->addr + fill->len;
	}
	if (fill->until || fill->len == unit || from == to)
		return false;
	for (uint64_t at = fill->addr; at < fill->addr + fill->len; at += unit) {
		struct space_range range;

		if (at >= from && at < to)
			continue;
		dismiss(fill->session, unit);
		if (still_there(fill, at, &range))
			session_release(fill->session, state_at(&range, at), SPACE_MISSING, 0, 0);
	}
	fill->addr = from;
	fill->len = unit;
	fill->until = to;
	return true;
}

static bool next_unit(struct fill *fill)
{
	if (fill->addr + fill->len >= fill->until)
		return false;
	fill->addr += fill->len;
	return true;
}

static void complete(struct uf_store_request *request)
{
	struct fill *fill = (struct fill *)request;
	struct session *session = fill->session;
	signal_mask before = session_enter(session);
	bool again = request->result && request->result != -EAGAIN && take_apart(fill);
	unsigned phase;

	if (!again && request->result)
		for_parts(fill, request->result == -EAGAIN ? put_off : lose, request->result);
	else if (!again)
		for_parts(fill, place_of, 0);
	session_leave(session, before);
	if (again || next_unit(fill)) {
		fill_submit(fill);
		return;
	}
	if (fill->demand_len && fill->start_ns && !request->result)
		session_count_latency(session, fill->start_ns);
	buffers_give(session->buffers, fill->buffer);
	phase = fill->phase;
	free(fill);
	leave_flight(session, phase);
}

void fill_submit(struct fill *fill)
{
	struct uf_store *store = store_of(fill);
	int err;

	fill->fetched = store;
	fill->request = (struct uf_store_request){
		.action = UF_STORE_READ,
		.buf = fill->buffer,
		.len = fill->len,
		.offset = offset_at(&fill->range, fill->addr),
		.done = complete,
	};
	err = store ? uf_store_submit(store, &fill->request) : 0;
	if (!store)
		memset(fill->buffer, 0, fill->len);
	if (!store || err) {
		fill->request.result = err;
		complete(&fill->request);
	}
}

void fill_fetch(struct fill *fill)
{
	struct uf_store *store = store_of(fill);

	fill->fetched = true;
	fill->request.result = uf_store_read(store, fill->buffer, fill->len, offset_at(&fill->range, fill->addr));
	complete(&fill->request);
}
