// SPDX-License-Identifier: MIT
/* Stores: the two that are built in, and what all have in common, on a store that does as it is told. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <userfault/store.h>

#include "store/store.h"
#include "support/folder.h"
#include "support/test.h"

#define SIZE (300 * 4096 + 123)

static const char *path;

static const char *file_uri(size_t size)
{
	static char uri[64];
	int fd;

	path = in_folder("file");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	close(fd);
	snprintf(uri, sizeof(uri), "file:%s", path);
	return uri;
}

static struct uf_store *open_store(const char *uri)
{
	struct uf_store *store;
	char cause[256] = "";
	int err = uf_store_open(&store, uri, NULL, cause, sizeof(cause));

	if (err)
		FAIL("%s", cause);
	return store;
}

static size_t random_below(unsigned *seed, size_t limit)
{
	return ((size_t)rand_r(seed) << 15 ^ (size_t)rand_r(seed)) % limit;
}

/* Any range, often small, sometimes to the end. */
static void random_range(unsigned *seed, size_t *offset, size_t *len)
{
	*offset = random_below(seed, SIZE);
	*len = 1 + random_below(seed, rand_r(seed) % 4 ? 10000 : SIZE);
	if (*len > SIZE - *offset)
		*len = SIZE - *offset;
}

/* Each byte against an array, and each extent that claims to be zeros. */
static void check_model(struct uf_store *store)
{
	unsigned seed = 7;
	char *model = calloc(1, SIZE), *buf = malloc(SIZE);

	CHECK_EQ(uf_store_size(store), SIZE);
	for (unsigned i = 0; i < 2000; i++) {
		struct uf_extent extent;
		size_t offset, len;

		random_range(&seed, &offset, &len);
		switch (rand_r(&seed) % 4) {
		case 0:
			memset(buf, rand_r(&seed), len);
			CHECK_EQ(uf_store_write(store, buf, len, offset), 0);
			memcpy(model + offset, buf, len);
			break;
		case 1:
			CHECK_EQ(uf_store_extent(store, offset, len, &extent), 0);
			CHECK(extent.len >= 1 && extent.len <= len);
			for (size_t at = 0; extent.zero && at < extent.len; at++)
				CHECK_EQ(model[offset + at], 0);
			break;
		case 2:
			if (uf_store_try_read(store, buf, len, offset) == 0) {
				CHECK(!memcmp(buf, model + offset, len));
				break;
			}
			/* fall through */
		default:
			CHECK_EQ(uf_store_read(store, buf, len, offset), 0);
			CHECK(!memcmp(buf, model + offset, len));
		}
	}
	CHECK_EQ(uf_store_flush(store), 0);
	uf_store_close(store);
}

TEST(memory_is_an_array, "memory:SIZE reads what was written, zeros before, and knows its zeros.")
{
	char uri[64];

	snprintf(uri, sizeof(uri), "memory:%d", SIZE);
	check_model(open_store(uri));
}

TEST(file_is_an_array, "file:PATH reads what was written, its holes as zeros, and knows them.")
{
	check_model(open_store(file_uri(SIZE)));
}

