/* SPDX-License-Identifier: MIT */
/*
 * client.h - one client's connection, and the one that its bytes are forwarded to
 *
 * For server.c, which executes what a client sends, and forward.c, which passes it on. Everything is of the server's thread.
 */
#ifndef KV_CLIENT_H
#define KV_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "buffer.h"
#include "resp.h"

/* Bytes that may wait in one direction before no more are read, or executed. */
#define CLIENT_ENOUGH ((size_t)1 << 18)

/* Bytes of replies that one client may leave unread. The longest value, and more. */
#define CLIENT_REPLIES ((size_t)256 << 20)

struct client;

/* A connected socket. An event of epoll leads to it, and it to its client. */
struct end {
	struct client *client;
	int fd;         /* -1: not connected */
	uint32_t armed; /* the events that epoll is to tell; 0: it is not with epoll */
	bool connecting;
	bool finished; /* the peer sends nothing more */
	bool shut;     /* it has been told that we do not either */
};

struct client {
	struct end here;  /* the client */
	struct end there; /* once the heap has moved: the server that has it */
	struct buffer in; /* from the client: not yet executed, or not yet forwarded */
	struct buffer out;
	struct resp parser;
	bool closing; /* after what is in `out` */
	bool held;    /* it waits for the end of a migration */
	bool early;   /* it waits for the heap to arrive */
	bool dead;    /* closed; freed when no event can lead to it any more */
	struct client *next, *prev;
};

/* What a socket has to read, at most `most` bytes. False: the connection is broken. */
bool end_receive(struct end *end, struct buffer *buffer, size_t most);

/* As much as the socket takes. False: the connection is broken. */
bool end_send(struct end *end, struct buffer *buffer);

/* The events that epoll is to tell of. False: it cannot. */
bool end_arm(struct end *end, int epoll, uint32_t events);
void end_close(struct end *end);

/* From now on the client's bytes go to an address. False: there is no connection to it, and the client is to be closed. */
bool forward_begin(struct client *client, int epoll, const struct address *to);

/* Passes on what can be, in both directions; end: the one that an event came from. False: the client is to be closed. */
bool forward_event(struct client *client, int epoll, struct end *end);

#endif
