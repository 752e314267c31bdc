// SPDX-License-Identifier: MIT
/*
 * A program such as a stranger writes from the kernel's documentation alone: syscall(2), ioctl(2), poll(2) and read(2), layout calls,
 * signals, forks. It knows nothing of the library. Prints what it has done; exits with 1 and a line when something is not as it should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
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

static size_t page_size;
static int uffd;
static char *pages;

static void check(int holds, const char *what)
{
	if (holds)
		return;
	printf("failed: %s (%s)\n", what, strerror(errno));
	exit(1);
}

static char *map(size_t count)
{
	char *p = mmap(NULL, count * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED, "mmap");
	return p;
}

static void open_and_register(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	check(uffd >= 0, "userfaultfd(2)");
	check(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
	pages = map(PAGES);
	reg.range.start = (uintptr_t)pages;
	reg.range.len = PAGES * page_size;
	check(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
}

/* Page n holds the letter n % 26. */
static char letter(size_t n)
{
	return (char)('a' + n % 26);
}

static void *monitor(void *unused)
{
	char *source = map(1);

	(void)unused;
	for (;;) {
		struct pollfd fd = {.fd = uffd, .events = POLLIN};
		struct uffdio_copy copy = {.len = page_size};
		struct uffd_msg msg;

		check(poll(&fd, 1, -1) == 1, "poll");
		if (read(uffd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
			continue;
		copy.dst = msg.arg.pagefault.address & ~((uint64_t)page_size - 1);
		copy.src = (uintptr_t)source;
		memset(source, letter((copy.dst - (uintptr_t)pages) / page_size), page_size);
		check(!ioctl(uffd, UFFDIO_COPY, &copy) || errno == EEXIST, "UFFDIO_COPY");
	}
	return NULL;
}

static void expect_page(size_t n)
{
	check(pages[n * page_size] == letter(n) && pages[(n + 1) * page_size - 1] == letter(n), "the bytes of a page");
}

/* A task that shares memory, files, handlers and even thread-local storage, on a small stack. */
static int touch_as_task(void *unused)
{
	(void)unused;
	return pages[1 * page_size] == letter(1) ? 0 : 1;
}

static void task(void)
{
	size_t size = 64 * 1024;
	char *stack = malloc(size);
	int status;
	pid_t pid = clone(touch_as_task, stack + size, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | SIGCHLD,
	                  NULL);

	check(pid > 0, "clone");
	check(waitpid(pid, &status, 0) == pid && !status, "the task's page");
	free(stack);
}

static void system_calls(void)
{
	int pipe_[2];
	char byte[2];

	check(!pipe(pipe_), "pipe");
	/* Missing pages as buffers: out of one, into the next. */
	check(write(pipe_[1], pages + 2 * page_size, 2) == 2, "write(2) out of a missing page");
	check(read(pipe_[0], byte, 2) == 2 && byte[0] == letter(2), "what was written");
	check(write(pipe_[1], "xy", 2) == 2, "write");
	check(read(pipe_[0], pages + 3 * page_size, 2) == 2, "read(2) into a missing page");
	check(pages[3 * page_size] == 'x' && pages[3 * page_size + 2] == letter(3),
	      "what was read, in the page's own bytes");
}

static sigjmp_buf escape;
static void *volatile fault_address;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	fault_address = info->si_addr;
	/* A handler may itself touch what is missing. */
	expect_page(4);
	siglongjmp(escape, 1);
}

static void own_handler(void)
{
	struct sigaction act = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO}, old;
	char *closed = map(1);

	check(!mprotect(closed, page_size, PROT_NONE), "mprotect");
	check(!sigaction(SIGSEGV, &act, &old), "sigaction");
	check(old.sa_handler == SIG_DFL, "no handler before ours");
	if (!sigsetjmp(escape, 1))
		closed[7] = 1;
	check(fault_address == closed + 7, "the handler knows the address");
	check(!sigaction(SIGSEGV, NULL, &old) && old.sa_sigaction == on_segv, "our handler is what is set");
	expect_page(5);
}

static void blocked_signals(void)
{
	sigset_t all, before;

	sigfillset(&all);
	check(!sigprocmask(SIG_BLOCK, &all, &before), "sigprocmask");
	expect_page(6);
	check(!sigprocmask(SIG_SETMASK, &before, NULL), "sigprocmask");
}

static void child(void)
{
	pid_t pid = fork();
	int status;

	check(pid >= 0, "fork");
	/* Nobody asked for fork events: what is missing is zero there, what was there is there. */
	if (!pid)
		_exit(pages[7 * page_size] || pages[1 * page_size] != letter(1));
	check(waitpid(pid, &status, 0) == pid && !status, "the child's pages");
	expect_page(7);
}

static void close_everything(void)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fd != uffd)
			close(fd);
	expect_page(8);
}

static void remove_and_unmap(void)
{
	check(!madvise(pages + 1 * page_size, page_size, MADV_DONTNEED), "madvise");
	expect_page(1);
	check(!munmap(pages + 10 * page_size, page_size), "munmap");
	check(mmap(pages + 10 * page_size, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	              pages + 10 * page_size,
	      "mmap");
	check(!pages[10 * page_size], "memory mapped anew is nobody's");
}

static void *read_for_ever(void *unused)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffd_msg msg;

	(void)unused;
	check(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	read(fd, &msg, sizeof(msg));
	check(0, "a read with nothing to read came back");
	return NULL;
}

static void cancelled_reader(void)
{
	pthread_t thread;
	void *result;

	check(!pthread_create(&thread, NULL, read_for_ever, NULL), "pthread_create");
	check(!pthread_cancel(thread) && !pthread_join(thread, &result) && result == PTHREAD_CANCELED,
	      "pthread_cancel");
}

int main(int argc, char **argv)
{
	pthread_t thread;

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	if (argc > 1 && !strcmp(argv[1], "exec")) {
		/* With an environment of its own. */
		execle(argv[0], argv[0], (char *)NULL, (char *[]){NULL});
		check(0, "execle");
	}
	open_and_register();
	check(!pthread_create(&thread, NULL, monitor, NULL), "pthread_create");
	expect_page(0);
	task();
	system_calls();
	own_handler();
	blocked_signals();
	child();
	close_everything();
	remove_and_unmap();
	cancelled_reader();
	printf("all as documented\n");
	return 0;
}