TEST(memory_sizes, "Sizes are digits, and perhaps one unit; anything else is EINVAL with a cause.")
{
	static const char *const bad[] = {"memory:",
	                                  "memory:0",
	                                  "memory:K",
	                                  "memory:-1",
	                                  "memory:1KB",
	                                  "memory:1 K",
	                                  "memory:99999999999999999999",
	                                  "memory:99999999T",
	                                  "memory",
	                                  "disk:1",
	                                  ""};
	struct uf_store *store;
	char cause[256];

	store = open_store("memory:3M");
	CHECK_EQ(uf_store_size(store), 3 << 20);
	CHECK(uf_store_flags(store) & UF_STORE_TRIES_IN_SIGNAL);
	uf_store_close(store);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cause[0] = '\0';
		CHECK_EQ(uf_store_open(&store, bad[i], NULL, cause, sizeof(cause)), -EINVAL);
		CHECK(strlen(cause) > 10 && !strchr(cause, '\n'));
	}
	CHECK_EQ(uf_store_open(&store, NULL, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(uf_store_open(NULL, "memory:1K", NULL, NULL, 0), -EINVAL);
}

TEST(file_errors, "What cannot be opened says why: no such file, a directory, an empty file.")
{
	struct uf_store *store;
	char cause[256];

	CHECK_EQ(uf_store_open(&store, "file:/nonexistent/x", NULL, cause, sizeof(cause)), -ENOENT);
	CHECK(strstr(cause, "/nonexistent/x"));
	CHECK_EQ(uf_store_open(&store, "file:", NULL, cause, sizeof(cause)), -EINVAL);
	CHECK_EQ(uf_store_open(&store, "file:/", NULL, cause, sizeof(cause)), -EISDIR);
	CHECK_EQ(uf_store_open(&store, file_uri(0), NULL, cause, sizeof(cause)), -EINVAL);
	CHECK(strstr(cause, "empty"));
}

TEST(ends, "A read across the end is zeros behind it; one that begins there, and a write across it, is ERANGE.")
{
	struct uf_store *store = open_store(file_uri(5000));
	char buf[8192];

	CHECK_EQ(uf_store_write(store, "last", 4, 4996), 0);
	memset(buf, 1, sizeof(buf));
	CHECK_EQ(uf_store_read(store, buf, 4096, 4096), 0);
	CHECK(!memcmp(buf + 900, "last", 4));
	for (size_t i = 904; i < 4096; i++)
		CHECK_EQ(buf[i], 0);
	CHECK_EQ(buf[4096], 1);
	CHECK_EQ(uf_store_read(store, buf, 1, 5000), -ERANGE);
	CHECK_EQ(uf_store_read(store, buf, 1, UINT64_MAX), -ERANGE);
	CHECK_EQ(uf_store_write(store, buf, 5, 4996), -ERANGE);
	CHECK_EQ(uf_store_read(store, buf, 0, 0), -EINVAL);
	CHECK_EQ(uf_store_read(store, NULL, 1, 0), -EINVAL);
	uf_store_close(store);
}

TEST(read_only, "A store that was opened for reading refuses writes, and needs no permission for them.")
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY};
	const char *uri = file_uri(4096);
	struct uf_store *store;

	CHECK_EQ(chmod(path, 0400), 0);
	CHECK_EQ(uf_store_open(&store, uri, &opts, NULL, 0), 0);
	CHECK(uf_store_flags(store) & UF_STORE_READ_ONLY);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), -EROFS);
	uf_store_close(store);
	opts.flags = 1u << 30;
	CHECK_EQ(uf_store_open(&store, uri, &opts, NULL, 0), -EINVAL);
}

static char last_cause[512];
static unsigned causes;

static void note_cause(void *arg, const char *cause)
{
	(void)arg;
	snprintf(last_cause, sizeof(last_cause), "%s", cause);
	causes++;
}

TEST(options_of_another_size,
     "Options may be longer than the library's when the rest is zeros, and not shorter than they ever were.")
{
	struct {
		struct uf_store_options opts;
		uint64_t unknown;
	} longer = {.opts = {.size = sizeof(longer)}};
	struct uf_store *store;

	CHECK_EQ(uf_store_open(&store, "memory:4K", &longer.opts, NULL, 0), 0);
	uf_store_close(store);
	longer.unknown = 1;
	CHECK_EQ(uf_store_open(&store, "memory:4K", &longer.opts, NULL, 0), -E2BIG);
	longer.opts.size = sizeof(longer.opts) - 1;
	CHECK_EQ(uf_store_open(&store, "memory:4K", &longer.opts, NULL, 0), -EINVAL);
}

TEST(file_cut_short, "A file that has been cut since it was opened is an error with its cause, and never zeros.")
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 2, .pause_ms = 1, .failed = note_cause};
	struct uf_store *store;
	char buf[4096];

	CHECK_EQ(uf_store_open(&store, file_uri(8192), &opts, NULL, 0), 0);
	CHECK_EQ(truncate(path, 4096 + 100), 0);
	CHECK_EQ(uf_store_read(store, buf, 4096, 4096), -EIO);
	CHECK_EQ(causes, 2);
	CHECK(strstr(last_cause, "has been cut") && strstr(last_cause, "attempt 2 of 2"));
	CHECK_EQ(uf_store_read(store, buf, 4096, 4096), -EIO);
	uf_store_close(store);
}

