// SPDX-License-Identifier: MIT
/* What is done to a file in memory, whoever has mapped it: the same code for both sides. Contracts: bench.h. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench.h"

/* Reads go on for so long at the most. */
#define READ_NS 400000000u

static inline uint64_t number_at(const char *memory, size_t index, size_t page)
{
	return *(const volatile uint64_t *)(memory + index * page);
}

static void check(uint64_t number, size_t index)
{
	if (number != NUMBER(index))
		bench_refuse("page %zu has the number %llu", index, (unsigned long long)number);
}

void bench_read_numbered(struct bench *bench, const char *memory, size_t pages)
{
	uint32_t *order = bench_order(bench, pages);
	uint64_t deadline = now_ns() + READ_NS, end = 0;

	for (size_t i = 0; i < pages && end < deadline; i++) {
		uint64_t start = now_ns(), number = number_at(memory, order[i], bench->page);

		end = now_ns();
		check(number, order[i]);
		bench_sample(bench, (double)(end - start) / 1e3);
	}
	free(order);
}

/*
 * Random reads on threads.
 */

struct reader {
	pthread_t thread;
	const char *memory;
	const uint32_t *order;
	size_t first, step, count, page;
	uint64_t deadline;
	size_t reads;
};

static void *read_random(void *arg)
{
	struct reader *reader = arg;

	for (size_t i = reader->first; i < reader->count && now_ns() < reader->deadline; i += reader->step) {
		check(number_at(reader->memory, reader->order[i], reader->page), reader->order[i]);
		reader->reads++;
	}
	return NULL;
}

double bench_random(const struct bench *bench, const char *memory, size_t pages, size_t reads, unsigned threads)
{
	struct reader readers[MOST_READERS];
	uint32_t *order = bench_order(bench, pages);
	uint64_t start = now_ns();
	size_t done = 0;

	for (unsigned i = 0; i < threads; i++) {
		readers[i] = (struct reader){.memory = memory,
		                             .order = order,
		                             .first = i,
		                             .step = threads,
		                             .count = reads,
		                             .page = bench->page,
		                             .deadline = start + READ_NS};
		must(-pthread_create(&readers[i].thread, NULL, read_random, &readers[i]), "pthread_create");
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(readers[i].thread, NULL);
		done += readers[i].reads;
	}
	free(order);
	return (double)(now_ns() - start) / 1e3 / (double)done;
}

void bench_touch(const struct bench *bench, const char *memory, const uint32_t *pages, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check(number_at(memory, pages[i], bench->page), pages[i]);
}

/*
 * In sequence.
 */

double bench_sequential(const struct bench *bench, const char *memory, size_t first, size_t pages)
{
	uint64_t start = now_ns(), sum = 0;
	volatile uint64_t sink;

	for (size_t i = first; i < first + pages; i++) {
		const uint64_t *words = (const uint64_t *)(memory + i * bench->page);

		check(number_at(memory, i, bench->page), i);
		for (size_t word = 0; word < bench->page / 8; word++)
			sum += words[word];
	}
	sink = sum;
	(void)sink;
	return (double)(pages * bench->page) / (double)(now_ns() - start);
}

/*
 * Sorting: quicksort, of keys that are random, so it needs no guard against bad orders.
 */

static void insertion_sort(uint64_t *keys, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		uint64_t key = keys[i];
		size_t at = i;

		for (; at && keys[at - 1] > key; at--)
			keys[at] = keys[at - 1];
		keys[at] = key;
	}
}

static inline void swap(uint64_t *a, uint64_t *b)
{
	uint64_t c = *a;

	*a = *b;
	*b = c;
}

/* The middle one of three. */
static uint64_t pivot_of(const uint64_t *keys, size_t count)
{
	uint64_t a = keys[0], b = keys[count / 2], c = keys[count - 1];

	if (a > b)
		swap(&a, &b);
	if (b > c)
		b = c;
	return a > b ? a : b;
}

/* Hoare's: how many keys, at least one and not all, go before the others. */
static size_t partition(uint64_t *keys, size_t count)
{
	uint64_t pivot = pivot_of(keys, count);
	size_t low = 0, high = count - 1;

	for (;;) {
		while (keys[low] < pivot)
			low++;
		while (keys[high] > pivot)
			high--;
		if (low >= high)
			return high + 1;
		swap(&keys[low++], &keys[high--]);
	}
}

void bench_sort(uint64_t *keys, size_t count)
{
	while (count > 24) {
		size_t low = partition(keys, count);

		/* The smaller part first: what is left is never deep. */
		if (low < count - low) {
			bench_sort(keys, low);
			keys += low;
			count -= low;
		} else {
			bench_sort(keys + low, count - low);
			count = low;
		}
	}
	insertion_sort(keys, count);
}

#define KEYS_AT_ONCE ((size_t)1 << 17)

uint64_t bench_make_keys(const struct bench *bench, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t bytes = KEYS_AT_ONCE * sizeof(uint64_t);
	uint64_t *keys = malloc(bytes), state = 0x9e3779b97f4a7c15u * (bench->round + 1), sum = 0;

	must_libc(fd, path);
	for (size_t at = 0; at < (size_t)KEYS_MIB << 20; at += bytes) {
		for (size_t i = 0; i < KEYS_AT_ONCE; i++)
			sum += keys[i] = bench_random_number(&state);
		must_libc(write(fd, keys, bytes) == (ssize_t)bytes ? 0 : -1, path);
	}
	free(keys);
	close(fd);
	bench_drop_cache(bench, path);
	return sum;
}

void bench_check_keys(const char *path, uint64_t sum)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t bytes = KEYS_AT_ONCE * sizeof(uint64_t);
	uint64_t *keys = malloc(bytes), last = 0;

	must_libc(fd, path);
	for (size_t at = 0; at < (size_t)KEYS_MIB << 20; at += bytes) {
		must_libc(read(fd, keys, bytes) == (ssize_t)bytes ? 0 : -1, path);
		for (size_t i = 0; i < KEYS_AT_ONCE; i++) {
			if (keys[i] < last)
				bench_refuse("the keys are not in order");
			last = keys[i];
			sum -= last;
		}
	}
	if (sum)
		bench_refuse("the keys are not those that were written");
	free(keys);
	close(fd);
}

uint32_t *bench_set_pages(const struct bench *bench)
{
	struct bench first = {.page = bench->page};

	return bench_order(&first, ((size_t)FILE_MIB << 20) / bench->page);
}
