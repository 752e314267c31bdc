// SPDX-License-Identifier: MIT
/*
 * Pages are taken out of memory to where they rest (rest.h). The hand goes round all pages, and gives those that were asked for since it came
 * by last another round. Under `cleaning`.
 */
#include <sys/mman.h>

#include "pager/pager.h"
#include "session/fill.h"
#include "uffd/user/layout.h"

/* Pages that are looked at without leaving the gate; and taken out by one call, or one unit. */
#define LOOK 65536u
#define RUN  64u

/* Pages in a row that were claimed; a bit for each that is dirty. */
struct run {
	struct space_range range;
	uint64_t addr;
	unsigned count;
	uint64_t dirty;
	bool moved;   /* they are not where they were any more */
	bool dropped; /* they do not rest */
};

/* What is taken out in one step: its runs lie in the ring one after the other, from `to` on. */
struct leaving {
	struct run runs[RUN];
	unsigned count, units; /* of both at most RUN */
	uint64_t room, bytes;  /* how much should go; how much does */
	uint64_t resting;      /* of it, what goes to the ring */
	char *to;
};

static inline uint64_t length_of(const struct run *run)
{
	return run->count * run->range.unit;
}

/* Claims a page that may leave. One that was asked for keeps its place for another round. */
static bool claim_victim(const struct space_range *range, uint64_t addr, bool *dirty)
{
	_Atomic uint8_t *state = state_at(range, addr);
	uint8_t byte = atomic_load_explicit(state, memory_order_relaxed);

	if ((page_state(byte) != SPACE_CLEAN && page_state(byte) != SPACE_DIRTY) || (byte & SPACE_PINNED))
		return false;
	if (byte & (SPACE_ACTIVE | SPACE_AHEAD)) {
		atomic_fetch_and_explicit(state, (uint8_t) ~(SPACE_ACTIVE | SPACE_AHEAD), memory_order_relaxed);
		return false;
	}
	*dirty = page_state(byte) == SPACE_DIRTY;
	/* Only as it was seen: it may be pinned in between. Acquire as in session_claim(). */
	return atomic_compare_exchange_strong_explicit(state, &byte, (uint8_t)((byte & ~SPACE_STATE) | SPACE_LEAVING),
	                                               memory_order_acquire, memory_order_relaxed);
}

/* Passes over bytes that are all zero, which no page in memory has, eight at a time. */
static uint64_t skip_missing(const struct space_range *range, uint64_t addr, uint64_t end)
{
	while (addr + 8 * range->unit <= end) {
		const _Atomic uint8_t *state = state_at(range, addr);

		if ((uintptr_t)state % 8 ||
		    atomic_load_explicit((const _Atomic uint64_t *)(uintptr_t)state, memory_order_relaxed))
			break;
		addr += 8 * range->unit;
	}
	return addr;
}

/* Looks for victims in [from, end) of one range; *next: where it stopped. */
static bool find_in(const struct space_range *range, uint64_t from, uint64_t end, unsigned most, struct run *victims,
                    uint64_t *next)
{
	uint64_t at = from;
	bool dirty;

	*victims = (struct run){.range = *range};
	while (at < end && !claim_victim(range, at, &dirty)) {
		at += range->unit;
		if (!((at - range->start) / range->unit % 8))
			at = skip_missing(range, at, end);
	}
	*next = at;
	if (at >= end)
		return false;
	victims->addr = at;
	do
		victims->dirty |= (uint64_t)dirty << victims->count++;
	while (victims->count < most && at + length_of(victims) < end &&
	       claim_victim(range, at + length_of(victims), &dirty));
	*next = at + length_of(victims);
	return true;
}

/* How many units of a range may still go in this step. */
static unsigned room_for(const struct leaving *leaving, uint64_t unit)
{
	uint64_t units = leaving->bytes < leaving->room ? (leaving->room - leaving->bytes) / unit : 0;

	if (!leaving->bytes && !units)
		return 1;
	return units < RUN - leaving->units ? (unsigned)units : RUN - leaving->units;
}

/* Inside the gate: the next victims behind the hand. *looked counts pages; *wrapped is set when the hand begins anew. */
static bool find_victims(struct uf_pager *pager, const struct leaving *leaving, struct run *victims, uint64_t *looked,
                         bool *wrapped)
{
	struct space_range range;

	while (*looked < LOOK) {
		uint64_t from, end, next;
		unsigned most;

		if (!space_next(pager->session.space, pager->hand, &range)) {
			if (*wrapped)
				return false;
			*wrapped = true;
			pager->hand = 0;
			continue;
		}
		from = pager->hand > range.start ? pager->hand : range.start;
		end = range.start + range.len;
		if (end - from > LOOK * range.unit)
			end = from + LOOK * range.unit;
		most = room_for(leaving, range.unit);
		if (!most)
			return false;
		if (find_in(&range, from, end, most, victims, &next)) {
			pager->hand = next;
			return true;
		}
		*looked += (end - from) / range.unit;
		pager->hand = next;
	}
	return false;
}

