// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "support/stepped.h"
#include "support/test.h"

/* Instructions that follow on a touch of the first page: the handler's, and enough to see what was done. */
#define STEPS 2000

/* Whether the child is at it, as it says itself. */
static _Atomic bool *at_it;

/* Memory that cannot be touched, but for the pages that were touched last: more than one instruction, or a large memcpy(), needs at once. */
static struct {
	uintptr_t memory;
	size_t len;
	uintptr_t last[32];
	unsigned next;
} veil;

static void unveil(int signal, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(page_size - 1), *oldest = &veil.last[veil.next];

	(void)signal;
	(void)context;
	if (page - veil.memory >= veil.len)
		_exit(1);
	raw_syscall3(SYS_mprotect, (long)page, (long)page_size, PROT_READ | PROT_WRITE);
	if (*oldest)
		raw_syscall3(SYS_mprotect, (long)*oldest, (long)page_size, PROT_NONE);
	*oldest = page;
	veil.next = (veil.next + 1) % (sizeof(veil.last) / sizeof(veil.last[0]));
}

static void put_on_veil(void)
{
	struct sigaction action = {.sa_sigaction = unveil, .sa_flags = SA_SIGINFO};

	CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
	CHECK_EQ(mprotect((void *)veil.memory, veil.len, PROT_NONE), 0);
}

/* It has said why if it has ended by itself. */
static int wait_for_stop(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	if (WIFSIGNALED(status))
		FAIL("the child was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return WSTOPSIG(status);
}

static void expect_stop(pid_t pid, int signal)
{
	int got = wait_for_stop(pid);

	if (got != signal)
		FAIL("the child got signal %d (%s)", got, strsignal(got));
}

/* The child, which stands still. */
static pid_t start(void (*what)(void))
{
	pid_t pid;

	if (!at_it)
		at_it = mmap(NULL, sizeof(*at_it), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(at_it != MAP_FAILED);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			SKIP("nobody may trace his children here: %s", strerror(errno));
		raise(SIGSTOP);
		if (veil.len)
			put_on_veil();
		atomic_store(at_it, true);
		what();
		atomic_store(at_it, false);
		raise(SIGSTOP);
		_exit(1);
	}
	expect_stop(pid, SIGSTOP);
	CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL), 0);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

static void step(pid_t pid)
{
	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL)) {
		CHECK(errno == EIO);
		SKIP("this machine does not stop after each instruction");
	}
	expect_stop(pid, SIGTRAP);
}

unsigned long stepped(void (*what)(void), stepped_look *look, void *arg)
{
	unsigned long count = 0;
	pid_t pid;

#if defined(__aarch64__)
	/* Without these an atomic instruction is a loop, which a stop in between sends back to its beginning. */
	if (!(getauxval(AT_HWCAP) & HWCAP_ATOMICS))
		SKIP("this machine's atomic instructions cannot be stepped over");
#endif
	pid = start(what);
	while (!atomic_load(at_it))
		step(pid);
	for (; atomic_load(at_it); count++) {
		look(arg, pid, false);
		step(pid);
	}
	look(arg, pid, true);
	end(pid);
	return count;
}

/* Goes on with the signal that it got, until it stops. */
static int go_on(int request, pid_t pid, int signal)
{
	CHECK_EQ(ptrace(request, pid, NULL, (void *)(intptr_t)signal), 0);
	return wait_for_stop(pid);
}

static bool in_first_page(pid_t pid)
{
	siginfo_t info;

	CHECK_EQ(ptrace(PTRACE_GETSIGINFO, pid, NULL, &info), 0);
	return (uintptr_t)info.si_addr - veil.memory < page_size;
}

unsigned long stepped_by_pages(void (*what)(void), void *memory, size_t len, stepped_look *look, void *arg)
{
	unsigned long count = 0, steps = 0;
	int signal = 0;
	pid_t pid;

	veil.memory = (uintptr_t)memory;
	veil.len = len;
	pid = start(what);
	for (;; count++) {
		look(arg, pid, false);
		if (signal == SIGSEGV && in_first_page(pid))
			steps = STEPS;
		signal = go_on(steps ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, signal == SIGTRAP ? 0 : signal);
		steps -= steps > 0;
		if (signal != SIGSEGV && signal != SIGTRAP)
			break;
	}
	if (signal != SIGSTOP)
		FAIL("the child got signal %d (%s)", signal, strsignal(signal));
	look(arg, pid, true);
	end(pid);
	return count;
}
