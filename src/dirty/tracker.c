// SPDX-License-Identifier: MIT
/* Contracts: <userfault/dirty.h> and dirty/tracker.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/options.h"
#include "dirty/tracker.h"

#define OPTIONS_SIZE_0 (offsetof(struct uf_dirty_options, flags) + sizeof(unsigned))
#define FIRST_CAPACITY 32

static struct uf_dirty_range *last_range(const struct dirty_answer *answer)
{
	return answer->count ? &answer->ranges[answer->count - 1] : NULL;
}

bool dirty_answer_has_room(const struct dirty_answer *answer, uint64_t start)
{
	const struct uf_dirty_range *last = last_range(answer);

	return answer->count < answer->room || (last && last->end == start);
}

void dirty_answer_add(struct dirty_answer *answer, uint64_t start, uint64_t end)
{
	struct uf_dirty_range *last = last_range(answer);

	if (last && last->end == start)
		last->end = end;
	else
		answer->ranges[answer->count++] = (struct uf_dirty_range){start, end};
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
	if (atomic_load(&tracker->waiting))
		futex_wake(&tracker->looking, INT_MAX);
}

void dirty_look_wait(struct uf_dirty *tracker)
{
	uint32_t looking = atomic_load(&tracker->looking);

	while ((looking & 1) && atomic_load(&tracker->looking) == looking) {
		atomic_fetch_add(&tracker->waiting, 1);
		futex_wait(&tracker->looking, looking);
		atomic_fetch_sub(&tracker->waiting, 1);
	}
}

static size_t list_size(size_t capacity)
{
	return sizeof(struct dirty_list) + capacity * sizeof(struct dirty_region);
}

static struct dirty_list *list_new(size_t capacity)
{
	struct dirty_list *list = raw_map_own(list_size(capacity));

	if (list)
		list->capacity = capacity;
	return list;
}

static void list_free(struct dirty_list *list)
{
	if (list)
		raw_unmap(list, list_size(list->capacity));
}

/* Puts the spare list in the place of the old one, which is the spare once the monitor cannot be in it. */
static void publish_spare(struct uf_dirty *tracker)
{
	tracker->spare = atomic_exchange(&tracker->list, tracker->spare);
	dirty_look_wait(tracker);
}

/* Two larger lists in the place of both. */
static int grow(struct uf_dirty *tracker)
{
	struct dirty_list *old = tracker->list, *old_spare = tracker->spare;
	size_t capacity = old ? old->capacity * 2 : FIRST_CAPACITY;
	struct dirty_list *list = list_new(capacity), *spare = list_new(capacity);

	if (!list || !spare) {
		list_free(list);
		list_free(spare);
		return -ENOMEM;
	}
	if (old) {
		memcpy(list->at, old->at, old->count * sizeof(old->at[0]));
		list->count = old->count;
	}
	tracker->spare = list;
	publish_spare(tracker);
	tracker->spare = spare;
	list_free(old);
	list_free(old_spare);
	return 0;
}

static int insert(struct uf_dirty *tracker, const struct dirty_region *region)
{
	const struct dirty_list *old = tracker->list;
	struct dirty_list *list;
	size_t at;

	if (!old || old->count == old->capacity) {
		int err = grow(tracker);

		if (err)
			return err;
		old = tracker->list;
	}
	list = tracker->spare;
	at = dirty_region_at(old, region->start);
	memcpy(list->at, old->at, at * sizeof(*region));
	list->at[at] = *region;
	memcpy(list->at + at + 1, old->at + at, (old->count - at) * sizeof(*region));
	list->count = old->count + 1;
	publish_spare(tracker);
	return 0;
}

static void drop(struct uf_dirty *tracker, size_t at)
{
	const struct dirty_list *old = tracker->list;
	struct dirty_region region = old->at[at];
	struct dirty_list *list = tracker->spare;

	memcpy(list->at, old->at, at * sizeof(region));
	memcpy(list->at + at, old->at + at + 1, (old->count - at - 1) * sizeof(region));
	list->count = old->count - 1;
	publish_spare(tracker);
	tracker->method->dispose(tracker, &region);
}

