// SPDX-License-Identifier: MIT
/*
 * wild MODE - what the trap of the user engine must leave as it is
 *
 *	crash    reads an address that is nobody's
 *	handler  the same, with a SIGSEGV handler of its own, which says what it was told
 *	wait     waits in a fault that nobody serves, after "waiting" on standard output
 *
 * Knows only libc and the kernel's userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t page_size;
static int uffd;
static char *volatile wild;

static void must(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "failed: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* Named, for a debugger to find. */
static __attribute__((noinline)) int touch_the_page(const volatile char *at)
{
	return at[0] + 1;
}

static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (sig == SIGSEGV && info->si_addr == wild && info->si_code == SEGV_MAPERR)
		_exit(write(STDOUT_FILENO, "told\n", 5) == 5 ? 3 : 1);
	_exit(1);
}

static void *announce(void *unused)
{
	struct pollfd readable = {.fd = uffd, .events = POLLIN};

	must(poll(&readable, 1, -1) == 1, "poll");
	puts("waiting");
	fflush(stdout);
	return unused;
}

int main(int argc, char **argv)
{
	const char *mode = argc == 2 ? argv[1] : "";
	struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	pthread_t thread;
	char *pages;

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	pages = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(pages != MAP_FAILED, "mmap");
	/* Where nothing is ever put that may lie anywhere. */
	wild = (char *)0x20008;
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	must(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api), "userfaultfd");
	reg.range.start = (uintptr_t)pages;
	reg.range.len = page_size;
	must(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	if (!strcmp(mode, "wait")) {
		must(!pthread_create(&thread, NULL, announce, NULL), "pthread_create");
		return touch_the_page(pages);
	}
	if (!strcmp(mode, "handler"))
		sigaction(SIGSEGV, &action, NULL);
	else
		must(!strcmp(mode, "crash"), "no such mode");
	return touch_the_page(wild);
}
