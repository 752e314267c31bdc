// SPDX-License-Identifier: MIT
/* UFFDIO_COPY and UFFDIO_ZEROPAGE: what is theirs alone. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING

TEST(copy_unaligned_source, "Only dst and len must be multiples of the page size: src may have any alignment.")
{
	char *page = anon(1), *src = filled(3);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, src + page_size / 2 + 1, page_size, 0), page_size);
	CHECK(memcmp(page, src + page_size / 2 + 1, page_size) == 0);
}

TEST(copy_present_page_unchanged, "EEXIST, and the page keeps what it holds.")
{
	char *page = anon(1), *src = filled(2);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	CHECK_EQ(uf_copy(uf, page, src + page_size, page_size, 0), -EEXIST);
	CHECK_EQ(*page, pattern(0));
}

TEST(copy_same_page_twice, "The same page may be sent twice: the second COPY is told and does no harm.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), -EEXIST);
	CHECK_EQ(*page, pattern(0));
}

TEST(copy_source_unreadable, "EFAULT The source cannot be read; negated in the copy field, and nothing is copied.")
{
	struct scene scene = scene_set(&request_copy, 1, 0);

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, scene.request->src_at, (uintptr_t)unmapped(1));
	CHECK_EQ(scene_issue(&scene), -EFAULT);
	CHECK_EQ(scene_result(&scene), -EFAULT);
	CHECK(scene_take_missing(&scene, 0));
}

TEST(copy_source_ends, "A source that runs into nothing: what could be read is copied, and EAGAIN with the count.")
{
	struct scene scene = scene_set(&request_copy, 4, 0);

	CHECK_EQ(munmap(scene.src + 2 * page_size, 2 * page_size), 0);
	scene_fill(&scene, 0, 4, 0);
	CHECK_EQ(scene_issue(&scene), -EAGAIN);
	CHECK_EQ(scene_result(&scene), 2 * page_size);
	CHECK_EQ(uf_copy(scene.uf, scene_page(&scene, 2), scene.src + 2 * page_size, 2 * page_size, 0), -EFAULT);
	CHECK(scene_take_missing(&scene, 2));
}

TEST(copy_source_ends_within_page, "A page whose source can be read in part only is not copied at all.")
{
	struct scene scene = scene_set(&request_copy, 2, 0);
	ssize_t done;

	/* Not unmapped: an engine may map something of its own there. */
	CHECK_EQ(mprotect(scene.src + page_size, page_size, PROT_NONE), 0);
	done = uf_copy(scene.uf, scene_page(&scene, 0), scene.src + page_size / 2, page_size, 0);
	CHECK_EQ(done, -EFAULT);
	CHECK(scene_take_missing(&scene, 0));
}

TEST(copy_source_range_invalid, "EINVAL ... the range specified by src and len or dst and len was invalid.")
{
	struct scene scene = scene_set(&request_copy, 2, 0);

	scene_fill(&scene, 0, 2, 0);
	scene_put(&scene, scene.request->src_at, -(uint64_t)page_size);
	CHECK_EQ(scene_issue(&scene), -EINVAL);
	scene_put(&scene, scene.request->src_at, (uint64_t)1 << 63);
	CHECK_EQ(scene_issue(&scene), -EINVAL);
	CHECK(scene_take_missing(&scene, 0));
}

struct nested {
	struct uf *uf;
	char *dst, *src;
};

static long copy_nested(void *arg)
{
	const struct nested *nested = arg;

	return uf_copy(nested->uf, nested->dst, nested->src, page_size, 0);
}

