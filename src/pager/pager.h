/* SPDX-License-Identifier: MIT */
/*
 * pager.h - the pager's own: a session, and a budget
 *
 * pager.c opens and maps, and is the session's owner; budget.c tells how much memory there may be; takeout.c takes pages out, clean.c
 * sees to it that they go for good, and rest.c keeps them until then; flush.c and write.c write; workingset.c records and replays; advice.c
 * does what the program advises; worker.c is the thread for what is done in the background.
 *
 * Locks, in this order: `cleaning`, the session's change, the session's gate, the rest's lock. `mappings_lock` is innermost beside them.
 * `cleaning` is held by whoever takes pages out of memory or writes them to a store, through whole requests to stores; so a page is never
 * written by two at a time, and no page leaves while another one's write may still fail. No fault ever waits for it by name; one that
 * waits for room, or for a page that is LEAVING, waits for its holder.
 *
 * Signals: who holds one of these locks has them blocked, for a handler that touches mapped memory may have to wait for room, or for
 * whatever tells of a failure, and so for the holder. Nothing that touches mapped memory is done under them but to what is claimed.
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <userfault/pager.h>

#include "pager/rest.h"
#include "session/session.h"
#include "workingset/workingset.h"

struct mapping {
	struct session_source source; /* first: a range's source is its mapping */
	struct mapping *next;
	uint64_t addr, len, offset, unit;
	uint64_t mapped; /* bytes of it not yet unmapped */
	unsigned flags;
	struct workingset_order record; /* by page of the mapping */
};

/* Something to be done by the worker, from malloc(); what it needs beside this lies behind it. */
struct job {
	struct job *next;
	int (*run)(struct uf_pager *pager, struct job *job);
	bool waited, done; /* with jobs_lock */
	int err;
	uint64_t addr, len;
};

/* Copied and written in one step of a flush; a unit at least. */
#define COPY_BYTES ((uint64_t)2 << 20)

struct uf_pager {
	struct session session;
	struct uf_pager_options options;
	enum uf_pager_way way;
	enum uf_engine engine;
	bool can_move;
	int self; /* a pidfd of this process, or negative */
	char scratch[256];

	/* budget.c: bytes. What is in memory, on its way there, or resting. */
	uint64_t budget, evict_above, evict_to, rest_target;
	_Atomic uint64_t resident, pinned, largest_unit;
	_Atomic uint32_t room;        /* futex: changes when there is more of it */
	_Atomic uint32_t room_wanted; /* by whom: budget.c */
	_Atomic uint32_t evict;       /* futex: 1 while the evictor sleeps */

	/* clean.c */
	pthread_mutex_t cleaning;
	struct rest rest;
	uint64_t hand; /* the address that the evictor looks at next; under `cleaning` */
	char *copies;  /* COPY_BYTES, for what is to be written; under `cleaning` */
	pthread_t evictor;
	bool has_evictor, has_worker;
	_Atomic bool ending;

	/* worker.c */
	pthread_t worker;
	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_changed;
	struct job *jobs, **last_job;

	pthread_mutex_t mappings_lock; /* the list, and last_error */
	/* Read-locked by whoever flushes stores of the list; whoever has taken a mapping out of it waits for them. Outside all others. */
	pthread_rwlock_t flushing;
	struct mapping *mappings;
	_Atomic uint64_t written, evicted, errors;
	char last_error[512];
};

/* pager.c */
signal_mask mappings_lock(struct uf_pager *pager); /* takes `mappings_lock` */
void mappings_unlock(struct uf_pager *pager, signal_mask before);
void pager_failed(struct uf_pager *pager, struct uf_store *store, const char *what, uint64_t offset, int err);
struct mapping *pager_mapping(struct uf_pager *pager, uint64_t addr); /* that addr lies in, or NULL */

static inline struct mapping *mapping_of(const struct space_range *range)
{
	return range->source;
}

static inline bool is_writable(const struct space_range *range)
{
	return source_of(range)->writable;
}

/* budget.c: what the session asks, and who gives back. */
int budget_init(struct uf_pager *pager);
uint64_t budget_admit(void *arg, uint64_t bytes, uint64_t unit, enum session_need need);
void budget_dismiss(void *arg, uint64_t bytes);
void budget_wait(void *arg);
/* Whether the evictor has something to do. */
bool budget_wants(struct uf_pager *pager);

/* clean.c */
signal_mask clean_lock(struct uf_pager *pager); /* takes `cleaning` */
void clean_unlock(struct uf_pager *pager, signal_mask before);
void *clean_evictor(void *arg);
int clean_restore(void *arg, const struct space_range *range, uint64_t addr);
/* What rests of [addr, addr + len) is forgotten. With `cleaning`. */
void clean_forget(struct uf_pager *pager, uint64_t addr, uint64_t len);

/* takeout.c. With `cleaning`. False: none could be, in a whole round of the hand. */
bool clean_take_out(struct uf_pager *pager);
/* Nothing is in the ring's pages before they are used; so whatever is there was put there in vain, or is not needed any more. */
void clean_empty(char *at, uint64_t len);

/* flush.c: uf_pager_flush() without the stores' own. */
int clean_write(struct uf_pager *pager, uint64_t addr, uint64_t len);

/* worker.c */
int worker_start(struct uf_pager *pager);
void worker_end(struct uf_pager *pager);
/* Takes the job over, and frees it. With `wait`: when it is done, its result. */
int worker_do(struct uf_pager *pager, struct job *job, bool wait);

/* workingset.c */
void pager_touched(void *arg, struct session_source *source, uint64_t offset);

#endif
