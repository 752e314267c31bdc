/* SPDX-License-Identifier: MIT */
/*
 * analysis.h - what is in a recording, counted
 *
 * Whatever the number of events: bins of time and rows of addresses are fixed numbers. A recording may be damaged, or made by somebody else, so no
 * field of an event is trusted: the worst that any does is to be counted in a strange place.
 */
#ifndef REPORT_ANALYSIS_H
#define REPORT_ANALYSIS_H

#include "base/hist.h"
#include "report/page.h"
#include "report/recording.h"

#define ANALYSIS_BINS    240 /* of time */
#define ANALYSIS_ROWS    112 /* of addresses, about */
#define ANALYSIS_EXTENTS 40  /* regions, at most: beyond that those nearest to each other are one */
#define ANALYSIS_SLOWEST 20
#define ANALYSIS_SOURCES (RECORDING_PREFETCHED + 1)
#define ANALYSIS_KINDS   (RECORDING_END + 1)

/* A part of the address space in which something was recorded, or which was a region: without a large gap. */
struct analysis_extent {
	uint64_t from, to;
	uint64_t offset; /* of `from` in the store, RECORDING_NOWHERE: not known */
	uint64_t faults; /* in it */
	uint64_t pages;  /* of it, that faulted at least once */
	uint64_t ahead;  /* bytes brought ahead */
	unsigned row_from, row_count;
};

enum analysis_layer { LAYER_FAULTS, LAYER_SLOWEST, LAYER_AHEAD, LAYER_GONE, LAYER_COUNT };

struct analysis {
	const struct recording_data *data;
	uint64_t span;                   /* ns, until the last event was done with; at least 1 ms */
	double duration;                 /* the same in seconds */
	uint64_t counts[ANALYSIS_KINDS]; /* events by kind; 0: of unknown kinds */
	uint64_t faults;                 /* reads and writes */
	uint64_t pages;                  /* that faulted at least once: with the order of the faults, the working set */
	uint64_t demand, ahead;          /* bytes put in place for faults, and before them */
	uint64_t poisoned;               /* bytes */
	struct hist latency;             /* of faults */
	struct hist by_source[ANALYSIS_SOURCES];
	uint64_t bytes_by_source[ANALYSIS_SOURCES]; /* put in place for faults */
	const struct recording_event *slowest[ANALYSIS_SLOWEST];
	size_t slowest_count;

	/* Over time, by bins of duration / ANALYSIS_BINS. Latencies of a bin without faults are NAN. */
	double fault_rate[ANALYSIS_BINS], demand_rate[ANALYSIS_BINS], ahead_rate[ANALYSIS_BINS];
	double p50[ANALYSIS_BINS], p99[ANALYSIS_BINS], max[ANALYSIS_BINS]; /* seconds */

	/* Over addresses. */
	struct analysis_extent *extents;
	size_t extent_count;
	struct report_row *rows;
	size_t row_count;
	double *layers
		[LAYER_COUNT]; /* row_count * ANALYSIS_BINS: faults; the slowest, seconds; bytes ahead; bytes removed or unmapped */
};

/* 0, or -ENOMEM. `data` stays the caller's and must outlive the analysis; analysis_free() in either case. */
int analysis_make(struct analysis *analysis, const struct recording_data *data);
void analysis_free(struct analysis *analysis);

/* What people call them; "unknown" for what is none. */
const char *analysis_kind_name(unsigned kind);
const char *analysis_source_name(unsigned source);

#endif
