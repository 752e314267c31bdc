// SPDX-License-Identifier: MIT
/*
 * Method "async": UFFD_FEATURE_WP_ASYNC lets the kernel lift the protection by itself at the first write, and the
 * PAGEMAP_SCAN ioctl finds the pages without it and protects them again in the same step (both Linux 6.7).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>

#include "base/pagemap.h"
#include "base/rawsys.h"
#include "dirty/tracker.h"
#include "uffd/engine.h"

/* What one PAGEMAP_SCAN returns at the most; more only costs stack. */
#define BATCH 256

static int async_open(struct uf_dirty *tracker, const struct uf_dirty_options *options)
{
	struct uf_options opts = {
		.size = sizeof(opts),
		.engine = options->engine,
		.required = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
		.wanted = UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	int err;

	err = uf_open(&tracker->uf, &opts);
	if (err || tracker->uf->ops->scan)
		return err;
	tracker->pagemap = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (tracker->pagemap < 0) {
		err = tracker->pagemap == -ENOENT ? -EOPNOTSUPP : tracker->pagemap;
		uf_close(tracker->uf);
	}
	return err;
}

static int async_prepare(struct uf_dirty *tracker, struct dirty_region *region)
{
	(void)tracker;
	(void)region;
	return 0;
}

static void async_dispose(struct uf_dirty *tracker, struct dirty_region *region)
{
	(void)tracker;
	(void)region;
}

static int scan_pages(const struct uf_dirty *tracker, struct pm_scan_arg *scan)
{
	if (tracker->uf->ops->scan)
		return tracker->uf->ops->scan(scan);
	return raw_ioctl(tracker->pagemap, PAGEMAP_SCAN, scan);
}

static int async_collect(struct uf_dirty *tracker, const struct dirty_region *region, uint64_t start, uint64_t end,
                         unsigned flags, struct dirty_answer *answer, uint64_t *next)
{
	bool keep = flags & UF_DIRTY_KEEP;

	(void)region;
	while (start < end) {
		struct page_region found[BATCH];
		size_t room = answer->room - answer->count;
		struct pm_scan_arg scan = {
			.size = sizeof(scan),
			.flags = keep ? 0 : PM_SCAN_WP_MATCHING,
			.start = start,
			.end = end,
			.vec = (uintptr_t)found,
			.vec_len = room < BATCH ? room : BATCH,
			/*
			 * WPALLOWED passes over memory that was mapped anew under the tracker. PM_SCAN_CHECK_WPASYNC would be
			 * a third faster, but fails there, and loses what it has protected again up to that place.
			 */
			.category_mask = PAGE_IS_WRITTEN | PAGE_IS_WPALLOWED,
			.return_mask = PAGE_IS_WRITTEN,
		};
		int count;

		/*
		 * What the scan has protected again must be reported, so it is never given more room than there is. A first
		 * range that merges with the last one leaves a place unused; the next call takes it up.
		 */
		if (!room)
			break;
		count = scan_pages(tracker, &scan);
		if (count < 0)
			return count == -EINTR ? 0 : count;
		for (int i = 0; i < count; i++)
			dirty_answer_add(answer, found[i].start, found[i].end);
		start = *next = scan.walk_end;
	}
	*next = start;
	return 0;
}

static void async_close(struct uf_dirty *tracker)
{
	if (!tracker->uf->ops->scan)
		raw_close(tracker->pagemap);
	uf_close(tracker->uf);
}

const struct dirty_method dirty_async = {
	.id = UF_DIRTY_ASYNC,
	.open = async_open,
	.prepare = async_prepare,
	.dispose = async_dispose,
	.collect = async_collect,
	.close = async_close,
};
