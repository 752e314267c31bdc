// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/paged.h"

enum uf_pager_way paged_way;
_Atomic unsigned paged_failures;
char paged_failure[512];

static __thread sigjmp_buf landing;
static __thread volatile sig_atomic_t armed;

static void on_signal(int sig)
{
	if (!armed) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	siglongjmp(landing, sig);
}

static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};

	CHECK_EQ(sigaction(SIGBUS, &action, NULL), 0);
	CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

int touch_read(const char *at, char *byte)
{
	int sig = sigsetjmp(landing, 1);

	armed = !sig;
	if (!sig)
		*byte = *(const volatile char *)at;
	armed = 0;
	return sig;
}

int touch_write(char *at, char byte)
{
	int sig = sigsetjmp(landing, 1);

	armed = !sig;
	if (!sig)
		*(volatile char *)at = byte;
	armed = 0;
	return sig;
}

static void note_failure(void *arg, const char *cause)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	(void)arg;
	/* Threads of a store may fail at once. */
	pthread_mutex_lock(&lock);
	snprintf(paged_failure, sizeof(paged_failure), "%s", cause);
	pthread_mutex_unlock(&lock);
	atomic_fetch_add(&paged_failures, 1);
}

struct uf_pager_options paged_options(uint64_t budget)
{
	return (struct uf_pager_options){
		.size = sizeof(struct uf_pager_options),
		.budget = budget,
		.engine = strcmp(test_engine, "user") ? UF_ENGINE_KERNEL : UF_ENGINE_USER,
		.way = paged_way,
		.failed = note_failure,
	};
}

struct uf_pager *paged_open_with(const struct uf_pager_options *options)
{
	static bool caught;
	struct uf_pager *pager;

	/* Before the library's own. */
	if (!caught)
		catch_signals();
	caught = true;
	CHECK_EQ(uf_pager_open(&pager, options), 0);
	return pager;
}

struct uf_pager *paged_open(uint64_t budget)
{
	struct uf_pager_options options = paged_options(budget);

	return paged_open_with(&options);
}

char *paged_map(struct uf_pager *pager, struct uf_store *store, uint64_t offset, uint64_t len, unsigned flags,
                size_t unit)
{
	void *addr;

	CHECK_EQ(uf_pager_map(pager, &addr, store, offset, len, flags, unit), 0);
	CHECK_EQ((uintptr_t)addr % (unit ? unit : page_size), 0);
	return addr;
}

struct uf_pager_statistics paged_stats(struct uf_pager *pager)
{
	struct uf_pager_statistics stats = {.size = sizeof(stats)};

	CHECK_EQ(uf_pager_stats(pager, &stats), 0);
	return stats;
}

/*
 * The fake.
 */

static bool is_bad(const struct fake *fake, size_t len, uint64_t offset, unsigned script)
{
	for (uint64_t page = offset / 4096; page <= (offset + len - 1) / 4096; page++)
		if (atomic_load(&fake->script[page]) & script)
			return true;
	return false;
}

static int64_t fake_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct fake *fake = state;

	atomic_fetch_add(&fake->reads, 1);
	atomic_fetch_add(&fake->waiting, 1);
	while (atomic_load(&fake->held))
		sched_yield();
	atomic_fetch_sub(&fake->waiting, 1);
	if (is_bad(fake, len, offset, FAKE_BAD_READ)) {
		if (cause)
			snprintf(cause->text, sizeof(cause->text), "a bad page");
		atomic_fetch_add(&fake->failed, 1);
		return -EIO;
	}
	memcpy(buf, fake->bytes + offset, len);
	return (int64_t)len;
}

static int fake_try_read(void *state, void *buf, size_t len, uint64_t offset)
{
	struct fake *fake = state;

	(void)buf;
	(void)len;
	(void)offset;
	atomic_fetch_add(&fake->try_waiting, 1);
	while (atomic_load(&fake->try_held))
		sched_yield();
	atomic_fetch_sub(&fake->try_waiting, 1);
	return -EAGAIN;
}

static int64_t fake_write(void *state, const void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct fake *fake = state;

	(void)cause;
	atomic_fetch_add(&fake->writes, 1);
	if (is_bad(fake, len, offset, FAKE_BAD_WRITE)) {
		atomic_fetch_add(&fake->failed, 1);
		return -EIO;
	}
	memcpy(fake->bytes + offset, buf, len);
	return (int64_t)len;
}

static int fake_flush(void *state, struct uf_store_cause *cause)
{
	struct fake *fake = state;

	(void)cause;
	atomic_fetch_add(&fake->flushes, 1);
	return atomic_load(&fake->flush_fails) ? -EIO : 0;
}

