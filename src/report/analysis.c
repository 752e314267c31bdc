// SPDX-License-Identifier: MIT
/* Counting what is over time, and altogether. What is over addresses is extents.c. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "report/analysis.h"
#include "report/extents.h"

#define NS_SHORTEST 1000000u

const char *analysis_kind_name(unsigned kind)
{
	static const char *const names[ANALYSIS_KINDS] = {
		[RECORDING_READ] = "read",      [RECORDING_WRITE] = "write",    [RECORDING_PREFETCH] = "brought ahead",
		[RECORDING_MAP] = "mapped",     [RECORDING_REMOVE] = "removed", [RECORDING_REMAP] = "moved",
		[RECORDING_UNMAP] = "unmapped", [RECORDING_FORK] = "forked",    [RECORDING_POISON] = "poisoned",
		[RECORDING_END] = "end",
	};

	return kind && kind < ANALYSIS_KINDS ? names[kind] : "unknown";
}

const char *analysis_source_name(unsigned source)
{
	static const char *const names[ANALYSIS_SOURCES] = {
		[RECORDING_UNKNOWN] = "not told",
		[RECORDING_CACHE] = "cache",
		[RECORDING_STORE] = "store",
		[RECORDING_ZERO] = "zeros",
		[RECORDING_PREFETCHED] = "was on its way",
	};

	return source < ANALYSIS_SOURCES ? names[source] : "unknown";
}

static bool is_fault(const struct recording_event *event)
{
	return event->kind == RECORDING_READ || event->kind == RECORDING_WRITE;
}

static uint64_t end_of(const struct recording_event *event)
{
	return event->latency > UINT64_MAX - event->time ? UINT64_MAX : event->time + event->latency;
}

static void find_duration(struct analysis *analysis)
{
	uint64_t last = NS_SHORTEST;

	for (size_t i = 0; i < analysis->data->count; i++)
		if (end_of(&analysis->data->events[i]) > last)
			last = end_of(&analysis->data->events[i]);
	analysis->span = last;
	analysis->duration = (double)last * 1e-9;
}

size_t analysis_bin(const struct analysis *analysis, uint64_t ns)
{
	double bin = (double)ns * 1e-9 / analysis->duration * ANALYSIS_BINS;

	return bin < ANALYSIS_BINS ? (size_t)bin : ANALYSIS_BINS - 1;
}

/* Keeps the slowest in order, the slowest first. */
static void remember_slow(struct analysis *analysis, const struct recording_event *event)
{
	size_t at = analysis->slowest_count;

	if (at == ANALYSIS_SLOWEST && event->latency <= analysis->slowest[at - 1]->latency)
		return;
	if (at < ANALYSIS_SLOWEST)
		analysis->slowest_count++;
	else
		at--;
	for (; at && analysis->slowest[at - 1]->latency < event->latency; at--)
		analysis->slowest[at] = analysis->slowest[at - 1];
	analysis->slowest[at] = event;
}

static void count_fault(struct analysis *analysis, const struct recording_event *event, struct hist *bins)
{
	unsigned source = event->source < ANALYSIS_SOURCES ? event->source : RECORDING_UNKNOWN;
	size_t bin = analysis_bin(analysis, event->time);

	analysis->faults++;
	analysis->demand += event->length;
	analysis->bytes_by_source[source] += event->length;
	hist_add(&analysis->latency, event->latency);
	hist_add(&analysis->by_source[source], event->latency);
	hist_add(&bins[bin], event->latency);
	analysis->demand_rate[bin] += (double)event->length;
	remember_slow(analysis, event);
}

static void count_events(struct analysis *analysis, struct hist *bins)
{
	for (size_t i = 0; i < analysis->data->count; i++) {
		const struct recording_event *event = &analysis->data->events[i];

		analysis->counts[event->kind < ANALYSIS_KINDS ? event->kind : 0]++;
		if (is_fault(event)) {
			count_fault(analysis, event, bins);
		} else if (event->kind == RECORDING_PREFETCH) {
			analysis->ahead += event->length;
			analysis->ahead_rate[analysis_bin(analysis, event->time)] += (double)event->length;
		} else if (event->kind == RECORDING_POISON) {
			analysis->poisoned += event->length;
		}
	}
}

static void finish_bins(struct analysis *analysis, const struct hist *bins)
{
	double width = analysis->duration / ANALYSIS_BINS;

	for (size_t i = 0; i < ANALYSIS_BINS; i++) {
		bool any = bins[i].count;

		analysis->fault_rate[i] = (double)bins[i].count / width;
		analysis->demand_rate[i] /= width;
		analysis->ahead_rate[i] /= width;
		analysis->p50[i] = any ? (double)hist_quantile(&bins[i], 0.5) * 1e-9 : NAN;
		analysis->p99[i] = any ? (double)hist_quantile(&bins[i], 0.99) * 1e-9 : NAN;
		analysis->max[i] = any ? (double)bins[i].max * 1e-9 : NAN;
	}
}

int analysis_make(struct analysis *analysis, const struct recording_data *data)
{
	struct hist *bins = calloc(ANALYSIS_BINS, sizeof(*bins));
	int err = bins ? 0 : -ENOMEM;

	*analysis = (struct analysis){.data = data};
	if (!err) {
		find_duration(analysis);
		count_events(analysis, bins);
		finish_bins(analysis, bins);
		err = extents_make(analysis);
	}
	free(bins);
	return err;
}

void analysis_free(struct analysis *analysis)
{
	free(analysis->extents);
	free(analysis->rows);
	for (size_t i = 0; i < LAYER_COUNT; i++)
		free(analysis->layers[i]);
	analysis->extents = NULL;
	analysis->rows = NULL;
}
