/* SPDX-License-Identifier: MIT */
/*
 * destination.h - the side that a program comes to
 *
 *	destination.c  the object, and the thread of uf_destination_run(), on which the program's functions are called
 *	meet.c         who connects, whether he is let in, and what he is told about what is here
 *	receive.c      the receiver: a thread that takes what comes over the first connection, and connects again
 *	faults.c       a thread that reads faults, asks for pages, and takes what comes over the second connection
 *	place.c        pages into memory, in each way
 *
 * Not a session (src/session/): that fetches what is touched from stores that answer. Here most pages come unasked for, the source alone
 * decides in which order, and before the program begins they are received straight into memory that nothing watches yet.
 *
 * What is here is one bitmap, `have`. A page that is in it has its content: in its place, or, where nothing is there, zeros. It is set after the
 * page has been put in its place and never cleared once the program has begun, so whoever finds it set may resolve a fault with zeros:
 * if the page is there that changes nothing.
 */
#ifndef MIGRATE_DESTINATION_H
#define MIGRATE_DESTINATION_H

#include <userfault/migrate.h>

#include "base/bitmap.h"
#include "migrate/channel.h"
#include "migrate/regions.h"
#include "migrate/tally.h"
#include "migrate/tls.h"

/* Whose the program is: each change is one compare and exchange, so that a start and a cancellation never both succeed. */
enum destination_standing {
	DESTINATION_WAITS,   /* the source's */
	DESTINATION_CANCELS, /* the source's, and our program does not want it */
	DESTINATION_BEGUN,   /* ours */
	DESTINATION_DONE,    /* ours, and all is here */
	DESTINATION_LOST,    /* ours, and what is missing is lost */
};

/* How far a migration has come here before it begins. The receiver's alone. */
enum stage {
	STAGE_EMPTY,   /* none */
	STAGE_PRECOPY, /* received straight into memory */
	STAGE_ARMED,   /* registered: nothing more is received before the program begins */
	STAGE_READY,   /* the source may commit at any moment, or has */
};

/* Migrations that were cancelled when their sources might have committed, and that may still be asked about. */
#define CANCELED 16

struct uf_destination {
	struct regions regions;
	struct uf_destination_options options;
	struct tls_settings *tls; /* NULL: none */
	struct tally tally;
	struct uf *uf; /* NULL once all is here */
	enum uf_engine engine;
	_Atomic int standing;
	_Atomic bool poisoned; /* all that is lost. What is not would be zeros if nobody watched it */
	int wake;              /* eventfd: readable when the receiver shall end */
	int listener;          /* or -1 */
	char *listening;       /* its address */

	_Atomic uint64_t *have;   /* bitmap */
	_Atomic uint64_t *asked;  /* bitmap: touched while they were missing */
	uint64_t *asked_ns;       /* when, for each page; touched only where it is used */
	_Atomic uint64_t present; /* pages in `have` */

	/* The receiver's. */
	enum stage stage;
	uint8_t id[16];
	unsigned canceled; /* how many; the last of them are kept */
	uint8_t canceled_ids[CANCELED][16];
	struct channel channels[2];
	unsigned connections; /* of this time */
	unsigned beat_ms;     /* the source must hear something at least so often */
	char *buffer;         /* WIRE_RUN bytes, warm */
	char *state;
	size_t state_len, state_room;
	int fds[2]; /* that uf_destination_run() was given */
	int fds_count;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	bool running;     /* the receiver is */
	bool start_due;   /* start() is to be called */
	int result;       /* of the receiver */
	bool linked;      /* the fault thread may use the connections */
	bool link_in_use; /* and may be doing so */
	bool link_failed; /* it has found one broken */
	bool quit;        /* the fault thread shall end */

	bool has_faults_thread; /* the receiver's */
	pthread_t faults_thread;
	int kick;                     /* eventfd: something of the above has changed */
	_Atomic uint64_t unlinked_ns; /* since when there has been no connection; 0: there is one */
	char *faults_buffer;          /* as `buffer` */
};

static inline int destination_standing(const struct uf_destination *destination)
{
	return atomic_load(&destination->standing);
}

static inline struct channel *destination_requests(struct uf_destination *destination)
{
	return &destination->channels[destination->connections - 1];
}

/*
 * meet.c
 *
 * destination_meet()  until one or two connections are a source that fits, and the two agree; those that do not are refused. 0;
 *                     -ECANCELED: woken; -ETIMEDOUT: nobody within `ms` (0: no limit); of descriptors also what was wrong
 * destination_part()  ends the connections
 */
int destination_meet(struct uf_destination *destination, unsigned ms);
void destination_part(struct uf_destination *destination);

/* receive.c: the receiver, a thread. */
void *destination_receive(void *arg);

/* What the receiver does of a cancellation, where there is none: -ECANCELED. */
int destination_decline(struct uf_destination *destination);

/* The messages that bring pages, on either connection after the program has begun. */
int destination_take_pages(struct uf_destination *destination, struct channel *channel,
                           const struct wire_message *message, char *buffer);

/*
 * faults.c: its thread lives from when the memory is armed until all is here.
 */
int faults_start(struct uf_destination *destination);
void faults_end(struct uf_destination *destination);
void faults_link(struct uf_destination *destination);
/* Breaks the connections; when it returns the thread uses them no more. */
void faults_unlink(struct uf_destination *destination);

/* place.c; from and end are numbers of pages of one region. */

/* Makes them untouched memory. */
int place_empty(struct uf_destination *destination, uint64_t from, uint64_t end);
int place_empty_all(struct uf_destination *destination);

/* Where nothing watches the memory yet: into it. A failure leaves it empty. */
int place_receive(struct uf_destination *destination, struct channel *channel, const struct wire_message *message);
int place_nothing(struct uf_destination *destination, uint64_t from, uint64_t end); /* zeros */

/* Where somebody may wait for them. */
int place_copy(struct uf_destination *destination, uint64_t from, uint64_t end, const char *bytes);
int place_zeros(struct uf_destination *destination, uint64_t from, uint64_t end);
int place_poison(struct uf_destination *destination, uint64_t from, uint64_t end);
int place_poison_missing(struct uf_destination *destination);

/* Whether the memory can be registered, as far as a page of each region tells: before anybody has sent anything. */
int place_try(struct uf_destination *destination);

/* Registers the memory; undoes that; undoes it for good. */
int place_arm(struct uf_destination *destination);
void place_disarm(struct uf_destination *destination);

static inline bool place_is_complete(const struct uf_destination *destination)
{
	return atomic_load(&destination->present) == destination->regions.pages;
}

#endif
