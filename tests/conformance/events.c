// SPDX-License-Identifier: MIT
/* Non-cooperative userfaultfd: the events that tell of changes of the layout. Of fork(2): fork.c. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define REMAP   UFFD_FEATURE_EVENT_REMAP
#define REMOVE  UFFD_FEATURE_EVENT_REMOVE
#define UNMAP   UFFD_FEATURE_EVENT_UNMAP

/* A call that changes the layout, as an actor can make it. */
struct change {
	enum { ADVISE, UNMAP_IT, REMAP_IT, MAP_OVER } what;
	char *addr;
	size_t len;
	int advice;
	size_t new_len;
	int flags;
	char *to;
};

static long make_change(void *arg)
{
	const struct change *change = arg;
	void *p;

	switch (change->what) {
	case ADVISE:
		return madvise(change->addr, change->len, change->advice);
	case UNMAP_IT:
		return munmap(change->addr, change->len);
	case REMAP_IT:
		p = mremap(change->addr, change->len, change->new_len, change->flags, change->to);
		return p == MAP_FAILED ? -errno : (long)(uintptr_t)p;
	case MAP_OVER:
		p = mmap(change->addr, change->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		         0);
		return p == MAP_FAILED ? -errno : 0;
	}
	return -1;
}

static struct actor *start_change(struct change *change)
{
	struct actor *actor = act_call(make_change, change);

	CHECK(actor_waits(actor));
	return actor;
}

static void make_change_now(struct change *change)
{
	struct actor *actor = act_call(make_change, change);

	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, 0);
}

static void expect_area(struct uf *uf, unsigned event, const char *start, size_t len)
{
	struct uffd_msg msg = next_message(uf);

	CHECK_EQ(msg.event, event);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)start);
	CHECK_EQ(msg.arg.remove.end, (uintptr_t)start + len);
}

static void expect_remap(struct uf *uf, const char *from, const char *to, size_t len)
{
	struct uffd_msg msg = next_message(uf);

	CHECK_EQ(msg.event, UFFD_EVENT_REMAP);
	CHECK_EQ(msg.arg.remap.from, (uintptr_t)from);
	CHECK_EQ(msg.arg.remap.to, (uintptr_t)to);
	CHECK_EQ(msg.arg.remap.len, len);
}

/* A touch of the page is reported; zeros resolve it. */
static void check_missing(struct uf *uf, char *page)
{
	struct actor *actor = act_read(page);

	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
}

static void check_ordinary(char *page)
{
	struct actor *actor = act_read(page);

	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, 0);
}

static char *managed(struct uf *uf, size_t pages)
{
	char *p = anon(pages);

	registered(uf, p, pages * page_size, MISSING);
	for (size_t i = 0; i < pages; i++)
		CHECK_EQ(uf_copy(uf, p + i * page_size, filled(1), page_size, 0), page_size);
	return p;
}

