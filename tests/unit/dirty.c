// SPDX-License-Identifier: MIT
/* Dirty tracking: every promise of <userfault/dirty.h>, by both methods. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <userfault/dirty.h>

#include "support/test.h"

static const enum uf_dirty_method methods[] = {UF_DIRTY_ASYNC, UF_DIRTY_SYNC};
#define for_each_method(m) for (const enum uf_dirty_method *m = methods; m < methods + 2; m++)

static struct uf_dirty *open_tracker(enum uf_dirty_method method)
{
	struct uf_dirty_options opts = {.size = sizeof(opts), .method = method};
	struct uf_dirty *tracker;

	CHECK_EQ(uf_dirty_open(&tracker, &opts), 0);
	CHECK_EQ(uf_dirty_method(tracker), method);
	return tracker;
}

static char *map_pages(size_t pages, int flags)
{
	char *p = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static uint64_t at(const char *p, size_t page)
{
	return (uint64_t)(uintptr_t)p + page * page_size;
}

static size_t collect(struct uf_dirty *tracker, const char *p, size_t pages, struct uf_dirty_range *ranges, size_t room)
{
	uint64_t next;
	ssize_t n = uf_dirty_collect(tracker, at(p, 0), at(p, pages), ranges, room, 0, &next);

	CHECK(n >= 0);
	CHECK_EQ(next, at(p, pages));
	return (size_t)n;
}

static void writes_are_reported_once(enum uf_dirty_method method, int flags)
{
	struct uf_dirty *tracker = open_tracker(method);
	struct uf_dirty_range r[8];
	char *p = map_pages(16, flags);

	memset(p, 1, 8 * page_size); /* half of it was there before, half is first touched under tracking */
	CHECK_EQ(uf_dirty_track(tracker, p, 16 * page_size, 0), 0);
	CHECK_EQ(collect(tracker, p, 16, r, 8), 0);

	p[2 * page_size] = 2;
	p[3 * page_size + 7] = 2;
	p[10 * page_size] = 2;
	(void)*(volatile char *)(p + 5 * page_size);
	(void)*(volatile char *)(p + 12 * page_size);
	CHECK_EQ(collect(tracker, p, 16, r, 8), 2);
	CHECK_EQ(r[0].start, at(p, 2));
	CHECK_EQ(r[0].end, at(p, 4));
	CHECK_EQ(r[1].start, at(p, 10));
	CHECK_EQ(r[1].end, at(p, 11));
	CHECK_EQ(collect(tracker, p, 16, r, 8), 0);

	p[2 * page_size] = 3;
	CHECK_EQ(collect(tracker, p, 16, r, 8), 1);
	CHECK_EQ(r[0].start, at(p, 2));
	CHECK_EQ(r[0].end, at(p, 3));
	CHECK_EQ(p[2 * page_size], 3);
	CHECK_EQ(p[3 * page_size + 7], 2);
	CHECK_EQ(p[7 * page_size], 1);
	uf_dirty_close(tracker);
}

TEST(written_pages_are_reported_once, "A write is reported once; reads are not; first touches count.")
{
	for_each_method (m) {
		writes_are_reported_once(*m, MAP_PRIVATE);
		writes_are_reported_once(*m, MAP_SHARED);
	}
}

TEST(keep_only_looks, "UF_DIRTY_KEEP: what is reported stays dirty.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(4, MAP_PRIVATE);
		struct uf_dirty_range r[4];
		uint64_t next;

		CHECK_EQ(uf_dirty_track(tracker, p, 4 * page_size, 0), 0);
		p[page_size] = 1;
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(uf_dirty_collect(tracker, at(p, 0), at(p, 4), r, 4, UF_DIRTY_KEEP, &next), 1);
			CHECK_EQ(r[0].start, at(p, 1));
		}
		CHECK_EQ(collect(tracker, p, 4, r, 4), 1);
		CHECK_EQ(collect(tracker, p, 4, r, 4), 0);
		uf_dirty_close(tracker);
	}
}

