// SPDX-License-Identifier: MIT
/* userfault stat: what a manager says about itself, once. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/clients.h"
#include "cli/command.h"
#include "report/format.h"

#define USAGE "usage: userfault stat [--control SOCKET] [--json]"

static void print_manager(const struct status *status)
{
	char text[4][FORMAT_SIZE];
	uint64_t asked = status->cache.hits + status->cache.misses;

	printf("userfault %s, for %s\n", status->version, format_ns(text[0], status->now - status->started));
	printf("  processes  supervisor %d, worker %d, which was replaced %s times; %u threads\n",
	       (int)status->supervisor, (int)status->worker, format_count(text[0], status->worker_restarts),
	       status->workers);
	printf("  handovers  %s accepted, %s refused\n", format_count(text[0], status->accepted),
	       format_count(text[1], status->refused));
	if (status->cache.budget)
		printf("  cache      %s of %s, %s of %s pages found in it\n",
		       format_bytes(text[0], status->cache.bytes), format_bytes(text[1], status->cache.budget),
		       format_share(text[2], status->cache.hits, asked), format_count(text[3], asked));
	else
		printf("  cache      none\n");
}

static int print_stores(const struct status *status)
{
	static const struct table_column columns[] = {
		{"STORE", false}, {"SIZE", true}, {"READS", true}, {"READ", true}, {"FAILED", true}};
	struct table table;

	if (table_begin(&table, columns, 5, status->store_count))
		return -ENOMEM;
	for (size_t i = 0; i < status->store_count; i++) {
		const struct status_store *store = &status->stores[i];

		snprintf(table_cell(&table, i, 0), TABLE_CELL, "%s", store->name);
		format_bytes(table_cell(&table, i, 1), store->size);
		format_count(table_cell(&table, i, 2), store->reads);
		format_bytes(table_cell(&table, i, 3), store->read_bytes);
		format_count(table_cell(&table, i, 4), store->failures);
	}
	table_finish(&table);
	putchar('\n');
	table_print(&table, "");
	table_free(&table);
	return 0;
}

/* Totals, where `top` has rates. */
static int print_clients(const struct status *status)
{
	static const struct table_column columns[] = {
		{"CLIENT", true},  {"PID", true},      {"NAME", false},  {"ENGINE", false}, {"STORE", false},
		{"IN MEM", true},  {"OF", true},       {"FAULTS", true}, {"P50", true},     {"P99", true},
		{"SLOWEST", true}, {"POISONED", true}, {"EVENTS", true}, {"WAITING", true},
	};
	size_t column_count = sizeof(columns) / sizeof(columns[0]);
	struct table table;

	if (table_begin(&table, columns, column_count, status->client_count))
		return -ENOMEM;
	for (size_t i = 0; i < status->client_count; i++) {
		const struct status_client *client = &status->clients[i];
		uint64_t events = 0;

		for (int j = 0; j < STATUS_EVENTS; j++)
			events += client->events[j];
		snprintf(table_cell(&table, i, 0), TABLE_CELL, "%" PRIu64, client->id);
		snprintf(table_cell(&table, i, 1), TABLE_CELL, client->pid ? "%" PRIu64 : "of %" PRIu64,
		         client->pid ? (uint64_t)client->pid : client->parent);
		snprintf(table_cell(&table, i, 2), TABLE_CELL, "%s", client->name);
		strcpy(table_cell(&table, i, 3), status_engine_name(client->engine));
		snprintf(table_cell(&table, i, 4), TABLE_CELL, "%s", client->store);
		format_bytes(table_cell(&table, i, 5), client->resident);
		format_bytes(table_cell(&table, i, 6), client->managed);
		format_count(table_cell(&table, i, 7), client->faults);
		format_ns(table_cell(&table, i, 8), hist_quantile(&client->latency, 0.5));
		format_ns(table_cell(&table, i, 9), hist_quantile(&client->latency, 0.99));
		format_ns(table_cell(&table, i, 10), client->latency.max);
		format_bytes(table_cell(&table, i, 11), client->poisoned);
		format_count(table_cell(&table, i, 12), events);
		snprintf(table_cell(&table, i, 13), TABLE_CELL, "%" PRIu64, client->outstanding);
	}
	table_finish(&table);
	putchar('\n');
	table_print(&table, "");
	table_free(&table);
	return 0;
}

static int print_text(const struct status *status)
{
	int err = 0;

	print_manager(status);
	if (status->store_count)
		err = print_stores(status);
	if (status->client_count && !err)
		err = print_clients(status);
	else if (!status->client_count)
		printf("\nno clients\n");
	return err;
}

static int stat_manager(const char *control, bool as_json)
{
	char path[ASK_PATH], cause[ASK_CAUSE], *json;
	struct status status;
	int err = ask_where("stat", control, path);

	if (err)
		return err;
	if (ask_status(path, &json, &status, cause))
		return fail("stat: %s", cause);
	if (as_json)
		puts(json);
	else
		err = print_text(&status);
	free(json);
	status_free(&status);
	return finish_output(err ? fail("stat: %s", strerror(-err)) : 0);
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{"control", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *control = NULL;
	bool as_json = false;
	int option;

	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			control = optarg;
			break;
		case 'j':
			as_json = true;
			break;
		case 'h':
			printf(USAGE "\n");
			return finish_output(0);
		default:
			return option_error("stat", option, argv, options);
		}
	}
	if (optind < argc)
		return usage_error("stat: unexpected argument '%s'; " USAGE, argv[optind]);
	return stat_manager(control, as_json);
}
