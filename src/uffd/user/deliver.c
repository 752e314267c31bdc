// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "uffd/user/deliver.h"
#include "uffd/user/scarce.h"
#include "uffd/user/window.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void set_states(struct user_range *range, uint64_t start, size_t len, uint8_t state)
{
	memset(user_page_state(range, start), state, len / range->memory.page_size);
}

/* Whether a page holds something: for memory that is shared, or not tracked for missing pages, only the kernel knows. */
static bool is_present(const struct user_range *range, uint64_t page, uint8_t state)
{
	uint8_t present = 0;

	if (!range->memory.shared) {
		if (state & USER_PAGE_HIDDEN)
			return state & USER_PAGE_READY;
		if (range->mode & UFFDIO_REGISTER_MODE_MISSING)
			return true;
	}
	return !user_memory_present(&range->memory, page, page + range->memory.page_size, &present) && present;
}

/*
 * What is shown has its new state before (space.h), and the old one again where that failed. All pages are alike.
 */

static void change_states(struct user_range *range, uint64_t start, size_t len, uint8_t state)
{
	atomic_signal_fence(memory_order_seq_cst);
	set_states(range, start, len, state);
	atomic_signal_fence(memory_order_seq_cst);
}

static int show_run(struct user_range *range, uint64_t start, size_t len, bool protect)
{
	uint8_t before = *user_page_state(range, start);
	bool open = user_window_take(range, start, len, false);
	int err;

	change_states(range, start, len, protect ? USER_PAGE_PROTECTED : 0);
	if (open)
		err = user_memory_publish(&range->memory, start, len, !protect);
	else
		err = user_memory_show(&range->memory, start, len, !protect);
	if (err)
		change_states(range, start, len, before);
	return err;
}

static int show(struct user_range *range, uint64_t page, bool protect)
{
	return show_run(range, page, range->memory.page_size, protect);
}

static int unprotect(struct user_range *range, uint64_t start, size_t len)
{
	int err;

	change_states(range, start, len, 0);
	err = user_memory_protect(&range->memory, start, len, true);
	if (err)
		change_states(range, start, len, USER_PAGE_PROTECTED);
	return err;
}

/*
 * Touches.
 */

static enum user_verdict judge_hidden(struct user_range *range, uint64_t page, uint8_t *state, bool write,
                                      uint64_t *flags)
{
	*flags = write ? UFFD_PAGEFAULT_FLAG_WRITE : 0;
	if (range->memory.shared && is_present(range, page, *state)) {
		if (range->mode & UFFDIO_REGISTER_MODE_MINOR) {
			*flags |= UFFD_PAGEFAULT_FLAG_MINOR;
			return USER_FAULT;
		}
	} else if (range->mode & UFFDIO_REGISTER_MODE_MISSING) {
		return USER_FAULT;
	}
	/* Not a fault to anybody: as the kernel would, give it what it would hold. */
	show(range, page, *state & USER_PAGE_PROTECTED);
	return USER_RETRY;
}

enum user_verdict user_deliver_judge(struct user_range *range, uint64_t *addr, bool write, bool wp_async,
                                     uint64_t *flags)
{
	uint64_t page = *addr & ~(uint64_t)(range->memory.page_size - 1);
	uint8_t *state = user_page_state(range, page);

	if (*state & USER_PAGE_POISONED)
		return USER_POISONED;
	if (!(range->memory.prot & (write ? PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC)))
		return USER_FOREIGN;
	if (*state & USER_PAGE_READY) {
		*flags = 0;
		return user_scarce_judge(range, addr);
	}
	if (*state & USER_PAGE_HIDDEN)
		return judge_hidden(range, page, state, write, flags);
	if (!write || !(*state & USER_PAGE_PROTECTED))
		return USER_RETRY;
	if (!wp_async && (range->mode & UFFDIO_REGISTER_MODE_WP)) {
		*flags = UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP;
		return USER_FAULT;
	}
	unprotect(range, page, range->memory.page_size);
	return USER_RETRY;
}

/*
 * Deliveries: page by page for what may differ, in runs for what is alike.
 */

/* The range that [start, start + len) lies in, whole. */
static struct user_range *whole_range(uint64_t start, size_t len, int *err)
{
	struct user_range *range = user_space_at(start);

