// SPDX-License-Identifier: MIT
/* Write Protect Notifications: UFFDIO_WRITEPROTECT and the faults it brings. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING  UFFDIO_REGISTER_MODE_MISSING
#define WP       UFFDIO_REGISTER_MODE_WP
#define PROTECT  UFFDIO_WRITEPROTECT_MODE_WP
#define DONTWAKE UFFDIO_WRITEPROTECT_MODE_DONTWAKE
#define WP_FAULT (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE)

static struct uf *object_wp(uint64_t features)
{
	return object(features | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

static void protect(struct uf *uf, void *addr, size_t pages)
{
	CHECK_EQ(uf_writeprotect(uf, addr, pages * page_size, PROTECT), 0);
}

/* A write to the page is reported, and goes on once the protection is lifted. */
static void check_protected(struct uf *uf, char *page)
{
	struct actor *actor = act_write(page, 99);

	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, WP_FAULT);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(*(volatile char *)page, 99);
}

static void check_writable(char *page)
{
	struct actor *actor = act_write(page, 98);

	CHECK(!actor_waits(actor));
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 98);
}

TEST(wp_reports_writes, "In the thread reading from uffd the struct will have UFFD_PAGEFAULT_FLAG_WP set.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	check_protected(uf, page);
	expect_silence(uf);
}

TEST(wp_lifting_wakes,
     "UFFDIO_WRITEPROTECT without MODE_WP wakes up the thread which will continue to run with writes.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	actor = act_write(page, 5);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, WP_FAULT);
	/* Bookkeeping happens here: the old content is still in place. */
	CHECK_EQ(*(volatile char *)page, pattern(0));
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 5);
	check_writable(page);
}

TEST(wp_lets_reads_pass, "Reads of a protected page are not reported.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	actor = act_read(page);
	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, pattern(0));
	expect_silence(uf);
}

TEST(wp_registration_alone, "Registering with MODE_WP protects nothing yet.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, WP);
	check_writable(page);
	expect_silence(uf);
}

TEST(wp_any_range, "The range does not default to and does not have to be identical to the range you registered with.")
{
	char *pages = filled(4);
	struct uf *uf = object_wp(0);

	registered(uf, pages, 4 * page_size, WP);
	protect(uf, pages + page_size, 2);
	check_writable(pages);
	check_writable(pages + 3 * page_size);
	check_protected(uf, pages + page_size);
	check_protected(uf, pages + 2 * page_size);
}

TEST(wp_many_ranges, "You can write protect as many ranges as you like (inside the registered range).")
{
	enum { PAGES = 64 };
	char *pages = filled(PAGES);
	struct uf *uf = object_wp(0);

	registered(uf, pages, PAGES * page_size, WP);
	for (size_t i = 0; i < PAGES; i += 2)
		protect(uf, pages + i * page_size, 1);
	for (size_t i = 0; i < PAGES; i++)
		if (i % 2)
			check_writable(pages + i * page_size);
		else
			check_protected(uf, pages + i * page_size);
}

TEST(wp_twice, "Protecting what is protected, or lifting what is not, succeeds.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, WP);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	protect(uf, page, 1);
	protect(uf, page, 1);
	check_protected(uf, page);
}

TEST(wp_keeps_content, "Protection changes nothing about what the pages hold.")
{
	char *pages = filled(2);
	struct uf *uf = object_wp(0);

	registered(uf, pages, 2 * page_size, WP);
	protect(uf, pages, 2);
	CHECK_EQ(uf_writeprotect(uf, pages, 2 * page_size, 0), 0);
	CHECK_EQ(pages[page_size - 1], pattern(0));
	CHECK_EQ(pages[page_size], pattern(1));
}

TEST(wp_dontwake, "Lifted with DONTWAKE the writer goes on waiting until UFFDIO_WAKE.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	actor = act_write(page, 5);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_writeprotect(uf, page, page_size, DONTWAKE), 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(uf, page, page_size), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 5);
}

TEST(wp_protecting_wakes_nobody, "EINVAL MODE_WP together with MODE_DONTWAKE: protecting never wakes.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, WP);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, PROTECT | DONTWAKE), -EINVAL);
	check_writable(page);
}

TEST(wp_not_registered_for_it, "ENOENT The range is registered, but not with UFFDIO_REGISTER_MODE_WP.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, PROTECT), -ENOENT);
	check_writable(page);
}

TEST(wp_fails_half_way, "After ENOENT a first part of the range may have been changed.")
{
	char *pages = filled(2);
	struct uf *uf = object_wp(0);

	registered(uf, pages, page_size, WP);
	CHECK_EQ(uf_writeprotect(uf, pages, 2 * page_size, PROTECT), -ENOENT);
	check_writable(pages + page_size);
	/* Linux has protected the first page. Lifting it is right in either case. */
	CHECK_EQ(uf_writeprotect(uf, pages, page_size, 0), 0);
	check_writable(pages);
}

TEST(wp_write_to_missing_page, "A write into a !WP area has FLAG_WRITE set: a missing page, and you must supply one.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING | WP);
	actor = act_write(page, 5);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_copy(uf, page, src, page_size, 0), page_size);
	actor_end(actor);
	CHECK_EQ(page[0], 5);
	CHECK_EQ(page[1], pattern(0));
}

