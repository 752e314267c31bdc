// SPDX-License-Identifier: MIT
/* UFFDIO_REGISTER and UFFDIO_UNREGISTER: which memory, in which mode, and what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define WP      UFFDIO_REGISTER_MODE_WP
#define MINOR   UFFDIO_REGISTER_MODE_MINOR

#define BIT(name) ((uint64_t)1 << _UFFDIO_##name)

/* Delivered here: a touch of the page waits. Leaves it resolved. */
static void check_tracked(struct uf *uf, char *page)
{
	struct actor *actor = act_read(page);

	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
}

/* Not delivered: the touch gives an ordinary page of zeros. */
static void check_untracked(char *page)
{
	struct actor *actor = act_read(page);

	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, 0);
}

static void check_ioctls(enum memory_source source, uint64_t mode, uint64_t present, uint64_t absent)
{
	struct memory memory = memory_map(source, 2);
	uint64_t ioctls = 0;

	CHECK_EQ(uf_register(object(0), memory.at, memory.len, mode, &ioctls), 0);
	CHECK_EQ(ioctls & present, present);
	CHECK_EQ(ioctls & absent, 0);
}

TEST(register_ioctls_of_missing,
     "The returned ioctls are those suitable to resolve userfaults on the range registered.")
{
	uint64_t present = BIT(WAKE) | BIT(COPY) | BIT(ZEROPAGE), absent = BIT(WRITEPROTECT) | BIT(CONTINUE);

	check_ioctls(MEMORY_ANON, MISSING, present, absent);
	check_ioctls(MEMORY_MEMFD, MISSING, present, absent);
}

TEST(register_ioctls_of_wp, "WRITEPROTECT is among the ioctls of a range registered with MODE_WP only.")
{
	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	check_ioctls(MEMORY_ANON, WP, BIT(WAKE) | BIT(WRITEPROTECT), BIT(CONTINUE));
	check_ioctls(MEMORY_ANON, MISSING | WP, BIT(WAKE) | BIT(COPY) | BIT(ZEROPAGE) | BIT(WRITEPROTECT),
	             BIT(CONTINUE));
	need(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	check_ioctls(MEMORY_MEMFD, WP, BIT(WAKE) | BIT(WRITEPROTECT), BIT(CONTINUE));
}

TEST(register_ioctls_of_minor, "CONTINUE is among the ioctls of a range registered with MODE_MINOR only.")
{
	need(UFFD_FEATURE_MINOR_SHMEM);
	check_ioctls(MEMORY_MEMFD, MINOR, BIT(WAKE) | BIT(CONTINUE), BIT(WRITEPROTECT));
	check_ioctls(MEMORY_MEMFD, MISSING | MINOR, BIT(WAKE) | BIT(COPY) | BIT(CONTINUE), BIT(WRITEPROTECT));
}

TEST(register_ioctls_of_hugetlb,
     "Not all ioctls are supported for all memory types: hugetlbfs has no ZEROPAGE, no MOVE.")
{
	need(UFFD_FEATURE_MISSING_HUGETLBFS);
	check_ioctls(MEMORY_HUGE_ANON, MISSING, BIT(WAKE) | BIT(COPY), BIT(ZEROPAGE) | BIT(MOVE) | BIT(CONTINUE));
}

TEST(register_ioctls_of_newer_requests, "A range takes POISON and MOVE where the features are offered.")
{
	need(UFFD_FEATURE_POISON | UFFD_FEATURE_MOVE);
	check_ioctls(MEMORY_ANON, MISSING, BIT(POISON) | BIT(MOVE), 0);
}

TEST(register_ioctls_is_output_only, "ioctls: Available ioctl() operations (output).")
{
	struct scene scene = scene_set(&request_register, 1, 0);

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, scene.request->result_at, ~(uint64_t)0);
	CHECK_EQ(scene_issue(&scene), 0);
	CHECK(!(scene_get(&scene, scene.request->result_at) & BIT(WRITEPROTECT)));
}

TEST(register_mode_zero, "EINVAL ... or the mode field was zero.")
{
	char *page = anon(1);

	CHECK_EQ(uf_register(object(0), page, page_size, 0, NULL), -EINVAL);
	check_untracked(page);
}

TEST(register_tracks_missing_pages, "UFFDIO_REGISTER_MODE_MISSING: Track page faults on missing pages.")
{
	char *pages = anon(3);
	struct uf *uf = object(0);

	registered(uf, pages + page_size, page_size, MISSING);
	check_tracked(uf, pages + page_size);
	check_untracked(pages);
	check_untracked(pages + 2 * page_size);
	expect_silence(uf);
}

