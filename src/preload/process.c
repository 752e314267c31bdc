// SPDX-License-Identifier: MIT
/*
 * Children. fork(3) needs nothing here: it calls what the engine and this file have left with pthread_atfork(3), the engine first: so the
 * lock of the mappings (map-ranges.h) is taken before the space's here as everywhere. A child that shares the
 * memory is a thread to the engine, and one of vfork(2) is too.
 */
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/rawsys.h"
#include "preload/descriptors.h"
#include "preload/map-memory.h"
#include "preload/next.h"
#include "preload/process.h"
#include "uffd/user/fork.h"

/* Of fork(3). */
static void files_in_child(void)
{
	descriptors_forked();
	map_fork_child(true);
}

__attribute__((constructor)) static void listen_to_forks(void)
{
	pthread_atfork(map_fork_prepare, map_fork_parent, files_in_child);
}

static void prepare(void)
{
	map_fork_prepare();
	user_fork_prepare();
}

static void in_parent(void)
{
	user_fork_parent();
	map_fork_parent();
}

static void in_child(void)
{
	user_fork_child();
	descriptors_forked();
	/* malloc(3) may be in the middle of what another thread was doing. */
	map_fork_child(false);
}

static long ended(long result)
{
	if (result == 0)
		in_child();
	else
		in_parent();
	return result;
}

/* glibc 2.34: fork() without the handlers of pthread_atfork(3). */
WRAP(pid_t, _Fork, (void))
{
	pid_t pid;
	int error;

	prepare();
	pid = NEXT(_Fork)();
	error = errno;
	ended(pid);
	errno = error;
	return pid;
}

struct entry {
	int (*fn)(void *);
	void *arg;
};

/* The child's first function. What it is told lies on the parent's stack, of which it has a copy. */
static int enter(void *arg)
{
	struct entry entry = *(struct entry *)arg;

	in_child();
	return entry.fn(entry.arg);
}

WRAP(int, clone, (int (*fn)(void *), void *stack, int flags, void *arg, ...))
{
	struct entry entry = {fn, arg};
	void *parent_tid, *tls, *child_tid;
	int pid, error;
	va_list args;

	va_start(args, arg);
	parent_tid = va_arg(args, void *);
	tls = va_arg(args, void *);
	child_tid = va_arg(args, void *);
	va_end(args);
	if ((flags & CLONE_VM) || !fn || !stack)
		return NEXT(clone)(fn, stack, flags, arg, parent_tid, tls, child_tid);
	prepare();
	pid = NEXT(clone)(enter, stack, flags, &entry, parent_tid, tls, child_tid);
	error = errno;
	in_parent();
	errno = error;
	return pid;
}

static bool makes_process(long nr, const long args[6])
{
	switch (nr) {
#ifdef SYS_fork
	case SYS_fork:
		return true;
#endif
	case SYS_clone:
		/* With a stack of its own the child does not come back here. */
		return !(args[0] & CLONE_VM) && !args[1];
	default:
		return false;
	}
}

long process_fork(long nr, const long args[6])
{
	if (!makes_process(nr, args))
		return raw_syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	prepare();
	return ended(raw_syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5]));
}
