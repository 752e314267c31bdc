// SPDX-License-Identifier: MIT
/* Contracts: <userfault/dirty.h> and dirty/tracker.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "dirty/tracker.h"

#define OPTIONS_SIZE_0 (offsetof(struct uf_dirty_options, engine) + sizeof(enum uf_engine))

void *dirty_map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void dirty_unmap(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

int dirty_answer_add(struct dirty_answer *answer, uint64_t start, uint64_t end)
{
	struct uf_dirty_range *last = answer->count ? &answer->ranges[answer->count - 1] : NULL;

	if (last && last->end == start) {
		last->end = end;
		return 0;
	}
	if (answer->count == answer->room)
		return -ENOSPC;
	answer->ranges[answer->count++] = (struct uf_dirty_range){start, end};
	return 0;
}

size_t dirty_region_at(const struct dirty_list *list, uint64_t addr)
{
	size_t low = 0, high = list ? list->count : 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list->at[middle].end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct dirty_list *dirty_look_begin(struct uf_dirty *tracker)
{
	atomic_fetch_add(&tracker->looking, 1);
	return atomic_load(&tracker->list);
}

void dirty_look_end(struct uf_dirty *tracker)
{
	atomic_fetch_add(&tracker->looking, 1);
}

void dirty_look_wait(struct uf_dirty *tracker)
{
	unsigned looking = atomic_load(&tracker->looking);

	while ((looking & 1) && atomic_load(&tracker->looking) == looking)
		raw_yield();
}

static struct dirty_list *list_new(size_t count)
{
	size_t mapped = sizeof(struct dirty_list) + count * sizeof(struct dirty_region);
	struct dirty_list *list = dirty_map(mapped);

	if (list) {
		list->mapped = mapped;
		list->count = count;
	}
	return list;
}

/* Puts `list` in the place of the old one, which is freed once the monitor cannot be in it. */
static void replace(struct uf_dirty *tracker, struct dirty_list *list)
{
	struct dirty_list *old = atomic_exchange(&tracker->list, list);

	dirty_look_wait(tracker);
	if (old)
		dirty_unmap(old, old->mapped);
}

static int insert(struct uf_dirty *tracker, const struct dirty_region *region)
{
	const struct dirty_list *old = tracker->list;
	size_t count = old ? old->count : 0, at = dirty_region_at(old, region->start);
	struct dirty_list *list = list_new(count + 1);

	if (!list)
		return -ENOMEM;
	if (old) {
		memcpy(list->at, old->at, at * sizeof(*region));
		memcpy(list->at + at + 1, old->at + at, (count - at) * sizeof(*region));
	}
	list->at[at] = *region;
	replace(tracker, list);
	return 0;
}

static int drop(struct uf_dirty *tracker, size_t at)
{
	const struct dirty_list *old = tracker->list;
	struct dirty_region region = old->at[at];
	struct dirty_list *list = list_new(old->count - 1);

	if (!list)
		return -ENOMEM;
	memcpy(list->at, old->at, at * sizeof(region));
	memcpy(list->at + at, old->at + at + 1, (old->count - at - 1) * sizeof(region));
	replace(tracker, list);
	tracker->method->dispose(tracker, &region);
	return 0;
}

static int open_method(struct uf_dirty *tracker, const struct dirty_method *method, enum uf_engine engine)
{
	tracker->method = method;
	return method->open(tracker, engine);
}

int uf_dirty_open(struct uf_dirty **out, const struct uf_dirty_options *opts)
{
	static const struct uf_dirty_options defaults = {.size = sizeof(defaults)};
	struct uf_dirty *tracker;
	int err;

	if (!opts)
		opts = &defaults;
	if (!out || opts->size < OPTIONS_SIZE_0)
		return -EINVAL;
	tracker = dirty_map(sizeof(*tracker));
	if (!tracker)
		return -ENOMEM;
	pthread_mutex_init(&tracker->lock, NULL);
	switch (opts->method) {
	case UF_DIRTY_AUTO:
		err = open_method(tracker, &dirty_async, opts->engine);
		if (err == -EOPNOTSUPP)
			err = open_method(tracker, &dirty_sync, opts->engine);
		break;
	case UF_DIRTY_ASYNC:
		err = open_method(tracker, &dirty_async, opts->engine);
		break;
	case UF_DIRTY_SYNC:
		err = open_method(tracker, &dirty_sync, opts->engine);
		break;
	default:
		err = -EINVAL;
	}
	if (err) {
		dirty_unmap(tracker, sizeof(*tracker));
		return err;
	}
	*out = tracker;
	return 0;
}

