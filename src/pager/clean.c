// SPDX-License-Identifier: MIT
/*
 * Pages leave memory, and what was written reaches its store.
 *
 * Out of memory in two steps: the hand goes round all pages, gives those that were asked for since it came by last another round, and
 * takes the others out to where they rest (rest.h); from there the oldest go for good. A page is written either from where it rests, where
 * nobody can change it, or from a copy made behind write protection; so what is written was in memory at one moment.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "pager/pager.h"
#include "session/fill.h"
#include "uffd/user/layout.h"

/* Pages that are looked at without leaving the gate; taken out by one call, or one unit; and retired in one step. */
#define LOOK   65536u
#define RUN    64u
#define RETIRE 512u
/* Writes in flight. */
#define WRITES 32u

static inline void *pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

static void pause_us(long us)
{
	struct timespec time = {.tv_nsec = us * 1000};

	nanosleep(&time, NULL);
}

/*
 * Writing.
 */

/* A piece of what is to be written: whole units of one mapping, in a row, in memory that stays as it is. */
struct piece {
	struct uf_store_request request;
	struct writing *writing;
	struct mapping *mapping;
	uint64_t addr, len, unit, offset;
	const char *from;
};

struct writing {
	struct piece *pieces;
	size_t count, room;
	_Atomic uint32_t in_flight; /* futex */
};

/* Whether it was added; it may have been joined to the last one. */
static bool add_piece(struct writing *writing, const struct space_range *range, uint64_t addr, const char *from)
{
	struct piece *last = writing->count ? &writing->pieces[writing->count - 1] : NULL;

	if (last && last->mapping == mapping_of(range) && last->addr + last->len == addr &&
	    last->from + last->len == from && last->len < COPY_BYTES) {
		last->len += range->unit;
		return true;
	}
	if (writing->count == writing->room)
		return false;
	writing->pieces[writing->count++] = (struct piece){
		.writing = writing,
		.mapping = mapping_of(range),
		.addr = addr,
		.len = range->unit,
		.unit = range->unit,
		.offset = offset_at(range, addr),
		.from = from,
	};
	return true;
}

static void written(struct uf_store_request *request)
{
	struct writing *writing = ((struct piece *)request)->writing;

	/* The last one: it may be gone before it is woken, of which the kernel only compares the address. */
	if (atomic_fetch_sub(&writing->in_flight, 1) == 1)
		futex_wake(&writing->in_flight, INT_MAX);
}

static void wait_below(struct writing *writing, uint32_t count)
{
	uint32_t left;

	while ((left = atomic_load(&writing->in_flight)) >= count)
		futex_wait(&writing->in_flight, left);
}

static struct uf_store *target_of(const struct piece *piece)
{
	return piece->mapping->flags & UF_PAGER_PRIVATE ? piece->mapping->source.aside : piece->mapping->source.store;
}

static void submit_piece(struct uf_pager *pager, struct piece *piece)
{
	struct uf_store *store = target_of(piece);
	uint64_t size = uf_store_size(store);
	int err;

	/* What lies behind the end in the last unit has no place in the store. */
	piece->request = (struct uf_store_request){
		.action = UF_STORE_WRITE,
		.buf = (void *)piece->from,
		.len = piece->offset + piece->len > size ? size - piece->offset : piece->len,
		.offset = piece->offset,
		.done = written,
	};
	atomic_fetch_add(&piece->writing->in_flight, 1);
	err = uf_store_submit(store, &piece->request);
	if (err) {
		piece->request.result = err;
		written(&piece->request);
	}
	(void)pager;
}

/* Writes all pieces; each one's result tells what came of it. The first error. */
static int write_pieces(struct uf_pager *pager, struct writing *writing)
{
	int err = 0;

	for (size_t i = 0; i < writing->count; i++) {
		wait_below(writing, WRITES);
		submit_piece(pager, &writing->pieces[i]);
	}
	wait_below(writing, 1);
	for (size_t i = 0; i < writing->count; i++) {
		struct piece *piece = &writing->pieces[i];

		if (piece->request.result)
			pager_failed(pager, target_of(piece), "write", piece->offset, piece->request.result);
		else
			atomic_fetch_add(&pager->written, piece->request.len);
		if (!err)
			err = piece->request.result;
	}
	return err;
}

