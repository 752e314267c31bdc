/* SPDX-License-Identifier: MIT */
/*
 * layout.h - the program changes its own layout
 *
 * The kernel tells its userfaultfd by itself when a program unmaps, moves, empties or protects memory; here the program's calls
 * are made through these functions. Each makes the system call of its name, keeps the space in step with it, so that no touch and
 * no delivery sees one without the other, and gives the objects that asked for it their event (UFFD_EVENT_REMAP, REMOVE, UNMAP),
 * for which it waits until it is read, as the kernel does. REMOVE comes before the pages go, the others after the change.
 *
 * Each returns what the kernel would: a result or a negated errno value. Called by any thread of the program, as the system call
 * would be; not in the trap. With nothing registered where they reach, they are the system call and one comparison.
 */
#ifndef UFFD_USER_LAYOUT_H
#define UFFD_USER_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

long user_layout_mmap(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset);
int user_layout_munmap(uint64_t addr, size_t len);
long user_layout_mremap(uint64_t addr, size_t old_len, size_t new_len, int flags, uint64_t new_addr);
int user_layout_mprotect(uint64_t addr, size_t len, int prot, int pkey); /* pkey -1: mprotect(2) */
int user_layout_madvise(uint64_t addr, size_t len, int advice);
int user_layout_mlock(uint64_t addr, size_t len, unsigned flags); /* faults in what is missing, as mlock2(2) would */
int user_layout_mlockall(int flags);
int user_layout_shmdt(uint64_t addr);

/*
 * Makes [addr, addr + len) something that a system call may read, or write: touches page by page what is registered there, on
 * this thread, and so waits for whoever resolves it. Returns how many pages it has touched. It stops at one that is poisoned or not
 * accessible: the system call will say so itself.
 */
size_t user_layout_present(uint64_t addr, size_t len, bool write);

#endif
