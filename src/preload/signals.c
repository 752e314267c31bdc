// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>

#include "preload/next.h"
#include "preload/signals.h"
#include "uffd/chain.h"

const sigset_t *signals_open(const sigset_t *set, sigset_t *room)
{
	if (!set || !sigismember(set, SIGSEGV))
		return set;
	*room = *set;
	sigdelset(room, SIGSEGV);
	return room;
}

/*
 * Masks.
 */

WRAP(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old))
{
	sigset_t room;

	return NEXT(pthread_sigmask)(how, how == SIG_UNBLOCK ? set : signals_open(set, &room), old);
}

WRAP(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old))
{
	sigset_t room;

	return NEXT(sigprocmask)(how, how == SIG_UNBLOCK ? set : signals_open(set, &room), old);
}

WRAP(int, sigsuspend, (const sigset_t *set))
{
	sigset_t room;

	return NEXT(sigsuspend)(signals_open(set, &room));
}

WRAP(int, epoll_pwait, (int fd, struct epoll_event *events, int count, int timeout, const sigset_t *set))
{
	sigset_t room;

	return NEXT(epoll_pwait)(fd, events, count, timeout, signals_open(set, &room));
}

WRAP(int, epoll_pwait2,
     (int fd, struct epoll_event *events, int count, const struct timespec *timeout, const sigset_t *set))
{
	sigset_t room;

	return NEXT(epoll_pwait2)(fd, events, count, timeout, signals_open(set, &room));
}

WRAP(int, pthread_attr_setsigmask_np, (pthread_attr_t * attr, const sigset_t *set))
{
	sigset_t room;

	return NEXT(pthread_attr_setsigmask_np)(attr, signals_open(set, &room));
}

WRAP(int, sighold, (int sig))
{
	return sig == SIGSEGV ? 0 : NEXT(sighold)(sig);
}

/*
 * Actions.
 */

WRAP(int, sigaction, (int sig, const struct sigaction *act, struct sigaction *old))
{
	struct sigaction open;

	if (chain_program_action(sig, act, old))
		return 0;
	if (!act || !sigismember(&act->sa_mask, SIGSEGV))
		return NEXT(sigaction)(sig, act, old);
	open = *act;
	sigdelset(&open.sa_mask, SIGSEGV);
	return NEXT(sigaction)(sig, &open, old);
}

int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);
EXPORT int __sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return sigaction(sig, act, old);
}

/* For the signals that the chain serves; others go to libc, which remembers what siginterrupt(3) said. */
static bool served(int sig, int flags, __sighandler_t handler, __sighandler_t *old)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, was;

	if (!chain_program_action(sig, handler == SIG_ERR ? NULL : &act, &was))
		return false;
	*old = was.sa_handler;
	return true;
}

WRAP(__sighandler_t, signal, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, SA_RESTART, handler, &old) ? old : NEXT(signal)(sig, handler);
}

WRAP(__sighandler_t, bsd_signal, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, SA_RESTART, handler, &old) ? old : NEXT(bsd_signal)(sig, handler);
}

WRAP(__sighandler_t, ssignal, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, SA_RESTART, handler, &old) ? old : NEXT(ssignal)(sig, handler);
}

#define SYSV_FLAGS ((int)SA_RESETHAND | SA_NODEFER)

WRAP(__sighandler_t, __sysv_signal, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, SYSV_FLAGS, handler, &old) ? old : NEXT(__sysv_signal)(sig, handler);
}

WRAP(__sighandler_t, sysv_signal, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, SYSV_FLAGS, handler, &old) ? old : NEXT(sysv_signal)(sig, handler);
}

WRAP(__sighandler_t, sigset, (int sig, __sighandler_t handler))
{
	__sighandler_t old;

	return served(sig, 0, handler, &old) ? old : NEXT(sigset)(sig, handler);
}

WRAP(int, sigignore, (int sig))
{
	__sighandler_t old;

	return served(sig, 0, SIG_IGN, &old) ? 0 : NEXT(sigignore)(sig);
}