TEST(file_cut_is_no_hole, "What has been cut off a file is not said to be zeros; its holes still are.")
{
	struct uf_store *store = open_store(file_uri(64 << 10));
	struct uf_extent extent;

	CHECK_EQ(uf_store_extent(store, 4096, 1 << 20, &extent), 0);
	CHECK(extent.zero);
	CHECK_EQ(extent.len, 60 << 10);
	CHECK_EQ(truncate(path, 16 << 10), 0);
	CHECK_EQ(uf_store_extent(store, 4096, 60 << 10, &extent), 0);
	CHECK(extent.zero);
	CHECK_EQ(extent.len, 12 << 10);
	for (uint64_t at = 16 << 10; at < 64 << 10; at += 16 << 10) {
		CHECK_EQ(uf_store_extent(store, at, 4096, &extent), 0);
		CHECK(!extent.zero);
		CHECK_EQ(extent.len, 4096);
	}
	uf_store_close(store);
}

TEST(file_cut_within_a_page, "Nor is what lies in memory behind the end of a file that was cut within a page.")
{
	struct uf_store *store = open_store(file_uri(64 << 10));
	char buf[64 << 10];
	const char *bytes = NULL;

	memset(buf, 'x', sizeof(buf));
	CHECK_EQ(uf_store_write(store, buf, sizeof(buf), 0), 0);
	for (unsigned i = 0; !bytes && i < 100; i++)
		bytes = store_at(store, 4096, 4096);
	if (!bytes)
		SKIP("it is not known what lies in memory");
	CHECK(!memcmp(bytes, buf, 4096));
	CHECK_EQ(truncate(path, 4096 + 100), 0);
	CHECK(!store_at(store, 4096, 4096));
	uf_store_close(store);
}

/*
 * A store that does as it is told.
 */

struct told {
	_Atomic unsigned failures; /* so many reads fail with EIO first */
	_Atomic unsigned reads;
	int64_t most;      /* bytes at a time; 0: all */
	_Atomic bool held; /* reads wait while it is */
	_Atomic unsigned in_read;
	bool closed;
};

static int64_t told_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct told *told = state;
	unsigned left = atomic_load(&told->failures);

	atomic_fetch_add(&told->reads, 1);
	atomic_fetch_add(&told->in_read, 1);
	while (atomic_load(&told->held))
		sched_yield();
	atomic_fetch_sub(&told->in_read, 1);
	if (left) {
		atomic_store(&told->failures, left - 1);
		if (cause)
			snprintf(cause->text, sizeof(cause->text), "told to fail");
		return -EIO;
	}
	if (told->most && (int64_t)len > told->most)
		len = (size_t)told->most;
	for (size_t i = 0; i < len; i++)
		((char *)buf)[i] = (char)(offset + i);
	return (int64_t)len;
}

static void told_close(void *state)
{
	((struct told *)state)->closed = true;
}

static const struct uf_store_ops told_ops = {
	.size = sizeof(told_ops), .version = UF_STORE_OPS_VERSION, .read = told_read, .close = told_close};

static struct uf_store *create_told(struct told *told, unsigned attempts, unsigned threads)
{
	struct uf_store_options opts = {
		.size = sizeof(opts), .attempts = attempts, .pause_ms = 1, .threads = threads, .failed = note_cause};
	struct uf_store *store;

	CHECK_EQ(uf_store_create(&store, &told_ops, told, 1 << 20, 0, "told", &opts), 0);
	return store;
}

TEST(retries, "A failure that may pass is tried again as told, each attempt with its cause; then it is an error.")
{
	struct told told = {.failures = 2};
	struct uf_store *store = create_told(&told, 3, 0);
	char buf[16];

	CHECK_EQ(uf_store_read(store, buf, 16, 0x40), 0);
	CHECK_EQ(buf[1], 0x41);
	CHECK_EQ(told.reads, 3);
	CHECK_EQ(causes, 2);
	CHECK(strstr(last_cause, "told: read of 16 bytes at 64, attempt 2 of 3") && strstr(last_cause, "told to fail"));
	told.failures = 3;
	CHECK_EQ(uf_store_read(store, buf, 16, 0), -EIO);
	CHECK_EQ(told.reads, 6);
	uf_store_close(store);
	CHECK(told.closed);
}

TEST(short_reads, "Short reads go on where they ended.")
{
	struct told told = {.most = 7};
	struct uf_store *store = create_told(&told, 1, 0);
	char buf[100];

	CHECK_EQ(uf_store_read(store, buf, 100, 5), 0);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(buf[i], (char)(5 + i));
	CHECK_EQ(told.reads, 15);
	uf_store_close(store);
}

