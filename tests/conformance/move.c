// SPDX-License-Identifier: MIT
/* UFFDIO_MOVE: what is its alone. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define HOLES   UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES

static struct uf *object_move(void)
{
	return object(UFFD_FEATURE_MOVE);
}

TEST(move_takes_the_source, "Moves pages without a copy: the source is missing from then on.")
{
	char *dst = anon(2), *src = filled(2);
	struct uf *uf = object_move();

	registered(uf, dst, 2 * page_size, MISSING);
	CHECK_EQ(uf_move(uf, dst, src, 2 * page_size, 0), 2 * page_size);
	CHECK_EQ(dst[0], pattern(0));
	CHECK_EQ(dst[page_size], pattern(1));
	CHECK_EQ(src[0], 0);
	CHECK_EQ(src[page_size], 0);
}

TEST(move_source_faults_again, "A source that is registered faults when it is touched after the move.")
{
	char *dst = anon(1), *src = anon(1);
	struct uf *uf = object_move();
	struct actor *actor;

	registered(uf, dst, page_size, MISSING);
	registered(uf, src, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, src, filled(1), page_size, 0), page_size);
	CHECK_EQ(uf_move(uf, dst, src, page_size, 0), page_size);
	actor = act_read(src);
	expect_fault(uf, src, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, src, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(*dst, pattern(0));
}

TEST(move_and_back, "A page can be taken out and put back with its content.")
{
	char *page = anon(1), *shelf = anon(1);
	struct uf *uf = object_move();

	registered(uf, page, page_size, MISSING);
	registered(uf, shelf, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(uf_move(uf, shelf, page, page_size, 0), page_size);
	CHECK_EQ(uf_move(uf, page, shelf, page_size, 0), page_size);
	CHECK_EQ(*page, pattern(0));
}

TEST(move_source_hole, "ENOENT A hole in src.")
{
	struct scene scene = scene_set(&request_move, 1, 0);

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, scene.request->src_at, (uintptr_t)anon(1));
	CHECK_EQ(scene_issue(&scene), -ENOENT);
	CHECK_EQ(scene_result(&scene), -ENOENT);
	CHECK(scene_take_missing(&scene, 0));
}

TEST(move_source_hole_behind, "What lies before a hole in src is moved, and EAGAIN with the count.")
{
	struct scene scene = scene_set(&request_move, 3, 0);

	CHECK_EQ(madvise(scene.src + page_size, page_size, MADV_DONTNEED), 0);
	scene_fill(&scene, 0, 3, 0);
	CHECK_EQ(scene_issue(&scene), -EAGAIN);
	CHECK_EQ(scene_result(&scene), page_size);
	CHECK_EQ(*scene_page(&scene, 0), pattern(0));
	CHECK(scene_take_missing(&scene, 1));
}

TEST(move_allow_holes, "UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: holes are passed over and count as moved.")
{
	struct scene scene = scene_set(&request_move, 3, 0);

	CHECK_EQ(madvise(scene.src + page_size, page_size, MADV_DONTNEED), 0);
	CHECK_EQ(scene_deliver(&scene, 0, 3, HOLES), 3 * page_size);
	CHECK_EQ(*scene_page(&scene, 0), pattern(0));
	CHECK_EQ(*scene_page(&scene, 2), pattern(2));
	/* A hole leaves a missing page. */
	CHECK(scene_take_missing(&scene, 1));
}

TEST(move_source_unmapped, "ENOENT Nothing is mapped at src.")
{
	char *dst = anon(1);
	struct uf *uf = object_move();

	registered(uf, dst, page_size, MISSING);
	CHECK_EQ(uf_move(uf, dst, unmapped(1), page_size, 0), -ENOENT);
}

TEST(move_source_misaligned, "EINVAL Either dst, src or len was not a multiple of the page size.")
{
	struct scene scene = scene_set(&request_move, 2, 0);

	CHECK_EQ(uf_move(scene.uf, scene_page(&scene, 0), scene.src + 8, page_size, 0), -EINVAL);
	CHECK(scene_take_missing(&scene, 0));
}

TEST(move_not_registered, "Linux answers EINVAL, not ENOENT, where the destination is mapped and not registered.")
{
	struct scene scene = scene_set(&request_move, 4, 0);

	CHECK_EQ(uf_move(scene.uf, anon(1), scene.src, page_size, 0), -EINVAL);
	CHECK_EQ(uf_move(scene.uf, unmapped(1), scene.src, page_size, 0), -ENOENT);
	CHECK_EQ(scene.src[0], pattern(0));
}

TEST(move_shared_memory, "EINVAL Shared memory cannot be moved, neither from nor to.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object_move();

	memset(memory.at, 1, memory.len);
	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_move(uf, page, memory.at, page_size, 0), -EINVAL);
	memory = memory_map(MEMORY_MEMFD, 1);
	registered(uf, memory.at, memory.len, MISSING);
	CHECK_EQ(uf_move(uf, memory.at, src, page_size, 0), -EINVAL);
	CHECK_EQ(*src, pattern(0));
}

TEST(move_after_fork, "EBUSY A page of src is shared since a fork.")
{
	struct scene scene = scene_set(&request_move, 1, 0);
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	scene_fill(&scene, 0, 1, 0);
	CHECK_EQ(scene_issue(&scene), -EBUSY);
	CHECK_EQ(scene_result(&scene), -EBUSY);
	CHECK_EQ(*scene.src, pattern(0));
	CHECK(scene_take_missing(&scene, 0));
}

TEST(move_keeps_what_is_there, "EEXIST The destination has a page; source and destination stay as they are.")
{
	struct scene scene = scene_set(&request_move, 1, 0);

	scene_make_present(&scene, 0);
	CHECK_EQ(scene_deliver(&scene, 0, 1, 0), -EEXIST);
	CHECK_EQ(*scene_page(&scene, 0), 0);
	CHECK_EQ(*scene.src, pattern(0));
}
