/* SPDX-License-Identifier: MIT */
/* fault.h - what a touch of a page means, by the page's state; inside the gate */
#ifndef SESSION_FAULT_H
#define SESSION_FAULT_H

#include "session/fill.h"

struct look {
	struct fill fill;       /* STEP_FETCH: planned, not yet read */
	_Atomic uint32_t *word; /* STEP_STATE: futex, to sleep on */
	uint32_t seen;          /* while it is this */
};

/*
 * `more`: up to there touches of missing pages wait as well; 0: nobody. `handler`: on the thread that faulted, which repeats
 * its access; otherwise it sleeps in the kernel and is woken. [signal]
 */
enum step fault_look(struct session *session, uint64_t addr, uint64_t more, bool write, bool handler,
                     struct look *look);

#endif
