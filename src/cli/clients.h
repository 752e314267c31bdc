/* SPDX-License-Identifier: MIT */
/* clients.h - the rows that `top` shows: what each client did between two looks at the manager */
#ifndef CLI_CLIENTS_H
#define CLI_CLIENTS_H

#include <stdbool.h>

#include "cli/table.h"
#include "manager/status.h"

/* Columns in their order on the screen, by which rows can be sorted. */
enum clients_column {
	CLIENTS_ID,
	CLIENTS_PID,
	CLIENTS_NAME,
	CLIENTS_ENGINE,
	CLIENTS_RESIDENT,
	CLIENTS_MANAGED,
	CLIENTS_FAULTS,
	CLIENTS_P50,
	CLIENTS_P99,
	CLIENTS_CACHE, /* the share of each source, in the order of enum status_source */
	CLIENTS_STORE,
	CLIENTS_ZERO,
	CLIENTS_AHEAD,
	CLIENTS_EVENTS,
	CLIENTS_WAITING,
	CLIENTS_COLUMNS,
};

extern const struct table_column clients_columns[CLIENTS_COLUMNS];

/* The column of that title, in letters of any case; CLIENTS_COLUMNS: there is none. */
enum clients_column clients_column(const char *title);

struct clients_order {
	enum clients_column by;
	bool reverse; /* names come from a to z, numbers from the highest, unless it is set */
};

/*
 * A table of the clients of `now`. Rates, latencies and sources are those since `before`, an earlier status of the same manager; of clients that are
 * not in it, or when it is NULL, they are those since the client came. 0, or -ENOMEM; table_free() in the end.
 */
int clients_table(struct table *table, const struct status *before, const struct status *now,
                  struct clients_order order);

#endif