TEST(little_room_loses_nothing, "When the room is used up, *next tells where to go on, and no page is lost or doubled.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		size_t pages = 300, found = 0;
		char *p = map_pages(pages, MAP_PRIVATE);
		uint64_t next = at(p, 0);

		CHECK_EQ(uf_dirty_track(tracker, p, pages * page_size, 0), 0);
		for (size_t i = 0; i < pages; i += 2)
			p[i * page_size] = 1;
		while (next < at(p, pages)) {
			struct uf_dirty_range r[3];
			uint64_t from = next;
			ssize_t n = uf_dirty_collect(tracker, from, at(p, pages), r, 3, 0, &next);

			CHECK(n >= 0 && next > from);
			for (ssize_t i = 0; i < n; i++) {
				CHECK_EQ(r[i].start, at(p, 2 * found));
				CHECK_EQ(r[i].end, at(p, 2 * found + 1));
				found++;
			}
		}
		CHECK_EQ(found, pages / 2);
		uf_dirty_close(tracker);
	}
}

TEST(regions_are_independent, "Parts that are not watched are passed over; an untracked region reports nothing more.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(12, MAP_PRIVATE);
		struct uf_dirty_range r[8];

		CHECK_EQ(uf_dirty_track(tracker, p + 8 * page_size, 2 * page_size, 0), 0);
		CHECK_EQ(uf_dirty_track(tracker, p + page_size, 3 * page_size, 0), 0);
		memset(p, 1, 12 * page_size);
		CHECK_EQ(collect(tracker, p, 12, r, 8), 2);
		CHECK_EQ(r[0].start, at(p, 1));
		CHECK_EQ(r[0].end, at(p, 4));
		CHECK_EQ(r[1].start, at(p, 8));
		CHECK_EQ(r[1].end, at(p, 10));

		CHECK_EQ(uf_dirty_untrack(tracker, p + page_size, 3 * page_size), 0);
		memset(p, 2, 12 * page_size);
		CHECK_EQ(collect(tracker, p, 12, r, 8), 1);
		CHECK_EQ(r[0].start, at(p, 8));
		uf_dirty_close(tracker);
		memset(p, 3, 12 * page_size); /* nothing waits for a closed tracker */
	}
}

TEST(watched_twice_is_refused, "-EEXIST for a part that is watched already; -ENOENT for untracking what is not.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m), *other = open_tracker(*m);
		char *p = map_pages(8, MAP_PRIVATE);

		CHECK_EQ(uf_dirty_track(tracker, p + 2 * page_size, 2 * page_size, 0), 0);
		CHECK_EQ(uf_dirty_track(tracker, p, 8 * page_size, 0), -EEXIST);
		CHECK_EQ(uf_dirty_track(tracker, p + 3 * page_size, 2 * page_size, 0), -EEXIST);
		CHECK_EQ(uf_dirty_track(other, p + 3 * page_size, 2 * page_size, 0), -EBUSY);
		CHECK_EQ(uf_dirty_untrack(tracker, p + 2 * page_size, page_size), -ENOENT);
		CHECK_EQ(uf_dirty_untrack(tracker, p, page_size), -ENOENT);
		CHECK_EQ(uf_dirty_untrack(tracker, p + 2 * page_size, 2 * page_size), 0);
		CHECK_EQ(uf_dirty_track(other, p, 8 * page_size, 0), 0);
		uf_dirty_close(tracker);
		uf_dirty_close(other);
	}
}

/* Writers stamp pages with rising numbers; what was reported, and read after that, must account for every stamp. */
#define PAGES 256
static struct {
	char *memory;
	_Atomic bool stop;
	_Atomic uint64_t stamped[PAGES]; /* the stamp is in memory before it is here */
} shared;

TEST(remapped_memory_is_passed_over, "Memory mapped anew under a tracker is passed over, and loses nothing around it.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(9, MAP_PRIVATE);
		struct uf_dirty_range r[8];

		CHECK_EQ(uf_dirty_track(tracker, p, 9 * page_size, 0), 0);
		p[page_size] = 1;
		p[7 * page_size] = 1;
		CHECK(mmap(p + 3 * page_size, page_size, PROT_READ | PROT_WRITE,
		           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
		CHECK_EQ(munmap(p + 5 * page_size, page_size), 0);
		p[3 * page_size] = 1;
		CHECK_EQ(collect(tracker, p, 9, r, 8), 2);
		CHECK_EQ(r[0].start, at(p, 1));
		CHECK_EQ(r[0].end, at(p, 2));
		CHECK_EQ(r[1].start, at(p, 7));
		CHECK_EQ(r[1].end, at(p, 8));
		CHECK_EQ(collect(tracker, p, 9, r, 8), 0);
		p[8 * page_size] = 1;
		CHECK_EQ(collect(tracker, p, 9, r, 8), 1);
		CHECK_EQ(r[0].start, at(p, 8));
		uf_dirty_close(tracker);
	}
}

TEST(remapped_page_hides_nothing_behind_it,
     "A page mapped anew in the middle of a dirty run is passed over; what lies behind "
     "it is watched on.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(4, MAP_PRIVATE);
		struct uf_dirty_range r[8];

		CHECK_EQ(uf_dirty_track(tracker, p, 4 * page_size, 0), 0);
		memset(p, 1, 4 * page_size);
		CHECK(mmap(p + page_size, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		           -1, 0) != MAP_FAILED);
		CHECK_EQ(collect(tracker, p, 4, r, 8), 2);
		CHECK_EQ(r[0].start, at(p, 0));
		CHECK_EQ(r[0].end, at(p, 1));
		CHECK_EQ(r[1].start, at(p, 2));
		CHECK_EQ(r[1].end, at(p, 4));
		p[2 * page_size] = 2;
		p[3 * page_size] = 2;
		CHECK_EQ(collect(tracker, p, 4, r, 8), 1);
		CHECK_EQ(r[0].start, at(p, 2));
		CHECK_EQ(r[0].end, at(p, 4));
		uf_dirty_close(tracker);
	}
}