static int open_method(struct uf_dirty *tracker, const struct uf_dirty_options *opts)
{
	int err;

	switch (opts->method) {
	case UF_DIRTY_AUTO:
		tracker->method = &dirty_async;
		err = dirty_async.open(tracker, opts);
		if (!err)
			return 0;
		tracker->method = &dirty_sync;
		return dirty_sync.open(tracker, opts);
	case UF_DIRTY_ASYNC:
		tracker->method = &dirty_async;
		return dirty_async.open(tracker, opts);
	case UF_DIRTY_SYNC:
		tracker->method = &dirty_sync;
		return dirty_sync.open(tracker, opts);
	default:
		return -EINVAL;
	}
}

int uf_dirty_open(struct uf_dirty **out, const struct uf_dirty_options *opts)
{
	struct uf_dirty_options options = {.size = sizeof(options)};
	int err = opts ? options_take(&options, sizeof(options), opts, OPTIONS_SIZE_0) : 0;
	struct uf_dirty *tracker;

	if (err)
		return err;
	if (!out || (options.flags & ~UF_DIRTY_USER_MODE_ONLY))
		return -EINVAL;
	tracker = raw_map_own(sizeof(*tracker));
	if (!tracker)
		return -ENOMEM;
	pthread_mutex_init(&tracker->lock, NULL);
	err = open_method(tracker, &options);
	if (err) {
		raw_unmap(tracker, sizeof(*tracker));
		return err;
	}
	*out = tracker;
	return 0;
}

enum uf_dirty_method uf_dirty_method(const struct uf_dirty *tracker)
{
	return tracker ? tracker->method->id : UF_DIRTY_AUTO;
}

static int protect(struct uf_dirty *tracker, const struct dirty_region *region, size_t len)
{
	return uf_writeprotect(tracker->uf, (void *)(uintptr_t)region->start, len, UFFDIO_WRITEPROTECT_MODE_WP);
}

static void unwatch(struct uf_dirty *tracker, const struct dirty_region *region)
{
	uf_unregister(tracker->uf, (void *)(uintptr_t)region->start, region->end - region->start);
}

/* Protects the whole region: clean from here on. */
static int watch(struct uf_dirty *tracker, const struct dirty_region *region)
{
	void *addr = (void *)(uintptr_t)region->start;
	size_t len = region->end - region->start;
	int err = uf_register(tracker->uf, addr, len, UFFDIO_REGISTER_MODE_WP, NULL);

	if (err)
		return err;
	/* Before Linux 6.4 a page that is not there cannot be protected: give each the zero page, which can (5.14). */
	if (!(uf_features(tracker->uf) & UFFD_FEATURE_WP_UNPOPULATED) && madvise(addr, len, MADV_POPULATE_READ))
		err = -errno;
	/* One page alone, as a monitor will ask for it: that fails where the memory's pages are larger. */
	if (!err)
		err = protect(tracker, region, region->page_size);
	if (!err)
		err = protect(tracker, region, len);
	if (err)
		unwatch(tracker, region);
	return err;
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
	err = watch(tracker, region);
	if (err)
		drop(tracker, at);
	return err;
}

int uf_dirty_track(struct uf_dirty *tracker, void *addr, size_t len, size_t page_size)
{
	uint64_t start = (uint64_t)(uintptr_t)addr;
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
	struct dirty_region region = {.start = start, .end = start + len, .page_size = page_size};
	int err;

	if (!tracker || !len || region.end < start)
		return -EINVAL;
	if (!region.page_size)
		region.page_size = system_page;
	if (region.page_size < system_page || (region.page_size & (region.page_size - 1)) ||
	    ((start | len) & (region.page_size - 1)))
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
		unwatch(tracker, &list->at[at]);
		drop(tracker, at);
		err = 0;
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
		/* Whole pages of the region, huge ones too. Cut before it is rounded: `end` may be the last there is. */
		uint64_t from = round_down(max_u64(start, region->start), region->page_size);
		uint64_t to = round_down(min_u64(region->end, end) + region->page_size - 1, region->page_size);

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
		unwatch(tracker, &list->at[i]);
	/* The monitor is gone after this. */
	tracker->method->close(tracker);
	for (size_t i = 0; list && i < list->count; i++) {
		struct dirty_region region = list->at[i];

		tracker->method->dispose(tracker, &region);
	}
	list_free(tracker->list);
	list_free(tracker->spare);
	pthread_mutex_destroy(&tracker->lock);
	raw_unmap(tracker, sizeof(*tracker));
}