TEST(ops_are_checked, "A table of another version or size, or without read, is refused; without write it is read-only.")
{
	struct uf_store_ops ops = told_ops;
	struct told told = {0};
	struct uf_store *store;

	CHECK_EQ(uf_store_create(&store, &ops, &told, 0, 0, "told", NULL), -EINVAL);
	CHECK_EQ(uf_store_create(&store, &ops, &told, 1, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(uf_store_create(&store, &ops, &told, 1, 1u << 20, "told", NULL), -EINVAL);
	ops.version++;
	CHECK_EQ(uf_store_create(&store, &ops, &told, 1, 0, "told", NULL), -EINVAL);
	ops = told_ops;
	ops.size--;
	CHECK_EQ(uf_store_create(&store, &ops, &told, 1, 0, "told", NULL), -EINVAL);
	ops = told_ops;
	ops.read = NULL;
	CHECK_EQ(uf_store_create(&store, &ops, &told, 1, 0, "told", NULL), -EINVAL);
	store = create_told(&told, 1, 0);
	CHECK(uf_store_flags(store) & UF_STORE_READ_ONLY);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), -EROFS);
	uf_store_close(store);
}

#define MANY 200

struct request {
	struct uf_store_request request;
	char buf[64];
};

static _Atomic unsigned completed;

static void count_done(struct uf_store_request *request)
{
	(void)request;
	atomic_fetch_add(&completed, 1);
}

static void submit_many(struct uf_store *store, struct request *requests)
{
	for (unsigned i = 0; i < MANY; i++) {
		requests[i].request = (struct uf_store_request){.action = UF_STORE_READ,
		                                                .buf = requests[i].buf,
		                                                .len = 64,
		                                                .offset = i * 64,
		                                                .done = count_done};
		CHECK_EQ(uf_store_submit(store, &requests[i].request), 0);
	}
}

TEST(many_in_flight, "Requests in the background are in flight together, and closing waits for them all.")
{
	struct told told = {.held = true};
	struct uf_store *store = create_told(&told, 1, 5);
	static struct request requests[MANY];

	submit_many(store, requests);
	/* As many as there are threads. */
	while (atomic_load(&told.in_read) < 5)
		sched_yield();
	CHECK_EQ(completed, 0);
	atomic_store(&told.held, false);
	uf_store_close(store);
	CHECK_EQ(completed, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		CHECK_EQ(requests[i].request.result, 0);
		CHECK_EQ(requests[i].buf[63], (char)(i * 64 + 63));
	}
}

TEST(background_errors, "A request in the background that fails has its result; one that cannot be, at once.")
{
	struct told told = {.failures = 1};
	struct uf_store *store = create_told(&told, 1, 1);
	struct request request = {
		.request = {.action = UF_STORE_READ, .buf = request.buf, .len = 64, .done = count_done}};

	CHECK_EQ(uf_store_submit(store, &request.request), 0);
	while (!atomic_load(&completed))
		sched_yield();
	CHECK_EQ(request.request.result, -EIO);
	request.request.offset = 2 << 20;
	CHECK_EQ(uf_store_submit(store, &request.request), 0);
	CHECK_EQ(completed, 2);
	CHECK_EQ(request.request.result, -ERANGE);
	request.request.done = NULL;
	CHECK_EQ(uf_store_submit(store, &request.request), -EINVAL);
	uf_store_close(store);
}

TEST(cached_does_not_wait, "What is at hand is delivered at once, whatever waits in the background.")
{
	struct uf_store *store = open_store("memory:1M");
	static struct request requests[MANY];

	submit_many(store, requests);
	CHECK_EQ(completed, MANY);
	uf_store_close(store);
}

/*
 * A store that carries out attempts itself: it holds what it gets until the test says how it ends.
 */

struct holder {
	struct told told; /* what a thread is asked for */
	pthread_mutex_t lock;
	struct uf_store_io *held;
	unsigned count;
	bool refuses;
};

static int hold(void *state, struct uf_store_io *io)
{
	struct holder *holder = state;

	if (holder->refuses)
		return -EAGAIN;
	pthread_mutex_lock(&holder->lock);
	io->next = holder->held;
	holder->held = io;
	holder->count++;
	pthread_mutex_unlock(&holder->lock);
	return 0;
}

