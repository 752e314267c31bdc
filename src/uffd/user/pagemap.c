// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "uffd/user/deliver.h"
#include "uffd/user/object.h"
#include "uffd/user/pagemap.h"

#define WRITE_PROTECTED ((uint64_t)1 << 57)
#define GUARD           ((uint64_t)1 << 58) /* Linux 6.15 */

static void correct(const struct user_range *range, uint64_t *entry, uint64_t page)
{
	uint8_t state = *user_page_state(range, page);

	*entry &= ~(WRITE_PROTECTED | GUARD);
	if (state & USER_PAGE_PROTECTED)
		*entry |= WRITE_PROTECTED;
}

void user_pagemap_correct(uint64_t *entries, size_t count, uint64_t start)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	signal_mask before;

	if (!user_space_reaches(start, start + count * page_size))
		return;
	before = user_space_lock();
	for (size_t i = 0; i < count; i++) {
		const struct user_range *range = user_space_at(start + i * page_size);

		if (range)
			correct(range, &entries[i], start + i * page_size);
	}
	user_space_unlock(before);
}

#define CATEGORIES                                                                                           \
	((uint64_t)(PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | \
	            PAGE_IS_PFNZERO | PAGE_IS_HUGE | PAGE_IS_SOFT_DIRTY | PAGE_IS_GUARD))

struct scan {
	const struct pm_scan_arg *arg;
	struct page_region *regions; /* NULL: nothing is told, and so nothing runs out */
	uint64_t count, pages;
	uint64_t walk_end; /* 0: nothing was left out */
};

static bool is_async(const struct user_range *range)
{
	return range->object && (range->mode & UFFDIO_REGISTER_MODE_WP) &&
	       (atomic_load(&range->object->features) & UFFD_FEATURE_WP_ASYNC);
}

static uint64_t categories_of(const struct user_range *range, uint64_t page)
{
	uint8_t state = *user_page_state(range, page);
	uint64_t categories = range->memory.shared ? PAGE_IS_FILE : 0;

	if (is_async(range))
		categories |= PAGE_IS_WPALLOWED;
	if (range->memory.page_size != (size_t)sysconf(_SC_PAGESIZE))
		categories |= PAGE_IS_HUGE;
	if (!(state & USER_PAGE_HIDDEN))
		categories |= PAGE_IS_PRESENT | (state & USER_PAGE_PROTECTED ? 0 : PAGE_IS_WRITTEN);
	return categories;
}

static bool matches(const struct pm_scan_arg *arg, uint64_t categories)
{
	categories ^= arg->category_inverted;
	return (categories & arg->category_mask) == arg->category_mask &&
	       (!arg->category_anyof_mask || (categories & arg->category_anyof_mask));
}

static bool push(struct scan *scan, uint64_t start, uint64_t end, uint64_t categories)
{
	struct page_region *last = scan->count ? &scan->regions[scan->count - 1] : NULL;

	if (last && last->end == start && last->categories == categories) {
		last->end = end;
		return true;
	}
	if (scan->count == scan->arg->vec_len)
		return false;
	scan->regions[scan->count++] = (struct page_region){start, end, categories};
	return true;
}

/* As much of [start, end) as there is a place for: returns the end of it. */
static uint64_t report(struct scan *scan, uint64_t start, uint64_t end, uint64_t categories)
{
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE), most = scan->arg->max_pages - scan->pages;

	if (!scan->regions)
		return end;
	if (scan->arg->max_pages && (end - start) / page_size > most)
		end = start + most * page_size;
	if (start == end || !push(scan, start, end, categories & scan->arg->return_mask))
		return start;
	scan->pages += (end - start) / page_size;
	return end;
}

/* A part of a huge page cannot be protected, and so it is not told of either. */
static void take_back(struct scan *scan, uint64_t start, uint64_t end)
{
	struct page_region *last = scan->regions ? &scan->regions[scan->count - 1] : NULL;

	scan->walk_end = start;
	if (!last)
		return;
	scan->pages -= (end - start) / (uint64_t)sysconf(_SC_PAGESIZE);
	last->end = start;
	scan->count -= last->start == start;
}

/* [start, end) is one page of the range, or a part of one that is huge. 0; -errno; 1: there is no place for it. */
static int scan_page(struct scan *scan, const struct user_range *range, uint64_t start, uint64_t end)
{
	uint64_t categories = categories_of(range, start), reported;
	size_t page_size = range->memory.page_size;
	int err = 0;

	if (!matches(scan->arg, categories))
		return 0;
	reported = report(scan, start, end, categories);
	if (reported == start)
		scan->walk_end = start;
	else if (reported != end)
		scan->walk_end = reported;
	if ((scan->arg->flags & PM_SCAN_WP_MATCHING) && reported > start) {
		if (reported - start == page_size)
			err = user_deliver_writeprotect(start, page_size, true, true);
		else
			take_back(scan, start, reported);
	}
	return err ? err : reported != end;
}

/* The pages of [start, end), which lies in the range. */
static int scan_range(struct scan *scan, const struct user_range *range, uint64_t start, uint64_t end)
{
	uint64_t page_size = range->memory.page_size;
	int stop = 0;

	if (!is_async(range) && (scan->arg->flags & PM_SCAN_CHECK_WPASYNC))
		return -EPERM;
	if (!is_async(range) && (scan->arg->flags & PM_SCAN_WP_MATCHING))
		return 0;
	for (uint64_t at = start, next; !stop && at < end; at = next) {
		next = (at & ~(page_size - 1)) + page_size;
		next = next < end ? next : end;
		stop = scan_page(scan, range, at, next);
	}
	return stop;
}

static int check(struct pm_scan_arg *arg)
{
	uint64_t page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;

	if (arg->size != sizeof(*arg) || (arg->flags & ~(uint64_t)(PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC)) ||
	    ((arg->category_inverted | arg->category_mask | arg->category_anyof_mask | arg->return_mask) &
	     ~CATEGORIES) ||
	    (arg->start & page_mask) || (!arg->vec && arg->vec_len))
		return -EINVAL;
	if (arg->end < arg->start)
		return -EFAULT;
	arg->end = (arg->end + page_mask) & ~page_mask;
	return 0;
}

int user_pagemap_scan(struct pm_scan_arg *arg)
{
	struct scan scan = {.arg = arg, .regions = arg->vec_len ? (struct page_region *)(uintptr_t)arg->vec : NULL};
	int stop = check(arg);
	signal_mask before;
	uint64_t at;

	if (stop)
		return stop;
	before = user_space_lock();
	for (at = arg->start; !stop && at < arg->end;) {
		const struct user_range *range = user_space_next(at);
		uint64_t end;

		if (!range || range->memory.start >= arg->end)
			break;
		if (range->memory.start > at)
			at = range->memory.start;
		end = range->memory.end < arg->end ? range->memory.end : arg->end;
		stop = scan_range(&scan, range, at, end);
		at = end;
	}
	user_space_unlock(before);
	arg->walk_end = scan.walk_end ? scan.walk_end : arg->end;
	return stop < 0 ? stop : (int)scan.count;
}

bool user_pagemap_covers(uint64_t start, uint64_t end)
{
	signal_mask before = user_space_lock();
	const struct user_range *range;

	while (start < end && (range = user_space_at(start)))
		start = range->memory.end;
	user_space_unlock(before);
	return start >= end;
}
