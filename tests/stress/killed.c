// SPDX-License-Identifier: MIT
/*
 * killed [--kills N] - monitors are killed at random moments, and every byte that the program reads is right all the same
 *
 * Knows only libc and the kernel's userfaultfd. Another process makes monitors, one after the other, each a process of its own that has the
 * descriptor, and kills each after a random time. A new monitor wakes all faults at first: those that a dead one had read are told again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES   512
#define THREADS 2
#define LIFE    3000 /* us, of a monitor at most: twice as long after one that got nothing done, or nobody might ever */

struct shared {
	_Atomic unsigned kills, delivered;
	_Atomic bool finished;
};

static struct shared *shared;
static int uffd;
static size_t page_size;
static char *memory;
static unsigned wanted_kills = 60;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "failed: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail(what);
}

static unsigned char content_of(size_t page)
{
	return (unsigned char)(page * 7 + 1);
}

/* A fault in memory of a process that is ending is nobody's any more. */
static void deliver(uint64_t at)
{
	static char page[65536] __attribute__((aligned(4096)));
	struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)page, .len = page_size};
	struct uffdio_range range = {at, page_size};

	memset(page, content_of((at - (uintptr_t)memory) / page_size), page_size);
	if (ioctl(uffd, UFFDIO_COPY, &copy)) {
		must(errno == EEXIST || errno == EAGAIN || errno == ESRCH, "UFFDIO_COPY");
		ioctl(uffd, UFFDIO_WAKE, &range);
	}
	atomic_fetch_add(&shared->delivered, 1);
}

static _Noreturn void monitor(void)
{
	struct uffdio_range all = {(uintptr_t)memory, PAGES * page_size};
	struct pollfd readable = {.fd = uffd, .events = POLLIN};
	struct uffd_msg msg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must(!ioctl(uffd, UFFDIO_WAKE, &all), "UFFDIO_WAKE");
	for (;;) {
		poll(&readable, 1, -1);
		if (read(uffd, &msg, sizeof(msg)) == sizeof(msg))
			deliver(msg.arg.pagefault.address & ~(uint64_t)(page_size - 1));
	}
}

static _Noreturn void supervise(void)
{
	unsigned state = (unsigned)getpid(), life = LIFE;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!atomic_load(&shared->finished)) {
		unsigned delivered = atomic_load(&shared->delivered);
		pid_t pid = fork();
		int status;

		must(pid >= 0, "fork");
		if (!pid)
			monitor();
		usleep((useconds_t)rand_r(&state) % life);
		must(!kill(pid, SIGKILL), "kill");
		must(waitpid(pid, &status, 0) == pid, "waitpid");
		if (!WIFSIGNALED(status))
			fail("a monitor ended by itself");
		life = atomic_load(&shared->delivered) == delivered ? 2 * life : LIFE;
		atomic_fetch_add(&shared->kills, 1);
	}
	_exit(0);
}

static void *touch(void *arg)
{
	unsigned state = (unsigned)(uintptr_t)arg;

	for (size_t i = 0; i < PAGES; i++) {
		size_t page = (size_t)rand_r(&state) % PAGES;
		const volatile unsigned char *at = (unsigned char *)memory + page * page_size;

		for (size_t byte = 0; byte < page_size; byte++)
			if (at[byte] != content_of(page)) {
				fprintf(stderr, "failed: page %zu byte %zu is %u\n", page, byte, at[byte]);
				_exit(1);
			}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	unsigned rounds = 0;
	int status;
	pid_t supervisor;

	if (argc == 3 && !strcmp(argv[1], "--kills"))
		wanted_kills = (unsigned)strtoul(argv[2], NULL, 0);
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 && errno == EPERM) {
		printf("skipped: userfaultfd(2): %s\n", strerror(errno));
		return 77;
	}
	must(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api), "userfaultfd");
	reg.range.start = (uintptr_t)memory;
	reg.range.len = PAGES * page_size;
	must(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	supervisor = fork();
	must(supervisor >= 0, "fork");
	if (!supervisor)
		supervise();
	while (atomic_load(&shared->kills) < wanted_kills) {
		pthread_t threads[THREADS];

		for (size_t i = 0; i < THREADS; i++)
			must(!pthread_create(&threads[i], NULL, touch, (void *)(uintptr_t)(rounds * THREADS + i + 1)),
			     "thread");
		for (size_t i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		must(!madvise(memory, PAGES * page_size, MADV_DONTNEED), "madvise");
		rounds++;
	}
	atomic_store(&shared->finished, true);
	must(waitpid(supervisor, &status, 0) == supervisor && !status, "the supervisor");
	printf("%u monitors killed in %u rounds of %u pages\n", atomic_load(&shared->kills), rounds, PAGES);
	return 0;
}
