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
	bool asked;                /* for a store's size, which may be all it wants */
	_Atomic bool user;         /* its object is of the user engine */
	struct uf *uf;             /* until the session has it */
	struct space *space;       /* the same */
	struct session session;
	_Atomic bool open;                       /* the session is; release: the session is what it is */
	_Atomic(struct client_source *) sources; /* grows at its beginning; looked at by client_show() too */
	struct record *recorder;                 /* NULL: nothing is recorded */
	uint64_t due;    /* ns: when it wants to be looked at in any case; 0: only when something happens */
	bool taken_over; /* it had been served before this worker */
	/* What a client of the user engine waits for, or keeps others waiting for, is done by a thread: attaching, and adding regions. */
	pthread_t attacher;
	bool joinable;               /* it ended before that had been waited for */
	_Atomic int attached;        /* 1: still at it; 0 or -errno: done */
	bool adding, added;          /* it is; it has, and that is not answered yet */
	struct handover_message add; /* of the thread's */
	char cause[256];             /* why it could not */
	/* The end. */
	bool owes; /* it is to leave before it is freed */
	bool leaving;
	pthread_t leaver;
	_Atomic bool left; /* nothing is owed any more */

	_Atomic bool broken;       /* something of it could not be written down: it cannot be served any more */
	uint64_t regions, managed; /* as far as client_show() knows */
	_Atomic uint64_t events[STATUS_EVENTS];
};

/*
 * Makes it and puts it on its thread's list. 0, also when there is nothing left to be done for it. -errno: it cannot be made now, and its record is
 * as it was, for another attempt.
 */
int client_open(struct thread *thread, unsigned index);

/* Its object has messages, of which it may read so many times; or (`reads` 0) something is to be looked at. */
void client_turn(struct client *client, unsigned reads);

/* What was said on its connection: converse.c. */
void client_converse(struct client *client);

/* Again and again, after a second at the latest: whether it lives, and has kept its time. */
void client_check(struct client *client, uint64_t now);

/*
 * Its memory is to be served from now on: the object has been adopted, or is (user engine) by a thread of its own from now on, after which
 * client_turn() finds out. 0; or -errno, and `cause` tells why.
 */
int client_serve(struct client *client, char *cause, size_t cause_size);

/*
 * Regions: into the book, and into the space, all of them or none. 0, also for those that are there already just so; -EEXIST: something else
 * lies there; -E2BIG: there are too many; both with *index being that of the one. -ENOMEM: it cannot be served any more. For a client of the
 * user engine it may wait for its program.
 */
int client_add(struct client *client, const struct book_entry *regions, size_t count, size_t *index);

/* What it asked for is refused: it is told, and what has never been served is over. */
void client_refuse(struct client *client, const struct handover_message *message, const char *cause);

/* It is over: said, unless `reason` is NULL, and to be buried by its thread. */
void client_end(struct client *client, const char *reason);

/*
 * Pages that were not delivered become SIGBUS: the manager leaves, and zeros are not what they are. By its thread, or when that has ended.
 * Whether it is done; otherwise it is to be called again, and client_give_up() at last.
 */
bool client_leave(struct client *client);
void client_give_up(struct client *client);

/* Its descriptor may not block: its flags are the program's to change. */
void client_unblock(struct client *client);

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
 *         SIGBUS. With the gate of the parent's session closed, or before there is a session. The child's id; 0: it was refused
 * write   how many entries a space takes in a log; and each of them
 */
uint64_t family_make(struct client *parent, const struct space *space, uint64_t index);
uint64_t family_count(const struct space *space);
void family_write(const struct space *space, void (*entry)(void *arg, const struct book_entry *entry), void *arg);

/* Makes all pages of the space that were not delivered SIGBUS. 0; -EAGAIN: a layout event has to be read first, and then all of it again. */
int family_poison(struct uf *uf, const struct space *space);

#endif
