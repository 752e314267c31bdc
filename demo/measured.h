/* SPDX-License-Identifier: MIT */
/*
 * measured.h - what scripts/demo left in its folder
 *
 *	facts       lines NAME <tab> VALUE; a name may be there several times
 *	requests    lines "ANSWERED TOOK", ns: of each request of traffic.c
 *	first/, refused/, scattered/, scattered-prefetched/
 *	            recordings of a manager's clients (report/recording.h)
 *
 * What is not there was not measured: no fact, no request, no recording.
 */
#ifndef DEMO_MEASURED_H
#define DEMO_MEASURED_H

#include <stddef.h>
#include <stdint.h>

#include "report/recording.h"

struct fact {
	char *name, *value;
};

struct request {
	uint64_t answered, took; /* ns, the first since the clients began */
};

struct recordings {
	struct recording_data *list;
	size_t count;
};

struct measured {
	const char *folder;
	char *text; /* of the facts */
	struct fact *facts;
	size_t fact_count;
	struct request *requests; /* in the order of their answers */
	size_t request_count;
};

/* 0 or -errno; -EBADMSG: a file is not as above. measured_close() in either case. */
int measured_open(struct measured *measured, const char *folder);
void measured_close(struct measured *measured);

/* The last of that name, or `otherwise`. */
const char *fact_text(const struct measured *measured, const char *name, const char *otherwise);

/* NAN: there is none, or it is no number. */
double fact_number(const struct measured *measured, const char *name);

/* How often it is there. */
size_t fact_times(const struct measured *measured, const char *name);

/* All recordings of a folder in there. 0, or the first error of reading one; recordings_free() in either case. */
int recordings_read(struct recordings *recordings, const struct measured *measured, const char *name);
void recordings_free(struct recordings *recordings);

#endif
