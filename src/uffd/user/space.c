// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rawsys.h"
#include "uffd/user/space.h"
#include "uffd/user/window.h"

/* One mapping of page states, shared by the ranges that a registration was cut into since. */
struct page_block {
	size_t size;
	size_t ranges;
	uint8_t pages[];
};

struct slot {
	struct user_range range;
	struct page_block *block;
};

static struct {
	struct lock lock;
	struct slot *slots; /* sorted and disjoint; a mapping of its own, since the heap may be registered */
	size_t count, capacity;
	/* Where ranges lie, for a look without the lock: the truth when the lock was released last. Relaxed: a hint. */
	_Atomic uint64_t low, high;
	bool inherited; /* a holder of the lock was killed once */
	bool use_mprotect;
} space;

/*
 * Changes of the list. A task may be killed in the middle of one, so it is written down first, and then carried out in steps each of which may
 * be done twice: a slot goes out, one comes in, one is replaced. Whoever takes the lock over goes on where it was left.
 */
enum phase { AT_REST, TAKE_OUT, PUT_IN, FINISH };

static struct {
	enum phase phase, then; /* after TAKE_OUT */
	size_t out, in,
		room; /* the slot that goes, or has gone so far; where the new one belongs, and where there is room for it now */
	size_t count; /* of slots, before and after */
	size_t new_count;
	struct slot slot; /* that comes in */
	bool replaces;    /* slots[replaced] becomes `other`, and its block belongs to so many ranges */
	size_t replaced, ranges;
	struct slot other;
} edit;