static struct uf_store *create_holder(struct holder *holder, unsigned attempts)
{
	struct uf_store_options opts = {
		.size = sizeof(opts), .attempts = attempts, .pause_ms = 1, .threads = 1, .failed = note_cause};
	struct uf_store_ops ops = told_ops;
	struct uf_store *store;

	ops.submit = hold;
	pthread_mutex_init(&holder->lock, NULL);
	CHECK_EQ(uf_store_create(&store, &ops, holder, 1 << 20, 0, "holder", &opts), 0);
	return store;
}

/* The last one that it got ends so. */
static void end_one(struct holder *holder, int64_t result, const char *why)
{
	struct uf_store_cause cause;
	struct uf_store_io *io;

	pthread_mutex_lock(&holder->lock);
	io = holder->held;
	holder->held = io->next;
	holder->count--;
	pthread_mutex_unlock(&holder->lock);
	if (result > 0)
		memset(io->buf, 'x', (size_t)result);
	snprintf(cause.text, sizeof(cause.text), "%s", why ? why : "");
	io->complete(io, result, why ? &cause : NULL);
}

TEST(submit_needs_no_threads, "What a store carries out itself is in flight at once, however few threads there are.")
{
	struct holder holder = {0};
	struct uf_store *store = create_holder(&holder, 1);
	static struct request requests[MANY];

	submit_many(store, requests);
	CHECK_EQ(holder.count, MANY);
	for (unsigned i = 0; i < MANY; i++)
		end_one(&holder, 64, NULL);
	CHECK_EQ(completed, MANY);
	CHECK_EQ(requests[0].request.result, 0);
	CHECK_EQ(requests[0].buf[63], 'x');
	uf_store_close(store);
	CHECK_EQ(holder.told.reads, 0);
	CHECK(holder.told.closed);
}

static void submit_one(struct uf_store *store, struct request *request, unsigned len)
{
	request->request = (struct uf_store_request){
		.action = UF_STORE_READ, .buf = request->buf, .len = len, .offset = 0x40, .done = count_done};
	CHECK_EQ(uf_store_submit(store, &request->request), 0);
}

TEST(a_thread_for_each, "Requests that come faster than an idle thread wakes do not wait for one another.")
{
	struct told told = {0};
	struct uf_store *store = create_told(&told, 1, 8);
	static struct request requests[5];

	submit_one(store, &requests[0], 64);
	while (!atomic_load(&completed))
		sched_yield();
	/* Its thread is idle, or about to be. */
	atomic_store(&told.held, true);
	for (unsigned i = 1; i < 5; i++)
		submit_one(store, &requests[i], 64);
	while (atomic_load(&told.in_read) < 4)
		sched_yield();
	atomic_store(&told.held, false);
	uf_store_close(store);
	CHECK_EQ(completed, 5);
}

TEST(submit_retries, "An attempt that the store has begun and that fails is the first of those that are told.")
{
	struct holder holder = {.told.failures = 1};
	struct uf_store *store = create_holder(&holder, 3);
	static struct request request;

	submit_one(store, &request, 64);
	end_one(&holder, -EIO, "held and dropped");
	uf_store_close(store);
	CHECK_EQ(request.request.result, 0);
	CHECK_EQ(request.buf[1], 0x41);
	CHECK_EQ(holder.told.reads, 2);
	CHECK_EQ(causes, 2);
	CHECK(strstr(last_cause, "attempt 2 of 3") && strstr(last_cause, "told to fail"));
}

TEST(submit_fails, "An attempt that may not be repeated, and one too many, is an error with its cause.")
{
	struct holder holder = {0};
	struct uf_store *store = create_holder(&holder, 1);
	static struct request request;

	submit_one(store, &request, 64);
	end_one(&holder, -EIO, "held and dropped");
	CHECK_EQ(request.request.result, -EIO);
	CHECK(strstr(last_cause, "holder: read of 64 bytes at 64, attempt 1 of 1") &&
	      strstr(last_cause, "held and dropped"));
	submit_one(store, &request, 64);
	end_one(&holder, 0, NULL);
	CHECK_EQ(request.request.result, -EIO);
	CHECK(strstr(last_cause, "ended after 0 of 64"));
	uf_store_close(store);
	store = create_holder(&holder, 3);
	submit_one(store, &request, 64);
	end_one(&holder, -ENOSPC, NULL);
	CHECK_EQ(request.request.result, -ENOSPC);
	uf_store_close(store);
	CHECK_EQ(holder.told.reads, 0);
}

