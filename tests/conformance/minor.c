// SPDX-License-Identifier: MIT
/* Minor faults and UFFDIO_CONTINUE: the page is in the file, and not in this mapping. */
#include <errno.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define MINOR   UFFDIO_REGISTER_MODE_MINOR

static struct uf *object_minor(void)
{
	return object(UFFD_FEATURE_MINOR_SHMEM);
}

TEST(minor_fault, "UFFDIO_REGISTER_MODE_MINOR: a touch of a page that the file has is reported with FLAG_MINOR.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);
	struct actor *actor;

	*alias = 1;
	registered(uf, memory.at, memory.len, MINOR);
	actor = act_read(memory.at);
	CHECK(actor_waits(actor));
	expect_fault(uf, memory.at, page_size, UFFD_PAGEFAULT_FLAG_MINOR);
	/* What the manager puts into the file now is what the thread will see. */
	*alias = 2;
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 2);
}

TEST(minor_fault_of_a_write, "A write to it has FLAG_WRITE as well.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);
	struct actor *actor;

	*alias = 1;
	registered(uf, memory.at, memory.len, MINOR);
	actor = act_write(memory.at, 9);
	expect_fault(uf, memory.at, page_size, UFFD_PAGEFAULT_FLAG_MINOR | UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), page_size);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)alias, 9);
}

TEST(minor_page_not_in_file, "With MODE_MINOR alone a page that the file lacks is made by the kernel as ever.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	struct actor *actor;

	registered(uf, memory.at, memory.len, MINOR);
	actor = act_read(memory.at);
	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, 0);
	expect_silence(uf);
}

TEST(minor_and_missing, "With both modes the flags tell whether the file has the page.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 2);
	char *alias = memory_alias(&memory);
	struct actor *actor;

	*alias = 1;
	registered(uf, memory.at, memory.len, MISSING | MINOR);
	actor = act_read(memory.at);
	expect_fault(uf, memory.at, page_size, UFFD_PAGEFAULT_FLAG_MINOR);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 1);
	actor = act_read(memory.at + page_size);
	expect_fault(uf, memory.at + page_size, page_size, 0);
	CHECK_EQ(uf_copy(uf, memory.at + page_size, filled(1), page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, pattern(0));
	CHECK_EQ(alias[page_size], pattern(0));
}

TEST(continue_file_has_no_page, "EFAULT The file has no such page: there is nothing to continue with.")
{
	struct scene scene = scene_set(&request_continue, 1, 0);
	struct memory memory = memory_map(MEMORY_MEMFD, 1);

	registered(scene.uf, memory.at, memory.len, MINOR);
	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, scene.request->start, (uintptr_t)memory.at);
	CHECK_EQ(scene_issue(&scene), -EFAULT);
	CHECK_EQ(scene_result(&scene), -EFAULT);
}

TEST(continue_in_private_memory, "EINVAL The wrong request for this memory: private anonymous memory has no file.")
{
	char *page = anon(1);
	struct uf *uf = object_minor();

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_continue(uf, page, page_size, 0), -EINVAL);
}

TEST(continue_mode_wp, "UFFDIO_CONTINUE_MODE_WP: the page arrives protected against writes.")
{
	struct uf *uf = object(UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                       UFFD_FEATURE_WP_UNPOPULATED);
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);
	struct actor *actor;

	*alias = 1;
	registered(uf, memory.at, memory.len, MINOR | UFFDIO_REGISTER_MODE_WP);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, UFFDIO_CONTINUE_MODE_WP), page_size);
	CHECK_EQ(*memory.at, 1);
	actor = act_write(memory.at, 5);
	expect_fault(uf, memory.at, page_size, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_writeprotect(uf, memory.at, page_size, 0), 0);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)alias, 5);
}

TEST(continue_shares_the_page, "CONTINUE maps the page of the file itself: both mappings see each other's writes.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);

	*alias = 1;
	registered(uf, memory.at, memory.len, MINOR);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), page_size);
	*(volatile char *)memory.at = 2;
	CHECK_EQ(*(volatile char *)alias, 2);
	*(volatile char *)alias = 3;
	CHECK_EQ(*(volatile char *)memory.at, 3);
}

TEST(copy_page_in_file, "EEXIST COPY to a page that the file has, although this mapping has not.")
{
	struct uf *uf = object_minor();
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);

	*alias = 1;
	registered(uf, memory.at, memory.len, MISSING | MINOR);
	CHECK_EQ(uf_copy(uf, memory.at, filled(1), page_size, 0), -EEXIST);
	CHECK_EQ(uf_continue(uf, memory.at, page_size, 0), page_size);
	CHECK_EQ(*memory.at, 1);
}
