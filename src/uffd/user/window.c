// SPDX-License-Identifier: MIT
#include <stdatomic.h>

#include "uffd/user/window.h"

#define WINDOWS      8
#define WINDOW_PAGES 64
#define STREAMS      4

struct window {
	uint64_t start, end; /* empty: start == end */
};

/*
 * A task may be killed anywhere here, and the next holder of the lock closes all windows (space.c). So a window is on record before it
 * is opened, and a part is off the record before it is filled.
 */
static struct window windows[WINDOWS];
static unsigned oldest;

/* Where the last fills ended: one that begins there follows it. */
static uint64_t ends[STREAMS];
static unsigned oldest_end;

/* The last delivery was of content, so the next may be. */
static bool filled_last;

static void record(struct window *window, uint64_t start, uint64_t end)
{
	*window = (struct window){start, end};
	atomic_signal_fence(memory_order_seq_cst);
}

/* Hides [start, end), which lies open in a window that is on record still. */
static void shut(uint64_t start, uint64_t end)
{
	const struct user_range *range = user_space_at(start);

	if (range && start < end)
		user_memory_shut(&range->memory, start, end - start);
}

static void close_window(struct window *window)
{
	shut(window->start, window->end);
	record(window, 0, 0);
}

void user_window_close(uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (windows[i].start < end && windows[i].end > start)
			close_window(&windows[i]);
}

bool user_window_has(uint64_t start, size_t len)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (windows[i].start < start + len && windows[i].end > start)
			return true;
	return false;
}

static struct window *window_of(uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (windows[i].start <= start && end <= windows[i].end)
			return &windows[i];
	return NULL;
}

static struct window *empty_window(void)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (windows[i].start == windows[i].end)
			return &windows[i];
	return NULL;
}

/* Takes [start, end) out of a window. What is before it is another, if there is room for one. */
static void cut(struct window *window, uint64_t start, uint64_t end)
{
	struct window *head = empty_window();

	if (window->start < start && head)
		record(head, window->start, start);
	else
		shut(window->start, start);
	record(window, end, window->end);
}

static bool follows_another(uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		if (ends[i] == start) {
			ends[i] = end;
			return true;
		}
	}
	ends[oldest_end++ % STREAMS] = end;
	return false;
}

/* How far hidden pages reach that may be opened. */
static uint64_t reach(const struct user_range *range, uint64_t end)
{
	uint64_t limit = end + WINDOW_PAGES * range->memory.page_size;

	while (end < limit && end < range->memory.end &&
	       (*user_page_state(range, end) & (USER_PAGE_HIDDEN | USER_PAGE_POISONED)) == USER_PAGE_HIDDEN &&
	       !window_of(end, end + range->memory.page_size))
		end += range->memory.page_size;
	return end;
}

static bool open_window(const struct user_range *range, uint64_t start, uint64_t end)
{
	struct window *window = empty_window();
	uint64_t until = reach(range, end);

	if (until == end)
		return false;
	if (!window) {
		window = &windows[oldest++ % WINDOWS];
		close_window(window);
	}
	record(window, start, until);
	if (user_memory_open(&range->memory, start, until - start)) {
		record(window, 0, 0);
		return false;
	}
	record(window, end, until);
	return true;
}

bool user_window_take(struct user_range *range, uint64_t start, size_t len, bool filled)
{
	const struct user_memory *memory = &range->memory;
	uint64_t end = start + len;
	bool follows;
	struct window *window;

	if (memory->shared || memory->trap != USER_TRAP_GUARD)
		return false;
	filled_last = filled;
	follows = follows_another(start, end);
	window = window_of(start, end);
	if (window) {
		cut(window, start, end);
		return true;
	}
	/* A run that reaches over the border of one is filled as if there was none. */
	user_window_close(start, end);
	return filled && follows && open_window(range, start, end);
}

static bool will_follow(uint64_t start)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (ends[i] == start)
			return true;
	return false;
}

void user_window_prepare(const struct user_range *range, uint64_t page)
{
	const struct user_memory *memory = &range->memory;
	struct window *window = empty_window();

	if (!window || memory->shared || memory->trap != USER_TRAP_GUARD || !filled_last || will_follow(page) ||
	    user_window_has(page, memory->page_size))
		return;
	record(window, page, page + memory->page_size);
	if (user_memory_open(memory, page, memory->page_size))
		record(window, 0, 0);
}
