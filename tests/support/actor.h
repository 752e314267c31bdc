/* SPDX-License-Identifier: MIT */
/*
 * actor.h - threads that touch memory or call something that may block, and the certainty that they do
 *
 *	struct actor *reader = act_read(page);
 *	CHECK(actor_waits(reader));              it is asleep in its fault; never a matter of speed
 *	... resolve ...
 *	CHECK_EQ(actor_end(reader).value, 0x5a);
 *
 * An actor does one thing and ends. Signals of its access are its outcome when catch_signals() was called before the
 * object was opened; an engine may need to stand in front of the program's own handlers.
 */
#ifndef TESTS_SUPPORT_ACTOR_H
#define TESTS_SUPPORT_ACTOR_H

#include <stdbool.h>
#include <sys/types.h>

struct actor;

struct outcome {
	long value; /* the byte read, 0 after a write, what the function returned; -1 after a signal */
	int signal; /* or 0 */
	int code;   /* si_code */
	void *addr; /* si_addr */
};

struct actor *act_read(const volatile void *addr);
struct actor *act_write(volatile void *addr, unsigned char value);
struct actor *act_call(long (*function)(void *), void *arg);

/* True when the actor sleeps inside what it does, false when it has done it. Returns when one of them is certain. */
bool actor_waits(const struct actor *actor);

pid_t actor_tid(const struct actor *actor);

/* Waits for its end and frees it. */
struct outcome actor_end(struct actor *actor);

/* The same accesses on the calling thread. */
struct outcome try_read(const volatile void *addr);
struct outcome try_write(volatile void *addr, unsigned char value);

/* SIGBUS and SIGSEGV of an actor's or a try_*()'s access become its outcome. Other threads still die of them. */
void catch_signals(void);

/* Waits for a child and passes its failure on: its verdict is that of the test. */
void reap(pid_t pid);

#endif