static void fill_content(char *bytes, uint64_t size)
{
	for (uint64_t i = 0; i < size; i++)
		bytes[i] = paged_content(i);
}

struct uf_store *fake_open(struct fake *fake, uint64_t size, unsigned kind)
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 1, .pause_ms = 1};
	struct uf_store_ops ops = {
		.size = sizeof(ops),
		.version = UF_STORE_OPS_VERSION,
		.read = fake_read,
		.try_read = kind & FAKE_TRIES ? fake_try_read : NULL,
		.write = kind & FAKE_READ_ONLY ? NULL : fake_write,
		.flush = fake_flush,
	};
	struct uf_store *store;

	*fake = (struct fake){.size = size, .bytes = malloc(size), .script = calloc(size / 4096 + 1, 1)};
	CHECK(fake->bytes && fake->script);
	fill_content(fake->bytes, size);
	CHECK_EQ(uf_store_create(&store, &ops, fake, size, kind & FAKE_IN_SIGNAL ? UF_STORE_READS_IN_SIGNAL : 0, "fake",
	                         &opts),
	         0);
	return store;
}

void fake_script(struct fake *fake, uint64_t offset, uint64_t len, unsigned script)
{
	for (uint64_t page = offset / 4096; page < (offset + len) / 4096; page++)
		atomic_store(&fake->script[page], (uint8_t)script);
}

bool is_content(const char *at, uint64_t offset, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (at[i] != paged_content(offset + i))
			return false;
	return true;
}

void write_pages(char *at, uint64_t len, char byte)
{
	for (uint64_t page = 0; page < len; page += 4096)
		at[page] = byte;
}

void check_pages(const char *at, uint64_t offset, uint64_t len, char byte)
{
	for (uint64_t page = 0; page < len; page += 4096) {
		CHECK_EQ(at[page], byte);
		CHECK(is_content(at + page + 1, offset + page + 1, 4096 - 1));
	}
}

static void fill_store(struct uf_store *store, uint64_t size)
{
	char *bytes = malloc(size);

	CHECK(bytes);
	fill_content(bytes, size);
	CHECK_EQ(uf_store_write(store, bytes, size, 0), 0);
	free(bytes);
}

struct uf_store *filled_file(uint64_t size, const char **path)
{
	static unsigned files;
	struct uf_store *store;
	char name[16], uri[96];
	int fd;

	snprintf(name, sizeof(name), "file%u", files++);
	*path = strdup(in_folder(name));
	fd = open(*path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	close(fd);
	snprintf(uri, sizeof(uri), "file:%s", *path);
	CHECK_EQ(uf_store_open(&store, uri, NULL, NULL, 0), 0);
	fill_store(store, size);
	return store;
}

struct uf_store *filled_memory(uint64_t size)
{
	struct uf_store *store;
	char uri[64];

	snprintf(uri, sizeof(uri), "memory:%llu", (unsigned long long)size);
	CHECK_EQ(uf_store_open(&store, uri, NULL, NULL, 0), 0);
	fill_store(store, size);
	return store;
}

void wait_until(_Atomic unsigned *counter, unsigned least)
{
	while (atomic_load(counter) < least)
		sched_yield();
}

void sleeper_here(struct sleeper *sleeper)
{
	atomic_store(&sleeper->tid, (int)gettid());
}

void sleeper_wait(struct sleeper *sleeper)
{
	char path[64], line[512], *state = NULL;

	while (!atomic_load(&sleeper->tid))
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&sleeper->tid));
	do {
		FILE *file = fopen(path, "re");

		CHECK(file && fgets(line, sizeof(line), file));
		fclose(file);
		state = strrchr(line, ')');
		sched_yield();
	} while (!state || state[2] == 'R');
}

static void *touch(void *arg)
{
	struct toucher *toucher = arg;

	sleeper_here(&toucher->sleeper);
	toucher->sig = toucher->write ? touch_write(toucher->at, 't') : touch_read(toucher->at, &toucher->byte);
	return NULL;
}

static void start(struct toucher *toucher, char *at, bool write)
{
	*toucher = (struct toucher){.at = at, .write = write};
	CHECK_EQ(pthread_create(&toucher->sleeper.thread, NULL, touch, toucher), 0);
}

void start_touch(struct toucher *toucher, const char *at)
{
	start(toucher, (char *)(uintptr_t)at, false);
}

void start_write(struct toucher *toucher, char *at)
{
	start(toucher, at, true);
}

void end_touch(struct toucher *toucher)
{
	pthread_join(toucher->sleeper.thread, NULL);
}
