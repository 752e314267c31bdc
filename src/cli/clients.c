// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/clients.h"
#include "report/format.h"

const struct table_column clients_columns[CLIENTS_COLUMNS] = {
	[CLIENTS_ID] = {"ID", true},           [CLIENTS_PID] = {"PID", true},
	[CLIENTS_NAME] = {"NAME", false},      [CLIENTS_ENGINE] = {"ENGINE", false},
	[CLIENTS_RESIDENT] = {"IN MEM", true}, [CLIENTS_MANAGED] = {"OF", true},
	[CLIENTS_FAULTS] = {"FAULTS/S", true}, [CLIENTS_P50] = {"P50", true},
	[CLIENTS_P99] = {"P99", true},         [CLIENTS_CACHE] = {"CACHE", true},
	[CLIENTS_STORE] = {"STORE", true},     [CLIENTS_ZERO] = {"ZERO", true},
	[CLIENTS_AHEAD] = {"AHEAD", true},     [CLIENTS_EVENTS] = {"EVENTS/S", true},
	[CLIENTS_WAITING] = {"WAIT", true},
};

struct row {
	const struct status_client *client;
	double seconds; /* of what is counted below */
	uint64_t faults, events;
	uint64_t sources[STATUS_SOURCES], resolved; /* and the sum of them */
	uint64_t latencies, p50, p99;               /* how many were measured */
};

enum clients_column clients_column(const char *title)
{
	enum clients_column column = 0;

	while (column < CLIENTS_COLUMNS && strcasecmp(title, clients_columns[column].title) != 0)
		column++;
	return column;
}

static const struct status_client *find(const struct status *status, uint64_t id)
{
	for (size_t i = 0; status && i < status->client_count; i++)
		if (status->clients[i].id == id)
			return &status->clients[i];
	return NULL;
}

/* Counts do not go back; if they do, it is not the same manager's. */
static uint64_t since(uint64_t before, uint64_t now)
{
	return now > before ? now - before : 0;
}

static void count_latencies(struct row *row, const struct hist *before, const struct hist *now)
{
	struct hist between = *now;

	if (before) {
		between.count = 0;
		for (unsigned i = 0; i < HIST_BUCKETS; i++) {
			between.bucket[i] = since(before->bucket[i], now->bucket[i]);
			between.count += between.bucket[i];
		}
	}
	row->latencies = between.count;
	row->p50 = hist_quantile(&between, 0.5);
	row->p99 = hist_quantile(&between, 0.99);
}

static void make_row(struct row *row, const struct status *before, const struct status *now,
                     const struct status_client *client)
{
	static const struct status_client nothing;
	const struct status_client *known = find(before, client->id), *old = known ? known : &nothing;

	*row = (struct row){
		.client = client,
		.seconds = (double)(known ? since(before->now, now->now) : client->age) * 1e-9,
		.faults = since(old->faults, client->faults),
	};
	for (int i = 0; i < STATUS_EVENTS; i++)
		row->events += since(old->events[i], client->events[i]);
	for (int i = 0; i < STATUS_SOURCES; i++) {
		row->sources[i] = since(old->resolved[i], client->resolved[i]);
		row->resolved += row->sources[i];
	}
	count_latencies(row, known ? &known->latency : NULL, &client->latency);
}

/*
 * Order.
 */

static double rate(const struct row *row, uint64_t count)
{
	return row->seconds > 0 ? (double)count / row->seconds : 0;
}

static double value_of(const struct row *row, enum clients_column column)
{
	switch (column) {
	case CLIENTS_ID:
		return (double)row->client->id;
	case CLIENTS_PID:
		return (double)row->client->pid;
	case CLIENTS_RESIDENT:
		return (double)row->client->resident;
	case CLIENTS_MANAGED:
		return (double)row->client->managed;
	case CLIENTS_FAULTS:
		return rate(row, row->faults);
	case CLIENTS_P50:
		return (double)row->p50;
	case CLIENTS_P99:
		return (double)row->p99;
	case CLIENTS_CACHE:
	case CLIENTS_STORE:
	case CLIENTS_ZERO:
	case CLIENTS_AHEAD:
		return row->resolved ? (double)row->sources[column - CLIENTS_CACHE] / (double)row->resolved : 0;
	case CLIENTS_EVENTS:
		return rate(row, row->events);
	case CLIENTS_WAITING:
		return (double)row->client->outstanding;
	default:
		return 0;
	}
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct row *one = a, *other = b;
	const struct clients_order *order = arg;
	double x = value_of(one, order->by), y = value_of(other, order->by);
	int result = (y > x) - (y < x);

	if (order->by == CLIENTS_NAME)
		result = strcmp(one->client->name, other->client->name);
	else if (order->by == CLIENTS_ENGINE)
		result = (int)one->client->engine - (int)other->client->engine;
	if (order->reverse)
		result = -result;
	/* Rows that are equal do not jump. */
	return result ? result : (one->client->id > other->client->id) - (one->client->id < other->client->id);
}

/*
 * Cells.
 */

static void fill_cell(char text[TABLE_CELL], const struct row *row, enum clients_column column)
{
	const struct status_client *client = row->client;

	switch (column) {
	case CLIENTS_ID:
		snprintf(text, TABLE_CELL, "%" PRIu64, client->id);
		break;
	case CLIENTS_PID:
		if (client->pid)
			snprintf(text, TABLE_CELL, "%d", (int)client->pid);
		else
			snprintf(text, TABLE_CELL, "of %" PRIu64, client->parent);
		break;
	case CLIENTS_NAME:
		snprintf(text, TABLE_CELL, "%s", client->name);
		break;
	case CLIENTS_ENGINE:
		strcpy(text, status_engine_name(client->engine));
		break;
	case CLIENTS_RESIDENT:
		format_bytes(text, client->resident);
		break;
	case CLIENTS_MANAGED:
		format_bytes(text, client->managed);
		break;
	case CLIENTS_FAULTS:
		format_short(text, rate(row, row->faults));
		break;
	case CLIENTS_P50:
	case CLIENTS_P99:
		if (row->latencies)
			format_ns(text, column == CLIENTS_P50 ? row->p50 : row->p99);
		else
			strcpy(text, "-");
		break;
	case CLIENTS_CACHE:
	case CLIENTS_STORE:
	case CLIENTS_ZERO:
	case CLIENTS_AHEAD:
		if (row->resolved)
			snprintf(text, TABLE_CELL, "%.0f %%", 100 * value_of(row, column));
		else
			strcpy(text, "-");
		break;
	case CLIENTS_EVENTS:
		format_short(text, rate(row, row->events));
		break;
	default:
		snprintf(text, TABLE_CELL, "%" PRIu64, client->outstanding);
	}
}

int clients_table(struct table *table, const struct status *before, const struct status *now,
                  struct clients_order order)
{
	struct row *rows = calloc(now->client_count + 1, sizeof(*rows));
	int err = table_begin(table, clients_columns, CLIENTS_COLUMNS, now->client_count);

	if (!rows)
		err = -ENOMEM;
	if (!err) {
		for (size_t i = 0; i < now->client_count; i++)
			make_row(&rows[i], before, now, &now->clients[i]);
		qsort_r(rows, now->client_count, sizeof(*rows), compare, &order);
		for (size_t i = 0; i < now->client_count; i++)
			for (enum clients_column column = 0; column < CLIENTS_COLUMNS; column++)
				fill_cell(table_cell(table, i, column), &rows[i], column);
		table_finish(table);
	} else {
		table_free(table);
	}
	free(rows);
	return err;
}
