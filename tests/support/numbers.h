/* SPDX-License-Identifier: MIT */
/* numbers.h - the numbers of a manager that there is none of */
#ifndef TESTS_SUPPORT_NUMBERS_H
#define TESTS_SUPPORT_NUMBERS_H

#include "manager/status.h"

/*
 * What a manager with `clients` clients might tell `step` seconds after its start: no number is 0, none is like another, and what only grows
 * has grown with each step. Client i has 1000 * i faults a second.
 */
void numbers_fill(struct status *status, unsigned clients, uint64_t step);

#endif
