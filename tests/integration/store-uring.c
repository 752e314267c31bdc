// SPDX-License-Identifier: MIT
/* Files in the background: through io_uring, and where that is refused. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/module.h"
#include "store/uring.h"
#include "support/folder.h"
#include "support/test.h"

/* More than a ring has places. */
#define MANY  1000
#define BLOCK 4096

struct request {
	struct uf_store_request request;
	char buf[BLOCK];
};

static struct request requests[MANY];
static _Atomic unsigned completed;
static const char *path;
static _Atomic unsigned causes;

static void count_done(struct uf_store_request *request)
{
	CHECK_EQ(request->result, 0);
	atomic_fetch_add(&completed, 1);
}

static void note_cause(void *arg, const char *cause)
{
	(void)arg;
	(void)cause;
	atomic_fetch_add(&causes, 1);
}

static struct uf_store *open_store(void)
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 1, .failed = note_cause};
	struct uf_store *store;
	char uri[100], cause[512];
	int fd;

	path = in_folder("file");
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, MANY * BLOCK), 0);
	close(fd);
	snprintf(uri, sizeof(uri), "file:%s", path);
	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause)))
		FAIL("%s", cause);
	return store;
}

static void begin_all(struct uf_store *store, enum uf_store_action action)
{
	for (unsigned i = 0; i < MANY; i++) {
		if (action == UF_STORE_WRITE)
			memset(requests[i].buf, (int)i, BLOCK);
		requests[i].request = (struct uf_store_request){.action = action,
		                                                .buf = requests[i].buf,
		                                                .len = BLOCK,
		                                                .offset = (uint64_t)i * BLOCK,
		                                                .done = count_done};
		CHECK_EQ(uf_store_submit(store, &requests[i].request), 0);
	}
}

static void submit_all(struct uf_store *store, enum uf_store_action action)
{
	unsigned before = atomic_load(&completed);

	begin_all(store, action);
	while (atomic_load(&completed) < before + MANY)
		sched_yield();
}

static void check_all(void)
{
	for (unsigned i = 0; i < MANY; i++)
		for (unsigned at = 0; at < BLOCK; at += 512)
			CHECK_EQ(requests[i].buf[at], (char)i);
}

static void drop_from_cache(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
}

/* Writes are never at hand, so they always go the way of the background. */
static void check_background(struct uf_store *store)
{
	struct uf_store_request flush = {.action = UF_STORE_FLUSH, .done = count_done};

	submit_all(store, UF_STORE_WRITE);
	CHECK_EQ(uf_store_submit(store, &flush), 0);
	while (atomic_load(&completed) < MANY + 1)
		sched_yield();
	drop_from_cache();
	memset(requests, 0, sizeof(requests));
	submit_all(store, UF_STORE_READ);
	check_all();
	CHECK_EQ(atomic_load(&causes), 0);
}

static bool have_ring(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	bool found = false;

	CHECK(dir);
	while ((entry = readdir(dir))) {
		char target[64] = "";

		if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) > 0)
			found = found || !strcmp(target, "anon_inode:[io_uring]");
	}
	closedir(dir);
	return found;
}

/* Where nobody but this test refuses it. */
static void need_uring(void)
{
	const struct store_uring_ops *ops = store_module_find(&store_module_uring, STORE_URING_SYMBOL, NULL);
	void *ring;
	int err;

	CHECK(ops);
	err = ops->open(&ring, STDIN_FILENO);
	if (err)
		SKIP("io_uring: %s", strerror(-err));
	ops->close(ring);
}

static void refuse(int call, int err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	CHECK(filter);
	CHECK_EQ(seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)err), call, 0), 0);
	CHECK_EQ(seccomp_load(filter), 0);
	seccomp_release(filter);
}

TEST(through_the_ring, "Where io_uring is allowed what is in the background goes through it, and is right.")
{
	struct uf_store *store;

	need_uring();
	store = open_store();
	CHECK(!have_ring());
	check_background(store);
	CHECK(have_ring());
	uf_store_close(store);
	CHECK(!have_ring());
}

