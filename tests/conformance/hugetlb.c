// SPDX-License-Identifier: MIT
/* hugetlbfs: what its page size and its kind change. The rest of it is among the memory types. */
#include <errno.h>
#include <string.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define MINOR   UFFDIO_REGISTER_MODE_MINOR

static struct uf *object_huge(void)
{
	return object(UFFD_FEATURE_MISSING_HUGETLBFS);
}

static char *huge_source(unsigned char byte)
{
	char *src = anon(huge_page_size / page_size);

	memset(src, byte, huge_page_size);
	return src;
}

TEST(huge_register_alignment, "EINVAL A range that begins or ends within a huge page cannot be registered.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 2);
	struct uf *uf = object_huge();

	CHECK_EQ(uf_register(uf, memory.at + page_size, huge_page_size, MISSING, NULL), -EINVAL);
	CHECK_EQ(uf_register(uf, memory.at, page_size, MISSING, NULL), -EINVAL);
	registered(uf, memory.at + huge_page_size, huge_page_size, MISSING);
}

TEST(huge_copy_alignment, "EINVAL COPY must be aligned to the huge page, in address and length.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 2);
	struct uf *uf = object_huge();
	char *src = huge_source(1);

	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_copy(uf, memory.at, src, page_size, 0), -EINVAL);
	CHECK_EQ(uf_copy(uf, memory.at + page_size, src, huge_page_size, 0), -EINVAL);
	CHECK_EQ(uf_copy(uf, memory.at, src, huge_page_size, 0), huge_page_size);
}

TEST(huge_zeropage, "EINVAL hugetlbfs has no ZEROPAGE.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 1);
	struct uf *uf = object_huge();

	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_zeropage(uf, memory.at, memory.len, 0), -EINVAL);
	CHECK_EQ(uf_copy(uf, memory.at, huge_source(1), memory.len, 0), memory.len);
}

TEST(huge_move, "EINVAL hugetlbfs has no MOVE.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 2);
	struct uf *uf = object(UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MOVE);

	memset(memory.at, 1, huge_page_size);
	registered(uf, memory.at + huge_page_size, huge_page_size, MISSING);
	CHECK_EQ(uf_move(uf, memory.at + huge_page_size, memory.at, huge_page_size, 0), -EINVAL);
}

TEST(huge_address, "The address in the message is that of the huge page.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 1);
	struct uf *uf = object_huge();
	struct actor *actor;

	registered(uf, memory.at, memory.len, MISSING);
	actor = act_read(memory.at + 5 * page_size + 9);
	CHECK_EQ(next_message(uf).arg.pagefault.address, (uintptr_t)memory.at);
	CHECK_EQ(uf_copy(uf, memory.at, huge_source(1), memory.len, 0), memory.len);
	CHECK_EQ(actor_end(actor).value, 1);
}

TEST(huge_present, "EEXIST The huge page is there already; partial progress counts in huge pages.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 2);
	struct uf *uf = object_huge();
	char *src = anon(2 * huge_page_size / page_size);

	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_copy(uf, memory.at + huge_page_size, src, huge_page_size, 0), huge_page_size);
	CHECK_EQ(uf_copy(uf, memory.at, src, memory.len, 0), huge_page_size);
	CHECK_EQ(uf_copy(uf, memory.at, src, memory.len, 0), -EEXIST);
}

TEST(huge_minor, "Minor faults of hugetlbfs: CONTINUE maps the huge page that the file has.")
{
	struct memory memory = memory_map(MEMORY_HUGE_MEMFD, 1);
	struct uf *uf = object(UFFD_FEATURE_MINOR_HUGETLBFS);
	char *alias = memory_alias(&memory);
	struct actor *actor;

	memset(alias, 4, huge_page_size);
	registered(uf, memory.at, memory.len, MINOR);
	actor = act_read(memory.at + 3 * page_size);
	CHECK(actor_waits(actor));
	expect_fault(uf, memory.at, huge_page_size, UFFD_PAGEFAULT_FLAG_MINOR);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), -EINVAL);
	CHECK_EQ(uf_continue(uf, memory.at, memory.len, 0), memory.len);
	CHECK_EQ(actor_end(actor).value, 4);
}

TEST(huge_poison, "A huge page is poisoned whole.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 1);
	struct uf *uf;

	catch_signals();
	uf = object(UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_POISON);
	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_poison(uf, memory.at, memory.len, 0), memory.len);
	CHECK(try_read(memory.at).signal);
	CHECK(try_read(memory.at + memory.len - 1).signal);
}