void clean_empty(char *at, uint64_t len)
{
	user_layout_madvise((uint64_t)(uintptr_t)at, len, MADV_DONTNEED);
}

/* By copying: where there is no MOVE, or for memory that it does not take. All of it, or nothing; it is still where it was. */
static bool copy_out(struct uf_pager *pager, const struct space_range *range, uint64_t addr, uint64_t len, char *to)
{
	struct uf *uf = pager->session.uf;
	uint64_t done = 0;
	ssize_t n = 1;

	/* Clean pages are protected already. */
	if (is_writable(range) && uf_writeprotect(uf, pointer(addr), len, UFFDIO_WRITEPROTECT_MODE_WP))
		return false;
	for (; done < len && n > 0; done += n > 0 ? (uint64_t)n : 0)
		n = uf_copy(uf, to + done, pointer(addr + done), len - done, UFFDIO_COPY_MODE_DONTWAKE);
	if (done == len)
		return true;
	clean_empty(to, len);
	return false;
}

/* A part of a unit whose rest stays: it has no other place, so until it is back. By copying where it cannot be moved. */
static void move_back(struct uf_pager *pager, uint64_t addr, uint64_t len, char *from)
{
	uint64_t done = 0;

	while (done < len) {
		ssize_t n = uf_move(pager->session.uf, pointer(addr + done), from + done, len - done,
		                    UFFDIO_MOVE_MODE_DONTWAKE);
		int err;

		done += n > 0 ? (uint64_t)n : 0;
		if (n <= 0)
			done += fill_copy(&pager->session, pager->session.page, addr + done, from + done,
			                  pager->session.page, false, &err);
	}
	clean_empty(from, len);
}

static bool can_move(const struct uf_pager *pager, const struct space_range *range)
{
	return pager->can_move && is_writable(range) && !(mapping_of(range)->flags & UF_PAGER_HUGE);
}

/*
 * How many bytes went, in whole units; 0: the first one stays. Pages that a device reads into, or that cannot be moved at this moment, stay, and
 * with them all of their unit: a copy of such a page would lack what the device has not read yet.
 */
static uint64_t move_out(struct uf_pager *pager, struct run *victims, char *to)
{
	uint64_t len = length_of(victims), unit = victims->range.unit, whole, part;
	ssize_t n = uf_move(pager->session.uf, to, pointer(victims->addr), len, UFFDIO_MOVE_MODE_DONTWAKE);

	if (n <= 0)
		return 0;
	whole = (uint64_t)n & ~(unit - 1);
	part = (uint64_t)n - whole;
	if (part) {
		/* What is back is not protected any more, so it may have been written to. */
		move_back(pager, victims->addr + whole, part, to + whole);
		victims->dirty |= (uint64_t)1 << whole / unit;
	}
	return whole;
}

/* Pages that were read in sequence will not be asked for again, as was said. */
static bool need_no_rest(const struct run *run)
{
	return !run->dirty &&
	       atomic_load_explicit(&source_of(&run->range)->order, memory_order_relaxed) == ORDER_SEQUENTIAL;
}

static void add_run(struct leaving *leaving, const struct run *run)
{
	leaving->runs[leaving->count++] = *run;
	leaving->units += run->count;
	leaving->bytes += length_of(run);
	if (!run->dropped)
		leaving->resting += length_of(run);
}

/* They stay, as what they were. */
static void spare(struct uf_pager *pager, const struct run *run)
{
	for (unsigned i = 0; i < run->count; i++)
		session_release(&pager->session, state_at(&run->range, run->addr + i * run->range.unit),
		                run->dirty >> i & 1 ? SPACE_DIRTY : SPACE_CLEAN, SPACE_ACTIVE, 0);
}

/* The first `count` of them, which are taken off. */
static struct run split(struct run *run, unsigned count)
{
	struct run first = *run;

	first.count = count;
	run->addr += length_of(&first);
	run->count -= count;
	/* Not by 64, which would be no shift at all. */
	run->dirty = run->count ? run->dirty >> count : 0;
	return first;
}