TEST(refused_eperm, "Where io_uring is refused threads do the work, and nothing is reported as failed.")
{
	struct uf_store *store;

	refuse(SCMP_SYS(io_uring_setup), EPERM);
	store = open_store();
	check_background(store);
	CHECK(!have_ring());
	uf_store_close(store);
}

TEST(refused_enosys, "The same with a kernel that does not know it.")
{
	struct uf_store *store;

	refuse(SCMP_SYS(io_uring_setup), ENOSYS);
	store = open_store();
	check_background(store);
	CHECK(!have_ring());
	uf_store_close(store);
}

TEST(refused_later, "The same when it is refused once the ring is there.")
{
	struct uf_store *store;

	need_uring();
	store = open_store();
	refuse(SCMP_SYS(io_uring_enter), EPERM);
	check_background(store);
	uf_store_close(store);
}

TEST(no_module, "Without the module threads do the work.")
{
	struct uf_store *store;

	/* The first that is there counts, and this one is not for loading. */
	CHECK(symlink("/dev/null", in_folder("libuserfault-store-uring.so")) == 0);
	CHECK_EQ(setenv("USERFAULT_MODULES", test_folder(), 1), 0);
	store = open_store();
	check_background(store);
	CHECK(!have_ring());
	uf_store_close(store);
}

/*
 * The ring by itself, which does not depend on what the page cache has.
 */

static struct uf_store_io ios[MANY];
static int64_t results[MANY];

static void note_result(struct uf_store_io *io, int64_t result, const struct uf_store_cause *cause)
{
	(void)cause;
	results[io - ios] = result;
	atomic_fetch_add(&completed, 1);
}

TEST(ring_reads, "The ring reads what is there, short at the end and not at all behind it, and says what failed.")
{
	const struct store_uring_ops *ops = store_module_find(&store_module_uring, STORE_URING_SYMBOL, NULL);
	struct uf_store *store;
	void *ring;
	int fd;

	need_uring();
	store = open_store();
	submit_all(store, UF_STORE_WRITE);
	uf_store_close(store);
	CHECK_EQ(truncate(path, (MANY - 2) * BLOCK + 100), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(ops->open(&ring, fd), 0);
	memset(requests, 0, sizeof(requests));
	atomic_store(&completed, 0);
	for (unsigned i = 0; i < MANY; i++) {
		ios[i] = (struct uf_store_io){.action = UF_STORE_READ,
		                              .buf = requests[i].buf,
		                              .len = BLOCK,
		                              .offset = (uint64_t)i * BLOCK,
		                              .complete = note_result};
		CHECK_EQ(ops->submit(ring, &ios[i]), 0);
	}
	while (atomic_load(&completed) < MANY)
		sched_yield();
	for (unsigned i = 0; i < MANY; i++) {
		CHECK_EQ(results[i], i < MANY - 2 ? BLOCK : i == MANY - 2 ? 100 : 0);
		CHECK_EQ(requests[i].buf[results[i] ? 99 : 0], results[i] ? (char)i : 0);
	}
	ios[0].action = UF_STORE_WRITE;
	CHECK_EQ(ops->submit(ring, &ios[0]), 0);
	while (atomic_load(&completed) < MANY + 1)
		sched_yield();
	CHECK_EQ(results[0], -EBADF);
	ios[0].len = (size_t)2 << 30;
	CHECK_EQ(ops->submit(ring, &ios[0]), -EAGAIN);
	ops->close(ring);
}

static void *submit_and_end(void *arg)
{
	begin_all(arg, UF_STORE_WRITE);
	return NULL;
}

TEST(submitter_ends, "A request goes on when the thread that has submitted it has ended.")
{
	struct uf_store *store;
	pthread_t thread;

	store = open_store();
	for (unsigned i = 1; i <= 20; i++) {
		CHECK_EQ(pthread_create(&thread, NULL, submit_and_end, store), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		while (atomic_load(&completed) < i * MANY)
			sched_yield();
	}
	submit_all(store, UF_STORE_READ);
	check_all();
	uf_store_close(store);
	CHECK_EQ(atomic_load(&causes), 0);
}
