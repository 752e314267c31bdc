// SPDX-License-Identifier: MIT
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "chart.h"

enum { BINS = 240, ROWS = 112 };

/* Each returns 0 or -ENOMEM. */

static void set_phases(struct report_phase phases[PHASES], const struct summary *summary)
{
	for (int i = 0; i < PHASES; i++)
		phases[i] = (struct report_phase){summary->phases[i].name, summary->phases[i].from,
		                                  summary->phases[i].to};
}

static struct hist *fill_bins(const struct measured *measured, double from, double step)
{
	struct hist *bins = calloc(BINS, sizeof(*bins));

	for (size_t i = 0; bins && i < measured->request_count; i++) {
		double bin = ((double)measured->requests[i].answered * 1e-9 - from) / step;

		if (bin >= 0 && bin < BINS)
			hist_add(&bins[(size_t)bin], measured->requests[i].took);
	}
	return bins;
}

int chart_latency(struct report *report, const struct summary *summary, const struct measured *measured,
                  const char *title, const char *text, double from, double to)
{
	double step, p50[BINS], p99[BINS], slowest[BINS];
	struct report_phase phases[PHASES];
	struct hist *bins;

	from = from > 0 ? from : 0;
	to = to < summary->phases[AFTER].to ? to : summary->phases[AFTER].to;
	step = (to - from) / BINS;
	bins = fill_bins(measured, from, step);
	if (!bins)
		return -ENOMEM;
	for (int i = 0; i < BINS; i++) {
		p50[i] = bins[i].count ? (double)hist_quantile(&bins[i], 0.5) * 1e-9 : NAN;
		p99[i] = bins[i].count ? (double)hist_quantile(&bins[i], 0.99) * 1e-9 : NAN;
		slowest[i] = bins[i].count ? (double)bins[i].max * 1e-9 : NAN;
	}
	free(bins);
	set_phases(phases, summary);
	report_timeline(report, &(struct report_timeline){
					.title = title,
					.text = text,
					.unit = REPORT_SECONDS,
					.log = true,
					.start = from,
					.step = step,
					.count = BINS,
					.series = (struct report_series[]){{"p50", p50, false},
	                                                                   {"p99", p99, false},
	                                                                   {"slowest", slowest, false}},
					.series_count = 3,
					.phases = phases,
					.phase_count = PHASES,
				});
	return 0;
}

int chart_rate(struct report *report, const struct summary *summary, const struct measured *measured)
{
	double step = summary->phases[AFTER].to / BINS, rate[BINS];
	struct hist *bins = fill_bins(measured, 0, step);
	struct report_phase phases[PHASES];

	if (!bins)
		return -ENOMEM;
	for (int i = 0; i < BINS; i++)
		rate[i] = (double)bins[i].count / step;
	free(bins);
	set_phases(phases, summary);
	report_timeline(report, &(struct report_timeline){
					.title = "Requests a second",
					.unit = REPORT_RATE,
					.step = step,
					.count = BINS,
					.series = (struct report_series[]){{"answered", rate, true}},
					.series_count = 1,
					.phases = phases,
					.phase_count = PHASES,
				});
	return 0;
}

/*
 * Faults.
 */

/* Clients begin at different moments: their clocks are brought together by the time of day. */
struct span {
	uint64_t start;  /* ns since 1970 */
	double duration; /* seconds */
	uint64_t size;   /* of the store */
};

static struct span find_span(const struct recordings *recordings)
{
	struct span span = {.start = UINT64_MAX};
	uint64_t end = 0;

	for (size_t i = 0; i < recordings->count; i++) {
		const struct recording_data *data = &recordings->list[i];

		span.start = data->about.started < span.start ? data->about.started : span.start;
		span.size = data->about.store_size > span.size ? data->about.store_size : span.size;
		for (size_t j = 0; j < data->count; j++) {
			uint64_t at = data->about.started + data->events[j].time + data->events[j].latency;

			end = at > end ? at : end;
		}
	}
	span.duration = end > span.start ? (double)(end - span.start) * 1e-9 : 0;
	return span;
}

struct map {
	struct report_row rows[ROWS];
	double faults[ROWS * BINS], slowest[ROWS * BINS];
};

static void place(struct map *map, const struct span *span, const struct recording_data *data,
                  const struct recording_event *event)
{
	double time = (double)(data->about.started - span->start + event->time) * 1e-9,
	       latency = (double)event->latency * 1e-9;
	size_t column = (size_t)(time / span->duration * BINS),
	       row = (size_t)((double)event->offset / (double)span->size * ROWS), cell;

	if (event->offset >= span->size || column >= BINS || row >= ROWS)
		return;
	cell = row * BINS + column;
	map->faults[cell]++;
	map->slowest[cell] = latency > map->slowest[cell] ? latency : map->slowest[cell];
}

static void fill_map(struct map *map, const struct span *span, const struct recordings *recordings)
{
	for (unsigned i = 0; i < ROWS; i++) {
		uint64_t from = span->size / ROWS * i, to = i + 1 < ROWS ? span->size / ROWS * (i + 1) : span->size;

		map->rows[i] = (struct report_row){.from = from, .to = to, .offset = from, .region = 1};
	}
	for (size_t i = 0; i < recordings->count; i++) {
		const struct recording_data *data = &recordings->list[i];

		for (size_t j = 0; j < data->count; j++)
			if (data->events[j].kind == RECORDING_READ || data->events[j].kind == RECORDING_WRITE)
				place(map, span, data, &data->events[j]);
	}
}

int chart_faults(struct report *report, const struct measured *measured, const char *folder, const char *title,
                 const char *text)
{
	struct map *map = calloc(1, sizeof(*map));
	struct recordings recordings;
	struct span span;
	int err = recordings_read(&recordings, measured, folder);

	if (!err && !map)
		err = -ENOMEM;
	span = find_span(&recordings);
	if (!err && span.duration > 0 && span.size >= ROWS) {
		fill_map(map, &span, &recordings);
		report_heatmap(report, &(struct report_heatmap){
					       .title = title,
					       .text = text,
					       .duration = span.duration,
					       .columns = BINS,
					       .row_count = ROWS,
					       .rows = map->rows,
					       .layers = (struct report_layer[]){{"faults", REPORT_COUNT, map->faults},
		                                                                 {"slowest fault", REPORT_SECONDS,
		                                                                  map->slowest}},
					       .layer_count = 2,
				       });
	}
	recordings_free(&recordings);
	free(map);
	return err;
}
