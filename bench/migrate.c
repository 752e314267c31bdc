// SPDX-License-Identifier: MIT
/* Family migrate: a program moves to another process over loopback TCP. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <userfault/migrate.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "bench.h"

#define MIB ((size_t)1 << 20)

/* Between the two processes. */
struct meeting {
	_Atomic int listening, ended;
	char address[128];
	uint64_t begun_ns, stall_ns;
	struct uf_migrate_statistics source, destination;
	_Atomic size_t count;
	double samples[65536];
};

/* The program that moves. */
struct program {
	struct bench *bench;
	struct meeting *meeting;
	char *memory;
	size_t len, filled; /* bytes */
	unsigned passes, flags;
	unsigned writes; /* pages a second at the source; and a heart that beats in the first page */
	bool touches;    /* at the destination */
	_Atomic bool pause, end;
	_Atomic int still; /* threads that have noticed the pause */
	int threads;
	pthread_t thread[2];
};

static struct program *program_new(struct bench *bench, size_t len)
{
	struct program *program = calloc(1, sizeof(*program));

	if (!program)
		bench_refuse("out of memory");
	program->bench = bench;
	program->len = program->filled = len;
	program->meeting = mmap(NULL, sizeof(*program->meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
	                        0);
	if (program->meeting == MAP_FAILED)
		bench_refuse("out of memory");
	return program;
}

static struct uf_migrate_region region_of(const struct program *program)
{
	return (struct uf_migrate_region){.name = "memory", .addr = program->memory, .len = program->len};
}

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* The heart: a word in migrated memory, and the longest time between two beats, on either side. */
struct heart {
	_Atomic uint64_t last, longest;
};

static void beat(struct heart *heart)
{
	uint64_t now = now_ns(), last = heart->last;

	if (last && now - last > heart->longest)
		heart->longest = now - last;
	heart->last = now;
}

/* While it is to. */
static void stand_still(struct program *program)
{
	if (!program->pause)
		return;
	program->still++;
	while (program->pause)
		nap(20000);
	program->still--;
}

static void *live(void *arg)
{
	struct program *program = arg;

	while (!program->end) {
		stand_still(program);
		beat((struct heart *)program->memory);
		nap(50000);
	}
	return NULL;
}

/* So many pages a second, in bunches. */
static void *scribble(void *arg)
{
	struct program *program = arg;
	uint64_t random = 88172645463325252u, begun = now_ns(), written = 0;

	while (!program->end) {
		stand_still(program);
		while (written < (now_ns() - begun) * program->writes / 1000000000u && !program->pause) {
			size_t page = bench_random_number(&random) % (program->filled / program->bench->page - 1) + 1;

			*(volatile uint64_t *)(program->memory + page * program->bench->page) = ++written;
		}
		nap(100000);
	}
	return NULL;
}

static void begin_threads(struct program *program)
{
	void *(*const run[2])(void *) = {live, scribble};

	if (!program->writes)
		return;
	program->threads = 2;
	for (int i = 0; i < program->threads; i++)
		must(-pthread_create(&program->thread[i], NULL, run[i], program), "pthread_create");
}

static int stop(void *arg, const void **state, size_t *len)
{
	struct program *program = arg;

	(void)state;
	(void)len;
	program->pause = true;
	while (program->still < program->threads)
		nap(5000);
	return 0;
}

static void resume(void *arg)
{
	struct program *program = arg;

	program->pause = false;
}

static void *touch(void *arg)
{
	struct program *program = arg;
	struct bench *bench = program->bench;
	size_t pages = program->filled / bench->page;
	uint32_t *order = bench_order(bench, pages);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < pages && !program->end; i++) {
		const volatile char *at = program->memory + order[i] * bench->page;
		uint64_t entry, start;
		char got;

		must_libc(pread(pagemap, &entry, 8, (off_t)((uintptr_t)at / bench->page * 8)), "pagemap");
		if (entry >> 62)
			continue;
		start = now_ns();
		got = *at;
		program->meeting->samples[program->meeting->count++ % 65536] = (double)(now_ns() - start) / 1e3;
		if (got != CONTENT)
			bench_refuse("page %u begins with %d", order[i], got);
	}
	return NULL;
}

static void start(void *arg, const void *state, size_t len)
{
	struct program *program = arg;

	(void)state;
	(void)len;
	begin_threads(program);
	if (program->touches) {
		program->threads = 1;
		must(-pthread_create(&program->thread[0], NULL, touch, program), "pthread_create");
	}
}

