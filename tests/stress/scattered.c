// SPDX-License-Identifier: MIT
/*
 * scattered [--pages N] [--mappings N] - every second page of a large region, in random order
 *
 * With --mappings the number of mappings may not have grown by more than that at the end, if the kernel has guard pages. Each page's content is
 * checked, at its fault and again at the end. Knows only libc and the kernel's userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int uffd;
static size_t page_size;
static uint64_t start;
static _Atomic unsigned long messages;

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "failed: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static uint64_t content_of(uint64_t page)
{
	return page * 0x9e3779b97f4a7c15u + 1;
}

static void *monitor(void *unused)
{
	struct pollfd readable = {.fd = uffd, .events = POLLIN};
	uint64_t *page = aligned_alloc(4096, page_size);
	struct uffd_msg msg;

	for (;;) {
		struct uffdio_copy copy = {.src = (uintptr_t)page, .len = page_size};

		poll(&readable, 1, -1);
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		messages++;
		copy.dst = msg.arg.pagefault.address & ~(uint64_t)(page_size - 1);
		for (size_t i = 0; i < page_size / sizeof(*page); i++)
			page[i] = content_of((copy.dst - start) / page_size) + i;
		must(!ioctl(uffd, UFFDIO_COPY, &copy) || errno == EEXIST, "UFFDIO_COPY");
	}
	return unused;
}

static void check(uint64_t page)
{
	const volatile uint64_t *at = (uint64_t *)(uintptr_t)(start + page * page_size);
	size_t last = page_size / sizeof(*at) - 1;

	must(at[0] == content_of(page) && at[last] == content_of(page) + last, "a wrong byte");
}

static unsigned long mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long count = 0;
	int c;

	must(maps, "/proc/self/maps");
	while ((c = getc(maps)) != EOF)
		count += c == '\n';
	fclose(maps);
	return count;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	unsigned long pages = 200000, limit = 0, before, after, touched;
	unsigned seed = (unsigned)getpid();
	pthread_t thread;
	uint32_t *order;
	void *memory;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--pages"))
			pages = strtoul(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--mappings"))
			limit = strtoul(argv[i + 1], NULL, 0);
	}
	touched = pages / 2;
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	memory = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
	              0);
	must(memory != MAP_FAILED, "mmap");
	madvise(memory, pages * page_size, MADV_NOHUGEPAGE);
	start = (uintptr_t)memory;
	order = malloc(touched * sizeof(*order));
	for (size_t i = 0; i < touched; i++) {
		size_t at = ((size_t)rand_r(&seed) << 15 ^ (size_t)rand_r(&seed)) % (i + 1);

		order[i] = order[at];
		order[at] = (uint32_t)i;
	}
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 && errno == EPERM) {
		printf("skipped: userfaultfd(2): %s\n", strerror(errno));
		return 77;
	}
	must(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api), "userfaultfd");
	reg.range.start = start;
	reg.range.len = pages * page_size;
	must(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	must(!pthread_create(&thread, NULL, monitor, NULL), "pthread_create");
	before = mappings();
	for (size_t i = 0; i < touched; i++)
		check((uint64_t)order[i] * 2);
	after = mappings();
	for (size_t i = 0; i < touched; i++)
		check(i * 2);
	printf("%lu pages touched, %lu messages, mappings: %lu before, %lu after\n", touched, messages, before, after);
	memory = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* EINVAL: older than Linux 6.13. */
	if (limit && madvise(memory, page_size, 102 /* MADV_GUARD_INSTALL */) && errno == EINVAL) {
		printf("no guard pages here: the mappings do not count\n");
		limit = 0;
	}
	if (limit && after > before + limit) {
		fprintf(stderr, "failed: more than %lu mappings more\n", limit);
		return 1;
	}
	return 0;
}
