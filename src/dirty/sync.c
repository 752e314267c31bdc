// SPDX-License-Identifier: MIT
/*
 * Method "sync": write-protection faults, taken by a monitor of the tracker that sets the page's bit and lifts the
 * protection.
 *
 * The order that loses no write: the monitor sets the bit, then lifts the protection; collecting takes the bit, waits until
 * the monitor has finished a fault it may have been in (whose bit was just taken, and whose lift is still to come), then
 * protects again. A write between those two is to a page that is being reported, whose content the caller reads later.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "base/thread.h"
#include "dirty/tracker.h"

#define MESSAGES 64

static void on_write(struct uf_dirty *tracker, uint64_t addr)
{
	const struct dirty_list *list = dirty_look_begin(tracker);
	size_t at = dirty_region_at(list, addr);

	if (list && at < list->count && list->at[at].start <= addr) {
		const struct dirty_region *region = &list->at[at];
		uint64_t index = (addr - region->start) / region->page_size;
		void *page = (void *)(uintptr_t)(region->start + index * region->page_size);
		int err;

		atomic_fetch_or(&region->bits[index / 64], (uint64_t)1 << (index % 64));
		/*
		 * -ENOENT: it was unregistered meanwhile, and whoever waited has been woken by that. Whatever else it may be,
		 * nobody shall wait for ever.
		 */
		err = uf_writeprotect(tracker->uf, page, region->page_size, 0);
		if (err && err != -ENOENT)
			uf_unregister(tracker->uf, page, region->page_size);
	}
	dirty_look_end(tracker);
}

static void *monitor(void *arg)
{
	struct uf_dirty *tracker = arg;
	struct pollfd fds[] = {{.fd = uf_fd(tracker->uf), .events = POLLIN}, {.fd = tracker->stop, .events = POLLIN}};
	struct uffd_msg msgs[MESSAGES];

	for (;;) {
		ssize_t count = uf_read(tracker->uf, msgs, MESSAGES);

		for (ssize_t i = 0; i < count; i++)
			if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
				on_write(tracker, msgs[i].arg.pagefault.address);
		if (count > 0)
			continue;
		if (poll(fds, 2, -1) > 0 && fds[1].revents)
			return NULL;
	}
}

static int sync_open(struct uf_dirty *tracker, const struct uf_dirty_options *options)
{
	struct uf_options opts = {
		.size = sizeof(opts),
		.engine = options->engine,
		/* Writes by system calls must wait for the monitor like any other, unless the caller can do without. */
		.flags = options->flags & UF_DIRTY_USER_MODE_ONLY ? 0 : UF_OPEN_KERNEL_FAULTS,
		.required = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
		.wanted = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED,
	};
	int err = uf_open(&tracker->uf, &opts);

	if (err)
		return err;
	tracker->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* No handler of the program may run on the monitor: it could touch a watched page and wait for itself. */
	err = tracker->stop < 0 ? -errno : thread_start(&tracker->monitor, monitor, tracker);
	if (err) {
		if (tracker->stop >= 0)
			raw_close(tracker->stop);
		uf_close(tracker->uf);
	}
	return err;
}

static int sync_prepare(struct uf_dirty *tracker, struct dirty_region *region)
{
	uint64_t pages = (region->end - region->start) / region->page_size;

	(void)tracker;
	region->bits_size = (pages + 63) / 64 * sizeof(uint64_t);
	region->bits = raw_map_own(region->bits_size);
	return region->bits ? 0 : -ENOMEM;
}

static void sync_dispose(struct uf_dirty *tracker, struct dirty_region *region)
{
	(void)tracker;
	raw_unmap(region->bits, region->bits_size);
}

/* The pages of a word, in one go. */
struct run {
	_Atomic uint64_t *word;
	uint64_t mask;       /* their bits */
	uint64_t start, end; /* their addresses */
};

