/* SPDX-License-Identifier: MIT */
/* loop.h - the loop's thread, and what is left for it to do */
#ifndef SESSION_LOOP_H
#define SESSION_LOOP_H

#include "session/session.h"

/* The thread; arg is the session. */
void *session_loop(void *arg);

/* Wakes it. [signal] */
void session_ring(struct session *session);

/* Frees what was posted and never looked at; the threads have ended. */
void loop_forget(struct session *session);

#endif