TEST(register_takes_over_no_zero_page, "The OS no longer provides a zero page on an anonymous mapping by itself.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	/* Reading the message alone does not let it go on. */
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

TEST(register_leaves_present_pages, "Pages that are there when the range is registered are not missing.")
{
	char *pages = filled(2);
	struct uf *uf = object(0);

	registered(uf, pages, 2 * page_size, MISSING);
	CHECK_EQ(*(volatile char *)pages, pattern(0));
	CHECK_EQ(uf_zeropage(uf, pages, page_size, 0), -EEXIST);
	expect_silence(uf);
}

TEST(register_busy, "EBUSY A mapping in the specified range is registered with another userfaultfd object.")
{
	char *pages = anon(3);
	struct uf *mine = object(0), *other = object(0);

	registered(other, pages + page_size, page_size, MISSING);
	CHECK_EQ(uf_register(mine, pages + page_size, page_size, MISSING, NULL), -EBUSY);
	CHECK_EQ(uf_register(mine, pages, 3 * page_size, MISSING, NULL), -EBUSY);
	/* All or nothing. */
	CHECK_EQ(uf_zeropage(mine, pages, page_size, 0), -ENOENT);
	check_tracked(other, pages + page_size);
	CHECK_EQ(uf_unregister(other, pages + page_size, page_size), 0);
	registered(mine, pages, 3 * page_size, MISSING);
}

TEST(register_nothing_mapped, "EINVAL There is no mapping in the specified address range.")
{
	/* First, since an engine may map memory of its own. */
	struct uf *uf = object(0);

	CHECK_EQ(uf_register(uf, unmapped(2), 2 * page_size, MISSING, NULL), -EINVAL);
}

TEST(register_passes_over_holes, "Linux registers what is mapped and passes over holes behind the first page.")
{
	char *pages = anon(3);
	struct uf *uf = object(0);

	CHECK_EQ(munmap(pages + page_size, page_size), 0);
	registered(uf, pages, 3 * page_size, MISSING);
	CHECK_EQ(uf_zeropage(uf, pages, page_size, 0), page_size);
	CHECK_EQ(uf_zeropage(uf, pages + page_size, page_size, 0), -ENOENT);
	CHECK_EQ(uf_zeropage(uf, pages + 2 * page_size, page_size, 0), page_size);
}

TEST(register_incompatible_file, "EINVAL There is an incompatible mapping in the range: a file that is not in memory.")
{
	CHECK_EQ(uf_register(object(0), file_backed(1), page_size, MISSING, NULL), -EINVAL);
}

TEST(register_partly_incompatible, "EINVAL An incompatible mapping anywhere in the range, and nothing is registered.")
{
	char *pages = file_backed(2);
	struct uf *uf = object(0);

	CHECK(mmap(pages, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == pages);
	CHECK_EQ(uf_register(uf, pages, 2 * page_size, MISSING, NULL), -EINVAL);
	check_untracked(pages);
}

TEST(register_minor_of_private_memory, "EINVAL Private anonymous memory is incompatible with MODE_MINOR.")
{
	need(UFFD_FEATURE_MINOR_SHMEM);
	CHECK_EQ(uf_register(object(0), anon(1), page_size, MINOR, NULL), -EINVAL);
}

TEST(register_unwritable_file, "EPERM A shared mapping of a file that the process may not write.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char path[64], *readonly;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	readonly = mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(readonly != MAP_FAILED);
	CHECK_EQ(uf_register(object(0), readonly, page_size, MISSING, NULL), -EPERM);
}

TEST(register_unreadable_memory,
     "A mapping with PROT_NONE is compatible: protection of one's own comes first on access.")
{
	char *page = anon(1);
	struct uf *uf = object(0);

	CHECK_EQ(mprotect(page, page_size, PROT_NONE), 0);
	registered(uf, page, page_size, MISSING);
	CHECK_EQ(mprotect(page, page_size, PROT_READ | PROT_WRITE), 0);
	check_tracked(uf, page);
}

TEST(register_unreadable_touched, "Who touches a registered page with PROT_NONE gets SIGSEGV and no message, also "
                                  "after other memory was unregistered.")
{
	char *page = anon(1), *other = anon(1);
	struct outcome outcome;
	struct uf *uf;

	catch_signals();
	uf = object(0);
	registered(uf, other, page_size, MISSING);
	CHECK_EQ(uf_unregister(uf, other, page_size), 0);
	CHECK_EQ(mprotect(page, page_size, PROT_NONE), 0);
	registered(uf, page, page_size, MISSING);
	outcome = try_read(page);
	CHECK_EQ(outcome.signal, SIGSEGV);
	CHECK_EQ(outcome.code, SEGV_ACCERR);
	CHECK(outcome.addr == page);
	expect_silence(uf);
}

TEST(register_wp_async_takes_any_mapping, "With WP_ASYNC alone even a mapping of an ordinary file can be registered.")
{
	registered(object(UFFD_FEATURE_WP_ASYNC), file_backed(1), page_size, WP);
}

TEST(register_twice, "Registering a range again in the same mode changes nothing.")
{
	char *pages = anon(2);
	struct uf *uf = object(0);

	registered(uf, pages, 2 * page_size, MISSING);
	registered(uf, pages, 2 * page_size, MISSING);
	registered(uf, pages, page_size, MISSING);
	check_tracked(uf, pages);
	check_tracked(uf, pages + page_size);
}

TEST(register_again_other_mode, "Registering a range again replaces its mode by one that is not a part of it.")
{
	char *pages = anon(2);
	struct uf *uf = object(0);

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, pages, 2 * page_size, MISSING);
	registered(uf, pages, 2 * page_size, WP);
	check_untracked(pages);
	registered(uf, pages, 2 * page_size, MISSING | WP);
	check_tracked(uf, pages + page_size);
}

TEST(register_again_fewer_modes, "Linux takes no mode away: registering with a part of the modes changes nothing.")
{
	char *page = anon(1);
	struct uf *uf = object(0);

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, page, page_size, MISSING | WP);
	registered(uf, page, page_size, WP);
	check_tracked(uf, page);
	CHECK_EQ(uf_unregister(uf, page, page_size), 0);
	registered(uf, page, page_size, WP);
	CHECK_EQ(madvise(page, page_size, MADV_DONTNEED), 0);
	check_untracked(page);
}

