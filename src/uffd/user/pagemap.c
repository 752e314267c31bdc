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

struct scan {
	struct pm_scan_arg *arg;
	struct page_region *regions;
	uint64_t count, pages;
};

static uint64_t categories_of(const struct user_range *range, uint64_t page)
{
	uint8_t state = *user_page_state(range, page);
	uint64_t categories = range->memory.shared ? PAGE_IS_FILE : 0;

	if (range->object && (range->mode & UFFDIO_REGISTER_MODE_WP) &&
	    (atomic_load(&range->object->features) & UFFD_FEATURE_WP_ASYNC))
		categories |= PAGE_IS_WPALLOWED;
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

/* False: there is no place for it. */
static bool report(struct scan *scan, uint64_t start, uint64_t end, uint64_t categories)
{
	struct page_region *last = scan->count ? &scan->regions[scan->count - 1] : NULL;

	if (scan->arg->max_pages && scan->pages == scan->arg->max_pages)
		return false;
	if (last && last->end == start && last->categories == categories) {
		last->end = end;
	} else {
		if (scan->count == scan->arg->vec_len)
			return false;
		scan->regions[scan->count++] = (struct page_region){start, end, categories};
	}
	scan->pages++;
	return true;
}

/* The pages of [start, end), which lies in the range. *stop: as far as it went. */
static int scan_range(struct scan *scan, const struct user_range *range, uint64_t start, uint64_t end, uint64_t *stop)
{
	struct pm_scan_arg *arg = scan->arg;
	size_t page_size = range->memory.page_size;

	if ((arg->flags & PM_SCAN_CHECK_WPASYNC) && !(categories_of(range, start) & PAGE_IS_WPALLOWED))
		return -EPERM;
	for (*stop = start; *stop < end; *stop += page_size) {
		uint64_t categories = categories_of(range, *stop);
		int err = 0;

		if (!matches(arg, categories))
			continue;
		if (!report(scan, *stop, *stop + page_size, categories & arg->return_mask))
			return 1;
		if ((arg->flags & PM_SCAN_WP_MATCHING) && (categories & PAGE_IS_WPALLOWED))
			err = user_deliver_writeprotect(*stop, page_size, true, true);
		if (err)
			return err;
	}
	return 0;
}

int user_pagemap_scan(struct pm_scan_arg *arg)
{
	struct scan scan = {.arg = arg, .regions = (struct page_region *)(uintptr_t)arg->vec};
	uint64_t at = arg->start;
	signal_mask before;
	int full = 0;

	if (arg->size != sizeof(*arg) || arg->end < arg->start)
		return -EINVAL;
	before = user_space_lock();
	while (!full && at < arg->end) {
		const struct user_range *range = user_space_next(at);

		if (!range || range->memory.start >= arg->end)
			break;
		if (range->memory.start > at)
			at = range->memory.start;
		full = scan_range(&scan, range, at, range->memory.end < arg->end ? range->memory.end : arg->end, &at);
	}
	user_space_unlock(before);
	arg->walk_end = full ? at : arg->end;
	return full < 0 ? full : (int)scan.count;
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