/* The first run of dirty pages in [first, last), which lies in one word. False: there is none. */
static bool first_run(const struct dirty_region *region, uint64_t first, uint64_t last, struct run *run)
{
	_Atomic uint64_t *word = &region->bits[first / 64];
	uint64_t bits = atomic_load(word) >> (first % 64), length;

	if (!bits)
		return false;
	first += (uint64_t)__builtin_ctzll(bits);
	if (first >= last)
		return false;
	bits >>= __builtin_ctzll(bits);
	length = ~bits ? (uint64_t)__builtin_ctzll(~bits) : 64;
	if (length > last - first)
		length = last - first;
	run->word = word;
	run->mask = (length == 64 ? ~(uint64_t)0 : ((uint64_t)1 << length) - 1) << (first % 64);
	run->start = region->start + first * region->page_size;
	run->end = run->start + length * region->page_size;
	return true;
}

static int protect(struct uf_dirty *tracker, uint64_t start, uint64_t end)
{
	return uf_writeprotect(tracker->uf, (void *)(uintptr_t)start, end - start, UFFDIO_WRITEPROTECT_MODE_WP);
}

/* Protects a run page by page: what is not ours any more fails, is passed over, and does not hide what lies behind it. */
static uint64_t take_by_page(struct uf_dirty *tracker, const struct dirty_region *region, const struct run *run,
                             struct dirty_answer *answer)
{
	for (uint64_t page = run->start; page < run->end; page += region->page_size) {
		uint64_t end = page + region->page_size;

		if (!dirty_answer_has_room(answer, page)) {
			/* From here on the pages stay dirty, protected or not. */
			uint64_t left = (page - run->start) / region->page_size;

			atomic_fetch_or(run->word, run->mask & ~(((run->mask & -run->mask) << left) - 1));
			return page;
		}
		if (!protect(tracker, page, end))
			dirty_answer_add(answer, page, end);
	}
	return run->end;
}

/* Reports a run, and protects it again unless it is to be kept. Returns how far it came: run->end, or less for want of room. */
static uint64_t take_run(struct uf_dirty *tracker, const struct dirty_region *region, const struct run *run, bool keep,
                         struct dirty_answer *answer)
{
	if (!dirty_answer_has_room(answer, run->start))
		return run->start;
	if (!keep) {
		atomic_fetch_and(run->word, ~run->mask);
		dirty_look_wait(tracker);
		if (protect(tracker, run->start, run->end))
			return take_by_page(tracker, region, run, answer);
	}
	dirty_answer_add(answer, run->start, run->end);
	return run->end;
}

static int sync_collect(struct uf_dirty *tracker, const struct dirty_region *region, uint64_t start, uint64_t end,
                        unsigned flags, struct dirty_answer *answer, uint64_t *next)
{
	uint64_t index = (start - region->start) / region->page_size;
	uint64_t last = (end - region->start) / region->page_size;

	while (index < last) {
		uint64_t stop = (index / 64 + 1) * 64, came_to;
		struct run run;

		if (stop > last)
			stop = last;
		if (!first_run(region, index, stop, &run)) {
			index = stop;
			continue;
		}
		came_to = take_run(tracker, region, &run, flags & UF_DIRTY_KEEP, answer);
		if (came_to < run.end) {
			*next = came_to;
			return 0;
		}
		index = (run.end - region->start) / region->page_size;
	}
	*next = end;
	return 0;
}

static void sync_close(struct uf_dirty *tracker)
{
	uint64_t one = 1;

	raw_syscall3(SYS_write, tracker->stop, (long)&one, sizeof(one));
	pthread_join(tracker->monitor, NULL);
	raw_close(tracker->stop);
	uf_close(tracker->uf);
}

const struct dirty_method dirty_sync = {
	.id = UF_DIRTY_SYNC,
	.open = sync_open,
	.prepare = sync_prepare,
	.dispose = sync_dispose,
	.collect = sync_collect,
	.close = sync_close,
};