	*err = 0;
	if (!range || !range->object || range->memory.end - start < len)
		*err = -ENOENT;
	else if ((start | len) & (range->memory.page_size - 1))
		*err = -EINVAL;
	return *err ? NULL : range;
}

/*
 * How many bytes from `start` on are pages that nothing is in the way of. `marks`: the states that are in the way although no page
 * is there. What is shown is hidden first.
 */
static size_t empty_run(struct user_range *range, uint64_t start, uint64_t end, uint8_t marks, int *err)
{
	size_t page_size = range->memory.page_size;
	uint64_t page = start;

	for (; page < end; page += page_size) {
		uint8_t *state = user_page_state(range, page);
		int failed = 0;

		if ((*state & USER_PAGE_HIDDEN && *state & marks) || is_present(range, page, *state))
			failed = -EEXIST;
		else if (!(*state & USER_PAGE_HIDDEN))
			failed = user_space_hide(range, page, page + page_size);
		if (failed) {
			if (page == start)
				*err = failed;
			break;
		}
	}
	return page - start;
}

/* The largest part that is delivered by one step: bounds the time that the lock is held for. */
#define STEP ((size_t)1 << 20)

int user_deliver_publish(struct user_range *range, uint64_t start, size_t len, bool protect)
{
	int err;

	change_states(range, start, len, protect ? USER_PAGE_PROTECTED : 0);
	err = user_memory_publish(&range->memory, start, len, !protect);
	return err ? user_scarce_keep(range, start, len, protect, err) : 0;
}

/* Longer runs are cheap in any way. */
#define ALONE_MOST 65536

/* A program with one thread, whose handler delivers: nobody can look between the steps. Nobody can kill it alone either. */
static bool may_fill_alone(const struct user_range *range, uint64_t start, const char *src, size_t len)
{
	const struct user_memory *memory = &range->memory;

	return src && !memory->shared && memory->trap == USER_TRAP_GUARD && (memory->prot & PROT_WRITE) &&
	       len <= ALONE_MOST && !user_window_has(start, len) &&
	       !user_space_in((uintptr_t)src, (uintptr_t)src + len) && user_memory_is_alone();
}

/* Fills hidden pages, with zeros if src is NULL. */
static int fill(struct user_range *range, uint64_t start, const char *src, size_t len, bool protect)
{
	const struct user_memory *memory = &range->memory;
	int err;

	if (may_fill_alone(range, start, src, len)) {
		err = user_memory_fill_alone(memory, start, src, len, !protect);
		if (!err)
			change_states(range, start, len, protect ? USER_PAGE_PROTECTED : 0);
		return err;
	}
	err = user_window_take(range, start, len, true) ? 0 : user_memory_open(memory, start, len);

	if (err)
		return err;
	err = user_memory_write(memory, start, src, len);
	if (err) {
		user_memory_shut(memory, start, len);
		return err;
	}
	return user_deliver_publish(range, start, len, protect);
}

/* Fills a run, or as many of its pages as the source has. */
static size_t fill_run(struct user_range *range, uint64_t start, const char *src, size_t len, bool protect, int *err)
{
	size_t page_size = range->memory.page_size, done = 0;

	*err = src ? fill(range, start, src, len, protect) : -EFAULT;
	if (!*err)
		return len;
	if (*err != -EFAULT || len == page_size)
		return 0;
	while (done < len) {
		*err = fill(range, start + done, src + done, page_size, protect);
		if (*err)
			break;
		done += page_size;
	}
	return done;
}

size_t user_deliver_copy(uint64_t start, const void *src, size_t len, bool protect, int *err)
{
	struct user_range *range = whole_range(start, len, err);
	size_t done = 0;

	if (range && protect && !(range->mode & UFFDIO_REGISTER_MODE_WP))
		*err = -EINVAL;
	while (range && done < len && !*err) {
		size_t step = empty_run(range, start + done, start + min_u64(len, done + STEP), 0, err);

		if (*err)
			break;
		done += fill_run(range, start + done, (const char *)src + done, step, protect, err);
	}
	return done;
}

static int zero(struct user_range *range, uint64_t start, size_t len)
{
	/* Fresh memory is zeros: what hides it need only be lifted. */
	return range->memory.type == UF_MEMORY_ANON ? show_run(range, start, len, false)
	                                            : fill(range, start, NULL, len, false);
}

