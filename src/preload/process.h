/* SPDX-License-Identifier: MIT */
/* process.h - children by other names than fork(3) */
#ifndef PRELOAD_PROCESS_H
#define PRELOAD_PROCESS_H

/*
 * The system calls fork(2), clone(2) and clone3(2) as a program makes them by itself, with their arguments. Without a stack of its own the
 * child comes back from here too. Returns the kernel's answer.
 */
long process_fork(long nr, const long args[6]);

#endif
