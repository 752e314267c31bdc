/* SPDX-License-Identifier: MIT */
/*
 * fork.h - an address space becomes two
 *
 * With UFFD_FEATURE_EVENT_FORK an object is duplicated: the child's faults come out of the descriptor in the event, which the parent
 * waits for to be read. Without it, the child has ordinary memory, in which what was missing is zeros.
 *
 * fork(3) calls these by itself (pthread_atfork). Whoever makes a child in another way calls user_fork_prepare() before, then one of
 * the others on each side. The space is locked in between, and all signals are blocked: no registered memory may be touched.
 * A child that nobody announced is noticed by its first trap, and has ordinary memory from then on.
 */
#ifndef UFFD_USER_FORK_H
#define UFFD_USER_FORK_H

void user_fork_prepare(void);
void user_fork_parent(void); /* also when there is no child after all */
void user_fork_child(void);

/* In the trap, before anything else: whether this is a process that was never announced, and makes the best of it. */
void user_fork_notice(void);

#endif
