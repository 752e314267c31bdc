/* SPDX-License-Identifier: MIT */
/*
 * chain.h - our signal handlers, and the way a signal takes that is not for us
 *
 * A link is installed once for the process and stays. A signal that it does not serve goes on to whoever had it before, as if
 * we were not there: with the same siginfo and context, under that handler's own mask; or it kills, at the place where it
 * came.
 */
#ifndef UFFD_CHAIN_H
#define UFFD_CHAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"

struct chain_link {
	int sig;
	bool installed;
	bool stays_open;  /* the program's action for it runs with it unblocked: it may touch served memory too */
	struct lock lock; /* guards what follows; taken with all signals blocked */
	struct sigaction previous; /* what the program itself has for the signal */
};

/*
 * Installs `handler`, if that has not been done. `mask_all`: it runs with every signal blocked; otherwise as if nothing were
 * blocked but what already was. Calls on one link must not run at the same time.
 */
void chain_install(struct chain_link *link, void (*handler)(int, siginfo_t *, void *), bool mask_all);

/* Lets the signal take the way it would have taken without us. In the handler; returns when that way is done. */
void chain_pass_on(struct chain_link *link, siginfo_t *info, void *context);

/*
 * Raises a signal at the interrupted place, to be taken when the handler has returned: whoever handles it may never return. As one
 * that an access raises, it kills where it is blocked or ignored.
 */
void chain_raise(int sig, siginfo_t *info, void *context);

/*
 * sigaction(2) by the program, for a signal that a link serves: the link stays in front, and what it passes on goes to the new action.
 * act and old may be NULL. False: no link serves the signal, and sigaction(2) itself is to be called.
 */
bool chain_program_action(int sig, const struct sigaction *act, struct sigaction *old);

/* What the processor said about the access, in the words of a fault message: UFFD_PAGEFAULT_FLAG_WRITE, and _WP where known. */
uint64_t chain_access_flags(const void *context);

/* Whether what could not be accessed at `address` is the instruction itself. */
bool chain_access_is_fetch(const void *context, const void *address);

#endif
