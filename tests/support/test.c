// SPDX-License-Identifier: MIT
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/test.h"

/* Nothing here depends on speed: this only ends what hangs for good. */
#ifndef TEST_HANG_SECONDS
#define TEST_HANG_SECONDS 120
#endif

const char *test_engine = "kernel";
size_t page_size, huge_page_size;

static struct test *tests, **last = &tests;

/* Why the test ended as it did: in memory shared with its process. */
static char *verdict;
#define VERDICT_SIZE 4096

void test_add(struct test *test)
{
	*last = test;
	last = &test->next;
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
	va_list args;
	int len = snprintf(verdict, VERDICT_SIZE, "%s:%d: ", file, line);

	va_start(args, format);
	vsnprintf(verdict + len, (size_t)(VERDICT_SIZE - len), format, args);
	va_end(args);
	_exit(1);
}

_Noreturn void test_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(verdict, VERDICT_SIZE, format, args);
	va_end(args);
	_exit(77);
}

static const char *errno_name(long long value)
{
	const char *name = value < 0 && value > -4096 ? strerrorname_np((int)-value) : NULL;

	return name ? name : "";
}

void test_check_eq(const char *file, int line, const char *text, long long got, long long expected)
{
	if (got != expected)
		test_fail(file, line, "%s is %lld %s, expected %lld %s", text, got, errno_name(got), expected,
		          errno_name(expected));
}

static size_t meminfo(const char *key)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	size_t value = 0;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			value = strtoull(line + strlen(key) + 1, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

size_t free_huge_pages(void)
{
	size_t free_pages = meminfo("HugePages_Free"), reserved = meminfo("HugePages_Rsvd");

	return free_pages > reserved ? free_pages - reserved : 0;
}

/* Waits for the test's process, and kills its whole group if it hangs or leaves children behind. */
static int wait_for(pid_t pid, bool *hung)
{
	struct timespec step = {.tv_nsec = 1000000};
	time_t deadline = time(NULL) + TEST_HANG_SECONDS;
	int status;

	*hung = false;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (time(NULL) >= deadline) {
			*hung = true;
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return status;
		}
		nanosleep(&step, NULL);
	}
	kill(-pid, SIGKILL);
	return status;
}

static const char *one_line(char *text)
{
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	return text;
}

static bool run(const struct test *test, unsigned number)
{
	bool hung;
	pid_t pid;
	int status;

	verdict[0] = '\0';
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		/* Nobody would end it if it hung. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		test->run();
		fflush(NULL);
		_exit(0);
	}
	setpgid(pid, pid);
	status = wait_for(pid, &hung);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("ok %u - %s\n", number, test->name);
		return true;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		printf("ok %u - %s # SKIP %s\n", number, test->name, one_line(verdict));
		return true;
	}
	printf("not ok %u - %s\n# %s\n", number, test->name, test->text);
	if (hung)
		printf("# hung for %d s\n", TEST_HANG_SECONDS);
	else if (WIFSIGNALED(status))
		printf("# killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (verdict[0])
		printf("# %s\n", one_line(verdict));
	return false;
}

static bool selected(const struct test *test, int argc, char **argv)
{
	if (test->engine && strcmp(test->engine, test_engine) != 0)
		return false;
	for (int i = 0; i < argc; i++)
		if (!strcmp(argv[i], test->name))
			return true;
	return argc == 0;
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--engine NAME] [--list] [TEST...]\n", program);
	return 2;
}

int main(int argc, char **argv)
{
	unsigned count = 0, number = 0, failed = 0;
	bool list = false;
	int arg = 1;

	for (; arg < argc && argv[arg][0] == '-'; arg++) {
		if (!strcmp(argv[arg], "--list"))
			list = true;
		else if (!strcmp(argv[arg], "--engine") && arg + 1 < argc)
			test_engine = argv[++arg];
		else
			return usage(argv[0]);
	}
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	huge_page_size = meminfo("Hugepagesize") * 1024;
	verdict = mmap(NULL, VERDICT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (struct test *test = tests; test; test = test->next)
		count += selected(test, argc - arg, argv + arg);
	if (!count) {
		fprintf(stderr, "%s: no such test\n", argv[0]);
		return 2;
	}
	if (!list)
		printf("1..%u\n", count);
	for (struct test *test = tests; test; test = test->next) {
		if (!selected(test, argc - arg, argv + arg))
			continue;
		if (list)
			printf("%s\t%s\n", test->name, test->text);
		else
			failed += !run(test, ++number);
	}
	return failed ? 1 : 0;
}
