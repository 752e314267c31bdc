/* SPDX-License-Identifier: MIT */
/*
 * table.h - columns of text, each as wide as it must be
 *
 * Cells come from anybody: control characters are shown as question marks, so that nobody writes to the terminal but us. A character is
 * taken to be one column wide.
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#define TABLE_CELL    96 /* bytes, with the zero at the end: what is longer is cut */
#define TABLE_COLUMNS 16

struct table_column {
	const char *title;
	bool right; /* aligned */
};

struct table {
	const struct table_column *columns;
	size_t column_count, row_count;
	size_t widths[TABLE_COLUMNS]; /* characters */
	char (*cells)[TABLE_CELL];    /* row by row, malloc()ed */
};

/* 0, or -ENOMEM. Cells are empty. */
int table_begin(struct table *table, const struct table_column *columns, size_t column_count, size_t row_count);
void table_free(struct table *table);

/* A cell of the table, to be written with TABLE_CELL bytes at most. */
char *table_cell(struct table *table, size_t row, size_t column);

/* After the last cell: cleans them, and finds the widths. */
void table_finish(struct table *table);

/* A line without its end, malloc()ed; row -1: the titles. NULL: no memory. */
char *table_line(const struct table *table, long row);

/* All of it on the standard output, each line behind `indent`. 0, or -ENOMEM. */
int table_print(const struct table *table, const char *indent);

#endif