TEST(copy_source_missing_itself, "The source may be missing memory of another object: the COPY then waits for that.")
{
	struct nested nested = {.dst = anon(1), .src = anon(1)};
	char *src = filled(1);
	struct actor *actor;
	struct uf *other;

	need_kernel_faults();
	nested.uf = object(0);
	other = object(0);
	registered(nested.uf, nested.dst, page_size, MISSING);
	registered(other, nested.src, page_size, MISSING);
	actor = act_call(copy_nested, &nested);
	CHECK(actor_waits(actor));
	expect_fault(other, nested.src, page_size, 0);
	CHECK_EQ(uf_copy(other, nested.src, src, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, page_size);
	CHECK_EQ(*nested.dst, pattern(0));
}

TEST(copy_mode_wp, "UFFDIO_COPY_MODE_WP: the page arrives protected against writes.")
{
	char *page = anon(1), *src = filled(1);
	struct actor *reader, *writer;
	struct uf *uf;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	uf = object(0);
	registered(uf, page, page_size, MISSING | UFFDIO_REGISTER_MODE_WP);
	reader = act_read(page);
	CHECK(actor_waits(reader));
	CHECK_EQ(uf_copy(uf, page, src, page_size, UFFDIO_COPY_MODE_WP), page_size);
	CHECK_EQ(actor_end(reader).value, pattern(0));
	writer = act_write(page, 99);
	CHECK(actor_waits(writer));
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	actor_end(writer);
	CHECK_EQ(*(volatile char *)page, 99);
}

TEST(copy_mode_wp_unregistered, "EINVAL COPY_MODE_WP on a range that is not registered for write protection.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	uf = object(0);
	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, src, page_size, UFFDIO_COPY_MODE_WP), -EINVAL);
	CHECK(take_missing(uf, page));
}

TEST(copy_across_mappings,
     "Linux delivers within one mapping at a time: ENOENT where the range spans two, both registered.")
{
	char *pages = anon(2), *src = filled(2);
	struct uf *uf = object(0);

	CHECK_EQ(mprotect(pages + page_size, page_size, PROT_READ), 0);
	registered(uf, pages, 2 * page_size, MISSING);
	CHECK_EQ(uf_copy(uf, pages, src, 2 * page_size, 0), -ENOENT);
	CHECK_EQ(uf_copy(uf, pages, src, page_size, 0), page_size);
	CHECK_EQ(uf_copy(uf, pages + page_size, src + page_size, page_size, 0), page_size);
	CHECK_EQ(pages[page_size], pattern(1));
}

TEST(copy_through_another_object, "Linux lets any object of the process deliver, but only the range's own one wakes.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *mine = object(0), *other = object(0);
	struct actor *actor;

	registered(mine, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_copy(other, page, src, page_size, 0), page_size);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(mine, page, page_size), 0);
	CHECK_EQ(actor_end(actor).value, pattern(0));
}

TEST(copy_to_unwritable_memory,
     "Pages are delivered to memory that the program itself may only read, or not even that.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(mprotect(page, page_size, PROT_NONE), 0);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	CHECK_EQ(mprotect(page, page_size, PROT_READ), 0);
	CHECK_EQ(*page, pattern(0));
}

TEST(copy_many_pages, "You can supply as many pages as you want with UFFDIO_COPY or UFFDIO_ZEROPAGE.")
{
	enum { PAGES = 5000 };
	char *pages = anon(2 * PAGES), *src = filled(PAGES);
	struct uf *uf = object(0);

	registered(uf, pages, 2 * PAGES * page_size, MISSING);
	CHECK_EQ(uf_copy(uf, pages, src, PAGES * page_size, 0), PAGES * page_size);
	CHECK(memcmp(pages, src, PAGES * page_size) == 0);
	CHECK_EQ(uf_zeropage(uf, pages + PAGES * page_size, PAGES * page_size, 0), PAGES * page_size);
	CHECK_EQ(pages[2 * PAGES * page_size - 1], 0);
}

TEST(copy_first_wakes, "Unless you used DONTWAKE the first of any of those ioctls wakes up the faulting thread.")
{
	char *pages = anon(2), *src = filled(2);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, pages, 2 * page_size, MISSING);
	actor = act_read(pages);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_copy(uf, pages, src, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, pattern(0));
	CHECK_EQ(uf_copy(uf, pages + page_size, src + page_size, page_size, 0), page_size);
}

TEST(copy_lets_writer_write, "A thread that waits with a write finds the page delivered and writes into it.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_write(page + 8, 77);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	actor_end(actor);
	CHECK_EQ(page[8], 77);
	CHECK_EQ(page[9], pattern(0));
}

