// SPDX-License-Identifier: MIT
/* A status as Prometheus takes it: https://prometheus.io/docs/instrumenting/exposition_formats/. The names are those of userfault-metrics(5). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "manager/status.h"
#include "base/utf8.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * The bounds of the histogram: powers of two, from half a microsecond to 17 s. Those are bounds of the buckets that are counted in, so
 * nothing is guessed. "le" means at most, and a bucket of ours ends just below: a nanosecond that no clock can tell.
 */
#define LE_FIRST 9
#define LE_LAST  34

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP userfault_%s %s\n# TYPE userfault_%s %s\n", name, help, name, type);
}

static void print_escaped(FILE *out, const char *text)
{
	char clean[UTF8_CLEAN(STATUS_NAME)];

	utf8_clean(clean, text);
	for (const char *c = clean; *c; c++) {
		if (*c == '\n') {
			fputs("\\n", out);
			continue;
		}
		if (*c == '\\' || *c == '"')
			putc('\\', out);
		putc(*c, out);
	}
}

static void print_label(FILE *out, const char *key, const char *value)
{
	fprintf(out, "%s=\"", key);
	print_escaped(out, value);
	putc('"', out);
}

/* Exactly, and whatever the locale. */
static void print_seconds(FILE *out, uint64_t ns)
{
	fprintf(out, "%" PRIu64 ".%09" PRIu64, ns / 1000000000u, ns % 1000000000u);
}

/* A metric of one number. */
static void print_single(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	print_head(out, name, type, help);
	fprintf(out, "userfault_%s %" PRIu64 "\n", name, value);
}

static void print_manager(FILE *out, const struct status *status)
{
	print_head(out, "build_info", "gauge", "1; the version is a label.");
	fputs("userfault_build_info{", out);
	print_label(out, "version", status->version);
	fputs("} 1\n", out);
	print_head(out, "start_time_seconds", "gauge", "When the manager was started, in seconds since 1970.");
	fputs("userfault_start_time_seconds ", out);
	print_seconds(out, status->started_at);
	putc('\n', out);
	print_single(out, "worker_restarts_total", "counter", "Times that the worker process was replaced.",
	             status->worker_restarts);
	print_single(out, "workers", "gauge", "Threads that serve clients.", status->workers);
	print_head(out, "handovers_total", "counter", "Descriptors that were handed over, by result.");
	fprintf(out, "userfault_handovers_total{result=\"accepted\"} %" PRIu64 "\n", status->accepted);
	fprintf(out, "userfault_handovers_total{result=\"refused\"} %" PRIu64 "\n", status->refused);
	print_single(out, "cache_budget_bytes", "gauge", "Memory that the cache may take.", status->cache.budget);
	print_single(out, "cache_bytes", "gauge", "Memory that the cache takes.", status->cache.bytes);
	print_single(out, "cache_hits_total", "counter", "Pages that were found in the cache.", status->cache.hits);
	print_single(out, "cache_misses_total", "counter", "Pages that were not found in the cache.",
	             status->cache.misses);
	print_single(out, "clients", "gauge", "Clients that are served.", status->client_count);
}

/* Metrics that are a number of each store, or of each client. */
struct metric {
	const char *name, *type, *help;
	size_t offset;
	enum { WIDE, NARROW } width;
};

static uint64_t metric_value(const struct metric *metric, const void *from)
{
	const char *at = (const char *)from + metric->offset;

	return metric->width == WIDE ? *(const uint64_t *)(const void *)at : *(const unsigned *)(const void *)at;
}

static void print_stores(FILE *out, const struct status *status)
{
	static const struct metric metrics[] = {
		{"store_size_bytes", "gauge", "Size of the store.", offsetof(struct status_store, size)},
		{"store_reads_total", "counter", "Runs of pages that were brought from the store, or its cache.",
	         offsetof(struct status_store, reads)},
		{"store_read_bytes_total", "counter", "Their bytes.", offsetof(struct status_store, read_bytes)},
		{"store_failures_total", "counter",
	         "Requests to the store that failed, those that were made again too.",
	         offsetof(struct status_store, failures)},
	};

	for (size_t i = 0; i < COUNT(metrics); i++) {
		print_head(out, metrics[i].name, metrics[i].type, metrics[i].help);
		for (size_t j = 0; j < status->store_count; j++) {
			fprintf(out, "userfault_%s{", metrics[i].name);
			print_label(out, "store", status->stores[j].name);
			fprintf(out, "} %" PRIu64 "\n", metric_value(&metrics[i], &status->stores[j]));
		}
	}
}

/* "userfault_<name>{<the labels by which a client is known>", to be ended by the caller. */
static void begin_of_client(FILE *out, const char *name, const struct status_client *client)
{
	fprintf(out, "userfault_%s{client=\"%" PRIu64 "\",", name, client->id);
	print_label(out, "name", client->name);
}

