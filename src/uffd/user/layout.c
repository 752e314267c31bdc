// SPDX-License-Identifier: MIT
/*
 * Every change goes through the same steps: take the lock; note what is registered there, and whose event it is; change; bring the
 * space in step; release the lock; deliver the events. Signals are blocked until the events are read, as the kernel's waits for it
 * can only be ended by death: a signal handler that never returned would leave an object waiting for ever.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/rawsys.h"
#include "uffd/user/event.h"
#include "uffd/user/layout.h"
#include "uffd/user/object.h"

static uint64_t page_down(uint64_t address)
{
	return address & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
}

static uint64_t page_up(uint64_t address)
{
	return page_down(address + (uint64_t)sysconf(_SC_PAGESIZE) - 1);
}

/* [start, start + len) in whole pages, as the kernel takes it. False: it will refuse it, or there is nothing in it. */
static bool whole_pages(uint64_t start, size_t len, uint64_t *end)
{
	*end = start + page_up(len);
	return start == page_down(start) && page_up(len) >= len && *end > start;
}

/* Whether something is registered in [start, start + len). May be out of date when it returns. */
static bool concerns(uint64_t start, size_t len)
{
	signal_mask before;
	bool in;

	if (!len || start + len < start || !user_space_reaches(start, start + len))
		return false;
	before = user_space_lock();
	in = user_space_in(start, start + len);
	user_space_unlock(before);
	return in;
}

/*
 * Memory that goes away.
 */

static int note_unmap(struct user_range *range, void *arg)
{
	struct uffd_msg msg = {
		.event = UFFD_EVENT_UNMAP,
		.arg.remove = {.start = range->memory.start, .end = range->memory.end},
	};

	return user_events_note(arg, range->object, UFFD_FEATURE_EVENT_UNMAP, &msg);
}

/* Before [start, end) goes: cuts what reaches out of it, and notes whom to tell. */
static int prepare_unmap(uint64_t start, uint64_t end, struct user_events *events)
{
	int err = user_space_split(start, end);

	return err ? err : user_space_each(start, end, note_unmap, events);
}

int user_layout_munmap(uint64_t addr, size_t len)
{
	struct user_events events = {0};
	signal_mask before;
	uint64_t end;
	int err;

	if (!whole_pages(addr, len, &end) || !user_space_reaches(addr, end))
		return raw_munmap(addr, len);
	before = user_space_lock();
	err = prepare_unmap(addr, end, &events);
	if (!err)
		err = raw_munmap(addr, len);
	if (!err)
		user_space_drop(addr, end);
	else
		user_events_drop(&events);
	user_events_deliver(&events);
	restore_signals(before);
	return err;
}

long user_layout_mmap(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset)
{
	struct user_events events = {0};
	signal_mask before;
	uint64_t end;
	long at;
	int err;

	if (!(flags & MAP_FIXED) || !whole_pages(addr, len, &end) || !user_space_reaches(addr, end)) {
		at = raw_mmap(addr, len, prot, flags, fd, offset);
		/* Fresh memory where something is registered: that must have been unmapped unseen. */
		if (!raw_failed(at) && user_space_reaches((uint64_t)at, (uint64_t)at + page_up(len))) {
			before = user_space_lock();
			if (!user_space_split((uint64_t)at, (uint64_t)at + page_up(len)))
				user_space_drop((uint64_t)at, (uint64_t)at + page_up(len));
			user_space_unlock(before);
		}
		return at;
	}
	before = user_space_lock();
	err = prepare_unmap(addr, end, &events);
	at = err ? err : raw_mmap(addr, len, prot, flags, fd, offset);
	if (at == (long)addr)
		user_space_drop(addr, end);
	else
		user_events_drop(&events);
	user_events_deliver(&events);
	restore_signals(before);
	return at;
}