TEST(wp_supplied_protected,
     "A missing page supplied with COPY_MODE_WP: the waiting write faults once more, now with FLAG_WP.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING | WP);
	actor = act_write(page, 5);
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_copy(uf, page, src, page_size, UFFDIO_COPY_MODE_WP), page_size);
	expect_fault(uf, page, page_size, WP_FAULT);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 5);
}

TEST(wp_protected_then_removed, "Protection goes with the page: a page removed and touched again is missing.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING | WP);
	protect(uf, page, 1);
	CHECK_EQ(madvise(page, page_size, MADV_DONTNEED), 0);
	actor = act_write(page, 5);
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 5);
}

TEST(wp_zero_page, "A page of zeros that was only read can be protected.")
{
	char *page = anon(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, MISSING | WP);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	protect(uf, page, 1);
	check_protected(uf, page);
}

TEST(wp_unpopulated_not_asked, "Pages that are not there are not protected, unless WP_UNPOPULATED was enabled.")
{
	char *page = anon(1);
	struct uf *uf = object_wp(0);

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	check_writable(page);
	expect_silence(uf);
}

TEST(wp_unpopulated, "UFFD_FEATURE_WP_UNPOPULATED: pages that are not there are protected too.")
{
	char *pages = anon(2);
	struct uf *uf = object_wp(UFFD_FEATURE_WP_UNPOPULATED);

	registered(uf, pages, 2 * page_size, WP);
	protect(uf, pages, 2);
	check_protected(uf, pages);
	/* Also after a read has put the page of zeros there. */
	CHECK_EQ(try_read(pages + page_size).value, 0);
	check_protected(uf, pages + page_size);
}

TEST(wp_mark_in_the_way,
     "EEXIST A protection laid on a page that is not there stops ZEROPAGE and POISON; COPY replaces it.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object_wp(UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_POISON);

	registered(uf, page, page_size, MISSING | WP);
	protect(uf, page, 1);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), -EEXIST);
	CHECK_EQ(uf_poison(uf, page, page_size, 0), -EEXIST);
	CHECK_EQ(uf_copy(uf, page, src, page_size, UFFDIO_COPY_MODE_WP), page_size);
	CHECK_EQ(*page, pattern(0));
	check_protected(uf, page);
}

TEST(wp_shmem, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM: shared memory can be protected.")
{
	struct uf *uf = object_wp(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	struct memory memory = memory_map(MEMORY_MEMFD, 2);

	memset(memory.at, 1, memory.len);
	registered(uf, memory.at, memory.len, WP);
	protect(uf, memory.at, 1);
	check_protected(uf, memory.at);
	check_writable(memory.at + page_size);
}

TEST(wp_shmem_unpopulated, "Shared memory is protected where no page is yet, without WP_UNPOPULATED.")
{
	struct uf *uf = object_wp(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	struct memory memory = memory_map(MEMORY_MEMFD, 1);

	registered(uf, memory.at, memory.len, WP);
	protect(uf, memory.at, 1);
	check_protected(uf, memory.at);
}

TEST(wp_shmem_one_mapping, "Protection is of a mapping, not of the file: another mapping writes freely.")
{
	struct uf *uf = object_wp(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);

	*alias = 1;
	registered(uf, memory.at, memory.len, WP);
	protect(uf, memory.at, 1);
	check_writable(alias);
	CHECK_EQ(*(volatile char *)memory.at, 98);
	check_protected(uf, memory.at);
}

TEST(wp_async, "UFFD_FEATURE_WP_ASYNC: the first write goes on by itself and no message comes.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(UFFD_FEATURE_WP_ASYNC);

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	check_writable(page);
	expect_silence(uf);
}

TEST(wp_async_unpopulated, "WP_ASYNC brings WP_UNPOPULATED with it, and the object says so.")
{
	CHECK(uf_features(object_wp(UFFD_FEATURE_WP_ASYNC)) & UFFD_FEATURE_WP_UNPOPULATED);
}

TEST(wp_close_lifts, "Closing the object lifts the protection, and a waiting writer goes on.")
{
	char *page = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *actor;

	registered(uf, page, page_size, WP);
	protect(uf, page, 1);
	actor = act_write(page, 5);
	CHECK(actor_waits(actor));
	uf_close(uf);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 5);
	check_writable(page);
}

TEST(wp_and_missing_are_two_faults, "A WP fault and a MISSING fault of one range are told apart by their flags.")
{
	char *pages = anon(2), *src = filled(1);
	struct uf *uf = object_wp(0);
	struct actor *first, *second;

	registered(uf, pages, 2 * page_size, MISSING | WP);
	CHECK_EQ(uf_copy(uf, pages, src, page_size, UFFDIO_COPY_MODE_WP), page_size);
	first = act_write(pages, 1);
	expect_fault(uf, pages, page_size, WP_FAULT);
	second = act_read(pages + page_size);
	expect_fault(uf, pages + page_size, page_size, 0);
	CHECK_EQ(uf_writeprotect(uf, pages, page_size, 0), 0);
	actor_end(first);
	CHECK_EQ(uf_zeropage(uf, pages + page_size, page_size, 0), page_size);
	actor_end(second);
}
