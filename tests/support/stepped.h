/* SPDX-License-Identifier: MIT */
/*
 * stepped.h - what a function has done when it is cut off between two of its instructions
 *
 * It is called in a child of its own, which has copies of all that the test has, but shares files and MAP_SHARED memory with it. look() is
 * called before the first stop, at each, and at last with `over`; meanwhile the child stands still. What fails in the child fails the test;
 * where nobody may trace his children the test is skipped. Both return how many stops there were.
 *
 *	stepped()           after each instruction; skips where the machine does not stop there
 *	stepped_by_pages()  before a page of `memory` is touched that is not among the last few, and if it is the first, after the next instructions
 *	                    as well: for what has too many of them. No system call of the function's may touch that memory, unless
 *	                    the function just has, and the program's own handler of SIGSEGV is gone
 */
#ifndef TESTS_SUPPORT_STEPPED_H
#define TESTS_SUPPORT_STEPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef void stepped_look(void *arg, pid_t child, bool over);

unsigned long stepped(void (*what)(void), stepped_look *look, void *arg);
unsigned long stepped_by_pages(void (*what)(void), void *memory, size_t len, stepped_look *look, void *arg);

#endif