size_t user_deliver_zeropage(uint64_t start, size_t len, int *err)
{
	struct user_range *range = whole_range(start, len, err);
	size_t done = 0;

	uint8_t marks = USER_PAGE_POISONED;

	if (range && range->memory.type == UF_MEMORY_HUGETLB)
		*err = -EINVAL;
	/* The kernel's own inconsistency: a mark of write protection stops zeros in private memory only. */
	if (range && !range->memory.shared)
		marks |= USER_PAGE_PROTECTED;
	while (range && done < len && !*err) {
		size_t step = empty_run(range, start + done, start + min_u64(len, done + STEP), marks, err);

		if (*err)
			break;
		*err = zero(range, start + done, step);
		if (*err && range->memory.type == UF_MEMORY_ANON)
			*err = user_scarce_keep(range, start + done, step, false, *err);
		if (*err)
			break;
		done += step;
	}
	return done;
}

size_t user_deliver_continue(uint64_t start, size_t len, bool protect, int *err)
{
	struct user_range *range = whole_range(start, len, err);
	size_t done = 0;

	if (range && !range->memory.shared)
		*err = -EINVAL;
	while (range && done < len && !*err) {
		size_t page_size = range->memory.page_size;
		uint8_t *state = user_page_state(range, start + done);

		if (!(*state & USER_PAGE_HIDDEN))
			*err = -EEXIST;
		else if (!is_present(range, start + done, *state))
			*err = -EFAULT;
		else
			*err = show(range, start + done, protect);
		if (*err)
			break;
		done += page_size;
	}
	return done;
}

size_t user_deliver_poison(uint64_t start, size_t len, int *err)
{
	struct user_range *range = whole_range(start, len, err);
	size_t done = 0;

	while (range && done < len && !*err) {
		size_t step = empty_run(range, start + done, start + len, USER_PAGE_POISONED | USER_PAGE_PROTECTED,
		                        err);

		if (*err)
			break;
		set_states(range, start + done, step, USER_PAGE_HIDDEN | USER_PAGE_POISONED);
		done += step;
	}
	return done;
}

/*
 * Write protection.
 */

/* Whether protecting a page means anything: one that is not there is marked only where that was asked for, or is shared. */
static bool takes_protection(struct user_range *range, uint64_t page, bool unpopulated)
{
	return unpopulated || range->memory.shared || is_present(range, page, *user_page_state(range, page));
}

/* The pages from `page` on that are treated alike: all hidden or all shown, and all to be changed or none. */
static uint64_t alike_until(struct user_range *range, uint64_t page, uint64_t end, bool protect, bool unpopulated,
                            bool *change)
{
	uint8_t hidden = *user_page_state(range, page) & USER_PAGE_HIDDEN;

	*change = !protect || takes_protection(range, page, unpopulated);
	for (page += range->memory.page_size; page < end; page += range->memory.page_size) {
		if ((*user_page_state(range, page) & USER_PAGE_HIDDEN) != hidden)
			break;
		if (protect && takes_protection(range, page, unpopulated) != *change)
			break;
	}
	return page;
}

static int protect_run(struct user_range *range, uint64_t start, uint64_t end, bool protect)
{
	bool shown = !(*user_page_state(range, start) & USER_PAGE_HIDDEN);
	int err = 0;

	if (shown && !protect)
		return unprotect(range, start, end - start);
	if (shown)
		err = user_memory_protect(&range->memory, start, end - start, false);
	for (uint64_t page = start; !err && page < end; page += range->memory.page_size) {
		uint8_t *state = user_page_state(range, page);

		*state = (uint8_t)(protect ? *state | USER_PAGE_PROTECTED : *state & ~USER_PAGE_PROTECTED);
	}
	return err;
}

int user_deliver_writeprotect(uint64_t start, size_t len, bool protect, bool unpopulated)
{
	uint64_t end = start + len;

	while (start < end) {
		struct user_range *range = user_space_at(start);
		uint64_t stop = range ? min_u64(end, range->memory.end) : end;

		if (!range || !range->object || !(range->mode & UFFDIO_REGISTER_MODE_WP))
			return -ENOENT;
		while (start < stop) {
			bool change;
			uint64_t until = alike_until(range, start, stop, protect, unpopulated, &change);
			int err = change ? protect_run(range, start, until, protect) : 0;

			if (err)
				return err;
			start = until;
		}
	}
	return 0;
}
