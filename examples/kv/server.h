/* SPDX-License-Identifier: MIT */
/*
 * server.h - one thread that serves all clients
 *
 * It executes commands on the heap, or, when the heap has moved, forwards what clients send to where it is now. A command is executed once: what
 * was executed here is in the memory that moved, and what was read and not executed is forwarded.
 *
 * server_open(), server_run() and server_close() are for one thread, the server's. All other functions are for any other thread. They take
 * effect between two commands, have taken effect when they return, and answer -ECANCELED when the server has ended.
 */
#ifndef KV_SERVER_H
#define KV_SERVER_H

#include "address.h"
#include "buffer.h"
#include "heap.h"
#include "table.h"

struct server;

struct server_options {
	int listener; /* of address_listen() */
	struct heap *
		heap; /* NULL: server_begin() brings it, and until then all commands wait, but WAITS, which tells that */
	/*
	 * MIGRATETO: starts to move the heap, in the background. args: where to; where it is served then; how many passes of precopy;
	 * bytes a second, or 0.
	 * 0: the client waits for server_answer(). -errno: `cause` says why not. On the server's thread.
	 */
	int (*migrate)(void *arg, const struct slice args[4], char *cause, size_t size);
	/* For INFO: adds lines that end with CR LF. On the server's thread. */
	void (*describe)(void *arg, struct buffer *text);
	void *arg;
};

/* -errno of the kernel. SIGTERM and SIGINT must be blocked in all threads: server_run() takes them. */
int server_open(struct server **out, const struct server_options *opts);

/* Until SIGTERM or SIGINT: 0. Otherwise -errno: it cannot wait for events. */
int server_run(struct server *server);

/* Closes the connections of the clients. Nobody may be in a function of the server. NULL is allowed. */
void server_close(struct server *server);

/* The heap has arrived, and so what waited for it is executed. commands: those that were executed on it before, for INFO. */
int server_begin(struct server *server, struct heap *heap, uint64_t commands);

/* Stands still: nothing is executed or sent, nobody writes to the heap. What clients send stays where it is. Tells commands executed so far. */
int server_stop(struct server *server, uint64_t *commands);

/* And goes on as before. */
int server_resume(struct server *server);

/* And goes on as a proxy: each client is given a connection to that address. The heap is never touched again. */
int server_forward(struct server *server, const struct address *to);

/*
 * The reply to the client that sent MIGRATETO: an error, or a text. Before it, settled(arg) is called on the server's thread: a client that has the
 * reply finds everything as it says.
 */
int server_answer(struct server *server, bool failed, const char *text, void (*settled)(void *arg), void *arg);

#endif
