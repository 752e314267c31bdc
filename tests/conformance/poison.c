// SPDX-License-Identifier: MIT
/* UFFDIO_POISON: what is its alone. */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

static void check_poisoned(struct scene *scene, size_t page)
{
	struct outcome outcome = try_read(scene_page(scene, page));

	scene_check_outcome(scene, page, &outcome);
}

static struct scene poisoned(size_t pages)
{
	struct scene scene;

	catch_signals();
	scene = scene_set(&request_poison, pages, 0);
	CHECK_EQ(scene_deliver(&scene, 0, pages, 0), pages * page_size);
	return scene;
}

TEST(poison_of_a_write, "Whoever touches one gets SIGBUS: writers too.")
{
	struct scene scene = poisoned(1);
	struct outcome outcome = try_write(scene_page(&scene, 0), 1);

	scene_check_outcome(&scene, 0, &outcome);
}

TEST(poison_every_touch, "Not only the first touch: the page stays poisoned.")
{
	struct scene scene = poisoned(1);

	for (unsigned i = 0; i < 3; i++)
		check_poisoned(&scene, 0);
}

TEST(poison_outlives_close, "It outlives uf_close().")
{
	struct scene scene = poisoned(1);

	uf_close(scene.uf);
	check_poisoned(&scene, 0);
}

TEST(poison_outlives_unregister, "It outlives the registration.")
{
	struct scene scene = poisoned(1);

	CHECK_EQ(uf_unregister(scene.uf, scene.memory.at, scene.memory.len), 0);
	check_poisoned(&scene, 0);
}

TEST(poison_ends_with_removal, "A poisoned page that is removed is missing like any other, and can be delivered.")
{
	struct scene scene = poisoned(1);

	CHECK_EQ(madvise(scene.memory.at, page_size, MADV_DONTNEED), 0);
	CHECK_EQ(uf_copy(scene.uf, scene.memory.at, filled(1), page_size, 0), page_size);
	CHECK_EQ(*scene.memory.at, pattern(0));
}

TEST(poison_in_a_system_call, "A system call that touches a poisoned page fails with EFAULT or EHWPOISON.")
{
	struct scene scene = poisoned(1);
	int fds[2];
	ssize_t len;

	CHECK_EQ(pipe(fds), 0);
	len = write(fds[1], scene.memory.at, 1);
	CHECK_EQ(len, -1);
	CHECK(errno == EFAULT || errno == EHWPOISON);
}

TEST(poison_goes_to_children, "A forked child finds the page poisoned as well.")
{
	struct scene scene = poisoned(1);
	pid_t pid = fork();

	if (pid == 0) {
		check_poisoned(&scene, 0);
		_exit(0);
	}
	reap(pid);
}

TEST(poison_in_shared_memory, "Pages of shared memory are poisoned in the mapping, not in the file.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	char *alias = memory_alias(&memory);
	struct uf *uf;

	catch_signals();
	uf = object(UFFD_FEATURE_POISON);
	registered(uf, memory.at, memory.len, UFFDIO_REGISTER_MODE_MISSING);
	CHECK_EQ(uf_poison(uf, memory.at, page_size, 0), page_size);
	CHECK_EQ(try_read(memory.at).signal, SIGBUS);
	CHECK_EQ(try_read(alias).signal, 0);
}

TEST(poison_undone_by_copy,
     "Linux lets COPY replace a poisoned page, though to ZEROPAGE and POISON it is there: EEXIST.")
{
	struct scene scene = poisoned(1);

	CHECK_EQ(uf_zeropage(scene.uf, scene.memory.at, page_size, 0), -EEXIST);
	CHECK_EQ(uf_poison(scene.uf, scene.memory.at, page_size, 0), -EEXIST);
	check_poisoned(&scene, 0);
	CHECK_EQ(uf_copy(scene.uf, scene.memory.at, filled(1), page_size, 0), page_size);
	CHECK_EQ(try_read(scene.memory.at).value, pattern(0));
}
