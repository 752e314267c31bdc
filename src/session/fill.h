/* SPDX-License-Identifier: MIT */
/*
 * fill.h - from a missing page to pages in place: which ones, from where, and into memory
 *
 * A fill is a run of pages of one range, all (but for a sparse one) FILLING and this fill's own, with room for them admitted and a buffer
 * taken. Each step takes place inside the gate, but where it says otherwise.
 */
#ifndef SESSION_FILL_H
#define SESSION_FILL_H

#include "session/session.h"

struct fill {
	struct uf_store_request request; /* of its fetch in the background */
	struct session *session;
	struct space_range range;    /* as it was when the fill was planned */
	uint64_t addr, len;          /* the run */
	uint64_t demand, demand_len; /* the part that somebody waits for; demand_len 0: nobody */
	uint64_t start_ns;           /* when the fault was noticed */
	bool write;                  /* the demand is a write */
	bool saved;                  /* from aside */
	bool fetched;                /* its store had to fetch it */
	bool lost;                   /* they were LOST, and are again if they cannot be had */
	uint64_t until;              /* one unit at a time up to there, since all at once could not be read; or 0 */
	unsigned phase;              /* that it is counted in: fill_begin() */
	bool sparse;                 /* only some of the run are this fill's own: `own` has a bit for each unit */
	uint64_t own[BUFFER_LARGE / 4096 / 64];
	char *buffer;
	const char *at; /* where the bytes are, if that is not the buffer: store_at() */
};

/* What came of a look at a fault. */
enum step {
	STEP_DONE,   /* nothing more to do; the access can be repeated, or somebody else sees to it */
	STEP_FETCH,  /* a fill is planned, and its store takes its time */
	STEP_AGAIN,  /* something changed meanwhile: look again */
	STEP_STATE,  /* somebody else is at work on the page */
	STEP_ROOM,   /* there is no room */
	STEP_BUFFER, /* there is no buffer */
	STEP_POST,   /* only the loop can */
	STEP_LOST,   /* it is lost, or nothing of ours */
};

/*
 * A run around `addr`, which is MISSING. `more`: up to there touches wait as well, in order. STEP_FETCH, AGAIN, ROOM or BUFFER; but
 * for the first nothing is held.
 */
enum step fill_plan(struct session *session, const struct space_range *range, uint64_t addr, uint64_t more, bool write,
                    struct fill *fill);

/*
 * A page that may come with others: as MISSING as they, or as LOST, and from the same place. True: it is FILLING then, and the caller's.
 * [signal]
 */
bool fill_take(_Atomic uint8_t *state, bool saved, bool lost);

/* Its bytes, if they can be had at once: 0, or -EAGAIN, or (only with `wait`) what the store says. [signal] */
int fill_read(struct fill *fill, bool wait);

/*
 * The same without a read, for memory that is elsewhere: true, its bytes are where the store has them. Whoever puts them in place may wait for the
 * device, if they leave meanwhile.
 */
bool fill_find(struct fill *fill);

/* Puts what was read in place, and gives all back. [signal] */
void fill_place(struct fill *fill);

/* Gives all back; the pages are MISSING. [signal] */
void fill_abandon(struct fill *fill);

/* It is in flight from now on: until its fetch has ended, session_settle() waits for it. */
void fill_begin(struct fill *fill);

/*
 * After fill_begin(): begins its fetch, which ends on a thread of the store. `fill` is from malloc(), and the store's from now on. Outside
 * the gate.
 */
void fill_submit(struct fill *fill);

/* The same, on this thread: it waits for the store. */
void fill_fetch(struct fill *fill);

/* One that began, and is no fetch, has ended. Outside the gate. */
void fill_end(const struct fill *fill);

/* A page of zeros for `addr`, which was claimed: it is dirty then. 0 or -errno. [signal] */
int fill_zero(struct session *session, const struct space_range *range, uint64_t addr);

/*
 * A lost page: whoever touches it gets a signal, and so does who waits for it. Where the system cannot do that he waits on, until it is
 * brought after all. [signal]
 */
void fill_poison(struct session *session, uint64_t addr, uint64_t unit);

/*
 * Copies to [addr, addr + len), claimed and admitted. `protect`: against writes. How much of it, in whole units, is in
 * place; less than len: *err tells why. [signal]
 */
uint64_t fill_copy(struct session *session, uint64_t unit, uint64_t addr, const char *from, uint64_t len, bool protect,
                   int *err);

/* Which pages are read together with one: streams.c. Within the range, whole units, `addr` in it. [signal] */
void fill_window(const struct space_range *range, uint64_t addr, uint64_t *start, uint64_t *end);

/* A run that was read goes as far as this: where the stream will go on. [signal] */
void fill_window_done(const struct space_range *range, uint64_t addr, uint64_t start, uint64_t end);

#endif