static void print_info(FILE *out, const struct status_client *client)
{
	begin_of_client(out, "client_info", client);
	fprintf(out, ",pid=\"%d\",uid=\"%u\",engine=\"%s\",", (int)client->pid, (unsigned)client->uid,
	        status_engine_name(client->engine));
	print_label(out, "store", client->store);
	fprintf(out, ",parent=\"%" PRIu64 "\"} 1\n", client->parent);
}

static void print_resolved(FILE *out, const struct status_client *client)
{
	for (enum status_source source = 0; source < STATUS_SOURCES; source++) {
		begin_of_client(out, "client_resolved_faults_total", client);
		fprintf(out, ",source=\"%s\"} %" PRIu64 "\n", status_source_name(source), client->resolved[source]);
	}
}

static void print_events(FILE *out, const struct status_client *client)
{
	for (enum status_event event = 0; event < STATUS_EVENTS; event++) {
		begin_of_client(out, "client_events_total", client);
		fprintf(out, ",event=\"%s\"} %" PRIu64 "\n", status_event_name(event), client->events[event]);
	}
}

static void print_histogram(FILE *out, const struct status_client *client)
{
	const char *name = "client_fault_duration_seconds";
	const struct hist *hist = &client->latency;
	uint64_t below = 0, total = 0;
	unsigned bucket = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		total += hist->bucket[i];
	for (unsigned power = LE_FIRST; power <= LE_LAST; power++) {
		while (bucket < hist_bucket((uint64_t)1 << power))
			below += hist->bucket[bucket++];
		begin_of_client(out, "client_fault_duration_seconds_bucket", client);
		fputs(",le=\"", out);
		print_seconds(out, (uint64_t)1 << power);
		fprintf(out, "\"} %" PRIu64 "\n", below);
	}
	begin_of_client(out, "client_fault_duration_seconds_bucket", client);
	fprintf(out, ",le=\"+Inf\"} %" PRIu64 "\nuserfault_%s_sum{client=\"%" PRIu64 "\",", total, name, client->id);
	print_label(out, "name", client->name);
	fputs("} ", out);
	print_seconds(out, hist->sum);
	putc('\n', out);
	/* The sum of the buckets and not hist->count: a snapshot may have been taken between the two. */
	begin_of_client(out, "client_fault_duration_seconds_count", client);
	fprintf(out, "} %" PRIu64 "\n", total);
}

static void print_of_each(FILE *out, const struct status *status, const char *name, const char *type, const char *help,
                          void (*print)(FILE *, const struct status_client *))
{
	print_head(out, name, type, help);
	for (size_t i = 0; i < status->client_count; i++)
		print(out, &status->clients[i]);
}

static void print_clients(FILE *out, const struct status *status)
{
#define METRIC(name, type, help, member)                                       \
	{                                                                      \
		name, type, help, offsetof(struct status_client, member), WIDE \
	}
	static const struct metric metrics[] = {
		{"client_regions", "gauge", "Regions of memory that are served.",
	         offsetof(struct status_client, regions), NARROW},
		METRIC("client_managed_bytes", "gauge", "Memory that is served.", managed),
		METRIC("client_resident_bytes", "gauge", "Of it, what is in memory.", resident),
		METRIC("client_prefetched_bytes_total", "counter", "Bytes brought before they were touched.",
	               prefetched),
		METRIC("client_poisoned_bytes", "gauge", "Memory that could not be had and is SIGBUS.", poisoned),
		METRIC("client_faults_total", "counter", "Faults taken.", faults),
		METRIC("client_outstanding_faults", "gauge", "Faults neither resolved nor poisoned.", outstanding),
		METRIC("client_refaults_total", "counter", "Faults on pages that had been evicted.", refaults),
		METRIC("client_waits_total", "counter", "Faults parked for a layout event, or for room.", waits),
	};
#undef METRIC

	print_of_each(out, status, "client_info", "gauge", "1; what is known of the client are labels.", print_info);
	for (size_t i = 0; i < COUNT(metrics); i++) {
		print_head(out, metrics[i].name, metrics[i].type, metrics[i].help);
		for (size_t j = 0; j < status->client_count; j++) {
			begin_of_client(out, metrics[i].name, &status->clients[j]);
			fprintf(out, "} %" PRIu64 "\n", metric_value(&metrics[i], &status->clients[j]));
		}
	}
	print_of_each(out, status, "client_resolved_faults_total", "counter",
	              "Faults resolved, by where the page came from.", print_resolved);
	print_of_each(out, status, "client_events_total", "counter", "Layout events, by kind.", print_events);
	print_of_each(out, status, "client_fault_duration_seconds", "histogram",
	              "From the fault's being read until the page is there.", print_histogram);
}

char *status_prometheus(const struct status *status)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int failed;

	if (!out)
		return NULL;
	print_manager(out, status);
	print_stores(out, status);
	print_clients(out, status);
	failed = ferror(out);
	if (!fclose(out) && !failed)
		return text;
	free(text);
	return NULL;
}