int user_layout_shmdt(uint64_t addr)
{
	signal_mask before = user_space_lock();
	int err = (int)raw_syscall3(SYS_shmdt, (long)addr, 0, 0);
	struct user_range *range;

	/* The kernel does not tell how long it was: what is registered from there on and is not mapped any more. */
	while (!err && (range = user_space_at(addr))) {
		struct user_memory piece;

		if (user_memory_inspect(range->memory.start, range->memory.end, true, &piece, 1) != 0)
			break;
		addr = range->memory.end;
		user_space_drop(range->memory.start, addr);
	}
	user_space_unlock(before);
	return err;
}

/*
 * Protection.
 */

/* The states of pages that are mapped alike. */
static uint8_t look(const struct user_range *range, uint64_t page)
{
	uint8_t state = *user_page_state(range, page);

	return state & USER_PAGE_HIDDEN ? USER_PAGE_HIDDEN : state & USER_PAGE_PROTECTED;
}

/* Gives the pages the protection that their states ask for, whatever they have now. */
static int settle(struct user_range *range, void *pkey)
{
	const struct user_memory *memory = &range->memory;

	for (uint64_t page = memory->start, until; page < memory->end; page = until) {
		uint8_t state = look(range, page);
		int prot = memory->prot, err;

		for (until = page + memory->page_size; until < memory->end && look(range, until) == state;)
			until += memory->page_size;
		if (state == USER_PAGE_HIDDEN && memory->trap == USER_TRAP_PROTECT)
			prot = PROT_NONE;
		else if (state == USER_PAGE_PROTECTED && (prot & PROT_WRITE))
			prot = (prot & ~PROT_WRITE) | PROT_READ;
		if (pkey)
			err = (int)raw_syscall6(SYS_pkey_mprotect, (long)page, (long)(until - page), prot, *(int *)pkey,
			                        0, 0);
		else
			err = raw_mprotect(page, until - page, prot);
		if (err)
			return err;
	}
	return 0;
}

struct protection {
	int prot;
	int *pkey;
};

static int change_protection(struct user_range *range, const struct protection *want)
{
	int old = range->memory.prot, err;

	range->memory.prot = want->prot;
	err = settle(range, want->pkey);
	if (err) {
		range->memory.prot = old;
		settle(range, NULL);
	}
	return err;
}

/* What the program asked for, of memory that is not registered. */
static int protect_plain(uint64_t start, size_t len, const struct protection *want)
{
	if (want->pkey)
		return (int)raw_syscall6(SYS_pkey_mprotect, (long)start, (long)len, want->prot, *want->pkey, 0, 0);
	return raw_mprotect(start, len, want->prot);
}

int user_layout_mprotect(uint64_t addr, size_t len, int prot, int pkey)
{
	struct protection want = {prot, pkey == -1 ? NULL : &pkey};
	signal_mask before;
	uint64_t end, at = addr;
	int err;

	/* With PROT_GROWSDOWN and its like the range is not what it says: not for registered memory. */
	if (!whole_pages(addr, len, &end) || (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) ||
	    !user_space_reaches(addr, end))
		return protect_plain(addr, len, &want);
	before = user_space_lock();
	err = user_space_split(addr, end);
	/* In rising order, as the kernel does it: what comes before an error is changed. */
	while (!err && at < end) {
		struct user_range *range = user_space_next(at);
		uint64_t stop = range && range->memory.start < end ? range->memory.start : end;

		err = at < stop ? protect_plain(at, stop - at, &want) : 0;
		at = stop;
		if (!err && at < end) {
			err = change_protection(range, &want);
			at = range->memory.end;
		}
	}
	user_space_unlock(before);
	return err;
}

/*
 * Content that goes.
 */

/* Of one call: what is removed, and whom to tell. */
struct removal {
	uint64_t start, end;
	struct user_events events;
};

/* The part of a range that a call is about. */
static uint64_t start_in(const struct user_range *range, uint64_t start)
{
	return range->memory.start > start ? range->memory.start : start;
}

static uint64_t end_in(const struct user_range *range, uint64_t end)
{
	return range->memory.end < end ? range->memory.end : end;
}

static int note_remove(struct user_range *range, void *arg)
{
	struct removal *removal = arg;
	struct uffd_msg msg = {
		.event = UFFD_EVENT_REMOVE,
		.arg.remove = {.start = start_in(range, removal->start), .end = end_in(range, removal->end)},
	};

	return user_events_note(&removal->events, range->object, UFFD_FEATURE_EVENT_REMOVE, &msg);
}