enum uf_dirty_method uf_dirty_method(const struct uf_dirty *tracker)
{
	return tracker ? tracker->method->id : UF_DIRTY_AUTO;
}

static int track(struct uf_dirty *tracker, struct dirty_region *region)
{
	const struct dirty_list *list = tracker->list;
	size_t at = dirty_region_at(list, region->start);
	int err;

	if (list && at < list->count && list->at[at].start < region->end)
		return -EEXIST;
	err = tracker->method->prepare(tracker, region);
	if (err)
		return err;
	/* In the list before the first fault can come, so that the monitor finds it. */
	err = insert(tracker, region);
	if (err) {
		tracker->method->dispose(tracker, region);
		return err;
	}
	err = tracker->method->track(tracker, region);
	if (err)
		drop(tracker, at); /* if even that fails, it stays in the list: watched by nobody, and harmless */
	return err;
}

int uf_dirty_track(struct uf_dirty *tracker, void *addr, size_t len, size_t page_size)
{
	uint64_t start = (uint64_t)(uintptr_t)addr;
	struct dirty_region region = {.start = start, .end = start + len, .page_size = page_size};
	int err;

	if (!tracker || !len || region.end < start)
		return -EINVAL;
	if (!region.page_size)
		region.page_size = (size_t)sysconf(_SC_PAGESIZE);
	if ((region.page_size & (region.page_size - 1)) || ((start | len) & (region.page_size - 1)))
		return -EINVAL;

	pthread_mutex_lock(&tracker->lock);
	err = track(tracker, &region);
	pthread_mutex_unlock(&tracker->lock);
	return err;
}

int uf_dirty_untrack(struct uf_dirty *tracker, void *addr, size_t len)
{
	uint64_t start = (uint64_t)(uintptr_t)addr;
	const struct dirty_list *list;
	size_t at;
	int err = -ENOENT;

	if (!tracker)
		return -EINVAL;
	pthread_mutex_lock(&tracker->lock);
	list = tracker->list;
	at = dirty_region_at(list, start);
	if (list && at < list->count && list->at[at].start == start && list->at[at].end == start + len) {
		tracker->method->untrack(tracker, &list->at[at]);
		err = drop(tracker, at);
	}
	pthread_mutex_unlock(&tracker->lock);
	return err;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t round_down(uint64_t value, size_t unit)
{
	return value & ~(uint64_t)(unit - 1);
}

ssize_t uf_dirty_collect(struct uf_dirty *tracker, uint64_t start, uint64_t end, struct uf_dirty_range *ranges,
                         size_t count, unsigned flags, uint64_t *next)
{
	struct dirty_answer answer = {.ranges = ranges, .room = count};
	uint64_t at = start, page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	const struct dirty_list *list;
	int err = 0;

	if (!tracker || !ranges || !count || !next || start > end || ((start | end) & page_mask) ||
	    (flags & ~UF_DIRTY_KEEP))
		return -EINVAL;

	pthread_mutex_lock(&tracker->lock);
	list = tracker->list;
	for (size_t i = dirty_region_at(list, start); list && i < list->count && list->at[i].start < end; i++) {
		const struct dirty_region *region = &list->at[i];
		/* Whole pages of the region, huge ones too. */
		uint64_t from = round_down(max_u64(start, region->start), region->page_size);
		uint64_t to = round_down(min_u64(region->end, end + region->page_size - 1), region->page_size);

		err = tracker->method->collect(tracker, region, from, to, flags, &answer, &at);
		if (err || at < to)
			goto out;
	}
	at = end;
out:
	pthread_mutex_unlock(&tracker->lock);
	*next = min_u64(at, end);
	return err && !answer.count ? err : (ssize_t)answer.count;
}

void uf_dirty_close(struct uf_dirty *tracker)
{
	const struct dirty_list *list;

	if (!tracker)
		return;
	list = tracker->list;
	for (size_t i = 0; list && i < list->count; i++)
		tracker->method->untrack(tracker, &list->at[i]);
	/* The monitor is gone after this. */
	tracker->method->close(tracker);
	for (size_t i = 0; list && i < list->count; i++) {
		struct dirty_region region = list->at[i];

		tracker->method->dispose(tracker, &region);
	}
	replace(tracker, NULL);
	pthread_mutex_destroy(&tracker->lock);
	dirty_unmap(tracker, sizeof(*tracker));
}