TEST(little_room_loses_nothing_around_remapped_pages,
     "Room that ends in a run with pages mapped anew loses none of the others.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(12, MAP_PRIVATE);
		uint64_t next = at(p, 0);
		size_t found = 0;

		CHECK_EQ(uf_dirty_track(tracker, p, 12 * page_size, 0), 0);
		memset(p, 1, 12 * page_size);
		for (size_t i = 1; i < 12; i += 2)
			CHECK(mmap(p + i * page_size, page_size, PROT_READ | PROT_WRITE,
			           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
		while (next < at(p, 12)) {
			struct uf_dirty_range r[1];
			ssize_t n = uf_dirty_collect(tracker, next, at(p, 12), r, 1, 0, &next);

			CHECK(n >= 0);
			if (n) {
				CHECK_EQ(r[0].start, at(p, 2 * found));
				CHECK_EQ(r[0].end, at(p, 2 * found + 1));
				found++;
			}
		}
		CHECK_EQ(found, 6);
		uf_dirty_close(tracker);
	}
}

TEST(kernel_writes_are_seen, "Writes by system calls count like any other.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(2, MAP_PRIVATE);
		struct uf_dirty_range r[2];
		int pipes[2];

		CHECK_EQ(uf_dirty_track(tracker, p, 2 * page_size, 0), 0);
		CHECK_EQ(pipe(pipes), 0);
		CHECK_EQ(write(pipes[1], "x", 1), 1);
		CHECK_EQ(read(pipes[0], p + page_size, 1), 1);
		CHECK_EQ(collect(tracker, p, 2, r, 2), 1);
		CHECK_EQ(r[0].start, at(p, 1));
		uf_dirty_close(tracker);
	}
}

TEST(user_mode_only_must_be_asked_for,
     "Where system calls would fail in watched memory, sync is refused unless asked for.")
{
	struct uf_dirty_options opts = {.size = sizeof(opts), .method = UF_DIRTY_SYNC};
	struct uf_dirty *tracker;
	struct uf_dirty_range r[1];
	char *p = map_pages(1, MAP_PRIVATE);

	if (geteuid() == 0)
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	if (!uf_dirty_open(&tracker, &opts))
		SKIP("an unprivileged user may serve the kernel's touches here");
	opts.flags = UF_DIRTY_USER_MODE_ONLY;
	CHECK_EQ(uf_dirty_open(&tracker, &opts), 0);
	CHECK_EQ(uf_dirty_track(tracker, p, page_size, 0), 0);
	p[0] = 1;
	CHECK_EQ(collect(tracker, p, 1, r, 1), 1);
	uf_dirty_close(tracker);
}

static void *write_until_stopped(void *arg)
{
	while (!atomic_load(&shared.stop))
		*(volatile char *)arg = 1;
	return NULL;
}

TEST(untrack_wakes_writers, "A writer that waits for the tracker goes on when its region is untracked.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = map_pages(1, MAP_PRIVATE);
		pthread_t writer;

		atomic_store(&shared.stop, false);
		CHECK_EQ(pthread_create(&writer, NULL, write_until_stopped, p), 0);
		for (int round = 0; round < 3000; round++) {
			CHECK_EQ(uf_dirty_track(tracker, p, page_size, 0), 0);
			CHECK_EQ(uf_dirty_untrack(tracker, p, page_size), 0);
		}
		atomic_store(&shared.stop, true);
		pthread_join(writer, NULL);
		uf_dirty_close(tracker);
	}
}

