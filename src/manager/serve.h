/* SPDX-License-Identifier: MIT */
/*
 * serve.h - the manager: one process for the page faults of many
 *
 *	supervise.c   the supervisor: accepts connections, and starts a worker anew when it dies; sockets.c: what it listens on
 *	worker.c      the worker: threads that serve clients in turn
 *	client.c      one client: its memory, its faults, its layout events
 *	converse.c    what a client says on its connection
 *	family.c      the children of clients that fork
 *	journal.c     what outlives a worker; book.c: the part of it that is of one client
 *	stores.c      where pages come from; ahead.c: those that nobody has asked for yet
 *	record.c      what clients do, in files
 *	sandbox.c     what it gives up first
 *	status*.c     what is shown, and its forms; collect.c puts it together, control.c and http.c tell it to whom asks; control-ask.c asks
 *	paths.c       where the sockets are, unless somebody says otherwise
 *
 * Messages for people go to the standard error, one line each: log.h.
 */
#ifndef MANAGER_SERVE_H
#define MANAGER_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct serve_options {
	const char *listen;  /* path of a unix socket, or @NAME; NULL: the service manager gives it */
	const char **stores; /* NAME=URI */
	size_t store_count;
	const char *control;           /* path of a unix socket, or NULL */
	const char *metrics;           /* [ADDRESS:]PORT, or NULL */
	const char *record, *prefetch; /* folders, or NULL */
	uint64_t budget;               /* bytes of the cache */
	unsigned workers;              /* threads that serve */
	unsigned max_clients;
	unsigned max_clients_of_user;
	unsigned max_regions; /* of one client, what layout events make of them included */
	unsigned handover_ms; /* from the connection to the whole message */
	unsigned grace_ms;    /* when told to stop: so long clients may go on */
	const uid_t *uids;    /* that may connect; count 0: whoever the socket's mode lets */
	size_t uid_count;
	bool no_sandbox; /* for debugging: sandbox.h */
};

/* Serves until it is told to stop by SIGTERM or SIGINT. The exit status; whatever went wrong has been said. */
int supervise(const struct serve_options *options);

#endif