TEST(remove_event, "UFFD_EVENT_REMOVE upon madvise(MADV_DONTNEED), with start and end addresses of the removed area.")
{
	struct uf *uf = object(REMOVE);
	char *pages = managed(uf, 4);
	struct change change = {ADVISE, pages + page_size, 2 * page_size, MADV_DONTNEED};
	struct actor *actor = start_change(&change);

	CHECK_EQ(poll_now(uf), 1);
	expect_area(uf, UFFD_EVENT_REMOVE, pages + page_size, 2 * page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
}

TEST(remove_event_of_madv_remove, "UFFD_EVENT_REMOVE upon madvise(MADV_REMOVE) of shared memory.")
{
	struct uf *uf = object(REMOVE);
	struct memory memory = memory_map(MEMORY_MEMFD, 2);
	struct change change = {ADVISE, memory.at, page_size, MADV_REMOVE};
	struct actor *actor;

	memset(memory.at, 1, memory.len);
	registered(uf, memory.at, memory.len, MISSING);
	actor = start_change(&change);
	expect_area(uf, UFFD_EVENT_REMOVE, memory.at, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	check_missing(uf, memory.at);
	CHECK_EQ(memory.at[page_size], 1);
}

TEST(remove_event_of_madv_free, "Linux reports MADV_FREE as well, with the same event.")
{
	struct uf *uf = object(REMOVE);
	char *page = managed(uf, 1);
	struct change change = {ADVISE, page, page_size, MADV_FREE};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_REMOVE, page, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
}

TEST(remove_then_touch, "The area remains monitored, and the proper resolution for a page fault in it is to zeromap.")
{
	struct uf *uf = object(REMOVE);
	char *pages = managed(uf, 2);
	struct change change = {ADVISE, pages, page_size, MADV_DONTNEED};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_REMOVE, pages, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	check_missing(uf, pages);
	CHECK_EQ(pages[page_size], pattern(0));
}

TEST(remove_not_asked_for,
     "Without EVENT_REMOVE nothing is reported and nothing waits; the pages are missing all the same.")
{
	struct uf *uf = object(0);
	char *page = managed(uf, 1);
	struct change change = {ADVISE, page, page_size, MADV_DONTNEED};

	make_change_now(&change);
	expect_silence(uf);
	check_missing(uf, page);
}

TEST(remove_elsewhere, "What happens outside the registered ranges is not reported.")
{
	struct uf *uf = object(REMOVE | UNMAP | REMAP);
	char *page = managed(uf, 1), *other = filled(1);
	struct change advise = {ADVISE, other, page_size, MADV_DONTNEED}, unmap = {UNMAP_IT, other, page_size};

	make_change_now(&advise);
	make_change_now(&unmap);
	expect_silence(uf);
	CHECK_EQ(*page, pattern(0));
}

TEST(remove_only_what_is_registered, "Of a removed area that reaches beyond the registered range only that is told.")
{
	struct uf *uf = object(REMOVE);
	char *pages = filled(3);
	struct change change = {ADVISE, pages, 3 * page_size, MADV_DONTNEED};
	struct actor *actor;

	registered(uf, pages + page_size, page_size, MISSING);
	actor = start_change(&change);
	expect_area(uf, UFFD_EVENT_REMOVE, pages + page_size, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
}

TEST(unmap_event, "UFFD_EVENT_UNMAP with uffd_msg.remove containing start and end addresses of the unmapped area.")
{
	struct uf *uf = object(UNMAP);
	char *pages = managed(uf, 4);
	struct change change = {UNMAP_IT, pages + page_size, 2 * page_size};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_UNMAP, pages + page_size, 2 * page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
	CHECK_EQ(pages[0], pattern(0));
	CHECK_EQ(pages[3 * page_size], pattern(0));
}

TEST(unmap_then_copy, "-ENOENT, when the process has changed its virtual memory layout: COPY on the unmapped area.")
{
	struct uf *uf = object(UNMAP);
	char *pages = managed(uf, 1), *src = filled(1);
	struct change change = {UNMAP_IT, pages, page_size};
	struct actor *actor = start_change(&change);

	CHECK_EQ(uf_copy(uf, pages, src, page_size, 0), -EAGAIN);
	expect_area(uf, UFFD_EVENT_UNMAP, pages, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(uf_copy(uf, pages, src, page_size, 0), -ENOENT);
}

TEST(unmap_ends_tracking, "The context for the area disappears too: no further faults, also when it is mapped again.")
{
	struct uf *uf = object(UNMAP);
	char *page = managed(uf, 1);
	struct change change = {UNMAP_IT, page, page_size};
	struct change again = {MAP_OVER, page, page_size};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_UNMAP, page, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	make_change_now(&again);
	check_ordinary(page);
	expect_silence(uf);
}

TEST(unmap_by_mapping_over, "UFFD_EVENT_UNMAP when an area is unmapped implicitly, by a mapping put over it.")
{
	struct uf *uf = object(UNMAP);
	char *page = managed(uf, 1);
	struct change change = {MAP_OVER, page, page_size};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_UNMAP, page, page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	check_ordinary(page);
}

TEST(unmap_by_shrinking, "UFFD_EVENT_UNMAP when an area is unmapped implicitly, by an mremap() that shrinks it.")
{
	struct uf *uf = object(UNMAP | REMAP);
	char *pages = managed(uf, 3);
	struct change change = {.what = REMAP_IT, .addr = pages, .len = 3 * page_size, .new_len = page_size};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_UNMAP, pages + page_size, 2 * page_size);
	CHECK_EQ(actor_end(actor).value, (uintptr_t)pages);
	CHECK_EQ(*pages, pattern(0));
	expect_silence(uf);
}

TEST(unmap_not_asked_for, "Without EVENT_UNMAP nothing is reported and nothing waits.")
{
	struct uf *uf = object(0);
	char *page = managed(uf, 1);
	struct change change = {UNMAP_IT, page, page_size};

	make_change_now(&change);
	expect_silence(uf);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), -ENOENT);
}

TEST(remap_event, "UFFD_EVENT_REMAP: uffd_msg.remap contains the old and new addresses of the area and its length.")
{
	struct uf *uf = object(REMAP);
	char *pages = managed(uf, 2), *to = unmapped(2);
	struct change change = {
		.what = REMAP_IT,
		.addr = pages,
		.len = 2 * page_size,
		.new_len = 2 * page_size,
		.flags = MREMAP_MAYMOVE | MREMAP_FIXED,
		.to = to,
	};
	struct actor *actor = start_change(&change);

	expect_remap(uf, pages, to, 2 * page_size);
	CHECK_EQ(actor_end(actor).value, (uintptr_t)to);
	CHECK_EQ(to[page_size], pattern(0));
	expect_silence(uf);
}

TEST(remap_original_length, "... and its original length, also when it grows: the new part is missing as well.")
{
	struct uf *uf = object(REMAP);
	char *pages = managed(uf, 1), *to = unmapped(3);
	struct change change = {
		.what = REMAP_IT,
		.addr = pages,
		.len = page_size,
		.new_len = 3 * page_size,
		.flags = MREMAP_MAYMOVE | MREMAP_FIXED,
		.to = to,
	};
	struct actor *actor = start_change(&change);

	expect_remap(uf, pages, to, page_size);
	CHECK_EQ(actor_end(actor).value, (uintptr_t)to);
	CHECK_EQ(*to, pattern(0));
	check_missing(uf, to + 2 * page_size);
}

TEST(remap_moves_tracking, "Faults are delivered for the area at its new address.")
{
	struct uf *uf = object(REMAP);
	char *page = anon(1), *to = unmapped(1);
	struct change change = {
		.what = REMAP_IT,
		.addr = page,
		.len = page_size,
		.new_len = page_size,
		.flags = MREMAP_MAYMOVE | MREMAP_FIXED,
		.to = to,
	};
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = start_change(&change);
	expect_remap(uf, page, to, page_size);
	CHECK_EQ(actor_end(actor).value, (uintptr_t)to);
	check_missing(uf, to);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), -ENOENT);
}

