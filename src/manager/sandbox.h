/* SPDX-License-Identifier: MIT */
/*
 * sandbox.h - what the manager gives up before it hears the first client
 *
 * To serve a process takes its descriptor, and no right. So after the sockets are open the supervisor gives up, for itself and for all workers:
 *
 *	capabilities   but those with which files are read, and written where it records, whoever they belong to
 *	new rights     by programs that it starts (no_new_privs); it could not start one anyhow
 *	being seen     core dumps, and processes of the same user that would read its memory, which is that of its clients
 *	system calls   all but those that supervisor and worker make. A call that is not on the list fails with EPERM, and is in the audit log; it
 *	               does not kill, as a library that asks for something new must not cost clients their memory. No memory
 *	               can be both written and executed, nor be made executable later
 *
 * The last needs libseccomp; a manager that was built without it does the rest.
 */
#ifndef MANAGER_SANDBOX_H
#define MANAGER_SANDBOX_H

#include "manager/serve.h"

/* By the supervisor, with one thread, before the first worker. 0; or -errno: it has been said, and nobody is to be served. */
int sandbox_enter(const struct serve_options *options);

/* By the worker, with one thread: it signals and reads no other process, and starts none. 0 or -errno. */
int sandbox_enter_worker(const struct serve_options *options);

#endif