TEST(huge_pages_are_one_unit, "page_size is the unit of reports, the huge page's for hugetlbfs.")
{
	if (free_huge_pages() < 4)
		SKIP("needs 4 free huge pages, there are %zu", free_huge_pages());
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *p = mmap(NULL, 4 * huge_page_size, PROT_READ | PROT_WRITE,
		               MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
		uint64_t start = (uint64_t)(uintptr_t)p, next;
		struct uf_dirty_range r[4];

		CHECK(p != MAP_FAILED);
		CHECK_EQ(uf_dirty_track(tracker, p, 4 * huge_page_size, 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, 4 * huge_page_size, huge_page_size), 0);
		p[huge_page_size + 5 * page_size] = 1;
		CHECK_EQ(uf_dirty_collect(tracker, start, start + 4 * huge_page_size, r, 4, 0, &next), 1);
		CHECK_EQ(r[0].start, start + huge_page_size);
		CHECK_EQ(r[0].end, start + 2 * huge_page_size);
		CHECK_EQ(uf_dirty_collect(tracker, start, start + 4 * huge_page_size, r, 4, 0, &next), 0);
		uf_dirty_close(tracker);
		munmap(p, 4 * huge_page_size);
	}
}

static void *stamp_pages(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	while (!atomic_load(&shared.stop)) {
		size_t page;

		random = random * 6364136223846793005u + 1442695040888963407u;
		page = (size_t)(random >> 33) % (PAGES / 2) * 2 + (uintptr_t)arg;
		_Atomic uint64_t *cell = (_Atomic uint64_t *)(shared.memory + page * page_size);
		uint64_t stamp = atomic_load(&shared.stamped[page]) + 1;

		atomic_store(cell, stamp);
		atomic_store(&shared.stamped[page], stamp);
	}
	return NULL;
}

static void take_snapshot(struct uf_dirty *tracker, uint64_t *copy)
{
	uint64_t next = at(shared.memory, 0), before[PAGES];

	/* Every stamp announced before the question must be in the copy after it. */
	for (size_t i = 0; i < PAGES; i++)
		before[i] = atomic_load(&shared.stamped[i]);
	while (next < at(shared.memory, PAGES)) {
		struct uf_dirty_range r[16];
		ssize_t n = uf_dirty_collect(tracker, next, at(shared.memory, PAGES), r, 16, 0, &next);

		CHECK(n >= 0);
		for (ssize_t i = 0; i < n; i++)
			for (uint64_t a = r[i].start; a < r[i].end; a += page_size)
				copy[(a - at(shared.memory, 0)) / page_size] = atomic_load(
					(_Atomic uint64_t *)(uintptr_t)a);
	}
	for (size_t i = 0; i < PAGES; i++)
		if (copy[i] < before[i])
			FAIL("page %zu: stamp %llu was written, and the copy has %llu", i,
			     (unsigned long long)before[i], (unsigned long long)copy[i]);
}

TEST(no_write_is_lost_under_load, "A write is never lost, however it races with the question.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		static uint64_t copy[PAGES];
		pthread_t writers[2];

		memset(&shared, 0, sizeof(shared));
		memset(copy, 0, sizeof(copy));
		shared.memory = map_pages(PAGES, MAP_PRIVATE);
		CHECK_EQ(uf_dirty_track(tracker, shared.memory, PAGES * page_size, 0), 0);
		for (uintptr_t i = 0; i < 2; i++)
			CHECK_EQ(pthread_create(&writers[i], NULL, stamp_pages, (void *)i), 0);
		for (int round = 0; round < 20000; round++)
			take_snapshot(tracker, copy);
		atomic_store(&shared.stop, true);
		for (int i = 0; i < 2; i++)
			pthread_join(writers[i], NULL);
		take_snapshot(tracker, copy);
		for (size_t i = 0; i < PAGES; i++)
			CHECK_EQ(copy[i], shared.stamped[i]);
		uf_dirty_close(tracker);
	}
}