/* What a task did before it was killed is there; only the compiler could have done it in another order. */
static inline void in_order(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

static void enter(enum phase phase)
{
	in_order();
	edit.phase = phase;
	in_order();
}

static void carry_on(void)
{
	if (edit.phase == TAKE_OUT) {
		while (edit.out + 1 < edit.count) {
			space.slots[edit.out] = space.slots[edit.out + 1];
			in_order();
			edit.out++;
			in_order();
		}
		enter(edit.then);
	}
	if (edit.phase == PUT_IN) {
		while (edit.room > edit.in) {
			space.slots[edit.room] = space.slots[edit.room - 1];
			in_order();
			edit.room--;
			in_order();
		}
		space.slots[edit.in] = edit.slot;
		enter(FINISH);
	}
	if (edit.phase == FINISH) {
		if (edit.replaces) {
			space.slots[edit.replaced] = edit.other;
			edit.other.block->ranges = edit.ranges;
		}
		space.count = edit.new_count;
		enter(AT_REST);
	}
}

/* Of the pages of a range that are being hidden. */
static void finish_hiding(struct user_range *range)
{
	const struct user_memory *memory = &range->memory;

	for (uint64_t page = memory->start; page < memory->end; page += memory->page_size) {
		uint8_t *state = user_page_state(range, page);

		if (*state & USER_PAGE_HIDING && !user_memory_hide(memory, page, page + memory->page_size))
			*state &= (uint8_t)~USER_PAGE_HIDING;
	}
}

static void inherit(void)
{
	carry_on();
	space.inherited = true;
	user_window_close(0, UINT64_MAX);
	for (size_t i = 0; i < space.count; i++)
		finish_hiding(&space.slots[i].range);
}

void user_space_lock_in_trap(void)
{
	if (lock_take(&space.lock))
		inherit();
}

static void note_extent(void)
{
	uint64_t low = space.count ? space.slots[0].range.memory.start : UINT64_MAX;
	uint64_t high = space.count ? space.slots[space.count - 1].range.memory.end : 0;

	if (atomic_load_explicit(&space.low, memory_order_relaxed) != low)
		atomic_store_explicit(&space.low, low, memory_order_relaxed);
	if (atomic_load_explicit(&space.high, memory_order_relaxed) != high)
		atomic_store_explicit(&space.high, high, memory_order_relaxed);
}

void user_space_unlock_in_trap(void)
{
	note_extent();
	lock_release(&space.lock);
}

void user_space_reset(void)
{
	atomic_store(&space.lock.word, 0);
}

uint32_t user_space_holder(void)
{
	return atomic_load_explicit(&space.lock.word, memory_order_relaxed) & ~LOCK_WAITED;
}

signal_mask user_space_lock(void)
{
	signal_mask before = block_signals();

	user_space_lock_in_trap();
	return before;
}

void user_space_unlock(signal_mask before)
{
	note_extent();
	lock_release(&space.lock);
	restore_signals(before);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The index of the first range that ends behind addr. */
static size_t index_of(uint64_t addr)
{
	size_t low = 0, high = space.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (space.slots[middle].range.memory.end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct user_range *user_space_at(uint64_t addr)
{
	size_t i = index_of(addr);

	return i < space.count && space.slots[i].range.memory.start <= addr ? &space.slots[i].range : NULL;
}

struct user_range *user_space_next(uint64_t addr)
{
	size_t i = index_of(addr);

	return i < space.count ? &space.slots[i].range : NULL;
}

bool user_space_in(uint64_t start, uint64_t end)
{
	const struct user_range *range = user_space_next(start);

	return range && range->memory.start < end;
}

static int reserve(size_t extra)
{
	size_t capacity = space.capacity ? space.capacity : 64;
	struct slot *slots, *old = space.slots;
	size_t old_capacity = space.capacity;

	while (capacity < space.count + extra)
		capacity *= 2;
	if (capacity == space.capacity)
		return 0;
	slots = raw_map_own(capacity * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	if (space.count)
		memcpy(slots, old, space.count * sizeof(*slots));
	space.slots = slots;
	space.capacity = capacity;
	raw_unmap(old, old_capacity * sizeof(*slots));
	return 0;
}

static void insert(size_t at, const struct slot *slot)
{
	edit.in = at;
	edit.room = space.count;
	edit.new_count = space.count + 1;
	edit.slot = *slot;
	edit.replaces = false;
	enter(PUT_IN);
	carry_on();
}

static void take_out(size_t at)
{
	edit.out = at;
	edit.count = space.count;
	edit.new_count = space.count - 1;
	edit.replaces = false;
	edit.then = FINISH;
	enter(TAKE_OUT);
	carry_on();
}

/* Cuts the range that holds addr in two there; both keep the states of their pages. There is room for one more. */
static void cut(uint64_t addr)
{
	size_t at = index_of(addr);
	struct slot head, tail;
	uint64_t offset;

	if (at == space.count || space.slots[at].range.memory.start >= addr)
		return;
	head = tail = space.slots[at];
	offset = addr - head.range.memory.start;
	head.range.memory.end = addr;
	tail.range.memory.start = addr;
	tail.range.pages += offset / tail.range.memory.page_size;
	if (tail.range.memory.alias)
		tail.range.memory.alias += offset;
	edit.in = at + 1;
	edit.room = space.count;
	edit.new_count = space.count + 1;
	edit.slot = tail;
	edit.replaces = true;
	edit.replaced = at;
	edit.other = head;
	edit.ranges = head.block->ranges + 1;
	enter(PUT_IN);
	carry_on();
}

/* Takes a range out of the space; what it describes has been made ordinary. */
static void drop(size_t at)
{
	struct slot slot = space.slots[at];

	take_out(at);
	user_memory_dispose(&slot.range.memory);
	if (--slot.block->ranges == 0)
		raw_unmap(slot.block, slot.block->size);
}

/*
 * Registering.
 */

/* Hides what the modes want hidden, of pages of a range that are all shown. */
static int arm(struct user_range *range, uint64_t start, uint64_t end)
{
	uint8_t *states = user_page_state(range, start);
	size_t pages = (end - start) / range->memory.page_size;
	int err = 0;

	if (range->mode & UFFDIO_REGISTER_MODE_MINOR) {
		err = user_memory_hide(&range->memory, start, end);
		if (!err)
			memset(states, USER_PAGE_HIDDEN, pages);
	} else if (range->mode & UFFDIO_REGISTER_MODE_MISSING) {
		/* Written as 1 for present, 0 for missing. */
		err = user_memory_arm(&range->memory, start, end, states);
		for (size_t i = 0; i < pages; i++)
			states[i] = err || states[i] ? 0 : USER_PAGE_HIDDEN;
	}
	return err;
}

static int add_piece(struct user_object *object, struct user_memory *memory, uint64_t mode)
{
	size_t pages = (memory->end - memory->start) / memory->page_size;
	struct slot slot = {.range = {.memory = *memory, .object = object, .mode = mode}};
	size_t size = sizeof(struct page_block) + pages;
	int err = reserve(1);

	if (err)
		return err;
	slot.block = raw_map_own(size);
	if (!slot.block)
		return -ENOMEM;
	*slot.block = (struct page_block){.size = size, .ranges = 1};
	slot.range.pages = slot.block->pages;
	err = user_memory_prepare(&slot.range.memory);
	if (!err)
		err = arm(&slot.range, memory->start, memory->end);
	if (err) {
		user_memory_dispose(&slot.range.memory);
		raw_unmap(slot.block, size);
		return err;
	}
	insert(index_of(memory->start), &slot);
	return 0;
}

#define PIECES 64

/* What lies in the parts of [start, end) that are not registered yet, piece by piece. */
static int add_missing_parts(struct user_object *object, uint64_t start, uint64_t end, uint64_t mode, bool protect_only)
{
	while (start < end) {
		struct user_memory pieces[PIECES];
		size_t at = index_of(start);
		bool inside = at < space.count && space.slots[at].range.memory.start <= start;
		uint64_t stop = end;
		int count;

		if (inside) {
			start = space.slots[at].range.memory.end;
			continue;
		}
		if (at < space.count)
			stop = min_u64(end, space.slots[at].range.memory.start);
		count = user_memory_inspect(start, stop, protect_only, pieces, PIECES);
		if (count < 0)
			return count;
		for (int i = 0; i < count; i++) {
			int err = add_piece(object, &pieces[i], mode);

			if (err)
				return err;
		}
		start = stop;
	}
	return 0;
}

/* Other modes replace the old ones; a part of the old ones changes nothing, as the kernel has it. What is poisoned stays so. */
static int change_mode(struct user_range *range, struct user_object *object, uint64_t mode)
{
	uint64_t old = range->mode, hiding = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
	const struct user_memory *memory = &range->memory;
	int err = 0;

	range->object = object;
	if ((old & mode) == mode)
		return 0;
	range->mode = mode;
	if (!(mode & hiding) || (old & hiding))
		return 0;
	for (uint64_t page = memory->start, until; !err && page < memory->end; page = until) {
		uint8_t poisoned = *user_page_state(range, page) & USER_PAGE_POISONED;

		for (until = page;
		     until < memory->end && (*user_page_state(range, until) & USER_PAGE_POISONED) == poisoned;)
			until += memory->page_size;
		if (!poisoned)
			err = arm(range, page, until);
	}
	return err;
}

/* What can be said before anything is changed. */
static int check_register(struct user_object *object, uint64_t start, uint64_t end, uint64_t mode, bool protect_only)
{
	struct user_memory pieces[PIECES];
	int count = user_memory_inspect(start, end, protect_only, pieces, PIECES);

	if (count <= 0)
		return count ? count : -EINVAL;
	for (int i = 0; i < count; i++) {
		uint64_t page_mask = pieces[i].page_size - 1;

		if (((pieces[i].start | pieces[i].end) & page_mask) ||
		    /* Of a file of hugetlbfs the kernel does not tell which pages it has. */
		    ((mode & UFFDIO_REGISTER_MODE_MINOR) && pieces[i].type != UF_MEMORY_SHMEM))
			return -EINVAL;
	}
	for (size_t i = index_of(start); i < space.count && space.slots[i].range.memory.start < end; i++)
		if (space.slots[i].range.object && space.slots[i].range.object != object)
			return -EBUSY;
	return 0;
}

void user_space_use_mprotect(void)
{
	space.use_mprotect = true;
}

int user_space_register(struct user_object *object, uint64_t start, uint64_t end, uint64_t mode, bool protect_only)
{
	int err;

	protect_only |= space.use_mprotect;
	err = check_register(object, start, end, mode, protect_only);

	if (!err)
		err = reserve(2);
	if (err)
		return err;
	user_window_close(start, end);
	cut(start);
	cut(end);
	for (size_t i = index_of(start); !err && i < space.count && space.slots[i].range.memory.start < end; i++)
		err = change_mode(&space.slots[i].range, object, mode);
	return err ? err : add_missing_parts(object, start, end, mode, protect_only);
}

/* Shows what is not poisoned, writable: what was missing becomes fresh memory at its first touch. True: nothing is poisoned. */
static bool disarm(struct user_range *range)
{
	const struct user_memory *memory = &range->memory;
	bool clean = true;

	for (uint64_t page = memory->start, until; page < memory->end; page = until) {
		uint8_t poisoned = *user_page_state(range, page) & USER_PAGE_POISONED;

		for (until = page;
		     until < memory->end && (*user_page_state(range, until) & USER_PAGE_POISONED) == poisoned;)
			until += memory->page_size;
		if (poisoned) {
			clean = false;
			continue;
		}
		user_memory_show(memory, page, until - page, true);
		user_memory_protect(memory, page, until - page, true);
		memset(user_page_state(range, page), 0, (until - page) / memory->page_size);
	}
	return clean;
}

static _Atomic bool released;

bool user_space_has_released(void)
{
	return atomic_load(&released);
}

/* False: it stays, as nobody's. */
static bool release(size_t at)
{
	struct user_range *range = &space.slots[at].range;

	/* Before the pages can be accessed, and so before whoever trapped on one can find that they can. */
	atomic_store(&released, true);
	user_window_close(range->memory.start, range->memory.end);
	if (disarm(range)) {
		drop(at);
		return true;
	}
	range->object = NULL;
	range->mode = 0;
	return false;
}

void user_space_release(struct user_range *range)
{
	release(index_of(range->memory.start));
}

int user_space_unregister(struct user_object *object, uint64_t start, uint64_t end)
{
	size_t at;

	for (at = index_of(start); at < space.count && space.slots[at].range.memory.start < end; at++)
		if (space.slots[at].range.object && space.slots[at].range.object != object)
			return -EINVAL;
	if (reserve(2))
		return -ENOMEM;
	user_window_close(start, end);
	cut(start);
	cut(end);
	at = index_of(start);
	while (at < space.count && space.slots[at].range.memory.start < end)
		if (!release(at))
			at++;
	return 0;
}

void user_space_forget(struct user_object *object)
{
	for (size_t at = space.count; at-- > 0;) {
		if (space.slots[at].range.object == object)
			release(at);
	}
}

/*
 * Single pages.
 */

int user_space_hide(struct user_range *range, uint64_t start, uint64_t end)
{
	uint8_t *states = user_page_state(range, start);
	size_t pages = (end - start) / range->memory.page_size;
	int err;

	user_window_close(start, end);
	for (size_t i = 0; i < pages; i++)
		if (!(states[i] & USER_PAGE_HIDDEN))
			states[i] |= USER_PAGE_HIDDEN | USER_PAGE_HIDING;
	in_order();
	err = user_memory_hide(&range->memory, start, end);
	for (size_t i = 0; i < pages; i++) {
		if (err && states[i] & USER_PAGE_HIDING)
			states[i] &= (uint8_t)~USER_PAGE_HIDDEN;
		states[i] &= (uint8_t) ~(err ? USER_PAGE_HIDING : USER_PAGE_HIDING | USER_PAGE_READY);
	}
	return err;
}

void user_space_mend(struct user_range *range, uint64_t addr)
{
	const struct user_memory *memory = &range->memory;
	uint64_t page = addr & ~(uint64_t)(memory->page_size - 1);
	uint8_t state = *user_page_state(range, page);

	if (!space.inherited || (state & USER_PAGE_HIDDEN))
		return;
	user_memory_show(memory, page, memory->page_size, !(state & USER_PAGE_PROTECTED));
	user_memory_protect(memory, page, memory->page_size, !(state & USER_PAGE_PROTECTED));
}

/*
 * Changes of layout.
 */

bool user_space_reaches(uint64_t start, uint64_t end)
{
	uint32_t holder;

	if (start >= atomic_load_explicit(&space.high, memory_order_relaxed) ||
	    end <= atomic_load_explicit(&space.low, memory_order_relaxed))
		return false;
	holder = user_space_holder();
	return !holder || holder != (uint32_t)raw_gettid();
}

int user_space_each(uint64_t start, uint64_t end, int (*visit)(struct user_range *range, void *arg), void *arg)
{
	int result = 0;

	/* What is visited in order to be changed must be hidden in one way only. */
	user_window_close(start, end);
	for (size_t i = index_of(start); !result && i < space.count && space.slots[i].range.memory.start < end; i++)
		result = visit(&space.slots[i].range, arg);
	return result;
}

int user_space_split(uint64_t start, uint64_t end)
{
	if (reserve(4))
		return -ENOMEM;
	user_window_close(start, end);
	cut(start);
	cut(end);
	return 0;
}

void user_space_drop(uint64_t start, uint64_t end)
{
	size_t at = index_of(start);

	while (at < space.count && space.slots[at].range.memory.start < end)
		drop(at);
}

/* Where a range belongs that begins at addr, when the slot `out` has gone. */
static size_t place_without(size_t out, uint64_t addr)
{
	size_t at = index_of(addr);

	return at > out ? at - 1 : at;
}

void user_space_move(uint64_t from, size_t len, uint64_t to)
{
	size_t at;

	while ((at = index_of(from)) < space.count && space.slots[at].range.memory.start < from + len) {
		struct slot slot = space.slots[at];

		slot.range.memory.start = slot.range.memory.start - from + to;
		slot.range.memory.end = slot.range.memory.end - from + to;
		edit.out = at;
		edit.count = edit.new_count = space.count;
		edit.in = place_without(at, slot.range.memory.start);
		edit.room = space.count - 1;
		edit.slot = slot;
		edit.replaces = false;
		edit.then = PUT_IN;
		enter(TAKE_OUT);
		carry_on();
	}
}

int user_space_repeat(const struct user_range *range, uint64_t start)
{
	struct user_memory memory = range->memory;
	struct user_range *twin;
	int err;

	memory.start = start;
	memory.end = start + (range->memory.end - range->memory.start);
	memory.alias = NULL;
	/* Hidden before it is known, and by modes that ask for nothing to be found present. */
	err = user_memory_hide(&memory, memory.start, memory.end);
	if (!err)
		err = add_piece(range->object, &memory, UFFDIO_REGISTER_MODE_WP);
	if (err)
		return err;
	twin = user_space_at(start);
	twin->mode = range->mode;
	memset(twin->pages, USER_PAGE_HIDDEN, (memory.end - memory.start) / memory.page_size);
	return 0;
}