/*
 * To where pages rest.
 */

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

static bool is_writable(const struct space_range *range)
{
	return source_of(range)->writable;
}

/* Nothing is in the ring's pages before they are used; so whatever is there was put there in vain. */
static void empty_ring(char *at, uint64_t len)
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
	empty_ring(to, len);
	return false;
}

/* The rest of a unit of which a part was moved; or, if that does not go, the part comes back. */
static bool move_rest(struct uf_pager *pager, const struct space_range *range, uint64_t addr, uint64_t moved, char *to)
{
	int err;

	if (copy_out(pager, range, addr + moved, range->unit - moved, to + moved) &&
	    !user_layout_madvise(addr + moved, range->unit - moved, MADV_DONTNEED))
		return true;
	empty_ring(to + moved, range->unit - moved);
	fill_copy(&pager->session, pager->session.page, addr, to, moved, false, &err);
	empty_ring(to, moved);
	return false;
}

static bool can_move(const struct uf_pager *pager, const struct space_range *range)
{
	return pager->can_move && is_writable(range) && !(mapping_of(range)->flags & UF_PAGER_HUGE);
}

/* How many bytes went, in whole units; 0: the first one stays. */
static uint64_t move_out(struct uf_pager *pager, const struct space_range *range, uint64_t addr, uint64_t len, char *to)
{
	uint64_t whole, part;
	ssize_t n = uf_move(pager->session.uf, to, pointer(addr), len, UFFDIO_MOVE_MODE_DONTWAKE);

	/* Pages that a device reads into, or that cannot be moved at this moment, stay. */
	if (n <= 0)
		return 0;
	whole = (uint64_t)n & ~(range->unit - 1);
	part = (uint64_t)n - whole;
	if (part && move_rest(pager, range, addr + whole, part, to + whole))
		whole += range->unit;
	return whole;
}

/* Pages that were read in sequence will not be asked for again, as was said. */
static bool need_no_rest(const struct run *run)
{
	return !run->dirty &&
	       atomic_load_explicit(&source_of(&run->range)->advice, memory_order_relaxed) == UF_PAGER_SEQUENTIAL;
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
			gone = move_out(pager, range, victims->addr, len, to);
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
	empty_ring(to, length_of(run));
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

/* False: none could be, in a whole round of the hand. */
static bool take_out(struct uf_pager *pager)
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

/*
 * From there out of memory.
 */

static void give_back(void *arg, char *at, size_t len)
{
	(void)arg;
	empty_ring(at, len);
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
			if (slot->dirty && !add_piece(writing, &range, slot->addr, rest_at(rest, slot))) {
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
	empty_ring(rest_at(&pager->rest, slot), range->unit);
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
	write_pieces(pager, &writing);
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
		to = err ? err : slot->dirty ? SPACE_DIRTY : SPACE_CLEAN;
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

	return (resting <= pager->rest_target && take_out(pager)) || retire(pager);
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

/*
 * Flush.
 */

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
		add_piece(&batch->writing, range, addr, to);
		stays = stays && !uf_writeprotect(uf, pointer(addr), range->unit, 0);
	}
	session_release(&pager->session, state, err || stays ? SPACE_DIRTY : SPACE_CLEAN, 0, 0);
	return err;
}

/* -EAGAIN: it has just gone back, and may be dirty there. */
static int copy_resting(struct uf_pager *pager, const struct space_range *range, uint64_t addr, struct batch *batch)
{
	struct rest_slot *slot;
	char *to = pager->copies + batch->copied;

	lock_take(&pager->rest.lock);
	slot = rest_find(&pager->rest, addr);
	if (slot && slot->dirty) {
		memcpy(to, rest_at(&pager->rest, slot), range->unit);
		slot->dirty = false;
		batch->copied += range->unit;
		add_piece(&batch->writing, range, addr, to);
	}
	lock_release(&pager->rest.lock);
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
		err = write_pieces(pager, &batch->writing);
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
