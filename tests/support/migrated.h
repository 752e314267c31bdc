/* SPDX-License-Identifier: MIT */
/*
 * migrated.h - a program that migrates from one process to another, and is looked at byte by byte
 *
 * The program at the source has memory of which a half was never touched, and pages of zeros in the other; if it `writes`, a thread
 * changes pages at random all the time. What it has when it is stopped is the model. At the destination threads touch all pages in random
 * order, compare them with the model, and write to them; in the end all of it is compared once more.
 *
 *	struct migrated *m = migrated_new(&(struct migrated_setup){.pages = 4096, .passes = 3, .writes = true});
 *	pid_t child = fork();
 *	if (!child) { destination_here(m); CHECK_EQ(uf_destination_run(m->destination, ...), 0); destination_check(m); _exit(0); }
 *	source_here(m); CHECK_EQ(uf_source_run(m->source, ...), 0); reap(child);
 */
#ifndef TESTS_SUPPORT_MIGRATED_H
#define TESTS_SUPPORT_MIGRATED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <userfault/migrate.h>

#define MIGRATED_TOUCHERS 3

struct migrated_setup {
	size_t pages; /* of each of two regions */
	unsigned passes;
	unsigned flags; /* of both sides' options */
	uint64_t bandwidth;
	unsigned timeout_ms, abandon_ms;
	bool writes, shared;
	bool no_touch; /* the program at the destination does nothing */
	enum uf_engine source_engine, engine;
	const struct uf_migrate_tls *tls_source, *tls_destination;
	void (*progress)(void *arg, const struct uf_migrate_statistics *stats); /* of the source; arg is the migrated */
	int (*prepare)(void *arg, const void *state, size_t len);
	size_t state_len; /* of ballast in the state */
};

/* In memory that both processes share. */
struct migrated_shared {
	_Atomic unsigned stops, resumes, starts, failures;
	_Atomic unsigned listening;
	_Atomic unsigned flag; /* the test's */
	char address[128];
	char last_failure[256];
};

struct migrated {
	struct migrated_setup setup;
	struct migrated_shared *shared;
	char *model; /* shared too: both regions, one after the other */
	size_t len;  /* bytes of a region */

	/* of each process */
	char *memory[2];
	struct uf_migrate_region regions[2];
	struct uf_source *source;
	struct uf_destination *destination;
	char *state;
	pthread_t writer, touchers[MIGRATED_TOUCHERS];
	_Atomic bool pause, paused, end;
	bool touching;
};

struct migrated *migrated_new(const struct migrated_setup *setup);

/* The engine named with --engine. */
enum uf_engine migrated_engine(void);

void source_here(struct migrated *migrated);
void source_gone(struct migrated *migrated);

/* With `address` it listens there, and shared->address tells where. */
void destination_here(struct migrated *migrated, const char *address);
void migrated_wait_listening(struct migrated *migrated);

/* The touchers have ended, and all is as it was, but for what they wrote. */
void destination_check(struct migrated *migrated);

/* fd:N,M or fd:N for these; a static string. */
const char *migrated_fds(const int *fds, unsigned count);

#endif