TEST(submit_left_to_threads,
     "What the store does not begin, does not try or does in part is a thread's, and no failure.")
{
	static const int64_t results[] = {1, 63, -ECANCELED};
	struct holder holder = {.refuses = true};
	struct uf_store *store = create_holder(&holder, 1);
	static struct request request;
	unsigned done = 0;

	for (unsigned i = 0; i <= 3; i++) {
		submit_one(store, &request, 64);
		if (i > 0)
			end_one(&holder, results[i - 1], NULL);
		while (atomic_load(&completed) == done)
			sched_yield();
		done++;
		CHECK_EQ(request.request.result, 0);
		for (int at = 0; at < 64; at++)
			CHECK_EQ(request.buf[at], 0x40 + at);
		CHECK_EQ(holder.told.reads, done);
		holder.refuses = false;
	}
	CHECK_EQ(causes, 0);
	uf_store_close(store);
}

static void check_read_once(struct uf_store *store)
{
	char buf[200], bytes[100];

	CHECK(uf_store_flags(store) & UF_STORE_READS_IN_SIGNAL);
	memset(bytes, 7, sizeof(bytes));
	CHECK_EQ(uf_store_write(store, bytes, 100, 9900), 0);
	memset(buf, 1, sizeof(buf));
	CHECK_EQ(store_read_once(store, buf, 150, 9900), 0);
	CHECK(!memcmp(buf, bytes, 100));
	for (int i = 100; i < 200; i++)
		CHECK_EQ(buf[i], i >= 150);
	CHECK_EQ(store_read_once(store, buf, 1, 10000), -ERANGE);
	CHECK_EQ(store_read_once(store, buf, 0, 0), -EINVAL);
}

TEST(read_once, "One attempt for signal handlers: whole, with zeros behind the end, or an error; where the store can.")
{
	struct told told = {.most = 7, .failures = 1};
	struct uf_store *store = open_store("memory:10000");
	char buf[64];

	check_read_once(store);
	uf_store_close(store);
	store = open_store(file_uri(10000));
	check_read_once(store);
	CHECK_EQ(truncate(path, 5000), 0);
	CHECK_EQ(store_read_once(store, buf, 64, 4990), -EIO);
	uf_store_close(store);
	store = create_told(&told, 3, 0);
	CHECK_EQ(store_read_once(store, buf, 64, 0), -EOPNOTSUPP);
	CHECK_EQ(told.reads, 0);
	uf_store_close(store);
	CHECK_EQ(uf_store_create(&store, &told_ops, &told, 1 << 20, UF_STORE_READS_IN_SIGNAL, "told", NULL), 0);
	CHECK_EQ(store_read_once(store, buf, 64, 0), -EIO);
	CHECK_EQ(store_read_once(store, buf, 64, 5), 0);
	CHECK_EQ(buf[63], 5 + 63);
	uf_store_close(store);
}

struct writer {
	pthread_t thread;
	struct uf_store *store;
	unsigned number;
};

static void *write_stripes(void *arg)
{
	struct writer *writer = arg;
	char buf[512];

	for (unsigned i = 0; i < 200; i++) {
		uint64_t offset = ((uint64_t)i * 8 + writer->number) * sizeof(buf);

		memset(buf, (int)(writer->number + i), sizeof(buf));
		CHECK_EQ(uf_store_write(writer->store, buf, sizeof(buf), offset), 0);
		memset(buf, 0, sizeof(buf));
		CHECK_EQ(uf_store_read(writer->store, buf, sizeof(buf), offset), 0);
		CHECK_EQ(buf[511], (char)(writer->number + i));
	}
	return NULL;
}

TEST(many_threads, "Any number of threads use a store at the same time.")
{
	struct uf_store *stores[] = {open_store("memory:1M"), open_store(file_uri(1 << 20))};

	for (size_t s = 0; s < 2; s++) {
		struct writer writers[8];

		for (unsigned i = 0; i < 8; i++) {
			writers[i] = (struct writer){.store = stores[s], .number = i};
			CHECK_EQ(pthread_create(&writers[i].thread, NULL, write_stripes, &writers[i]), 0);
		}
		for (unsigned i = 0; i < 8; i++)
			pthread_join(writers[i].thread, NULL);
		uf_store_close(stores[s]);
	}
}
