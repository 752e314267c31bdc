// SPDX-License-Identifier: MIT
/*
 * Memory larger than memory, by many threads, with everything that may happen in between: each word of each page says which page and which
 * version it is of. A page is written word by word in rising order; so a copy of it, made at one moment, has versions that never rise,
 * also when its writer is in the middle of it or was killed there.
 *
 * USERFAULT_STRESS multiplies how long all of it takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "integration/nbdkit.h"
#include "support/folder.h"
#include "support/paged.h"

#define PAGE    4096u
#define WORDS   (PAGE / 8)
#define PAGES   2048u
#define SIZE    ((uint64_t)PAGES * PAGE)
#define BUDGET  (SIZE / 20 & ~(uint64_t)(PAGE - 1))
#define THREADS 6u

/* What is known of the pages, by whoever looks at them afterwards: it outlives the process that writes. */
struct model {
	_Atomic uint32_t written[PAGES]; /* begun to be written */
	_Atomic uint32_t flushed[PAGES]; /* on the store at least */
	_Atomic unsigned flushes;
};

static struct model *model;
static struct nbdkit server;

static unsigned longer(void)
{
	const char *times = getenv("USERFAULT_STRESS");

	return times ? (unsigned)strtoul(times, NULL, 0) : 1;
}

static uint64_t word_of(unsigned page, uint32_t version, unsigned index)
{
	return (uint64_t)(page + 1) << 41 | (uint64_t)version << 9 | index;
}

static void write_page(char *memory, unsigned page, uint32_t version)
{
	uint64_t *word = (uint64_t *)(void *)(memory + (uint64_t)page * PAGE);

	for (unsigned i = 0; i < WORDS; i++)
		__atomic_store_n(&word[i], word_of(page, version, i), __ATOMIC_RELEASE);
}

/* The version of one word, 0 for what nobody has written. */
static uint32_t version_of(uint64_t word, unsigned page, unsigned index)
{
	uint32_t version = (uint32_t)(word >> 9);

	if (!word)
		return 0;
	if (word != word_of(page, version, index))
		FAIL("word %u of page %u is %llx", index, page, (unsigned long long)word);
	return version;
}

static void check_exact(const char *memory, unsigned page, uint32_t version)
{
	const uint64_t *word = (const uint64_t *)(const void *)(memory + (uint64_t)page * PAGE);

	for (unsigned i = 0; i < WORDS; i++) {
		uint32_t got = version_of(__atomic_load_n(&word[i], __ATOMIC_RELAXED), page, i);

		if (got != version)
			FAIL("word %u of page %u has version %u, not %u", i, page, got, version);
	}
}

/* The whole store: nothing is older than what was flushed, nothing newer than what was written, and nothing mixed. */
static void check_store(struct uf_store *store)
{
	uint64_t word[WORDS];

	for (unsigned page = 0; page < PAGES; page++) {
		uint32_t last = atomic_load(&model->written[page]), flushed = atomic_load(&model->flushed[page]);

		CHECK_EQ(uf_store_read(store, word, PAGE, (uint64_t)page * PAGE), 0);
		for (unsigned i = 0; i < WORDS; i++) {
			uint32_t version = version_of(word[i], page, i);

			if (version > last)
				FAIL("page %u: version %u at word %u comes after %u", page, version, i, last);
			last = version;
		}
		if (last < flushed)
			FAIL("page %u: version %u, but %u was flushed", page, last, flushed);
	}
}

static void make_model(void)
{
	model = mmap(NULL, sizeof(*model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(model != MAP_FAILED);
}

static struct uf_store *open_store(const char *uri)
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 12, .pause_ms = 1};
	struct uf_store *store;
	char cause[512];

	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause)))
		FAIL("%s", cause);
	return store;
}

static const char *new_disk(const char *name, bool uri)
{
	static char paths[2][96];
	const char *path = in_folder(name);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK_EQ(ftruncate(fd, (off_t)SIZE), 0);
	close(fd);
	snprintf(paths[uri], sizeof(paths[0]), "%s%s", uri ? "file:" : "file=", path);
	return paths[uri];
}

