/* SPDX-License-Identifier: MIT */
/*
 * source.h - the side that gives a program away
 *
 *	source.c    the object, and one connection from its beginning to its end
 *	greet.c     connecting, and agreeing with the destination on what is there already
 *	precopy.c   passes over the memory while the program runs
 *	handover.c  the stop and the commit
 *	postcopy.c  all that is missing over there, what is asked for first
 *	send.c      pages into messages
 *
 * Which pages must be sent is one bitmap, `todo`. Whoever takes a page out of it (bitmap_claim()) sends it, and nobody else does: so no page is
 * sent twice, however requests and the thread that sends everything cross. A page goes back in when it has been written to, or
 * when the destination says after a broken connection that it has not come.
 */
#ifndef MIGRATE_SOURCE_H
#define MIGRATE_SOURCE_H

#include <userfault/dirty.h>
#include <userfault/migrate.h>

#include "base/bitmap.h"
#include "migrate/channel.h"
#include "migrate/limit.h"
#include "migrate/regions.h"
#include "migrate/send.h"
#include "migrate/tally.h"
#include "migrate/tls.h"

/* Who has the program: each change is one compare and exchange, so that a commit and a cancellation never both succeed. */
enum source_standing {
	SOURCE_OWNS,
	SOURCE_CANCELS,   /* it owns, and the program wants the migration to end */
	SOURCE_COMMITTED, /* given away; whether the destination has begun is not known */
	SOURCE_GAVE,      /* the destination has begun */
	SOURCE_DONE,
};

/*
 * Bytes that wait in the system at most. What is said behind them is answered when they are over, and where the line is slow that must not take
 * longer than a peer may be silent.
 */
#define SOURCE_SHORT (512u << 10)

struct uf_source {
	struct regions regions;
	struct uf_source_options options;
	struct tls_settings *tls; /* NULL: none */
	struct tally tally;
	_Atomic int standing;
	int wake;               /* eventfd: readable once cancelled */
	pthread_mutex_t cancel; /* over SOURCE_CANCELS and `wake`, which come together and go together */

	/* The rest belongs to the thread of uf_source_run(), but for what threads of its own share as it is said there. */
	bool fresh; /* no destination has been agreed with */
	uint8_t id[16];
	struct uf_dirty *tracker; /* NULL: not tracked yet */

	_Atomic uint64_t *todo; /* bitmap: must be sent */
	_Atomic uint64_t *sent; /* bitmap: some version of it has been sent, in precopy */
	_Atomic uint64_t
		*unsure; /* bitmap: a later version of it has been sent, and it is not known whether it has come */
	size_t bitmap_size;

	struct channel channels[2];
	unsigned connections;             /* of this time */
	enum wire_standing peer_standing; /* as it was when they met */
	unsigned beat_ms;                 /* the destination must hear something at least so often */
	uint64_t barriers;
	unsigned passes; /* of this migration, that came to their end */
	bool in_pass;    /* one has begun, and is gone on with when its connection has broken */

	bool stopped; /* by stop(), and not resumed */
	uint64_t stopped_ns;
	const void *state;
	size_t state_len;

	struct limit limit;
	struct sender sender; /* of that thread */
};

static inline struct channel *source_requests(struct uf_source *source)
{
	return &source->channels[source->connections - 1];
}

static inline int source_standing(const struct uf_source *source)
{
	return atomic_load(&source->standing);
}

/* What ends a wait. Once the program is given away nothing does: that somebody has called is not that the destination has declined. */
static inline int source_wake(const struct uf_source *source)
{
	int standing = source_standing(source);

	return standing == SOURCE_OWNS || standing == SOURCE_CANCELS ? source->wake : -1;
}

/*
 * Each returns 0 or what uf_source_run() will.
 */

/* greet.c: connects, and learns what is there. On failure nothing is left open. */
int source_connect(struct uf_source *source, const char *address);
void source_begin_anew(struct uf_source *source); /* a destination has nothing */
void source_disconnect(struct uf_source *source);

int source_precopy(struct uf_source *source);
int source_collect(struct uf_source *source, uint64_t *pages); /* precopy.c: what was written is to be sent; how much */
int source_barrier(struct uf_source *source);                  /* all that was sent has been received */
int source_handover(struct uf_source *source);
int source_commit(
	struct uf_source *source); /* handover.c: once more, or for the first time: the destination is ready */
int source_postcopy(struct uf_source *source);

/* The program goes on here, if it was stopped. */
void source_resume(struct uf_source *source);

/* The next message on the first connection must be of this type. A cancellation or refusal by the peer is -ECANCELED. */
int source_expect(struct uf_source *source, enum wire_type type, struct wire_message *message);

/* What a cancellation or refusal says is told to the program: -ECANCELED, or an error of the connection. */
int source_rejected(struct uf_source *source, struct channel *channel, const struct wire_message *message);

#endif