static void set_all(struct user_range *range, uint64_t start, uint64_t end, uint8_t state)
{
	memset(user_page_state(range, start), state, (end - start) / range->memory.page_size);
}

/* Private: the pages are gone, and with them their protection and what else was marked. */
static int empty_private(struct user_range *range, uint64_t start, uint64_t end)
{
	bool missing = range->mode & UFFDIO_REGISTER_MODE_MISSING;
	int err = user_space_hide(range, start, end);

	if (err)
		return err;
	set_all(range, start, end, USER_PAGE_HIDDEN);
	if (missing)
		return 0;
	set_all(range, start, end, 0);
	err = user_memory_show(&range->memory, start, end - start, true);
	if (err)
		set_all(range, start, end, USER_PAGE_HIDDEN);
	return err;
}

/* Shared: the file keeps the pages, so only who waits for minor faults sees a difference. Protection stays. */
static int empty_shared(struct user_range *range, uint64_t start, uint64_t end)
{
	const struct user_memory *memory = &range->memory;
	int err = 0;

	for (uint64_t page = start; !err && page < end; page += memory->page_size)
		if ((range->mode & UFFDIO_REGISTER_MODE_MINOR) && !(*user_page_state(range, page) & USER_PAGE_HIDDEN))
			err = user_space_hide(range, page, page + memory->page_size);
	return err;
}

/* The file loses the pages. Hidden first, so that nobody sees the hole; and again, since the hole may take guards with it. */
static int punch(struct user_range *range, uint64_t start, uint64_t end)
{
	bool hides = range->mode & (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
	int err;

	if (!range->memory.shared)
		return raw_madvise(start, end - start, MADV_REMOVE);
	err = hides ? user_space_hide(range, start, end) : 0;
	if (!err)
		err = raw_madvise(start, end - start, MADV_REMOVE);
	if (!err && hides)
		err = user_space_hide(range, start, end);
	return err;
}

static int empty_part(struct user_range *range, uint64_t start, uint64_t end, int advice)
{
	if (advice == MADV_REMOVE)
		return punch(range, start, end);
	if (range->memory.shared)
		return empty_shared(range, start, end);
	/* Freed one day, or at once: nobody can rely on either. */
	return empty_private(range, start, end);
}

/* Pages of huge pages go whole or not at all, as the kernel has it. */
static bool is_whole(const struct user_range *range, uint64_t start, uint64_t end)
{
	return !((start | end) & (range->memory.page_size - 1));
}

/* Of memory that nobody tracks: what was poisoned in it is gone. */
static int forget_part(uint64_t start, uint64_t end)
{
	int err = user_space_split(start, end);
	struct user_range *range = err ? NULL : user_space_at(start);

	if (range)
		user_space_release(range);
	return err;
}

/* Parts that are not mapped are told of at the end; the rest is done. */
static int empty(uint64_t at, uint64_t end, int advice)
{
	int hole = 0, err = 0;

	while (!err && at < end) {
		struct user_range *range = user_space_next(at);
		uint64_t stop = range && range->memory.start < end ? start_in(range, at) : end;

		if (at < stop)
			err = raw_madvise(at, stop - at, advice);
		if (err == -ENOMEM) {
			hole = err;
			err = 0;
		}
		at = stop;
		if (!err && at < end) {
			stop = end_in(range, end);
			err = is_whole(range, at, stop) ? empty_part(range, at, stop, advice) : -EINVAL;
			if (!err && !range->object)
				err = forget_part(at, stop);
			at = stop;
		}
	}
	return err ? err : hole;
}

static int empty_with_events(uint64_t start, uint64_t end, int advice)
{
	struct removal removal = {.start = start, .end = end};
	signal_mask before = user_space_lock();
	int err = user_space_each(start, end, note_remove, &removal);

	if (err)
		user_events_drop(&removal.events);
	/* Waits with the lock released: what is registered may be something else after it. */
	user_events_deliver(&removal.events);
	if (!err) {
		user_space_lock_in_trap();
		err = empty(start, end, advice);
		user_space_unlock_in_trap();
	}
	restore_signals(before);
	return err;
}

int user_layout_madvise(uint64_t addr, size_t len, int advice)
{
	uint64_t end;

	if (!whole_pages(addr, len, &end) || !user_space_reaches(addr, end))
		return raw_madvise(addr, len, advice);
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_REMOVE:
	case MADV_DONTNEED_LOCKED:
		return concerns(addr, len) ? empty_with_events(addr, end, advice) : raw_madvise(addr, len, advice);
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		user_layout_present(addr, len, advice == MADV_POPULATE_WRITE);
		return raw_madvise(addr, len, advice);
	case MADV_GUARD_INSTALL:
	case MADV_GUARD_REMOVE:
		/* Guards are how pages are hidden here. */
		return concerns(addr, len) ? -EINVAL : raw_madvise(addr, len, advice);
	default:
		return raw_madvise(addr, len, advice);
	}
}