TEST(remap_not_asked_for, "Without EVENT_REMAP a moved area is not tracked any more at its new address.")
{
	struct uf *uf = object(0);
	char *page = anon(1), *to = unmapped(1);

	registered(uf, page, page_size, MISSING);
	CHECK(mremap(page, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	check_ordinary(to);
	expect_silence(uf);
}

TEST(remap_event_order, "Of one mremap(): UNMAP of what lay at the destination, REMAP, then UNMAP of the old place.")
{
	struct uf *uf = object(REMAP | UNMAP);
	char *pages = managed(uf, 2), *to = managed(uf, 2);
	struct change change = {
		.what = REMAP_IT,
		.addr = pages,
		.len = 2 * page_size,
		.new_len = 2 * page_size,
		.flags = MREMAP_MAYMOVE | MREMAP_FIXED,
		.to = to,
	};
	struct actor *actor = start_change(&change);

	expect_area(uf, UFFD_EVENT_UNMAP, to, 2 * page_size);
	CHECK(actor_waits(actor));
	expect_remap(uf, pages, to, 2 * page_size);
	CHECK(actor_waits(actor));
	expect_area(uf, UFFD_EVENT_UNMAP, pages, 2 * page_size);
	CHECK_EQ(actor_end(actor).value, (uintptr_t)to);
	expect_silence(uf);
}

TEST(event_blocks_until_read,
     "The process resumes execution as soon as manager executes read(): not before, and no wake.")
{
	struct uf *uf = object(REMOVE);
	char *page = managed(uf, 1);
	struct change change = {ADVISE, page, page_size, MADV_DONTNEED};
	struct actor *actor = start_change(&change);

	CHECK_EQ(uf_wake(uf, page, page_size), 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(next_message(uf).event, UFFD_EVENT_REMOVE);
	CHECK_EQ(actor_end(actor).value, 0);
}

TEST(event_and_fault_in_one_read, "Events come by the same read(2) protocol as page faults; Linux gives faults first.")
{
	struct uf *uf = object(REMOVE);
	char *pages = managed(uf, 2);
	struct change change = {ADVISE, pages, page_size, MADV_DONTNEED};
	struct actor *changer, *toucher;
	struct uffd_msg msgs[4];

	CHECK_EQ(uf_unregister(uf, pages + page_size, page_size), 0);
	CHECK_EQ(madvise(pages + page_size, page_size, MADV_DONTNEED), 0);
	registered(uf, pages + page_size, page_size, MISSING);
	changer = start_change(&change);
	toucher = act_read(pages + page_size);
	CHECK(actor_waits(toucher));
	CHECK_EQ(uf_read(uf, msgs, 4), 2);
	CHECK_EQ(msgs[0].event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(msgs[1].event, UFFD_EVENT_REMOVE);
	CHECK_EQ(actor_end(changer).value, 0);
	CHECK_EQ(uf_zeropage(uf, pages + page_size, page_size, 0), page_size);
	actor_end(toucher);
}

TEST(event_ends_with_close, "A process that waits for its event to be read goes on when the last descriptor is closed.")
{
	struct uf *uf = object(REMOVE);
	char *page = managed(uf, 1);
	struct change change = {ADVISE, page, page_size, MADV_DONTNEED};
	struct actor *actor = start_change(&change);

	uf_close(uf);
	CHECK_EQ(actor_end(actor).value, 0);
	check_ordinary(page);
}

TEST(event_several_waiting, "Events of several threads are all delivered.")
{
	struct uf *uf = object(REMOVE);
	char *pages = managed(uf, 3);
	struct change changes[3];
	struct actor *actors[3];
	unsigned seen = 0;

	for (size_t i = 0; i < 3; i++) {
		changes[i] = (struct change){ADVISE, pages + i * page_size, page_size, MADV_DONTNEED};
		actors[i] = start_change(&changes[i]);
	}
	for (size_t i = 0; i < 3; i++) {
		struct uffd_msg msg = next_message(uf);

		CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
		seen |= 1u << (msg.arg.remove.start - (uintptr_t)pages) / page_size;
	}
	CHECK_EQ(seen, 7);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(actor_end(actors[i]).value, 0);
}
