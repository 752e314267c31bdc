// SPDX-License-Identifier: MIT
/* What sides share: memory, order, threads, the timed access. Contracts: bench.h. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "bench.h"

/* Pages are touched for so long at the most: a slow machine measures fewer. */
#define TOUCH_NS 200000000u

void must(long result, const char *what)
{
	if (result < 0)
		bench_refuse("%s: %s", what, strerror((int)-result));
}

void must_libc(long result, const char *what)
{
	if (result < 0)
		bench_refuse("%s: %s", what, strerror(errno));
}

char *bench_memory(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		bench_refuse("mmap of %zu bytes: %s", len, strerror(errno));
	/* EINVAL: a kernel without huge pages, which is as well. */
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

void bench_populate(char *memory, size_t len, size_t page)
{
	if (!madvise(memory, len, MADV_POPULATE_WRITE))
		return;
	/* before Linux 5.14 */
	for (size_t at = 0; at < len; at += page)
		memory[at] = 0;
}

bool bench_is_pinned(const struct bench *bench)
{
	return bench->place == NEAR || bench->place == FAR || bench->place == SPIN;
}

/* xorshift64: what matters is that both sides of a round get the same. */
uint64_t bench_random_number(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

uint32_t *bench_order(const struct bench *bench, size_t count)
{
	uint32_t *order = malloc(count * sizeof(*order));
	uint64_t state = 0x9e3779b97f4a7c15u * (bench->round + 1);

	if (!order)
		bench_refuse("out of memory");
	for (size_t i = 0; i < count; i++) {
		size_t at = bench_random_number(&state) % (i + 1);

		order[i] = order[at];
		order[at] = (uint32_t)i;
	}
	return order;
}

void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must_libc(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

void bench_monitor(const struct bench *bench, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	if (bench_is_pinned(bench)) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(bench->place == NEAR ? bench->cpu : bench->other_cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	must(-pthread_create(&thread, &attr, run, arg), "pthread_create");
	pthread_attr_destroy(&attr);
}

void bench_read_pages(struct bench *bench, const char *memory, size_t pages, char expected)
{
	uint32_t *order = bench_order(bench, pages);
	uint64_t deadline = now_ns() + TOUCH_NS, end = 0;

	for (size_t i = 0; i < pages && end < deadline; i++) {
		const volatile char *at = memory + order[i] * bench->page;
		uint64_t start = now_ns();
		char got = *at;

		end = now_ns();

		if (got != expected)
			bench_refuse("page %u begins with %d instead of %d", order[i], got, expected);
		bench_sample(bench, (double)(end - start) / 1e3);
	}
	free(order);
}

void bench_write_pages(struct bench *bench, char *memory, size_t pages)
{
	uint32_t *order = bench_order(bench, pages);
	uint64_t deadline = now_ns() + TOUCH_NS, end = 0;

	for (size_t i = 0; i < pages && end < deadline; i++) {
		volatile char *at = memory + order[i] * bench->page;
		uint64_t start = now_ns();

		*at = CONTENT;
		end = now_ns();
		bench_sample(bench, (double)(end - start) / 1e3);
	}
	free(order);
}