TEST(unregister_stops_delivery, "Unregister a memory address range from userfaultfd.")
{
	char *pages = anon(3);
	struct uf *uf = object(0);

	registered(uf, pages, 3 * page_size, MISSING);
	CHECK_EQ(uf_unregister(uf, pages + page_size, page_size), 0);
	check_untracked(pages + page_size);
	CHECK_EQ(uf_zeropage(uf, pages + page_size, page_size, 0), -ENOENT);
	check_tracked(uf, pages);
	check_tracked(uf, pages + 2 * page_size);
}

TEST(unregister_wakes, "Threads that wait in the range are woken and take an ordinary fault.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_unregister(uf, page, page_size), 0);
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
}

TEST(unregister_unread_fault, "A fault that nobody has read yet is gone when its range is unregistered.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_unregister(uf, page, page_size), 0);
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
}

TEST(unregister_lifts_protection, "Write protection is lifted with the registration.")
{
	char *page = filled(1);
	struct uf *uf = object(0);
	struct actor *actor;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, page, page_size, WP);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	CHECK_EQ(uf_unregister(uf, page, page_size), 0);
	actor = act_write(page, 7);
	CHECK(!actor_waits(actor));
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 7);
}

TEST(unregister_wakes_writers,
     "A waiting writer goes on too, where the range was registered for missing pages as well.")
{
	char *page = filled(1);
	struct uf *uf = object(0);
	struct actor *actor;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, page, page_size, MISSING | WP);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	actor = act_write(page, 7);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_unregister(uf, page, page_size), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 7);
}

TEST(unregister_leaves_writers_asleep,
     "Linux's UFFDIO_UNREGISTER wakes ranges with MODE_MISSING only; uf_unregister() wakes all.")
{
	char *pages = filled(2);
	struct uffdio_range range = {(uintptr_t)pages, page_size};
	struct uf *uf = object(0);
	struct actor *first, *second;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, pages, 2 * page_size, WP);
	CHECK_EQ(uf_writeprotect(uf, pages, 2 * page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	first = act_write(pages, 7);
	second = act_write(pages + page_size, 8);
	CHECK(actor_waits(first));
	CHECK(actor_waits(second));
	CHECK_EQ(uf_ioctl(uf, UFFDIO_UNREGISTER, &range), 0);
	if (on_the_kernel()) {
		CHECK(actor_waits(first));
		CHECK_EQ(uf_wake(uf, pages, page_size), 0);
	}
	actor_end(first);
	CHECK_EQ(uf_unregister(uf, pages + page_size, page_size), 0);
	actor_end(second);
	CHECK_EQ(*(volatile char *)pages, 7);
	CHECK_EQ(*(volatile char *)(pages + page_size), 8);
}

TEST(unregister_nothing_mapped, "EINVAL There was no mapping in the specified address range.")
{
	/* First, since an engine may map memory of its own. */
	struct uf *uf = object(0);

	CHECK_EQ(uf_unregister(uf, unmapped(2), 2 * page_size), -EINVAL);
}

TEST(unregister_incompatible, "EINVAL There is an incompatible mapping in the specified address range.")
{
	CHECK_EQ(uf_unregister(object(0), file_backed(1), page_size), -EINVAL);
}

TEST(unregister_passes_over, "Parts that are not registered are passed over.")
{
	char *pages = anon(3);
	struct uf *uf = object(0);

	CHECK_EQ(uf_unregister(uf, pages, 3 * page_size), 0);
	registered(uf, pages + page_size, page_size, MISSING);
	CHECK_EQ(uf_unregister(uf, pages, 3 * page_size), 0);
	check_untracked(pages + page_size);
}

TEST(unregister_of_another, "EINVAL The range is registered with another object, which keeps it.")
{
	char *page = anon(1);
	struct uf *mine = object(0), *other = object(0);

	registered(other, page, page_size, MISSING);
	CHECK_EQ(uf_unregister(mine, page, page_size), -EINVAL);
	check_tracked(other, page);
}
