// SPDX-License-Identifier: MIT
/* Baselines of pager.*, by hand: pagers without a budget, in the least code that serves a fault; and mmap. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define MIB ((size_t)1 << 20)

#define MOST_PAGE 65536

static int fault_fd, file_fd;
static char *served;
static size_t page;

static double elapsed_ns(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - since->tv_sec) * 1e9 + (double)(now.tv_nsec - since->tv_nsec);
}

static int open_numbered(void)
{
	int fd = open(bench_path(NUMBERED), O_RDONLY | O_CLOEXEC);

	must_libc(fd, "the numbered file");
	return fd;
}

/*
 * In the page cache: the barest pagers.
 */

static void serve_warm(const struct bench *bench, size_t pages, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	struct uffdio_register reg = {.range.len = pages * bench->page, .mode = UFFDIO_REGISTER_MODE_MISSING};

	page = bench->page;
	bench_warm_cache(bench_path(NUMBERED), pages * page);
	file_fd = open_numbered();
	fault_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fault_fd < 0)
		fault_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	must_libc(fault_fd, "userfaultfd");
	must_libc(ioctl(fault_fd, UFFDIO_API, &api), "UFFDIO_API");
	served = bench_memory(pages * page);
	reg.range.start = (uintptr_t)served;
	must_libc(ioctl(fault_fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
}

static void bring(uint64_t address, uint64_t mode)
{
	static __thread char buffer[MOST_PAGE];
	struct uffdio_copy copy = {
		.dst = address & ~(uint64_t)(page - 1),
		.src = (uintptr_t)buffer,
		.len = page,
		.mode = mode,
	};

	if (pread(file_fd, buffer, page, (off_t)(copy.dst - (uintptr_t)served)) != (ssize_t)page)
		bench_refuse("pread: %s", strerror(errno));
	if (ioctl(fault_fd, UFFDIO_COPY, &copy))
		bench_refuse("UFFDIO_COPY: %s", strerror(errno));
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	bring((uintptr_t)info->si_addr, UFFDIO_COPY_MODE_DONTWAKE);
}

static void serve_inline(const struct bench *bench, size_t pages)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	serve_warm(bench, pages, UFFD_FEATURE_SIGBUS);
	sigaction(SIGBUS, &action, NULL);
}

void bare_warm_inline(struct bench *bench)
{
	serve_inline(bench, FAULT_PAGES);
	bench_read_numbered(bench, served, FAULT_PAGES);
}

static void *monitor(void *arg)
{
	struct pollfd readable = {.fd = fault_fd, .events = POLLIN};
	struct uffd_msg msg;

	(void)arg;
	for (;;) {
		poll(&readable, 1, -1);
		if (read(fault_fd, &msg, sizeof(msg)) == sizeof(msg))
			bring(msg.arg.pagefault.address, 0);
	}
	return NULL;
}

void bare_warm_thread(struct bench *bench)
{
	serve_warm(bench, FAULT_PAGES, 0);
	bench_monitor(bench, monitor, NULL);
	bench_read_numbered(bench, served, FAULT_PAGES);
}

static void scale(struct bench *bench, unsigned threads)
{
	serve_inline(bench, SCALE_PAGES);
	bench_sample(bench, bench_random(bench, served, SCALE_PAGES, SCALE_PAGES, threads));
}

void bare_scale_1(struct bench *bench)
{
	scale(bench, 1);
}

void bare_scale_2(struct bench *bench)
{
	scale(bench, 2);
}

void bare_scale_4(struct bench *bench)
{
	scale(bench, 4);
}

void bare_scale_8(struct bench *bench)
{
	scale(bench, 8);
}

/*
 * Not in the page cache: mmap, with the advice that is better.
 */

