/* SPDX-License-Identifier: MIT */
/*
 * connection.h - one connection to an NBD server
 *
 * Its thread alone uses the handle of libnbd: it makes the connection, sends what the queue brings, and completes what the server answers, with
 * any number in flight. So a handle has no user that could outlive it, and what runs in `complete` may submit. When the connection
 * breaks, all that is in flight fails with the cause, and the next attempt makes it anew.
 */
#ifndef STORE_NBD_CONNECTION_H
#define STORE_NBD_CONNECTION_H

#include <libnbd.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "store/queue.h"
#include "store/store.h"

/* What all connections have in common. */
struct nbd_server {
	char *uri;
	/* From here on what the first connection found out. Written before the others are started, and then only compared. */
	bool known;
	uint64_t size;
	uint64_t most; /* bytes in one request */
	bool read_only, flushes, knows_zeros, multi;
	/*
	 * What has been written may be gone with a connection: the server may have been started anew. Or with a flush that it refused. Once it
	 * is, no flush succeeds.
	 */
	pthread_mutex_t lock; /* the following; held for a few instructions, with no other */
	uint64_t written;     /* requests that the server has acknowledged */
	uint64_t flushed;     /* so many of them are durable */
	bool lost;
};

/* Of `own` in an attempt, until it is sent. */
#define NBD_EXTENT(io) ((io)->own[0]) /* not NULL: to be asked for, the struct uf_extent */
#define NBD_HELLO(io)  ((io)->own[1]) /* not NULL: it ends when there is a connection */

enum nbd_state { NBD_DOWN, NBD_CONNECTING, NBD_READY };

struct nbd_connection {
	struct nbd_server *server;
	struct store_queue queue;
	pthread_t thread;
	_Atomic bool ending; /* before the bell is rung */
	_Atomic bool wanted; /* likewise: to be made, without an attempt that waits for it */
	/* Relaxed: advice to those who choose a connection. */
	_Atomic enum nbd_state state;
	_Atomic uint64_t broke_at; /* ns; 0: never */
	/* The thread's own. */
	struct nbd_handle *handle; /* NULL when it is down */
	struct store_list waiting; /* for the connection */
	struct store_list ended;   /* `own[0]` is the errno value */
};

/* Starts the thread. The connection is made when it is first needed. */
int nbd_connection_start(struct nbd_connection *connection, struct nbd_server *server);

/* With nothing in flight. */
void nbd_connection_end(struct nbd_connection *connection);

/* May be called by any thread. */
bool nbd_connection_is_ready(struct nbd_connection *connection);

/* Makes it if it is down, but does so once in a while only, and nothing depends on it. */
void nbd_connection_want(struct nbd_connection *connection);

#endif
