/* SPDX-License-Identifier: MIT */
/*
 * conditions.h - the machines and processes for which probing must be right, made from this one
 *
 * All of it happens in the mount namespace and the process of the calling test, and ends with it: nothing of the
 * machine is changed. What needs root skips the test without it.
 */
#ifndef TESTS_CONDITIONS_H
#define TESTS_CONDITIONS_H

#include <stdbool.h>
#include <sys/types.h>

enum { NOBODY = 65534 };

/* A /dev of our own, empty but for null; mount_flags as MS_NODEV. */
void private_dev(unsigned long mount_flags);

/* The device's number in this kernel. Skips the test when it has none. */
dev_t userfaultfd_device(void);

/* /dev/userfaultfd as a character device, in the private /dev. */
void make_node(dev_t device, mode_t mode);

/* Takes away what shows that the kernel has userfaultfd: the sysctl, the entry in /sys, the line in /proc/misc. */
void hide_sysctl(void);
void hide_device_entries(void);

/* Lets the sysctl's file say `value`. The setting stays what it is. */
void fake_sysctl(const char *value);

/* Lets a folder be empty. */
void hide_folder(const char *path);

/* The setting itself: 0 or 1; -1 when the kernel has none. */
int real_sysctl(void);

/* Gives up all privileges for good. */
void become_nobody(void);

/* From now on userfaultfd(2) fails with `error`; with user_mode_only, the calls with UFFD_USER_MODE_ONLY alone. */
void refuse_syscall(int error, bool user_mode_only);

/* Copies a program or library to `name` on a file system of its own, where nobody can reach it too; returns the path. */
const char *copy_for_nobody(const char *path, const char *name);

#endif
