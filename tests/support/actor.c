// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/test.h"

struct actor {
	long (*function)(void *);
	void *arg;
	unsigned char value;
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic bool done; /* published after the access; nothing between them can sleep */
	struct outcome outcome;
};

/* Where the access of this thread goes on after a signal; what it was is left beside it. */
static __thread sigjmp_buf *landing;
static __thread struct outcome landed;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!landing) {
		signal(sig, SIG_DFL);
		return;
	}
	landed = (struct outcome){.value = -1, .signal = sig, .code = info->si_code, .addr = info->si_addr};
	siglongjmp(*landing, 1);
}

void catch_signals(void)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
}

static struct outcome attempt(long (*function)(void *), void *arg)
{
	sigjmp_buf here;
	struct outcome outcome = {0};

	if (sigsetjmp(here, 1)) {
		landing = NULL;
		return landed;
	}
	landing = &here;
	outcome.value = function(arg);
	landing = NULL;
	return outcome;
}

static long read_byte(void *arg)
{
	return *(volatile unsigned char *)arg;
}

struct write {
	volatile unsigned char *addr;
	unsigned char value;
};

static long write_byte(void *arg)
{
	const struct write *write = arg;

	*write->addr = write->value;
	return 0;
}

static long write_for_actor(void *arg)
{
	struct actor *actor = arg;

	*(volatile unsigned char *)actor->arg = actor->value;
	return 0;
}

struct outcome try_read(const volatile void *addr)
{
	return attempt(read_byte, (void *)(uintptr_t)addr);
}

struct outcome try_write(volatile void *addr, unsigned char value)
{
	struct write write = {addr, value};

	return attempt(write_byte, &write);
}

static void *run_actor(void *arg)
{
	struct actor *actor = arg;

	atomic_store(&actor->tid, gettid());
	actor->outcome = attempt(actor->function, actor->function == write_for_actor ? actor : actor->arg);
	atomic_store(&actor->done, true);
	return NULL;
}

static struct actor *start(long (*function)(void *), void *arg, unsigned char value)
{
	struct actor *actor = calloc(1, sizeof(*actor));

	CHECK(actor);
	actor->function = function;
	actor->arg = arg;
	actor->value = value;
	CHECK_EQ(pthread_create(&actor->thread, NULL, run_actor, actor), 0);
	/* Until it has come so far, its sleep could be that of a starting thread. */
	while (!atomic_load(&actor->tid))
		sched_yield();
	return actor;
}

struct actor *act_read(const volatile void *addr)
{
	return start(read_byte, (void *)(uintptr_t)addr, 0);
}

struct actor *act_write(volatile void *addr, unsigned char value)
{
	return start(write_for_actor, (void *)(uintptr_t)addr, value);
}

struct actor *act_call(long (*function)(void *), void *arg)
{
	return start(function, arg, 0);
}

/* What /proc has to say of it; nothing when it has exited, or is about to, has no memory any more, and its files are root's. */
static void ask(pid_t tid, const char *what, char *text, size_t size)
{
	ssize_t len = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", tid, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		CHECK(errno == ENOENT || errno == EACCES);
	} else {
		len = read(fd, text, size - 1);
		close(fd);
	}
	text[len > 0 ? len : 0] = '\0';
}

/*
 * The kernel answers "running" unless the thread is off its processor and stays so. Its state alone would not do: a
 * thread is marked as sleeping, and its fault can be read, before it has made sure that it must sleep.
 */
static bool is_off(pid_t tid)
{
	char text[64];

	ask(tid, "syscall", text, sizeof(text));
	return text[0] && strncmp(text, "running", strlen("running")) != 0;
}

/* How often it has gone to sleep. */
static unsigned long sleeps(pid_t tid)
{
	static const char key[] = "\nvoluntary_ctxt_switches:";
	char text[4096];
	const char *at;

	ask(tid, "status", text, sizeof(text));
	at = strstr(text, key);
	return at ? strtoul(at + strlen(key), NULL, 10) : 0;
}

/* Until a page of the program has been read, or who changes the layout of memory is done: it is not there yet. */
static bool sleeps_on_its_way(pid_t tid)
{
	static const char *const places[] = {"folio_", "__folio_", "io_schedule", "rwsem_"};
	char text[64];
	bool found = false;

	ask(tid, "wchan", text, sizeof(text));
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		found = found || !strncmp(text, places[i], strlen(places[i]));
	return found;
}

/* All of it must be of the same sleep. */
static bool asleep(pid_t tid)
{
	unsigned long before = sleeps(tid);

	return is_off(tid) && !sleeps_on_its_way(tid) && is_off(tid) && sleeps(tid) == before;
}

bool actor_waits(const struct actor *actor)
{
	for (;;) {
		bool sleeps = asleep(actor->tid);

		if (atomic_load(&actor->done))
			return false;
		if (sleeps)
			return true;
		sched_yield();
	}
}

pid_t actor_tid(const struct actor *actor)
{
	return actor->tid;
}

struct outcome actor_end(struct actor *actor)
{
	struct outcome outcome;

	CHECK_EQ(pthread_join(actor->thread, NULL), 0);
	outcome = actor->outcome;
	free(actor);
	return outcome;
}

void reap(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		FAIL("a child was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
}
