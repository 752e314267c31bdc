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
#include <signal.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "dirty/tracker.h"

#define MESSAGES 64

static void on_write(struct uf_dirty *tracker, uint64_t addr)
{
	const struct dirty_list *list = dirty_look_begin(tracker);
	size_t at = dirty_region_at(list, addr);

	if (list && at < list->count && list->at[at].start <= addr) {
		const struct dirty_region *region = &list->at[at];
		uint64_t index = (addr - region->start) / region->page_size;

		atomic_fetch_or(&region->bits[index / 64], (uint64_t)1 << (index % 64));
		/* -ENOENT: it was unregistered meanwhile, and whoever waited has been woken by that. */
		uf_writeprotect(tracker->uf, (void *)(uintptr_t)(region->start + index * region->page_size),
		                region->page_size, 0);
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

static int start_monitor(struct uf_dirty *tracker)
{
	sigset_t all, before;
	int err;

	/* No handler of the program may run on the monitor: it could touch a watched page and wait for itself. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&tracker->monitor, NULL, monitor, tracker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static int sync_open(struct uf_dirty *tracker, enum uf_engine engine)
{
	struct uf_options opts = {
		.size = sizeof(opts),
		.engine = engine,
		.required = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
		.wanted = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED,
	};
	int err = uf_open(&tracker->uf, &opts);

	if (err)
		return err;
	tracker->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = tracker->stop < 0 ? -errno : start_monitor(tracker);
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
	region->bits = dirty_map(region->bits_size);
	return region->bits ? 0 : -ENOMEM;
}

static void sync_dispose(struct uf_dirty *tracker, struct dirty_region *region)
{
	(void)tracker;
	dirty_unmap(region->bits, region->bits_size);
}

static int sync_track(struct uf_dirty *tracker, const struct dirty_region *region)
{
	void *addr = (void *)(uintptr_t)region->start;
	size_t len = region->end - region->start;
	int err = uf_register(tracker->uf, addr, len, UFFDIO_REGISTER_MODE_WP, NULL);

	if (err)
		return err;
	/* Before Linux 6.4 a page that is not there cannot be protected: give each the zero page, which can. */
	if (!(uf_features(tracker->uf) & UFFD_FEATURE_WP_UNPOPULATED))
		madvise(addr, len, MADV_POPULATE_READ);
	err = uf_writeprotect(tracker->uf, addr, len, UFFDIO_WRITEPROTECT_MODE_WP);
	if (err)
		uf_unregister(tracker->uf, addr, len);
	return err;
}

static void sync_untrack(struct uf_dirty *tracker, const struct dirty_region *region)
{
	uf_unregister(tracker->uf, (void *)(uintptr_t)region->start, region->end - region->start);
}

/* Takes the bits of one word that lie in [first, last), and protects their pages again, run by run. */
static int collect_word(struct uf_dirty *tracker, const struct dirty_region *region, uint64_t first, uint64_t last,
                        bool keep, struct dirty_answer *answer, uint64_t *next)
{
	_Atomic uint64_t *word = &region->bits[first / 64];
	uint64_t index = first;

	while (index < last) {
		uint64_t bits = atomic_load(word) >> (index % 64), run, mask, start, end;

		if (!bits)
			break;
		index += (uint64_t)__builtin_ctzll(bits);
		if (index >= last)
			break;
		bits = atomic_load(word) >> (index % 64);
		run = ~bits ? (uint64_t)__builtin_ctzll(~bits) : 64;
		if (run > last - index)
			run = last - index;
		mask = (run == 64 ? ~(uint64_t)0 : ((uint64_t)1 << run) - 1) << (index % 64);
		start = region->start + index * region->page_size;
		end = start + run * region->page_size;
		if (dirty_answer_add(answer, start, end)) {
			*next = start;
			return 1;
		}
		if (!keep) {
			atomic_fetch_and(word, ~mask);
			dirty_look_wait(tracker);
			uf_writeprotect(tracker->uf, (void *)(uintptr_t)start, end - start,
			                UFFDIO_WRITEPROTECT_MODE_WP);
		}
		index += run;
	}
	return 0;
}

static int sync_collect(struct uf_dirty *tracker, const struct dirty_region *region, uint64_t start, uint64_t end,
                        unsigned flags, struct dirty_answer *answer, uint64_t *next)
{
	uint64_t index = (start - region->start) / region->page_size;
	uint64_t last = (end - region->start) / region->page_size;

	while (index < last) {
		uint64_t stop = (index / 64 + 1) * 64;

		if (stop > last)
			stop = last;
		if (collect_word(tracker, region, index, stop, flags & UF_DIRTY_KEEP, answer, next))
			return 0;
		index = stop;
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
	.track = sync_track,
	.untrack = sync_untrack,
	.dispose = sync_dispose,
	.collect = sync_collect,
	.close = sync_close,
};