/* Runs on a stack that is watched, and takes its answers into watched memory. */
static void *track_from_watched_stack(void *arg)
{
	struct uf_dirty *tracker = arg;
	char *p = map_pages(4, MAP_PRIVATE);
	struct uf_dirty_range *r = (struct uf_dirty_range *)p;

	CHECK_EQ(uf_dirty_track(tracker, p, 4 * page_size, 0), 0);
	for (int i = 0; i < 200; i++) {
		uint64_t next;
		char *q = map_pages(1, MAP_PRIVATE);

		p[2 * page_size] = 1;
		CHECK(uf_dirty_collect(tracker, 0, UINT64_MAX & ~(page_size - 1), r, 4, 0, &next) >= 1);
		CHECK_EQ(uf_dirty_track(tracker, q, page_size, 0), 0);
		*q = 1;
		CHECK_EQ(uf_dirty_untrack(tracker, q, page_size), 0);
		munmap(q, page_size);
	}
	return NULL;
}

TEST(callers_memory_may_be_watched, "The tracker never waits for itself when its caller's stack or answer is watched.")
{
	for_each_method (m) {
		struct uf_dirty *tracker = open_tracker(*m);
		char *stack = map_pages(512, MAP_PRIVATE);
		pthread_attr_t attr;
		pthread_t thread;

		CHECK_EQ(uf_dirty_track(tracker, stack, 512 * page_size, 0), 0);
		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setstack(&attr, stack, 512 * page_size), 0);
		CHECK_EQ(pthread_create(&thread, &attr, track_from_watched_stack, tracker), 0);
		pthread_join(thread, NULL);
		uf_dirty_close(tracker);
	}
}

TEST(everything_can_be_asked_for,
     "To the end of all addresses, whatever the size of pages: nothing written is passed over.")
{
	for_each_method (m) {
		const uint64_t last = UINT64_MAX & ~(uint64_t)(page_size - 1);
		size_t pages = 16, large = pages * page_size;
		struct uf_dirty *tracker = open_tracker(*m);
		char *memory = map_pages(3 * pages, MAP_PRIVATE);
		char *p = memory + (-(uintptr_t)memory & (large - 1));
		struct uf_dirty_range r[4];
		uint64_t next;

		memset(p, 1, 2 * large);
		CHECK_EQ(uf_dirty_track(tracker, p, 2 * large, large), 0);
		p[large] = 2;
		CHECK_EQ(uf_dirty_collect(tracker, 0, last, r, 4, 0, &next), 1);
		CHECK_EQ(r[0].start, at(p, pages));
		CHECK_EQ(next, last);
		CHECK_EQ(uf_dirty_collect(tracker, 0, last, r, 4, 0, &next), 0);
		CHECK_EQ(next, last);
		uf_dirty_close(tracker);
	}
}

TEST(wrong_arguments_are_refused, "Wrong arguments answer -EINVAL and change nothing.")
{
	for_each_method (m) {
		struct uf_dirty_options small = {.size = 4};
		struct uf_dirty *tracker = open_tracker(*m), *none;
		char *p = map_pages(2, MAP_PRIVATE);
		struct uf_dirty_range r[1];
		uint64_t next = 77, s = at(p, 0);

		CHECK_EQ(uf_dirty_open(NULL, NULL), -EINVAL);
		CHECK_EQ(uf_dirty_open(&none, &small), -EINVAL);
		CHECK_EQ(uf_dirty_open(&none, &(struct uf_dirty_options){.size = sizeof(small), .method = 9}), -EINVAL);
		CHECK_EQ(uf_dirty_open(&none, &(struct uf_dirty_options){.size = sizeof(small), .flags = 2}), -EINVAL);
		CHECK_EQ(uf_dirty_track(NULL, p, page_size, 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, 0, 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p + 1, page_size, 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, page_size + 1, 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, page_size, 3000), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, page_size, page_size / 4), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, p, SIZE_MAX & ~(page_size - 1), 0), -EINVAL);
		CHECK_EQ(uf_dirty_track(tracker, NULL, page_size, 0), -EINVAL);
		CHECK_EQ(uf_dirty_untrack(NULL, p, page_size), -EINVAL);
		CHECK_EQ(uf_dirty_collect(NULL, s, s, r, 1, 0, &next), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s, s, NULL, 1, 0, &next), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s, s, r, 0, 0, &next), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s, s, r, 1, 0, NULL), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s, s, r, 1, 2, &next), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s + page_size, s, r, 1, 0, &next), -EINVAL);
		CHECK_EQ(uf_dirty_collect(tracker, s + 1, s + page_size, r, 1, 0, &next), -EINVAL);
		CHECK_EQ(next, 77);
		CHECK_EQ(uf_dirty_method(NULL), UF_DIRTY_AUTO);
		uf_dirty_close(NULL);
		uf_dirty_close(tracker);
	}
}
