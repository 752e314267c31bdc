// SPDX-License-Identifier: MIT
/* Rounds: each side in a child process, one after the other, and medians. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench.h"

/* Rounds go on for this long, but for an odd number of them, from MIN to MAX. */
#define SECONDS    6
#define MIN_ROUNDS 3
#define MAX_ROUNDS 201

/* A side that takes longer than this has hung. */
#define HANG_SECONDS 120

#define SAMPLES 65536

/* In memory shared with the child. */
struct samples {
	char reason[256];
	size_t count;
	double at[SAMPLES];
};

/* A side's end is reached from any of its threads, so this is found without an argument. */
static struct samples *shared;

void bench_sample(struct bench *bench, double value)
{
	if (bench->samples->count < SAMPLES)
		bench->samples->at[bench->samples->count++] = value;
}

_Noreturn void bench_refuse(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(shared->reason, sizeof(shared->reason), format, args);
	va_end(args);
	_exit(1);
}

static _Noreturn void run_side(struct bench *bench, bench_side *side)
{
	/* It keeps what is to be removed at the end. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (bench_is_pinned(bench))
		bench_pin(bench->cpu);
	side(bench);
	_exit(0);
}

/* Waits for the child and kills it when it hangs. False: it failed, and shared->reason tells why. */
static bool child_succeeded(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), status;
	struct pollfd end = {.fd = fd, .events = POLLIN};
	bool hung = fd >= 0 && poll(&end, 1, HANG_SECONDS * 1000) == 0;

	if (hung)
		kill(pid, SIGKILL);
	if (fd >= 0)
		close(fd);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (hung)
		snprintf(shared->reason, sizeof(shared->reason), "hung for %d s", HANG_SECONDS);
	else if (WIFSIGNALED(status))
		snprintf(shared->reason, sizeof(shared->reason), "killed by signal %d", WTERMSIG(status));
	return false;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of `count` sorted values. */
static double quantile(const double *sorted, size_t count, double share)
{
	return sorted[(size_t)(share * (double)(count - 1) + 0.5)];
}

static bool measure_side(struct bench *bench, bench_side *side, double *median, double *tail)
{
	pid_t pid;

	shared->count = 0;
	shared->reason[0] = '\0';
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		snprintf(shared->reason, sizeof(shared->reason), "fork: %s", strerror(errno));
		return false;
	}
	if (pid == 0)
		run_side(bench, side);
	if (!child_succeeded(pid))
		return false;
	if (!shared->count) {
		snprintf(shared->reason, sizeof(shared->reason), "no samples");
		return false;
	}
	qsort(shared->at, shared->count, sizeof(shared->at[0]), compare);
	*median = quantile(shared->at, shared->count, 0.5);
	*tail = quantile(shared->at, shared->count, 0.99);
	return true;
}

/* What the rounds gave: of the side, of the baseline, and their ratios. */
struct series {
	double value[MAX_ROUNDS], baseline[MAX_ROUNDS], ratio[MAX_ROUNDS];
};

static void summarize(struct series *series, unsigned rounds, double *value, double *baseline, double *low,
                      double *high)
{
	qsort(series->value, rounds, sizeof(double), compare);
	qsort(series->baseline, rounds, sizeof(double), compare);
	qsort(series->ratio, rounds, sizeof(double), compare);
	*value = quantile(series->value, rounds, 0.5);
	*baseline = quantile(series->baseline, rounds, 0.5);
	*low = quantile(series->ratio, rounds, 0.25);
	*high = quantile(series->ratio, rounds, 0.75);
}

static bool measure_round(const struct figure *figure, struct bench *bench, struct series *series, struct series *tails,
                          unsigned at)
{
	bool done = true;

	for (unsigned turn = 0; turn < 2 && done; turn++) {
		if ((turn + bench->round) % 2 == 0)
			done = measure_side(bench, figure->side, &series->value[at], &tails->value[at]);
		else
			done = measure_side(bench, figure->baseline, &series->baseline[at], &tails->baseline[at]);
	}
	series->ratio[at] = series->value[at] / series->baseline[at];
	tails->ratio[at] = tails->value[at] / tails->baseline[at];
	return done;
}

/*
 * Touches as much memory as the figure needs, so that what a hypervisor backs lazily is backed before the rounds: the pages
 * freed here are those that the kernel hands out next.
 */
static void warm(size_t len, size_t page)
{
	static size_t warmed;
	char *p;

	if (len <= warmed)
		return;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return;
	madvise(p, len, MADV_NOHUGEPAGE);
	bench_populate(p, len, page);
	munmap(p, len);
	warmed = len;
}

/* The first two CPUs this process may use; the second -1 when there is one only. */
static void choose_cpus(int *first, int *second)
{
	cpu_set_t set;

	*first = *second = -1;
	sched_getaffinity(0, sizeof(set), &set);
	for (int cpu = 0; cpu < CPU_SETSIZE && *second < 0; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (*first < 0)
			*first = cpu;
		else
			*second = cpu;
	}
}

static size_t available_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
		;
	if (file)
		fclose(file);
	return (size_t)kib * 1024;
}

bool measure(const struct figure *figure, struct result *result, char *reason, size_t size)
{
	static struct series series, tails;
	struct bench bench = {.place = figure->place, .page = (size_t)sysconf(_SC_PAGESIZE)};
	size_t memory = (figure->memory << 20) + 4 * FAULT_PAGES * bench.page;
	uint64_t deadline;
	unsigned rounds = 0;

	if (!shared) {
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
		              -1, 0);
		if (shared == MAP_FAILED) {
			perror("bench: mmap");
			exit(1);
		}
	}
	bench.samples = shared;
	choose_cpus(&bench.cpu, &bench.other_cpu);
	if (available_memory() < memory + memory / 4) {
		snprintf(reason, size, "needs %zu MiB of free memory", (memory + memory / 4) >> 20);
		return false;
	}
	if (figure->needs && !disk_prepare(figure, bench.page, reason, size))
		return false;
	warm(memory, bench.page);

	deadline = now_ns() + SECONDS * 1000000000ull;
	/* Round 0 warms and is overwritten. */
	if (!measure_round(figure, &bench, &series, &tails, 0))
		goto refused;
	while (rounds < MAX_ROUNDS && (rounds < MIN_ROUNDS || rounds % 2 == 0 || now_ns() < deadline)) {
		bench.round++;
		if (!measure_round(figure, &bench, &series, &tails, rounds++))
			goto refused;
	}
	result->rounds = rounds;
	summarize(&series, rounds, &result->value, &result->baseline, &result->ratio_low, &result->ratio_high);
	summarize(&tails, rounds, &result->tail, &result->tail_baseline, &result->tail_low, &result->tail_high);
	return true;
refused:
	snprintf(reason, size, "%s", shared->reason);
	return false;
}
