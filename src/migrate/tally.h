/* SPDX-License-Identifier: MIT */
/*
 * tally.h - what both sides count, and whom they tell
 *
 * Counters may be changed by any thread. tally_fail() may be called on any thread too; tally_tick() and tally_phase() on that of *_run() only,
 * where the program's function is called.
 */
#ifndef MIGRATE_TALLY_H
#define MIGRATE_TALLY_H

#include <pthread.h>
#include <stdatomic.h>

#include <userfault/migrate.h>

#include "base/hist.h"

struct tally {
	_Atomic uint64_t precopy, postcopy, zero, requested, repeated, discarded; /* bytes */
	_Atomic uint64_t wire; /* of connections that have ended, bytes */
	_Atomic uint64_t faults, requests, poisoned, stopped_ns;
	_Atomic unsigned passes, connections;
	_Atomic int phase, connected;
	_Atomic uint64_t begun_ns, ended_ns; /* 0: not yet */

	/* Fills in what only the side itself knows. */
	void (*complete)(void *side, struct uf_migrate_statistics *stats);
	void *side;
	void (*progress)(void *arg, const struct uf_migrate_statistics *stats);
	void (*failed)(void *arg, const char *cause);
	void *arg;
	uint64_t told_ns; /* the thread's of *_run(): when it told last, and what */
	int told_phase, told_connected;

	pthread_mutex_t lock; /* of what follows; a leaf */
	struct hist latency;
	char last_error[256];
};

void tally_init(struct tally *tally);
void tally_destroy(struct tally *tally);

static inline void tally_add(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

void tally_latency(struct tally *tally, uint64_t ns);
void tally_fail(struct tally *tally, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What an error means, for people. */
const char *tally_word(int err);

void tally_phase(struct tally *tally, enum uf_migrate_phase phase);
void tally_connected(struct tally *tally, int connected);

/* Tells the program, if it is time, or if the phase or the connection has changed. */
void tally_tick(struct tally *tally);

/* uf_*_stats() */
int tally_read(struct tally *tally, struct uf_migrate_statistics *stats);

#endif