/*
 * Memory that moves.
 */

struct move {
	uint64_t from, to;
	size_t len, new_len; /* len: what is left of the old length; in whole pages */
	int flags;
	struct user_events events;
};

static bool follows(const struct user_range *range)
{
	return range->object && (atomic_load(&range->object->features) & UFFD_FEATURE_EVENT_REMAP);
}

static int note_remap(struct user_range *range, void *arg)
{
	struct move *move = arg;
	struct uffd_msg msg = {
		.event = UFFD_EVENT_REMAP,
		.arg.remap = {.from = move->from, .to = move->to, .len = move->len},
	};

	/* Once for an object, however many ranges it has there. */
	if (user_events_has(&move->events, range->object, UFFD_EVENT_REMAP))
		return 0;
	return user_events_note(&move->events, range->object, UFFD_FEATURE_EVENT_REMAP, &msg);
}

/* Whether all is mapped alike: the kernel moves one mapping, and protected pages are mappings of their own. */
static int is_uneven(struct user_range *range, void *arg)
{
	(void)arg;
	for (uint64_t page = range->memory.start; page < range->memory.end; page += range->memory.page_size) {
		uint8_t state = look(range, page);

		if (state == USER_PAGE_PROTECTED || (state && range->memory.trap == USER_TRAP_PROTECT))
			return 1;
	}
	return 0;
}

static int make_even(struct user_range *range, void *arg)
{
	(void)arg;
	return raw_mprotect(range->memory.start, range->memory.end - range->memory.start, PROT_NONE);
}

static int settle_one(struct user_range *range, void *arg)
{
	(void)arg;
	settle(range, NULL);
	return 0;
}

/* After the move, of ranges that lie at the new place already. */
static int arrive(struct move *move)
{
	uint64_t at = move->to, end = move->to + move->len;
	int err = 0;

	while (!err && at < end) {
		struct user_range *range = user_space_next(at);

		if (!range || range->memory.start >= end)
			break;
		at = range->memory.end;
		/* The old place stays mapped, and tracked, and empty. */
		if (move->flags & MREMAP_DONTUNMAP)
			err = user_space_repeat(range, range->memory.start - move->to + move->from);
		range = user_space_at(at - 1);
		/* At its new place memory that nobody follows is ordinary. */
		if (!follows(range) && move->to != move->from)
			user_space_release(range);
		else
			settle(range, NULL);
	}
	return err;
}

/* What the memory has grown by belongs to whoever has its last page. */
static int grow(struct move *move)
{
	struct user_range *last = user_space_at(move->to + move->len - 1);

	if (!last || move->new_len <= move->len)
		return 0;
	return user_space_register(last->object, move->to + move->len, move->to + move->new_len, last->mode,
	                           last->memory.trap == USER_TRAP_PROTECT);
}

/* Notes the events in the kernel's order: what goes at the destination, the move, what goes at the old place. */
static int note_move(struct move *move, uint64_t old_end)
{
	bool moves = move->to != move->from;
	int err = 0;

	if (moves)
		err = user_space_each(move->from, move->from + move->len, note_remap, move);
	if (!err && moves && !(move->flags & MREMAP_DONTUNMAP))
		err = user_space_each(move->from, old_end, note_unmap, &move->events);
	else if (!err)
		err = user_space_each(move->from + move->len, old_end, note_unmap, &move->events);
	return err;
}

