/* SPDX-License-Identifier: MIT */
/*
 * trap.h - the SIGBUS handler, and the ranges it serves: objects of the kernel that have a handler (the user engine traps SIGSEGV: user/segv.c)
 *
 * A range is added when an object with a handler registers it, and removed when it unregisters it. A SIGBUS with
 * BUS_ADRERR inside a range goes to the object's handler; every other one takes the way it would have taken without us.
 *
 * Lookups run in the signal handler, without a lock; changes are serialized and exclude lookups (see trap.c).
 */
#ifndef UFFD_TRAP_H
#define UFFD_TRAP_H

#include <stdint.h>

#include <userfault/uffd.h>

/* Installs the SIGBUS handler, once for the process. 0 or -errno. */
int uf_trap_install(void);

/*
 * Changes the set of ranges around a request that must succeed for the change to hold:
 *
 *	r = uf_trap_begin(extra);    room for `extra` more ranges, or -ENOMEM and nothing is held
 *	r = ioctl(...);              a thread that faults meanwhile waits in the trap for uf_trap_end()
 *	if (!r) uf_trap_add(...);    cannot fail
 *	uf_trap_end();
 *
 * Between begin and end all signals but SIGBUS are blocked, and the caller must not touch memory of a handled range: it would
 * wait for itself.
 */
int uf_trap_begin(unsigned extra);
void uf_trap_add(uint64_t start, uint64_t end, struct uf *owner); /* replaces what was there */
void uf_trap_remove(uint64_t start, uint64_t end);                /* of any owner */
void uf_trap_remove_owner(const struct uf *owner);
void uf_trap_end(void);

/* Whose range addr lies in, or NULL. Waits while a change is under way; for any thread, and for signal handlers. */
struct uf *uf_trap_owner(uint64_t addr);

#endif
