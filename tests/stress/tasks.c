// SPDX-License-Identifier: MIT
/*
 * tasks [--kills N] - tasks that share the program's memory are killed at random moments, in the middle of faults and changes of layout
 *
 * A task made by clone(2) with CLONE_VM and without CLONE_THREAD is a process of its own: it dies alone, wherever it is, and the
 * others go on. Nothing may stall, and every byte is checked. Knows only libc and the kernel's userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64
#define TASKS 2
#define STACK 65536

static int uffd;
static size_t page_size;
static char *memory;

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

static void *monitor(void *unused)
{
	struct pollfd readable = {.fd = uffd, .events = POLLIN};
	struct uffd_msg msg;
	char *page = aligned_alloc(4096, page_size);

	for (;;) {
		struct uffdio_copy copy = {.src = (uintptr_t)page, .len = page_size};
		struct uffdio_range range = {.len = page_size};

		poll(&readable, 1, -1);
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		copy.dst = range.start = msg.arg.pagefault.address & ~(uint64_t)(page_size - 1);
		memset(page, (int)((copy.dst - (uintptr_t)memory) / page_size) + 1, page_size);
		if (ioctl(uffd, UFFDIO_COPY, &copy)) {
			must(errno == EEXIST || errno == EAGAIN, "UFFDIO_COPY");
			/* Whoever waits asks again. */
			must(!ioctl(uffd, UFFDIO_WAKE, &range), "UFFDIO_WAKE");
		}
	}
	return unused;
}

static bool is_right(size_t page)
{
	const volatile unsigned char *at = (unsigned char *)memory + page * page_size;

	for (size_t i = 0; i < page_size; i += 64)
		if (at[i] != page + 1)
			return false;
	return true;
}

/* Nothing of libc but what touches no thread's own memory, which it shares with whoever made it. */
static int task(void *arg)
{
	uint64_t state = (uintptr_t)arg;

	for (;;) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		if (state >> 60) {
			if (!is_right(state >> 32 & (PAGES - 1)))
				_exit(1);
		} else {
			madvise(memory + (state >> 32 & (PAGES - 1)) * page_size, page_size, MADV_DONTNEED);
		}
	}
	return 0;
}

/* Empties one page, which waits until its event is read. */
static int remove_one(void *arg)
{
	madvise(arg, page_size, MADV_DONTNEED);
	_exit(1);
}

/* S where it sleeps in a futex, D where it does in the kernel's userfaultfd. */
static bool sleeps(pid_t pid)
{
	char path[64], line[512] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, line, sizeof(line) - 1) > 0, "/proc/PID/stat");
	close(fd);
	return strrchr(line, ')') && strchr("SD", strrchr(line, ')')[2]);
}

/* More of them than anybody makes room for die while their event is unread, and nobody asks meanwhile. */
static void kill_removers(char *stack)
{
	for (size_t i = 0; i < 2 * PAGES; i++) {
		pid_t pid = clone(remove_one, stack, CLONE_VM | SIGCHLD, memory + i % PAGES * page_size);
		int status = 0;

		must(pid > 0, "clone");
		while (!sleeps(pid))
			sched_yield();
		must(!kill(pid, SIGKILL) && waitpid(pid, &status, 0) == pid, "kill");
		if (!WIFSIGNALED(status))
			fail("a removal did not wait until it was read");
	}
}

int main(int argc, char **argv)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	unsigned long kills = argc == 3 && !strcmp(argv[1], "--kills") ? strtoul(argv[2], NULL, 0) : 300;
	unsigned seed = (unsigned)getpid();
	char *stacks = malloc(TASKS * STACK);
	pthread_t thread;

	page_size = (size_t)sysconf(_SC_PAGESIZE);
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
	kill_removers(stacks + STACK);
	must(!pthread_create(&thread, NULL, monitor, NULL), "pthread_create");
	for (unsigned long i = 0; i < kills; i++) {
		pid_t pids[TASKS];

		for (size_t t = 0; t < TASKS; t++) {
			pids[t] = clone(task, stacks + (t + 1) * STACK, CLONE_VM | SIGCHLD,
			                (void *)(uintptr_t)(i * TASKS + t + 1));
			must(pids[t] > 0, "clone");
		}
		usleep((useconds_t)rand_r(&seed) % 500);
		for (size_t t = 0; t < TASKS; t++) {
			int status;

			must(!kill(pids[t], SIGKILL), "kill");
			must(waitpid(pids[t], &status, 0) == pids[t], "waitpid");
			if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
				fail("a task has read a wrong byte");
		}
		for (size_t page = 0; page < PAGES; page++)
			if (!is_right(page))
				fail("a wrong byte");
	}
	printf("%lu times %d tasks were killed\n", kills, TASKS);
	return 0;
}
