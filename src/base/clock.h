/* SPDX-License-Identifier: MIT */
/* clock.h - what time it is, in nanoseconds, and pauses; also in signal handlers */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "base/rawsys.h"

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CLOCK_MONOTONIC: for durations and deadlines. */
static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* CLOCK_REALTIME: since 1970, for people. */
static inline uint64_t wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

/* For poll(2), which counts from the beginning again after a signal: when `ms` from now are over, and how many are left then; 0: none. */
static inline uint64_t deadline_in(unsigned ms)
{
	return now_ns() + ms * (uint64_t)1000000;
}

static inline int deadline_left(uint64_t deadline)
{
	uint64_t now = now_ns(), ms = now < deadline ? (deadline - now + 999999) / 1000000 : 0;

	return ms < INT32_MAX ? (int)ms : INT32_MAX;
}

/* Less than a second; a signal ends it. */
static inline void pause_us(long us)
{
	const struct timespec time = {.tv_nsec = us * 1000};

	raw_syscall3(SYS_nanosleep, (long)&time, 0, 0);
}

#endif
