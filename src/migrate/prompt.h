/* SPDX-License-Identifier: MIT */
/*
 * prompt.h - for threads that have little to do, and are waited for: they run as soon as they are woken
 *
 * Beside a thread that copies all the time, a thread that is woken may have to wait for the end of its slice. Who asks for short slices
 * himself does not have to (Linux 6.12; before, this does nothing). It takes no privilege and gives no more of the processor.
 */
#ifndef MIGRATE_PROMPT_H
#define MIGRATE_PROMPT_H

#include <sched.h>
#include <stdint.h>

#include "base/rawsys.h"

#define PROMPT_SLICE_NS 100000u /* the shortest that the kernel knows */

static inline void prompt_here(void)
{
	/* struct sched_attr, which libc's headers lack. */
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {.size = sizeof(attr)};

	if (raw_syscall6(SYS_sched_getattr, 0, (long)&attr, sizeof(attr), 0, 0, 0) || attr.policy != SCHED_OTHER)
		return;
	attr.flags = 0;
	attr.runtime = PROMPT_SLICE_NS;
	raw_syscall3(SYS_sched_setattr, 0, (long)&attr, 0);
}

#endif
