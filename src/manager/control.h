/* SPDX-License-Identifier: MIT */
/*
 * control.h - the control socket: a line that asks, a line that answers
 *
 * A unix stream socket. A request is one JSON object on one line, an answer too; a connection may ask again after it was answered.
 *
 *	{"command": "status"}      status_json()
 *	anything else              {"error": "<why>"}; what is not a JSON object, or longer than CONTROL_LINE, also ends the connection
 *
 * Who may connect is decided by the mode of the socket; nothing can be changed through it. At most CONTROL_PEERS connections at the same
 * time, the next wait. One that neither asks nor takes its answer for CONTROL_PATIENCE is closed, so nobody can fill up the manager.
 */
#ifndef MANAGER_CONTROL_H
#define MANAGER_CONTROL_H

#include "manager/status.h"

#define CONTROL_LINE     4096 /* bytes of a request, with its end of line */
#define CONTROL_PEERS    16
#define CONTROL_PATIENCE 10000 /* ms */

struct control;

/*
 * control_start - answer whoever connects to `listen_fd`, on a thread of its own
 *
 * The descriptor stays the caller's, who closes it after control_stop(); it becomes O_NONBLOCK. `collect` is called on that thread, for each
 * request. 0, or -ENOMEM and the like.
 */
int control_start(struct control **out, int listen_fd, status_collect *collect, void *arg);

/* Ends the connections; when it returns, `collect` is not called any more. NULL is allowed. */
void control_stop(struct control *control);

/*
 * control_ask - for those who ask: one command, one answer
 *
 * `*answer` is the line without its end, malloc()ed. It may be {"error": ...}. -ENAMETOOLONG: no path of a socket; -ETIMEDOUT: no answer within
 * `timeout_ms`; -EPROTO: the connection ended before the answer did; -EMSGSIZE: an answer of more than 64 MiB; or what connect(2) and the
 * like say.
 */
int control_ask(const char *path, const char *command, int timeout_ms, char **answer);

#endif
