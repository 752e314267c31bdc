/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - the processor that the caller runs on, at this moment
 *
 * Not sched_getcpu(): that reads thread-local storage, which a task made by clone(2) with CLONE_VM may share with another.
 */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include "base/rawsys.h"

static inline unsigned current_cpu(void)
{
#if defined(__x86_64__)
	unsigned limit;

	/* Linux keeps the number in the limit of a segment of its own, where its vDSO reads it too. */
	__asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b) : "cc");
	return limit & 0xfff;
#else
	unsigned cpu = 0;

	raw_syscall3(SYS_getcpu, (long)&cpu, 0, 0);
	return cpu;
#endif
}

#endif