/*
 * Those who write. Each page has one writer; everybody looks at every page.
 */

struct worker {
	pthread_t thread;
	struct uf_pager *pager;
	char *memory;
	unsigned number, seed, steps;
	bool may_fail; /* the store's failures are expected */
	bool known[PAGES];
	_Atomic bool *end;
};

static unsigned own_page(struct worker *worker)
{
	return (unsigned)rand_r(&worker->seed) % (PAGES / THREADS) * THREADS + worker->number;
}

static void write_own(struct worker *worker)
{
	unsigned page = own_page(worker);

	if (worker->known[page])
		check_exact(worker->memory, page, atomic_load(&model->written[page]));
	write_page(worker->memory, page, atomic_fetch_add(&model->written[page], 1) + 1);
	worker->known[page] = true;
}

static void look_at_any(struct worker *worker)
{
	unsigned page = (unsigned)rand_r(&worker->seed) % PAGES;
	const uint64_t *word = (const uint64_t *)(const void *)(worker->memory + (uint64_t)page * PAGE);

	for (unsigned i = 0; i < WORDS; i += 1 + (unsigned)rand_r(&worker->seed) % 64)
		version_of(__atomic_load_n(&word[i], __ATOMIC_RELAXED), page, i);
}

/* Of its own pages alone it knows what was written before. */
static void flush(struct worker *worker)
{
	static __thread uint32_t before[PAGES];
	int err;

	for (unsigned page = worker->number; page < PAGES; page += THREADS)
		before[page] = atomic_load(&model->written[page]);
	err = uf_pager_flush(worker->pager, NULL, 0);
	if (err && worker->may_fail)
		return;
	CHECK_EQ(err, 0);
	for (unsigned page = worker->number; page < PAGES; page += THREADS)
		if (worker->known[page])
			atomic_store(&model->flushed[page], before[page]);
	atomic_fetch_add(&model->flushes, 1);
}

static void advise(struct worker *worker, char *at)
{
	uint64_t len = (uint64_t)(1 + rand_r(&worker->seed) % 64) * PAGE;

	if (at + len > worker->memory + SIZE)
		len = PAGE;
	CHECK_EQ(uf_pager_advise(worker->pager, at, len, (enum uf_pager_advice)(rand_r(&worker->seed) % 5)), 0);
}

static void pin(struct worker *worker, char *at)
{
	int err = uf_pager_pin(worker->pager, at, PAGE);

	if (err == -ENOMEM || (err && worker->may_fail))
		return;
	CHECK_EQ(err, 0);
	CHECK_EQ(uf_pager_unpin(worker->pager, at, PAGE), 0);
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; worker->end ? !atomic_load(worker->end) : i < worker->steps; i++) {
		unsigned choice = (unsigned)rand_r(&worker->seed) % 1000;
		char *at = worker->memory + (uint64_t)((unsigned)rand_r(&worker->seed) % PAGES) * PAGE;

		if (choice < 450)
			write_own(worker);
		else if (choice < 950)
			look_at_any(worker);
		else if (choice < 958)
			flush(worker);
		else if (choice < 980)
			advise(worker, at);
		else
			pin(worker, at);
		CHECK(paged_stats(worker->pager).resident <= BUDGET || choice % 16);
	}
	return NULL;
}

static void work_all(struct uf_pager *pager, struct uf_store *store, unsigned steps, bool may_fail, _Atomic bool *end)
{
	char *memory = paged_map(pager, store, 0, SIZE, UF_PAGER_SHARED, 0);
	struct worker *workers = calloc(THREADS, sizeof(*workers));

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].pager = pager;
		workers[i].memory = memory;
		workers[i].number = i;
		workers[i].seed = (unsigned)getpid() * 31 + i;
		workers[i].steps = steps;
		workers[i].may_fail = may_fail;
		workers[i].end = end;
		CHECK_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	free(workers);
}

