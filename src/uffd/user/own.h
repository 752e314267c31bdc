/* SPDX-License-Identifier: MIT */
/*
 * own.h - descriptors that the engine has for itself in a program's table
 *
 * They lie above those that programs get, and are kept from a program that closes everything, or duplicates onto any number: whoever
 * wraps close(2) and its kin asks here. They end with the process, with exec, and in the child of a fork.
 */
#ifndef UFFD_USER_OWN_H
#define UFFD_USER_OWN_H

#include <limits.h>
#include <stdbool.h>

/* Takes over a descriptor: returns its new number, above the program's; where there is none to be had, the old one. Close-on-exec. */
int user_own(int fd);

/* Closes one that was taken over, and -1. */
void user_own_close(int fd);

bool user_own_is(int fd);

/* The first at or behind fd, or UINT_MAX. */
unsigned user_own_next(unsigned fd);

#endif
