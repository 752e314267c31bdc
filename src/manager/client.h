/* SPDX-License-Identifier: MIT */
/*
 * client.h - one client: its connection, its memory, and the session that serves it
 *
 * A client is made from its record in the journal, by whichever worker is there: what it has said is in its book, and the space is built from
 * that. Everything here is called by the client's thread, unless it is said otherwise.
 */
#ifndef MANAGER_CLIENT_H
#define MANAGER_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "handover/message.h"
#include "manager/book.h"
#include "manager/journal.h"
#include "manager/status.h"
#include "session/session.h"

struct thread;

enum client_stage {
	CLIENT_MEETING,   /* it has not said what there is to serve */
	CLIENT_ATTACHING, /* its object is being asked, by a thread of its own */
	CLIENT_SERVED,
	CLIENT_OVER, /* its process has ended, or it was refused */
};

/* Regions of one store that behave alike. */
struct client_source {
	struct session_source source; /* first: space_range.source */
	struct client_source *next;
	struct client *client;
	uint16_t store;
	uint8_t flags; /* BOOK_* */
};

struct client {
	struct thread *thread;
	struct client *next, **link; /* the thread's list */
	struct client *next_rung;
	_Atomic bool rung;
	unsigned index; /* of its record */
	struct journal_client *record;
	struct book book;
	enum client_stage stage;
	struct handover_scan scan; /* of the text that has come */
	bool silent;               /* it gave its memory in the form that is never answered */
	bool user;                 /* its object is of the user engine */
	struct uf *uf;             /* until the session has it */
	struct space *space;       /* the same */
	struct session session;
	bool open; /* the session is */
	struct client_source *sources;
	struct record *recorder;   /* NULL: nothing is recorded */
	uint64_t regions, managed; /* as they were when somebody asked last; with the thread's lock */
	bool put_off;              /* what it said last could not be done, and is looked at again */
	uint64_t due;              /* ns: when it wants to be looked at in any case; 0: only when something happens */
	pthread_t attacher;
	bool joinable;        /* it ended before that had been waited for */
	_Atomic int attached; /* 1: still at it; 0 or -errno: done */
	_Atomic bool broken;  /* something of it could not be written down: it cannot be served any more */
	_Atomic uint64_t events[STATUS_EVENTS];
};

/* Makes it and puts it on its thread's list. 0, also when there is nothing left to be done for it; -ENOMEM. */
int client_open(struct thread *thread, unsigned index);

/* Its object has messages; or (`messages` false) something is to be looked at. */
void client_turn(struct client *client, bool messages);

/* What was said on its connection: converse.c. */
void client_converse(struct client *client);

/* Once a second: whether it lives, and has kept its time. */
void client_check(struct client *client, uint64_t now);

/*
 * Its memory is to be served from now on: the object has been adopted, or is (user engine) by a thread of its own from now on, after which
 * client_turn() finds out. 0; or -errno, and `cause` tells why.
 */
int client_serve(struct client *client, char *cause, size_t cause_size);

/*
 * A region: into the book, and into the space. 0, also when just this region is there already; -EEXIST: something else lies there; -ENOMEM;
 * -E2BIG: there are too many; -EAGAIN: not now.
 */
int client_add(struct client *client, const struct book_entry *region);

/* What it said cannot be done now: nothing is heard of it until it is looked at again, soon. */
void client_put_off(struct client *client);

/* It is over: said, unless `reason` is NULL, and to be buried by its thread. */
void client_end(struct client *client, const char *reason);

/* Pages that were not delivered become SIGBUS: the manager leaves, and zeros are not what they are. Its thread has ended. */
void client_leave(struct client *client);

/* Nothing is heard of it any more. */
void client_unwatch(struct client *client);

/* Any thread, after it was buried: waits for what is on its way, closes and frees everything, and the record. */
void client_free(struct client *client);

/* Any thread, with the lock of its thread: for people. */
void client_show(struct client *client, struct status_client *out);

/*
 * family.c: the children of clients that fork.
 *
 * make    the child of which entry `index` of the book tells becomes a client, with the memory that `space` says; or is refused, and finds
 *         SIGBUS. With the gate of the parent's session closed, or before there is a session
 * write   how many entries a space takes in a log; and each of them
 */
void family_make(struct client *parent, const struct space *space, uint64_t index);
uint64_t family_count(const struct space *space);
void family_write(const struct space *space, void (*entry)(void *arg, const struct book_entry *entry), void *arg);

/* Makes all pages of the space that were not delivered SIGBUS. 0; -EAGAIN: a layout event has to be read first, and then all of it again. */
int family_poison(struct uf *uf, const struct space *space);

#endif
