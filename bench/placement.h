/* SPDX-License-Identifier: MIT */
/*
 * placement.h - on which processor a monitor runs
 *
 * Nothing costs a fault more than the wake-up of a monitor on another processor. A monitor that follows moves to the
 * processor of the thread that faults, which UFFD_FEATURE_THREAD_ID names; the fault is then served by a plain switch
 * from one thread to the other.
 *
 * This helps where the thread stays: pinned, or every processor busy. A thread that may run anywhere is woken on an idle
 * processor beside the one that the monitor keeps busy at that moment, and the monitor runs after it in vain.
 */
#ifndef BENCH_PLACEMENT_H
#define BENCH_PLACEMENT_H

#include <stdint.h>

struct follow {
	uint32_t tid;  /* the thread followed, in this pid namespace; 0 for none */
	int stat;      /* its open /proc/TID/stat, or -1 */
	int cpu;       /* the processor this thread was last moved to, or -1 */
	unsigned seen; /* faults of that thread since its processor was looked up */
	unsigned
		credit; /* one up for each fault of that thread, one down for each of another; at 0 that one is followed */
};

void follow_init(struct follow *follow);

/*
 * To be called by the monitor for each fault, with the message's thread id. Looks up where that thread runs and moves the
 * calling thread there, again every FOLLOW_INTERVAL faults. One thread is followed until others have taken FOLLOW_INTERVAL
 * faults more than it: a move costs as much as several faults, so threads that fault in turn must not pull at the monitor.
 * Returns the processor the monitor was moved to last, or -errno when the thread cannot be found (then nothing was moved).
 */
#define FOLLOW_INTERVAL 64
int follow_thread(struct follow *follow, uint32_t tid);

#endif