static struct uf_pager *open_pager(void)
{
	struct uf_pager_options options = paged_options(BUDGET);

	options.policy = UF_PAGER_WAIT;
	return paged_open_with(&options);
}

/* All of it on one store; in the end everything is there. */
static void churn(const char *uri, unsigned steps, bool may_fail)
{
	struct uf_store *store = open_store(uri);
	struct uf_pager *pager = open_pager();

	make_model();
	work_all(pager, store, steps * longer(), may_fail, NULL);
	while (uf_pager_flush(pager, NULL, 0))
		CHECK(may_fail);
	for (unsigned page = 0; page < PAGES; page++)
		atomic_store(&model->flushed[page], atomic_load(&model->written[page]));
	uf_pager_close(pager);
	check_store(store);
	uf_store_close(store);
}

BOTH_WAYS(churn_on_a_file, "Many threads, a budget of a twentieth, a file: every page has what was written last.")
{
	churn(new_disk("disk", true), 500, false);
}

BOTH_WAYS(churn_on_a_server, "The same on a server.")
{
	NBDKIT(&server, "file", new_disk("disk", false));
	churn(server.uri, 300, false);
}

BOTH_WAYS(churn_on_bad_servers, "The same on a server that fails now and then, and on one that takes its time.")
{
	NBDKIT(&server, "--filter", "error", "file", new_disk("disk", false), "error=EIO", "error-pread-rate=5%",
	       "error-pwrite-rate=5%");
	churn(server.uri, 40, true);
	nbdkit_kill(&server);
	NBDKIT(&server, "--filter", "delay", "file", new_disk("disk2", false), "delay-read=1ms", "delay-write=2ms");
	churn(server.uri, 40, false);
}

BOTH_WAYS(thirty_two_on_eight, "Thirty-two threads on eight pages come to an end, on a file and on a server.")
{
	for (unsigned i = 0; i < 2; i++) {
		struct uf_store *store;
		struct uf_pager *pager;
		struct toucher touchers[32];
		char *at;

		if (i)
			NBDKIT(&server, "file", new_disk("disk", false));
		store = open_store(i ? server.uri : new_disk("disk", true));
		pager = paged_open(8 * PAGE);
		at = paged_map(pager, store, 0, SIZE, UF_PAGER_SHARED, 0);
		for (unsigned round = 0; round < 5 * longer(); round++) {
			for (unsigned k = 0; k < 32; k++)
				start_write(&touchers[k], at + (uint64_t)(round * 32 + k * 7) % PAGES * PAGE);
			for (unsigned k = 0; k < 32; k++) {
				end_touch(&touchers[k]);
				CHECK_EQ(touchers[k].sig, 0);
			}
		}
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

/*
 * Sudden ends.
 */

/* Its server may be about to be started again. */
static struct uf_store *open_soon(const char *uri)
{
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 12, .pause_ms = 1};
	struct uf_store *store;

	while (uf_store_open(&store, uri, &opts, NULL, 0))
		usleep(1000);
	return store;
}

static _Noreturn void be_killed(const char *uri)
{
	static _Atomic bool never;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	work_all(open_pager(), open_soon(uri), 0, false, &never);
	_exit(1);
}

/* On the file that new_disk() has made. */
static void start_server(const char *disk)
{
	char file[100];

	snprintf(file, sizeof(file), "file=%s", disk + strlen("file:"));
	NBDKIT(&server, "file", file);
}

/*
 * nbdkit 1.32 itself aborts now and then when a client is killed that has requests in flight ("sock >= 0" in its connections.c): it is started again
 * on the same file, and those who have a connection make another.
 */
static void keep_server(const char *disk)
{
	int status;

	if (!server.pid || waitpid(server.pid, &status, WNOHANG) != server.pid)
		return;
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	start_server(disk);
}

/* A program that is killed in the middle of everything, again and again. What it leaves behind is looked at in the file itself. */
static void kill_again(const char *uri, const char *disk, unsigned times)
{
	unsigned seed = (unsigned)getpid();

	make_model();
	for (unsigned i = 0; i < times * longer(); i++) {
		unsigned flushes = atomic_load(&model->flushes) + (unsigned)rand_r(&seed) % 8;
		struct uf_store *store;
		int status;
		pid_t pid;

		fflush(NULL);
		pid = fork();
		CHECK(pid >= 0);
		if (!pid)
			be_killed(uri);
		while (atomic_load(&model->flushes) <= flushes) {
			CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
			keep_server(disk);
			usleep((useconds_t)rand_r(&seed) % 3000);
		}
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status));
		store = open_store(disk);
		check_store(store);
		uf_store_close(store);
	}
}

