/* SPDX-License-Identifier: MIT */
/*
 * placement.h - on which processor a monitor runs
 *
 * Nothing costs a fault more than the wake-up of a monitor on another processor. A monitor that follows moves to the
 * processor of the thread that faults, which UFFD_FEATURE_THREAD_ID names; the fault is then served by a plain switch
 * from one thread to the other.
 */
#ifndef BASE_PLACEMENT_H
#define BASE_PLACEMENT_H

#include <stdint.h>

struct follow {
	uint32_t tid;      /* the thread followed, in this pid namespace; 0 for none */
	int stat;          /* its open /proc/TID/stat, or -1 */
	int cpu;           /* the processor this thread was last moved to, or -1 */
	unsigned seen;     /* faults of that thread since its processor was looked up */
};

void follow_init(struct follow *follow);

/*
 * To be called by the monitor for each fault, with the message's thread id. Looks up where that thread runs when it is a
 * new one, and again every FOLLOW_INTERVAL faults, and moves the calling thread there. Returns the processor, or -errno when
 * the thread cannot be found (then nothing was moved).
 */
#define FOLLOW_INTERVAL 64
int follow_thread(struct follow *follow, uint32_t tid);

void follow_close(struct follow *follow);

#endif
