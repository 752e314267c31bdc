/* SPDX-License-Identifier: MIT */
/* task.h - whether a task of the kernel still runs; by raw system calls only, so also in signal handlers */
#ifndef BASE_TASK_H
#define BASE_TASK_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether the task with this thread id has ended, waited for or not. It is asked of the caller's pid name space. A number that
 * is in use again counts as not gone.
 */
bool task_is_gone(uint32_t tid);

#endif