static _Noreturn void destination(struct program *program)
{
	struct uf_destination_options options = {
		.size = sizeof(options), .engine = UF_ENGINE_KERNEL, .start = start, .arg = program};
	struct meeting *meeting = program->meeting;
	struct uf_migrate_region region;
	struct uf_destination *destination;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	program->memory = bench_memory(program->len);
	region = region_of(program);
	must(uf_destination_open(&destination, &region, 1, &options), "uf_destination_open");
	must(uf_destination_listen(destination, "tcp://127.0.0.1:0"), "uf_destination_listen");
	must(uf_destination_address(destination, meeting->address, sizeof(meeting->address)), "uf_destination_address");
	meeting->listening = 1;
	must(uf_destination_run(destination, NULL), "uf_destination_run");
	meeting->destination.size = sizeof(meeting->destination);
	uf_destination_stats(destination, &meeting->destination);
	program->end = true;
	for (int i = 0; i < program->threads; i++)
		pthread_join(program->thread[i], NULL);
	if (program->writes)
		meeting->stall_ns = ((struct heart *)program->memory)->longest;
	meeting->ended = 1;
	_exit(0);
}

/* Moves the program; what is measured is in program->meeting. */
static void move(struct program *program)
{
	struct uf_source_options options = {
		.size = sizeof(options),
		.passes = program->passes,
		.flags = program->flags,
		.stop = stop,
		.resume = resume,
		.arg = program,
	};
	struct meeting *meeting = program->meeting;
	struct uf_migrate_region region;
	struct uf_source *source;

	if (fork() == 0)
		destination(program);
	program->memory = bench_memory(program->len);
	bench_populate(program->memory, program->filled, program->bench->page);
	for (size_t at = 0; at < program->filled; at += program->bench->page)
		memset(program->memory + at, CONTENT, program->bench->page);
	memset(program->memory, 0, program->writes ? program->bench->page : 0);
	region = region_of(program);
	must(uf_source_open(&source, &region, 1, &options), "uf_source_open");
	while (!meeting->listening)
		nap(1000000);
	begin_threads(program);
	if (program->writes)
		nap(200000000);
	meeting->begun_ns = now_ns();
	must(uf_source_run(source, meeting->address), "uf_source_run");
	meeting->source.size = sizeof(meeting->source);
	uf_source_stats(source, &meeting->source);
	while (!meeting->ended)
		nap(100000);
}

static double seconds(const struct meeting *meeting)
{
	return (double)meeting->source.total_ns / 1e9;
}

static void throughput(struct bench *bench, unsigned passes, unsigned flags)
{
	struct program *program = program_new(bench, MIGRATE_MIB * MIB);

	program->passes = passes;
	program->flags = flags;
	move(program);
	bench_sample(bench, (double)program->len / seconds(program->meeting) / 1e9);
}

void migrate_postcopy(struct bench *bench)
{
	throughput(bench, 0, 0);
}

void migrate_precopy(struct bench *bench)
{
	throughput(bench, 1, 0);
}

void migrate_postcopy_one(struct bench *bench)
{
	throughput(bench, 0, UF_MIGRATE_ONE_CONNECTION);
}

void migrate_checksum(struct bench *bench)
{
	throughput(bench, 0, UF_MIGRATE_CHECKSUM);
}

static void request(struct bench *bench, unsigned flags)
{
	struct program *program = program_new(bench, MIGRATE_MIB * MIB);
	size_t count;

	program->flags = flags;
	program->touches = true;
	move(program);
	count = program->meeting->count;
	for (size_t i = 0; i < count && i < 65536; i++)
		bench_sample(bench, program->meeting->samples[i]);
}

void migrate_request(struct bench *bench)
{
	request(bench, 0);
}

void migrate_request_one(struct bench *bench)
{
	request(bench, UF_MIGRATE_ONE_CONNECTION);
}

static struct program *busy(struct bench *bench)
{
	struct program *program = program_new(bench, BUSY_MIB * MIB);

	program->filled = program->len / 2;
	program->writes = BUSY_WRITES;
	program->passes = 5;
	move(program);
	return program;
}

void migrate_stopped(struct bench *bench)
{
	bench_sample(bench, (double)busy(bench)->meeting->source.stopped_ns / 1e6);
}

void migrate_stall(struct bench *bench)
{
	bench_sample(bench, (double)busy(bench)->meeting->stall_ns / 1e6);
}

void migrate_total(struct bench *bench)
{
	bench_sample(bench, (double)busy(bench)->meeting->source.total_ns / 1e6);
}
