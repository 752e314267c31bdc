/* SPDX-License-Identifier: MIT */
/*
 * summary.h - what was measured, in few numbers, and as a table for a terminal
 */
#ifndef DEMO_SUMMARY_H
#define DEMO_SUMMARY_H

#include <stdio.h>

#include "base/hist.h"
#include "measured.h"

enum phase { BEFORE, PRECOPY, STOPPED, POSTCOPY, AFTER, PHASES };

struct phase_summary {
	const char *name;
	double from, to; /* seconds since the clients began */
	/*
	 * Of requests that were answered in it; but those that were on their way while the server was stopped are all counted there, whenever
	 * they were answered: each of them waited for it.
	 */
	struct hist latency;
	double silence; /* seconds: the longest time without any answer that began in it, or, of STOPPED, reached into it */
};

/* Of the clients of one manager. */
struct fault_summary {
	size_t clients;
	uint64_t ahead;      /* bytes brought before they were touched */
	struct hist latency; /* of faults */
};

struct summary {
	struct phase_summary phases[PHASES];
	struct hist during; /* from PRECOPY to POSTCOPY */
	struct fault_summary first, refused, plain, prefetched;
};

/* 0, or -errno of what cannot be read. */
int summary_make(struct summary *summary, const struct measured *measured);

/* Requests a second in a phase. */
double summary_rate(const struct phase_summary *phase);

void summary_print(const struct summary *summary, const struct measured *measured, FILE *file);

#endif
