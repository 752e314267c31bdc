/* SPDX-License-Identifier: MIT */
/*
 * page.h - one HTML page, put together from numbers, tables and charts
 *
 * The page needs nothing but itself: styles, script and data are in it, and it loads nothing. It follows the reader's choice of light and dark,
 * fits a phone, and can be printed. Its parts stand in the order of the calls.
 *
 *	report_begin(&report, file, "Title", NULL);
 *	report_heading(report, "What happened", "A sentence about it.");
 *	report_timeline(report, &timeline);
 *	err = report_end(report);
 *
 * All text is plain: it is escaped here, and what is no UTF-8 is replaced. Nothing is kept but the file: what is passed is the caller's, and may go
 * when the call returns. Errors of the file are kept for report_end(), so no other call fails.
 */
#ifndef REPORT_PAGE_H
#define REPORT_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/hist.h"

struct report;

/* What a chart's numbers are, which decides how they are written on axes. */
enum report_unit {
	REPORT_COUNT,   /* 12.3 k */
	REPORT_RATE,    /* 12.3 k/s */
	REPORT_SECONDS, /* 12.3 ms */
	REPORT_BYTES,   /* 12.3 MiB */
	REPORT_BYTES_RATE,
	REPORT_UNITS,
};

/* 0, or -ENOMEM. `subtitle` may be NULL. */
int report_begin(struct report **out, FILE *file, const char *title, const char *subtitle);

/* 0, or the first error of writing; the file is flushed and stays open. Frees `report`. */
int report_end(struct report *report);

/* A heading of a part, and a paragraph below it, which may be NULL. */
void report_heading(struct report *report, const char *heading, const char *text);

/* A paragraph. */
void report_text(struct report *report, const char *text);

/* The numbers that count, large. `note` says more in small letters, and may be NULL. */
struct report_number {
	const char *label, *value, *note;
};

void report_numbers(struct report *report, const struct report_number *numbers, size_t count);

struct report_column {
	const char *title;
	bool number; /* its digits stand below each other */
};

struct report_table {
	const char *title, *text; /* text may be NULL */
	const struct report_column *columns;
	size_t column_count, row_count;
	/* What stands in a cell. */
	void (*cell)(void *arg, size_t row, size_t column, char *text, size_t size);
	void *arg;
};

#define REPORT_CELL 256 /* bytes of a cell's text, with the zero at its end */

void report_table(struct report *report, const struct report_table *table);

/*
 * Values over time, in bins of equal length. NAN: there is none in this bin, and the line is broken.
 */
struct report_series {
	const char *name;
	const double *values; /* timeline.count of them */
	bool area; /* filled down to 0; areas stand on each other, the first lowest, and do not go with `log` */
};

/* A span of time that is shaded and named. */
struct report_phase {
	const char *name;
	double from, to; /* seconds */
};

/* A moment that is marked; its text is shown when it is pointed at. */
struct report_mark {
	double at; /* seconds */
	const char *text;
};

struct report_timeline {
	const char *title, *text; /* text may be NULL */
	enum report_unit unit;
	bool log;           /* powers of ten; what is 0 or less is not shown */
	double start, step; /* seconds: where the first bin begins, and how long each is */
	size_t count;       /* of bins */
	const struct report_series *series;
	size_t series_count; /* at most 4 have colours of their own */
	const struct report_phase *phases;
	size_t phase_count;
	const struct report_mark *marks;
	size_t mark_count;
	const char *mark_name; /* what the marks are, in the legend; where there are any */
};

void report_timeline(struct report *report, const struct report_timeline *timeline);

/* Durations, on an axis of powers of ten, with p50, p90, p99 and the longest marked. */
struct report_histogram {
	const char *title, *text; /* text may be NULL */
	const char *things;       /* what is counted: "faults" */
	const struct hist *hist;
};

void report_histogram(struct report *report, const struct report_histogram *histogram);

/*
 * Addresses over time. Rows are ranges of addresses by rising address; where one does not begin where the last one ended, a gap is drawn. Layers
 * are several values of one cell, one of which is shown, and all of them when the cell is pointed at.
 */
struct report_row {
	uint64_t from, to;
	uint64_t offset; /* that `from` has in its store; UINT64_MAX: none, or not known */
	unsigned region; /* number that is written on the axis, from 1; rows of a region stand together */
};

struct report_layer {
	const char *name;
	enum report_unit unit;
	const double *values; /* rows * columns, row by row; 0: nothing */
};

struct report_heatmap {
	const char *title, *text; /* text may be NULL */
	double duration;          /* seconds, from 0 */
	size_t columns, row_count;
	const struct report_row *rows;
	const struct report_layer *layers;
	size_t layer_count;
};

void report_heatmap(struct report *report, const struct report_heatmap *heatmap);

#endif
