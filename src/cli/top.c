// SPDX-License-Identifier: MIT
/* userfault top: what the clients of a manager do, now. */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/top.h"
#include "report/format.h"

#define USAGE "usage: userfault top [--control SOCKET] [--interval SECONDS] [--sort COLUMN] [--once]"

static uint64_t all_faults(const struct status *status)
{
	uint64_t faults = 0;

	for (size_t i = 0; i < status->client_count; i++)
		faults += status->clients[i].faults;
	return faults;
}

void top_summary(char *text, size_t size, const struct status *before, const struct status *now)
{
	char up[FORMAT_SIZE], rate[FORMAT_SIZE], share[FORMAT_SIZE], bytes[FORMAT_SIZE];
	uint64_t ns = now->now - (before ? before->now : now->started), faults = all_faults(now), old = 0;
	uint64_t hits = now->cache.hits, misses = now->cache.misses;

	if (before) {
		old = all_faults(before);
		hits -= before->cache.hits < hits ? before->cache.hits : hits;
		misses -= before->cache.misses < misses ? before->cache.misses : misses;
	}
	/* Clients that have gone took their counts with them. */
	format_short(rate, ns && faults > old ? (double)(faults - old) * 1e9 / (double)ns : 0);
	snprintf(text, size, "up %s, %zu clients, %s faults/s, cache %s, %s found in it; replaced %" PRIu64 " times",
	         format_ns(up, now->now - now->started), now->client_count, rate, format_bytes(bytes, now->cache.bytes),
	         format_share(share, hits, hits + misses), now->worker_restarts);
}

/* One look: rates are those since each client came. */
static int top_once(const struct top *top)
{
	char cause[ASK_CAUSE], summary[256], *json;
	struct status status;
	struct table table;
	int err;

	if (ask_status(top->path, &json, &status, cause))
		return fail("top: %s", cause);
	free(json);
	top_summary(summary, sizeof(summary), NULL, &status);
	printf("%s\n\n", summary);
	err = clients_table(&table, NULL, &status, top->order);
	if (!err) {
		err = table_print(&table, "");
		table_free(&table);
	}
	status_free(&status);
	return finish_output(err ? fail("top: %s", strerror(-err)) : 0);
}

static int take_interval(struct top *top, const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	/* strtod(3) takes much that nobody would call a number of seconds. */
	if (!*text || text[strspn(text, "0123456789.")] || *end || !(seconds >= 0.1 && seconds <= 3600))
		return usage_error("top: --interval is a number of seconds from 0.1 to 3600, and not '%s'", text);
	top->interval_ms = (int)(seconds * 1000);
	return 0;
}

static int take_order(struct top *top, const char *title)
{
	top->order.by = clients_column(title);
	if (top->order.by == CLIENTS_COLUMNS)
		return usage_error("top: there is no column '%s': columns are named as in the table's head", title);
	return 0;
}

int cmd_top(int argc, char **argv)
{
	static const struct option options[] = {
		{"control", required_argument, NULL, 'c'}, {"interval", required_argument, NULL, 'i'},
		{"sort", required_argument, NULL, 's'},    {"once", no_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},          {0},
	};
	struct top top = {.interval_ms = 1000, .order = {.by = CLIENTS_FAULTS}};
	const char *control = NULL;
	bool once = false;
	int option, err = 0;

	opterr = 0;
	optind = 1;
	while (!err && (option = getopt_long(argc, argv, ":", options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			control = optarg;
			break;
		case 'i':
			err = take_interval(&top, optarg);
			break;
		case 's':
			err = take_order(&top, optarg);
			break;
		case 'o':
			once = true;
			break;
		case 'h':
			printf(USAGE "\n");
			return finish_output(0);
		default:
			return option_error("top", option, argv, options);
		}
	}
	if (!err && optind < argc)
		err = usage_error("top: unexpected argument '%s'; " USAGE, argv[optind]);
	if (!err)
		err = ask_where("top", control, top.path);
	if (err)
		return err;
	return once || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) ? top_once(&top) : top_screen(&top);
}
