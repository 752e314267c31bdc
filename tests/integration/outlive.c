// SPDX-License-Identifier: MIT
/*
 * outlive PATH - maps a file, does what its standard input says, a line at a time, and answers each with a line
 *
 *	pid
 *	map               once more, and this mapping it is from now on. "done", or the error
 *	is PAGE SEED      "yes": it holds what that page of that store does; "zeros", "other"; "bus", "segv": a touch is this signal
 *	write PAGE, drop PAGE COUNT, unmap PAGE COUNT
 *	move PAGE COUNT   to another place, where it is from now on
 *	busy              a thread that gives the last page back and touches it, without end
 *	unmaps            a thread that maps two pages and unmaps them, without end, as long as they can be mapped
 *	unpoisoned        UFFDIO_POISON is from now on what it is before Linux 6.6
 *	fork              a child that answers from now on, and ends with an empty line; then "done"
 *
 * It knows libc and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault/uapi.h>

#include "content.h"

#define PAGES 1024

static const char *path;
static char *pages[PAGES]; /* where each is */
static size_t count;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "outlive: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail(what);
}

static void say(const char *line)
{
	printf("%s\n", line);
	fflush(stdout);
}

static const char *map(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	char *at;

	must(fd >= 0 && !fstat(fd, &stat), path);
	at = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (at == MAP_FAILED)
		return strerrorname_np(errno);
	count = (size_t)stat.st_size / CONTENT_PAGE;
	must(count <= PAGES, "pages");
	for (size_t i = 0; i < count; i++)
		pages[i] = at + i * CONTENT_PAGE;
	return "done";
}

static sigjmp_buf back;
static __thread bool aside;

static void on_signal(int number)
{
	while (aside)
		pause();
	siglongjmp(back, number);
}

static const char *compare(const char *args)
{
	bool same = true, zeros = true;
	unsigned page, seed;
	int number;

	must(sscanf(args, "%u %u", &page, &seed) == 2 && page < count, args);
	number = sigsetjmp(back, 1);
	if (number)
		return number == SIGBUS ? "bus" : "segv";
	for (unsigned i = 0; i < CONTENT_WORDS; i++) {
		uint64_t word = ((volatile uint64_t *)pages[page])[i];

		same &= word == content(seed, page, i);
		zeros &= !word;
	}
	return same ? "yes" : zeros ? "zeros" : "other";
}

static void change(const char *what, const char *args)
{
	unsigned page = 0, some = 1;
	size_t len;

	must(sscanf(args, "%u %u", &page, &some) >= 1 && page + some <= count, args);
	len = (size_t)some * CONTENT_PAGE;
	if (!strcmp(what, "write")) {
		pages[page][0] ^= 1;
	} else if (!strcmp(what, "drop")) {
		must(!madvise(pages[page], len, MADV_DONTNEED), "madvise");
	} else if (!strcmp(what, "unmap")) {
		must(!munmap(pages[page], len), "munmap");
	} else if (!strcmp(what, "move")) {
		char *to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		must(to != MAP_FAILED, "mmap");
		must(mremap(pages[page], len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
		for (unsigned i = 0; i < some; i++)
			pages[page + i] = to + (size_t)i * CONTENT_PAGE;
	} else {
		must(false, what);
	}
	say("done");
}

static void *busy(void *unused)
{
	char *last = pages[count - 1];

	(void)unused;
	aside = true;
	for (;;) {
		madvise(last, CONTENT_PAGE, MADV_DONTNEED);
		(void)*(volatile char *)last;
	}
	return NULL;
}

static void *unmaps(void *unused)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *at;

	(void)unused;
	must(fd >= 0, path);
	while ((at = mmap(NULL, 2 * CONTENT_PAGE, PROT_READ, MAP_PRIVATE, fd, 0)) != MAP_FAILED)
		must(!munmap(at, 2 * CONTENT_PAGE), "munmap");
	return NULL;
}

static void start(void *(*run)(void *))
{
	pthread_t thread;

	must(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
	say("done");
}

static void forbid_poison(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)UFFDIO_POISON, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), "PR_SET_SECCOMP");
	say("done");
}

static void fork_off(void)
{
	int status;
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		say("child");
		return;
	}
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	say(status ? "killed" : "done");
}

static void obey(char *line)
{
	char *rest = strchr(line, ' ');

	if (rest)
		*rest++ = '\0';
	else
		rest = line + strlen(line);
	if (!*line)
		_exit(0);
	if (!strcmp(line, "pid")) {
		printf("%d\n", getpid());
		fflush(stdout);
	} else if (!strcmp(line, "map")) {
		say(map());
	} else if (!strcmp(line, "is")) {
		say(compare(rest));
	} else if (!strcmp(line, "busy")) {
		start(busy);
	} else if (!strcmp(line, "unmaps")) {
		start(unmaps);
	} else if (!strcmp(line, "unpoisoned")) {
		forbid_poison();
	} else if (!strcmp(line, "fork")) {
		fork_off();
	} else {
		change(line, rest);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	char line[256];

	must(argc == 2, "a path is needed");
	path = argv[1];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	/* A child is to have what comes after it was made. */
	setvbuf(stdin, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		obey(line);
	}
	return 0;
}