static long move_pages(struct move *move, size_t old_len, uint64_t new_addr)
{
	uint64_t old_end = move->from + old_len;
	/* What stays behind must not be seen empty before it is hidden. */
	int uneven = (move->flags & MREMAP_DONTUNMAP) || user_space_each(move->from, old_end, is_uneven, NULL);
	int err = 0;
	long at;

	if (uneven)
		err = user_space_each(move->from, old_end, make_even, NULL);
	at = err ? err
	         : raw_syscall6(SYS_mremap, (long)move->from, (long)old_len, (long)move->new_len, move->flags,
	                        (long)new_addr, 0);
	if (raw_failed(at)) {
		if (uneven)
			user_space_each(move->from, old_end, settle_one, NULL);
		return at;
	}
	move->to = (uint64_t)at;
	return at;
}

static long remap(struct move *move, size_t old_len, uint64_t new_addr)
{
	uint64_t old_end = move->from + old_len, new_end = new_addr + move->new_len;
	bool fixed = move->flags & MREMAP_FIXED;
	long at;
	int err = user_space_split(move->from, move->from + move->len);

	if (!err)
		err = user_space_split(move->from, old_end);
	if (!err && fixed)
		err = prepare_unmap(new_addr, new_end, &move->events);
	if (err)
		return err;
	at = move_pages(move, old_len, new_addr);
	if (raw_failed(at))
		return at;
	if (fixed)
		user_space_drop(new_addr, new_end);
	/* Best effort from here on: the memory has moved. */
	note_move(move, old_end);
	user_space_drop(move->from + move->len, old_end);
	if (move->to != move->from)
		user_space_move(move->from, move->len, move->to);
	grow(move);
	arrive(move);
	return at;
}

/* A length of 0 makes a second mapping of shared memory: nobody has registered it, so nothing of it is hidden. */
static long map_twice(uint64_t addr, size_t size, int flags, uint64_t new_addr)
{
	signal_mask before = user_space_lock();
	const struct user_range *range = user_space_at(addr);
	long at = raw_syscall6(SYS_mremap, (long)addr, 0, (long)size, flags, (long)new_addr, 0);

	if (range && !raw_failed(at))
		raw_mprotect((uint64_t)at, size, range->memory.prot);
	user_space_unlock(before);
	return at;
}

long user_layout_mremap(uint64_t addr, size_t old_len, size_t new_len, int flags, uint64_t new_addr)
{
	size_t old_size = page_up(old_len), new_size = page_up(new_len);
	struct move move = {
		.from = addr,
		.len = old_size < new_size ? old_size : new_size,
		.new_len = new_size,
		.flags = flags,
	};
	signal_mask before;
	uint64_t end;
	long at;

	if (!old_len && new_size && concerns(addr, 1))
		return map_twice(addr, new_size, flags, new_addr);
	if (!whole_pages(addr, old_len, &end) || !new_len ||
	    !(user_space_reaches(addr, end) ||
	      ((flags & MREMAP_FIXED) && user_space_reaches(new_addr, new_addr + new_size))))
		return raw_syscall6(SYS_mremap, (long)addr, (long)old_len, (long)new_len, flags, (long)new_addr, 0);
	before = user_space_lock();
	at = remap(&move, old_size, new_addr);
	if (raw_failed(at))
		user_events_drop(&move.events);
	user_events_deliver(&move.events);
	restore_signals(before);
	return at;
}

/*
 * Memory that has to be there.
 */

/* Whether the kernel's own touch of a page of this object would be a fault of it: not with user-mode-only, nor with SIGBUS. */
static bool serves_kernel(const struct user_object *object)
{
	return object && !object->user_mode_only && !(atomic_load(&object->features) & UFFD_FEATURE_SIGBUS);
}