static char *map_file(const char *path, size_t len, int flags)
{
	int fd = open(path, (flags & O_RDWR) ? O_RDWR : O_RDONLY | O_CLOEXEC);
	char *memory;

	must_libc(fd, path);
	memory = mmap(NULL, len, (flags & O_RDWR) ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	must_libc(memory == MAP_FAILED ? -1 : 0, "mmap");
	close(fd);
	return memory;
}

static void advise(char *memory, size_t len, int advice)
{
	must_libc(madvise(memory, len, advice), "madvise");
}

/* At most `reads`; 0: all. */
static double random_reads(struct bench *bench, unsigned threads, int advice, size_t reads)
{
	size_t len = FILE_MIB * MIB, fill = FILL_UP_MIB * MIB / bench->page, pages = len / bench->page - fill;
	char *memory;
	double us;

	bench_drop_cache(bench, bench_path(NUMBERED));
	memory = map_file(bench_path(NUMBERED), len, O_RDONLY);
	advise(memory, len, MADV_SEQUENTIAL);
	bench_sequential(bench, memory, pages, fill);
	advise(memory, len, advice);
	us = bench_random(bench, memory, pages, reads ? reads : pages, threads);
	munmap(memory, len);
	return us;
}

/* Of reading around each page a few reads tell, which may be megabytes each. */
#define FEW 32

static void cold(struct bench *bench, unsigned threads)
{
	double random, normal;

	bench_limit_memory(MEMORY_MIB * MIB);
	random = random_reads(bench, threads, MADV_RANDOM, 0);
	normal = random_reads(bench, threads, MADV_NORMAL, FEW);
	if (normal < random)
		normal = random_reads(bench, threads, MADV_NORMAL, 0);
	bench_sample(bench, random < normal ? random : normal);
}

void mmap_cold(struct bench *bench)
{
	cold(bench, 1);
}

void mmap_cold_8(struct bench *bench)
{
	cold(bench, 8);
}

static double sequential_reads(struct bench *bench, int advice)
{
	size_t len = FILE_MIB * MIB;
	char *memory;
	double rate;

	bench_drop_cache(bench, bench_path(NUMBERED));
	memory = map_file(bench_path(NUMBERED), len, O_RDONLY);
	advise(memory, len, advice);
	rate = bench_sequential(bench, memory, 0, SEQUENCE_MIB * MIB / bench->page);
	munmap(memory, len);
	return rate;
}

void mmap_sequential(struct bench *bench)
{
	double normal, sequential;

	bench_limit_memory(MEMORY_MIB * MIB);
	normal = sequential_reads(bench, MADV_NORMAL);
	sequential = sequential_reads(bench, MADV_SEQUENTIAL);
	bench_sample(bench, normal > sequential ? normal : sequential);
}

/* With each advice on a file of its own content, in the same order of the keys. */
static double sort_file(struct bench *bench, const char *path, int advice)
{
	uint64_t sum = bench_make_keys(bench, path);
	char *memory = map_file(path, KEYS_MIB * MIB, O_RDWR);
	struct timespec start;
	double seconds;

	advise(memory, KEYS_MIB * MIB, advice);
	clock_gettime(CLOCK_MONOTONIC, &start);
	bench_sort((uint64_t *)memory, KEYS_MIB * MIB / sizeof(uint64_t));
	must_libc(msync(memory, KEYS_MIB * MIB, MS_SYNC), "msync");
	seconds = elapsed_ns(&start) / 1e9;
	munmap(memory, KEYS_MIB * MIB);
	bench_check_keys(path, sum);
	return seconds;
}

void mmap_sort(struct bench *bench)
{
	char path[400];

	strncpy(path, bench_path("keys"), sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	bench_limit_memory(SORT_MIB * MIB);
	bench_sample(bench, sort_file(bench, path, MADV_NORMAL));
}

/*
 * The bytes of a working set, copied from where they are to memory that is new.
 */

void bare_copy_set(struct bench *bench)
{
	size_t len = SET_PAGES * bench->page;
	char *from = bench_memory(len), *to = bench_memory(len);
	struct timespec start;

	memset(from, CONTENT, len);
	clock_gettime(CLOCK_MONOTONIC, &start);
	memcpy(to, from, len);
	bench_sample(bench, elapsed_ns(&start) / 1e6);
}