/* Inside the gate: brings victims to the ring, or as far as that goes. */
static void take_run(struct uf_pager *pager, struct run *victims, struct leaving *leaving)
{
	const struct space_range *range = &victims->range;

	victims->dropped = need_no_rest(victims);
	victims->moved = !victims->dropped && can_move(pager, range);
	while (victims->count) {
		uint64_t len = length_of(victims), gone = len;
		char *to = leaving->to + leaving->resting;
		struct run part;

		if (victims->moved)
			gone = move_out(pager, victims, to);
		else if (!victims->dropped)
			gone = copy_out(pager, range, victims->addr, len, to) ? len : 0;
		part = split(victims, gone ? (unsigned)(gone / range->unit) : 1);
		if (gone)
			add_run(leaving, &part);
		else
			spare(pager, &part);
	}
}

/* Takes what was copied or is dropped out of memory, all of it by one call where the kernel has that. True: it is out. */
static bool empty_at_once(struct uf_pager *pager, const struct leaving *leaving)
{
	struct iovec gone[RUN];
	uint64_t bytes = 0;
	long count = 0;

	if (pager->self < 0 || pager->engine != UF_ENGINE_KERNEL)
		return false;
	for (unsigned i = 0; i < leaving->count; i++) {
		const struct run *run = &leaving->runs[i];

		if (run->moved)
			continue;
		gone[count++] = (struct iovec){pointer(run->addr), length_of(run)};
		bytes += length_of(run);
	}
	return !count ||
	       raw_syscall6(SYS_process_madvise, pager->self, (long)gone, count, MADV_DONTNEED, 0, 0) == (long)bytes;
}

/* A run that could not be taken out stays; its place in the ring is lost until that is popped. */
static void give_up_run(struct uf_pager *pager, const struct run *run, char *to)
{
	spare(pager, run);
	if (run->dropped)
		return;
	clean_empty(to, length_of(run));
	atomic_fetch_add(&pager->resident, length_of(run));
}

/* What the pages of a run are now. */
static void end_run(struct uf_pager *pager, const struct run *run)
{
	for (unsigned i = 0; i < run->count; i++)
		session_release(&pager->session, state_at(&run->range, run->addr + i * run->range.unit),
		                run->dropped ? SPACE_MISSING : SPACE_RESTING, 0, 0);
	if (run->dropped)
		budget_dismiss(pager, length_of(run));
	atomic_fetch_add(&pager->evicted, length_of(run));
}

/* With the rest's lock. */
static void put_run(struct uf_pager *pager, const struct run *run, bool live)
{
	uint32_t pages = (uint32_t)(run->range.unit / pager->rest.page);

	for (unsigned i = 0; i < run->count; i++)
		rest_put(&pager->rest, live ? run->addr + i * run->range.unit : 0, pages, live, run->dirty >> i & 1);
}

/* Inside the gate: what was brought to the ring rests there. Whether anything left. */
static bool put_to_rest(struct uf_pager *pager, struct leaving *leaving)
{
	bool at_once = empty_at_once(pager, leaving), stays[RUN];
	char *to = leaving->to;
	unsigned gone = 0;

	for (unsigned i = 0; i < leaving->count; i++) {
		const struct run *run = &leaving->runs[i];

		stays[i] = !at_once && !run->moved && user_layout_madvise(run->addr, length_of(run), MADV_DONTNEED);
		gone += !stays[i];
	}
	lock_take(&pager->rest.lock);
	for (unsigned i = 0; i < leaving->count; i++)
		if (!leaving->runs[i].dropped)
			put_run(pager, &leaving->runs[i], !stays[i]);
	lock_release(&pager->rest.lock);
	for (unsigned i = 0; i < leaving->count; i++) {
		const struct run *run = &leaving->runs[i];

		if (stays[i])
			give_up_run(pager, run, to);
		else
			end_run(pager, run);
		to += run->dropped ? 0 : length_of(run);
	}
	return gone;
}

/* A step's worth, but no more than is wanted: of a small budget that would be all. */
static uint64_t wanted(struct uf_pager *pager)
{
	uint64_t resident = atomic_load(&pager->resident);
	uint64_t excess = resident > pager->evict_to ? resident - pager->evict_to : 0;

	return excess < COPY_BYTES ? excess : COPY_BYTES;
}

bool clean_take_out(struct uf_pager *pager)
{
	bool wrapped = false, more = true, gone = false;
	struct leaving leaving = {.room = wanted(pager)};
	uint64_t start = pager->hand;

	while (more && !leaving.count) {
		signal_mask before = session_enter(&pager->session);
		struct run victims;
		uint64_t looked = 0;

		leaving.to = rest_place(&pager->rest, (uint32_t)(COPY_BYTES / pager->rest.page));
		while (leaving.to && find_victims(pager, &leaving, &victims, &looked, &wrapped))
			take_run(pager, &victims, &leaving);
		if (leaving.count)
			gone = put_to_rest(pager, &leaving);
		session_leave(&pager->session, before);
		/* Once round. */
		more = looked && !(wrapped && pager->hand >= start);
	}
	return gone;
}
