/* SPDX-License-Identifier: MIT */
/* loop.h - the loop's thread, and what is left for it to do */
#ifndef SESSION_LOOP_H
#define SESSION_LOOP_H

#include "session/session.h"

/* The thread; arg is the session. */
void *session_loop(void *arg);

/* Look at this address again. [signal] */
void session_post(struct session *session, uint64_t addr, bool write, enum session_when when);

/* Bring this, as session_bring_next(). [signal] */
void session_post_ahead(struct session *session, uint64_t addr, uint64_t len);

/* Frees what was posted and never looked at; the threads have ended. */
void loop_forget(struct session *session);

#endif