BOTH_WAYS(killed_on_a_file, "After a kill everything that was flushed is on the file, and no page is a mix.")
{
	const char *disk = new_disk("disk", true);

	kill_again(disk, disk, 3);
}

BOTH_WAYS(killed_on_a_server, "After a kill everything that was flushed is on the server, and no page is a mix.")
{
	const char *disk = new_disk("disk", true);

	start_server(disk);
	kill_again(server.uri, disk, 2);
}

#define CACHED(file) "--filter", "cache", "file", file, "cache=writeback"

static void write_all(char *at)
{
	for (unsigned page = 0; page < PAGES; page++)
		write_page(at, page, atomic_fetch_add(&model->written[page], 1) + 1);
}

BOTH_WAYS(server_with_a_cache_dies, "A flush reaches behind the server's cache: what came before it outlives the "
                                    "server, and one that did not is an error.")
{
	const char *disk = new_disk("disk", false);
	struct uf_store *store;
	struct uf_pager *pager;
	char *at;

	make_model();
	NBDKIT(&server, CACHED(disk));
	store = open_store(server.uri);
	pager = paged_open(BUDGET);
	at = paged_map(pager, store, 0, SIZE, UF_PAGER_SHARED, 0);
	write_all(at);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	for (unsigned page = 0; page < PAGES; page++)
		atomic_store(&model->flushed[page], atomic_load(&model->written[page]));
	write_all(at);
	nbdkit_kill(&server);
	NBDKIT(&server, CACHED(disk));
	/* Evictions are lost with the cache; a flush that said nothing of it would be a lie. */
	CHECK(uf_pager_flush(pager, NULL, 0) < 0);
	uf_pager_close(pager);
	uf_store_close(store);
	store = open_store(server.uri);
	check_store(store);
	uf_store_close(store);
}

BOTH_WAYS(server_dies_in_a_read,
          "Touches that wait for a server that dies go on when it is there again, and read what is right.")
{
	const char *disk = new_disk("disk", false);
	struct toucher touchers[8];
	struct uf_store *store;
	struct uf_pager *pager;
	char *at;

	make_model();
	NBDKIT(&server, "file", disk);
	store = open_store(server.uri);
	pager = open_pager();
	at = paged_map(pager, store, 0, SIZE, UF_PAGER_SHARED, 0);
	write_all(at);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	uf_pager_close(pager);
	pager = open_pager();
	at = paged_map(pager, store, 0, SIZE, UF_PAGER_SHARED, 0);
	nbdkit_pause(&server);
	for (unsigned i = 0; i < 8; i++)
		start_touch(&touchers[i], at + (uint64_t)i * 100 * PAGE);
	nbdkit_wait(&server, " Read ", 1);
	nbdkit_kill(&server);
	NBDKIT(&server, "file", disk);
	for (unsigned i = 0; i < 8; i++) {
		end_touch(&touchers[i]);
		CHECK_EQ(touchers[i].sig, 0);
	}
	for (unsigned page = 0; page < PAGES; page++)
		check_exact(at, page, 1);
	uf_pager_close(pager);
	uf_store_close(store);
}
