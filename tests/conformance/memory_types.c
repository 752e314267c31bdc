// SPDX-License-Identifier: MIT
/* The same life of a page in every kind of memory: missing, delivered, protected, removed, and missing again. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define WP      UFFDIO_REGISTER_MODE_WP

static uint64_t missing_feature(const struct memory *memory)
{
	static const uint64_t features[] = {
		[UF_MEMORY_ANON] = 0,
		[UF_MEMORY_SHMEM] = UFFD_FEATURE_MISSING_SHMEM,
		[UF_MEMORY_HUGETLB] = UFFD_FEATURE_MISSING_HUGETLBFS,
	};

	return features[memory->kind];
}

/* A page's worth of memory that is copied from: any memory will do. */
static char *source(const struct memory *memory, unsigned char byte)
{
	char *src = anon(memory->page / page_size);

	memset(src, byte, memory->page);
	return src;
}

static void check_copy(enum memory_source kind)
{
	struct memory memory = memory_map(kind, 2);
	struct uf *uf = object(missing_feature(&memory));
	char *second = memory.at + memory.page;
	struct actor *actor;

	registered(uf, memory.at, memory.len, MISSING);
	actor = act_read(second);
	CHECK(actor_waits(actor));
	expect_fault(uf, second, memory.page, 0);
	CHECK_EQ(uf_copy(uf, second, source(&memory, 7), memory.page, 0), memory.page);
	CHECK_EQ(actor_end(actor).value, 7);
	CHECK_EQ(second[memory.page - 1], 7);
	expect_silence(uf);
	if (memory.shared && kind != MEMORY_HUGE_SHARED)
		CHECK_EQ(memory_alias(&memory)[memory.page], 7);
}

static void check_zeropage(enum memory_source kind)
{
	struct memory memory = memory_map(kind, 2);
	struct uf *uf = object(missing_feature(&memory));
	struct actor *actor;

	registered(uf, memory.at, memory.len, MISSING);
	actor = act_write(memory.at, 3);
	expect_fault(uf, memory.at, memory.page, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_zeropage(uf, memory.at, memory.len, 0), memory.len);
	actor_end(actor);
	CHECK_EQ(memory.at[0], 3);
	CHECK_EQ(memory.at[1], 0);
	CHECK_EQ(memory.at[memory.page], 0);
}

static void check_protection(enum memory_source kind)
{
	struct memory memory = memory_map(kind, 1);
	uint64_t shared = memory.kind == UF_MEMORY_ANON ? 0 : UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	struct uf *uf = object(UFFD_FEATURE_PAGEFAULT_FLAG_WP | shared);
	struct actor *actor;

	*memory.at = 1;
	registered(uf, memory.at, memory.len, WP);
	CHECK_EQ(uf_writeprotect(uf, memory.at, memory.len, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	actor = act_write(memory.at, 2);
	CHECK(actor_waits(actor));
	expect_fault(uf, memory.at, memory.page, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(*(volatile char *)memory.at, 1);
	CHECK_EQ(uf_writeprotect(uf, memory.at, memory.len, 0), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)memory.at, 2);
}

static void check_removal(enum memory_source kind)
{
	struct memory memory = memory_map(kind, 1);
	struct uf *uf = object(missing_feature(&memory));
	struct actor *actor;

	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_copy(uf, memory.at, source(&memory, 7), memory.len, 0), memory.len);
	CHECK_EQ(madvise(memory.at, memory.len, memory.shared ? MADV_REMOVE : MADV_DONTNEED), 0);
	actor = act_read(memory.at);
	CHECK(actor_waits(actor));
	expect_fault(uf, memory.at, memory.page, 0);
	CHECK_EQ(uf_copy(uf, memory.at, source(&memory, 8), memory.len, 0), memory.len);
	CHECK_EQ(actor_end(actor).value, 8);
}

#define IN_MEMORY(id, source, words)                                            \
	TEST(id##_copy, "UFFDIO_COPY resolves a missing fault in " words ".")   \
	{                                                                       \
		check_copy(source);                                             \
	}                                                                       \
	TEST(id##_protection, "UFFDIO_WRITEPROTECT traps writes in " words ".") \
	{                                                                       \
		check_protection(source);                                       \
	}                                                                       \
	TEST(id##_removal, "A page that is removed faults again in " words ".") \
	{                                                                       \
		check_removal(source);                                          \
	}

#define IN_SMALL_PAGES(id, source, words)                                             \
	TEST(id##_zeropage, "UFFDIO_ZEROPAGE resolves a missing fault in " words ".") \
	{                                                                             \
		check_zeropage(source);                                               \
	}                                                                             \
	IN_MEMORY(id, source, words)

IN_SMALL_PAGES(anon, MEMORY_ANON, "private anonymous memory")
IN_SMALL_PAGES(shared_anon, MEMORY_SHARED_ANON, "MAP_SHARED memory")
IN_SMALL_PAGES(dev_zero, MEMORY_DEV_ZERO, "/dev/zero")
IN_SMALL_PAGES(memfd, MEMORY_MEMFD, "memory of memfd_create")
IN_SMALL_PAGES(memfd_private, MEMORY_MEMFD_PRIVATE, "a private mapping of a memfd")
IN_SMALL_PAGES(tmpfs, MEMORY_TMPFS, "tmpfs")
IN_MEMORY(huge_anon, MEMORY_HUGE_ANON, "private MAP_HUGETLB memory")
IN_MEMORY(huge_shared, MEMORY_HUGE_SHARED, "shared MAP_HUGETLB memory")
IN_MEMORY(huge_memfd, MEMORY_HUGE_MEMFD, "a memfd of huge pages")

TEST(sysv_is_incompatible, "The text counts IPCSHM among shared memory; Linux refuses to register it: EINVAL.")
{
	struct memory memory = memory_map(MEMORY_SYSV, 1);

	CHECK_EQ(uf_register(object(0), memory.at, memory.len, MISSING, NULL), on_the_kernel() ? -EINVAL : 0);
}

TEST(dev_zero_private_cannot_be_filled,
     "Linux registers a private mapping of /dev/zero, but delivers nothing to it: EFAULT.")
{
	struct memory memory = memory_map(MEMORY_DEV_ZERO_PRIVATE, 1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, memory.at, memory.len, MISSING);
	actor = act_read(memory.at);
	CHECK(actor_waits(actor));
	if (on_the_kernel()) {
		CHECK_EQ(uf_copy(uf, memory.at, source(&memory, 7), memory.len, 0), -EFAULT);
		CHECK_EQ(uf_zeropage(uf, memory.at, memory.len, 0), -EFAULT);
		CHECK_EQ(uf_unregister(uf, memory.at, memory.len), 0);
		CHECK_EQ(actor_end(actor).value, 0);
	} else {
		CHECK_EQ(uf_copy(uf, memory.at, source(&memory, 7), memory.len, 0), memory.len);
		CHECK_EQ(actor_end(actor).value, 7);
	}
}

TEST(copy_behind_end_of_file, "EFAULT The page lies behind the end of its file.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 2);
	struct uf *uf = object(UFFD_FEATURE_MISSING_SHMEM);

	CHECK_EQ(ftruncate(memory.fd, (off_t)page_size), 0);
	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_copy(uf, memory.at + page_size, source(&memory, 7), page_size, 0), -EFAULT);
	CHECK_EQ(uf_zeropage(uf, memory.at + page_size, page_size, 0), -EFAULT);
	CHECK_EQ(uf_copy(uf, memory.at, source(&memory, 7), page_size, 0), page_size);
}
