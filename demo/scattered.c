// SPDX-License-Identifier: MIT
/*
 * scattered FILE [SHARE] - maps a file and reads its pages in an order that jumps about, which is the same each time
 *
 * A program that knows nothing of page faults. It prints the sum of what it read on its standard output, and how long that took on
 * the standard error, in nanoseconds. SHARE: reads one page of so many; 1 without it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t add(uint64_t sum, const unsigned char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum = sum * 1099511628211u + bytes[i];
	return sum;
}

/* A sequence that comes to each number below a power of two once; those beyond the end are left out. */
static uint64_t read_scattered(const unsigned char *file, size_t size, size_t page, size_t share)
{
	size_t pages = (size + page - 1) / page, count = 1, at = 0;
	uint64_t sum = 14695981039346656037u;

	while (count < pages)
		count *= 2;
	for (size_t i = 0; i < count / share; i++) {
		at = (at * 1664525 + 1013904223) % count;
		if (at < pages)
			sum = add(sum, file + at * page, at + 1 < pages ? page : size - at * page);
	}
	return sum;
}

int main(int argc, char **argv)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), share = argc > 2 ? (size_t)atol(argv[2]) : 1;
	int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	const unsigned char *file;
	uint64_t begun, sum;
	struct stat stat_;

	if (fd < 0 || fstat(fd, &stat_) || !share) {
		fprintf(stderr, "usage: scattered FILE [SHARE]\n");
		return 2;
	}
	file = mmap(NULL, (size_t)stat_.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (file == MAP_FAILED) {
		perror("scattered: mmap");
		return 1;
	}
	begun = now_ns();
	sum = read_scattered(file, (size_t)stat_.st_size, page, share);
	fprintf(stderr, "%" PRIu64 "\n", now_ns() - begun);
	printf("%016" PRIx64 "\n", sum);
	return 0;
}