TEST(copy_takes_a_snapshot, "COPY copies: what changes in the source later does not reach the page.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	memset(src, 0, page_size);
	CHECK_EQ(*page, pattern(0));
}

TEST(zeropage_holds_zeros,
     "Zero out a memory range registered with userfaultfd; the pages can be written like any other.")
{
	char *pages = anon(2);
	struct uf *uf = object(0);

	registered(uf, pages, 2 * page_size, MISSING);
	CHECK_EQ(uf_zeropage(uf, pages, 2 * page_size, 0), 2 * page_size);
	for (size_t i = 0; i < 2 * page_size; i++)
		CHECK_EQ(pages[i], 0);
	pages[0] = 1;
	CHECK_EQ(pages[page_size], 0);
}

/*
 * Atomicity: readers run into a range while it is being filled. Whatever they see of a page must be the whole of it.
 */
enum { RACE_PAGES = 256, RACE_ROUNDS = 100, RACERS = 2 };

static struct race {
	char *pages;
	_Atomic unsigned round; /* publishes that the range is missing again */
	_Atomic unsigned finished;
	_Atomic bool torn;
} race;

static bool is_uniform(const char *page, unsigned char byte)
{
	for (size_t i = 0; i < page_size; i++)
		if (((const volatile unsigned char *)page)[i] != byte)
			return false;
	return true;
}

/* Each looks from the end of the page to its beginning: a copy in progress would not have come there yet. */
static void *run_race(void *arg)
{
	for (unsigned round = 1; round <= RACE_ROUNDS; round++) {
		while (atomic_load(&race.round) != round)
			sched_yield();
		for (size_t i = 0; i < RACE_PAGES; i++) {
			const volatile unsigned char *page = (unsigned char *)race.pages + i * page_size;
			unsigned char last = page[page_size - 1];

			if (last != pattern(i + round) || !is_uniform((char *)(uintptr_t)page, last))
				atomic_store(&race.torn, true);
		}
		atomic_fetch_add(&race.finished, 1);
	}
	return arg;
}

static void fill_race(struct uf *uf, char *src, unsigned round)
{
	for (size_t i = 0; i < RACE_PAGES; i++)
		memset(src + i * page_size, pattern(i + round), page_size);
	for (size_t i = 0; i < RACE_PAGES; i += 2)
		CHECK_EQ(uf_copy(uf, race.pages + i * page_size, src + i * page_size, 2 * page_size, 0), 2 * page_size);
}

static void check_atomic(enum memory_source source)
{
	struct memory memory = memory_map(source, RACE_PAGES);
	char *src = anon(RACE_PAGES);
	struct uf *uf = object(0);
	pthread_t threads[RACERS];

	race.pages = memory.at;
	registered(uf, memory.at, memory.len, MISSING);
	for (size_t i = 0; i < RACERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, run_race, NULL), 0);
	for (unsigned round = 1; round <= RACE_ROUNDS; round++) {
		atomic_store(&race.round, round);
		fill_race(uf, src, round);
		while (atomic_load(&race.finished) != round * RACERS)
			sched_yield();
		CHECK_EQ(madvise(memory.at, memory.len, memory.shared ? MADV_REMOVE : MADV_DONTNEED), 0);
	}
	for (size_t i = 0; i < RACERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK(!atomic_load(&race.torn));
}

TEST(copy_is_atomic, "Atomic as in guaranteeing that nothing can see an half copied page.")
{
	check_atomic(MEMORY_ANON);
}

TEST(copy_is_atomic_in_shmem, "Atomic as in guaranteeing that nothing can see an half copied page: in shared memory.")
{
	check_atomic(MEMORY_MEMFD);
}

TEST(copy_faults_until_it_is_done, "It'll keep userfaulting until the copy has finished.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	for (unsigned i = 0; i < 3; i++) {
		CHECK(actor_waits(actor));
		expect_fault(uf, page, page_size, 0);
		CHECK_EQ(uf_wake(uf, page, page_size), 0);
	}
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, pattern(0));
}