/* Whether a page would trap, and whether a touch can help. */
static bool traps(const struct user_range *range, uint64_t page, bool write, bool *hopeless)
{
	uint8_t state = *user_page_state(range, page);

	if (!(state & USER_PAGE_HIDDEN) && !(write && (state & USER_PAGE_PROTECTED)))
		return false;
	*hopeless = (state & USER_PAGE_POISONED) || !serves_kernel(range->object) ||
	            !(range->memory.prot & (write ? PROT_WRITE : PROT_READ | PROT_WRITE));
	return true;
}

/* The first page of [start, end) that would trap, or `end`. */
static uint64_t first_trap(uint64_t start, uint64_t end, bool write, bool *hopeless)
{
	signal_mask before = user_space_lock();
	uint64_t found = end;

	while (start < end && found == end) {
		const struct user_range *range = user_space_next(start);

		if (!range || range->memory.start >= end)
			break;
		if (range->memory.start > start)
			start = range->memory.start;
		for (; start < range->memory.end && start < end && found == end; start += range->memory.page_size)
			if (traps(range, start, write, hopeless))
				found = start;
	}
	user_space_unlock(before);
	return found;
}

/* As the system call would: a read, or a write that changes nothing. */
static void touch(uint64_t address, bool write)
{
	if (write)
		atomic_fetch_or((_Atomic uint8_t *)address, 0);
	else
		(void)*(const volatile uint8_t *)address;
}

size_t user_layout_present(uint64_t addr, size_t len, bool write)
{
	uint64_t end = addr + len;
	bool hopeless = false;
	size_t touched = 0;

	if (!len || end < addr || !user_space_reaches(addr, end))
		return 0;
	while ((addr = first_trap(addr, end, write, &hopeless)) < end && !hopeless) {
		touch(addr, write);
		touched++;
		addr = page_down(addr) + (uint64_t)sysconf(_SC_PAGESIZE);
	}
	return touched;
}

/*
 * Memory that is locked: guards cannot be laid into it, so what is hidden there is hidden by protection from now on.
 */

static int hide_by_protection(struct user_range *range, void *arg)
{
	struct user_memory *memory = &range->memory;
	int err = 0;

	(void)arg;
	if (memory->trap == USER_TRAP_PROTECT)
		return 0;
	memory->trap = USER_TRAP_PROTECT;
	for (uint64_t page = memory->start, until; !err && page < memory->end; page = until) {
		bool hidden = look(range, page) == USER_PAGE_HIDDEN;

		for (until = page + memory->page_size;
		     until < memory->end && (look(range, until) == USER_PAGE_HIDDEN) == hidden;)
			until += memory->page_size;
		if (hidden)
			err = raw_mprotect(page, until - page, PROT_NONE);
		if (hidden && !err)
			err = raw_madvise(page, until - page, MADV_GUARD_REMOVE);
	}
	if (!err)
		return 0;
	memory->trap = USER_TRAP_GUARD;
	for (uint64_t page = memory->start; page < memory->end; page += memory->page_size)
		if (look(range, page) == USER_PAGE_HIDDEN)
			user_memory_hide(memory, page, page + memory->page_size);
	return err;
}

static int lock_memory(uint64_t start, uint64_t end, int nr, long a, long b, long c)
{
	signal_mask before;
	int err;

	user_layout_present(start, end - start, false);
	before = user_space_lock();
	err = user_space_split(start, end);
	if (!err)
		err = user_space_each(start, end, hide_by_protection, NULL);
	if (!err)
		err = (int)raw_syscall3(nr, a, b, c);
	user_space_unlock(before);
	return err;
}

int user_layout_mlock(uint64_t addr, size_t len, unsigned flags)
{
	uint64_t start = page_down(addr), end;

	if (!whole_pages(start, len + (addr - start), &end) || !user_space_reaches(start, end))
		return (int)raw_syscall3(SYS_mlock2, (long)addr, (long)len, (long)flags);
	return lock_memory(start, end, SYS_mlock2, (long)addr, (long)len, (long)flags);
}

int user_layout_mlockall(int flags)
{
	return lock_memory(0, UINT64_MAX, SYS_mlockall, flags, 0, 0);
}
