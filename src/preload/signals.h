/* SPDX-License-Identifier: MIT */
/*
 * signals.h - the signal that the engine lives by
 *
 * A fault while SIGSEGV is blocked kills, whatever handler there is. So no mask that a program sets ever blocks it: not that of a thread, nor
 * the one under which a handler runs. The program's own action for it stands behind the engine's (src/uffd/chain.h).
 */
#ifndef PRELOAD_SIGNALS_H
#define PRELOAD_SIGNALS_H

#include <signal.h>

/* The same set without SIGSEGV; `room` holds it if it had to be changed. NULL stays NULL. */
const sigset_t *signals_open(const sigset_t *set, sigset_t *room);

#endif
