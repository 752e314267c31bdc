// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "report/analysis.h"
#include "report/format.h"
#include "report/page.h"
#include "report/recordings.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Of layout events so many are listed, and so many are marked on the time axis. */
#define LISTED 100
#define MARKED 120

/* A latency, of which there is none where nothing was measured. */
static char *tell_quantile(char text[FORMAT_SIZE], const struct hist *hist, double share)
{
	if (!hist->count)
		strcpy(text, "none");
	else
		format_ns(text, hist_quantile(hist, share));
	return text;
}

static const char *called(const struct recording_data *data, const char *name)
{
	return data->about.name[0] ? data->about.name : name;
}

/*
 * Several at a glance.
 */

struct overview {
	const struct analysis *analyses;
	const char *const *names;
};

static const struct report_column overview_columns[] = {
	{"Recording", false}, {"Duration", true}, {"Faults", true},        {"Pages", true},    {"p50", true},
	{"p99", true},        {"Slowest", true},  {"Brought ahead", true}, {"Poisoned", true},
};

static void overview_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct overview *overview = arg;
	const struct analysis *analysis = &overview->analyses[row];

	switch (column) {
	case 0:
		snprintf(text, size, "%s", called(analysis->data, overview->names[row]));
		break;
	case 1:
		format_ns(text, analysis->span);
		break;
	case 2:
		format_count(text, analysis->faults);
		break;
	case 3:
		format_count(text, analysis->pages);
		break;
	case 4:
		tell_quantile(text, &analysis->latency, 0.5);
		break;
	case 5:
		tell_quantile(text, &analysis->latency, 0.99);
		break;
	case 6:
		tell_quantile(text, &analysis->latency, 1);
		break;
	case 7:
		format_share(text, analysis->ahead, analysis->ahead + analysis->demand);
		break;
	default:
		format_bytes(text, analysis->poisoned);
	}
}

static void write_overview(struct report *report, const struct analysis *analyses, const char *const *names,
                           size_t count)
{
	struct overview overview = {analyses, names};

	report_table(report, &(struct report_table){
				     .title = "All recordings",
				     .columns = overview_columns,
				     .column_count = COUNT(overview_columns),
				     .row_count = count,
				     .cell = overview_cell,
				     .arg = &overview,
			     });
}

/*
 * The parts about one.
 */

static void write_title(struct report *report, const struct analysis *analysis, const char *name)
{
	const struct recording_about *about = &analysis->data->about;
	time_t started = (time_t)(about->started / 1000000000u);
	char text[1024], date[64] = "", size[FORMAT_SIZE];
	struct tm parts;

	if (gmtime_r(&started, &parts))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &parts);
	snprintf(text, sizeof(text), "Client %" PRIu64 ", process %d, from %s on; store %s, %s; recorded in %s.%s",
	         about->client, (int)about->pid, date, about->store[0] ? about->store : "not named",
	         format_bytes(size, about->store_size), name,
	         analysis->data->complete
	                 ? ""
	                 : " The recording was not ended in order: of the end some events may be missing.");
	report_heading(report, called(analysis->data, name), text);
}

static void write_numbers(struct report *report, const struct analysis *analysis)
{
	char value[8][FORMAT_SIZE], note[8][64], part[2][FORMAT_SIZE];
	const struct hist *hist = &analysis->latency;

	snprintf(note[0], sizeof(note[0]), "%s reads, %s writes",
	         format_count(part[0], analysis->counts[RECORDING_READ]),
	         format_count(part[1], analysis->counts[RECORDING_WRITE]));
	snprintf(note[1], sizeof(note[1]), "in %s", format_ns(part[0], analysis->span));
	snprintf(note[2], sizeof(note[2]), "%s touched first with a fault",
	         format_bytes(part[0], analysis->pages * analysis->data->about.page_size));
	snprintf(note[3], sizeof(note[3]), "p90 %s", tell_quantile(part[0], hist, 0.9));
	snprintf(note[4], sizeof(note[4]), "slowest %s", tell_quantile(part[0], hist, 1));
	snprintf(note[5], sizeof(note[5]), "all threads together");
	snprintf(note[6], sizeof(note[6]), "%s, and %s for faults", format_bytes(part[0], analysis->ahead),
	         format_bytes(part[1], analysis->demand));
	snprintf(note[7], sizeof(note[7]), "%s",
	         analysis->poisoned ? "could not be had: SIGBUS" : "every page could be had");
	format_short(value[1], (double)analysis->faults / analysis->duration);
	report_numbers(report,
	               (struct report_number[]){
			       {"Faults", format_count(value[0], analysis->faults), note[0]},
			       {"Faults a second", value[1], note[1]},
			       {"Pages", format_count(value[2], analysis->pages), note[2]},
			       {"Latency, p50", tell_quantile(value[3], hist, 0.5), note[3]},
			       {"Latency, p99", tell_quantile(value[4], hist, 0.99), note[4]},
			       {"Time spent waiting", format_ns(value[5], hist->sum), note[5]},
			       {"Brought ahead",
	                        format_share(value[6], analysis->ahead, analysis->ahead + analysis->demand), note[6]},
			       {"Poisoned", format_bytes(value[7], analysis->poisoned), note[7]},
		       },
	               8);
}

static void write_heatmap(struct report *report, const struct analysis *analysis)
{
	const struct report_layer layers[] = {
		{"faults", REPORT_COUNT, analysis->layers[LAYER_FAULTS]},
		{"slowest fault", REPORT_SECONDS, analysis->layers[LAYER_SLOWEST]},
		{"brought ahead", REPORT_BYTES, analysis->layers[LAYER_AHEAD]},
		{"removed, moved or unmapped", REPORT_BYTES, analysis->layers[LAYER_GONE]},
	};

	report_heatmap(report,
	               &(struct report_heatmap){
			       .title = "Where and when",
			       .text = "Addresses upwards, time to the right. What lies between regions is left out.",
			       .duration = analysis->duration,
			       .columns = ANALYSIS_BINS,
			       .row_count = analysis->row_count,
			       .rows = analysis->rows,
			       .layers = layers,
			       .layer_count = COUNT(layers),
		       });
}

/*
 * Layout events.
 */

static bool is_layout(const struct recording_event *event)
{
	return event->kind == RECORDING_MAP || event->kind == RECORDING_REMOVE || event->kind == RECORDING_REMAP ||
	       event->kind == RECORDING_UNMAP || event->kind == RECORDING_FORK || event->kind == RECORDING_POISON;
}

static size_t count_layout(const struct analysis *analysis)
{
	size_t count = 0;

	for (unsigned kind = RECORDING_MAP; kind <= RECORDING_POISON; kind++)
		count += analysis->counts[kind];
	return count;
}

static void tell_event(const struct recording_event *event, char *text, size_t size)
{
	char bytes[FORMAT_SIZE];

	if (event->kind == RECORDING_FORK && event->offset == RECORDING_NOWHERE)
		snprintf(text, size, "forked: the child is not served");
	else if (event->kind == RECORDING_FORK)
		snprintf(text, size, "forked: client %" PRIu64, event->offset);
	else
		snprintf(text, size, "%s: %s at 0x%" PRIx64, analysis_kind_name(event->kind),
		         format_bytes(bytes, event->length), event->address);
}

struct marks {
	struct report_mark items[MARKED];
	char texts[MARKED][96];
	size_t count;
};

/* When there are more than can be told apart, the same share of each part of the time. */
static void find_marks(const struct analysis *analysis, struct marks *marks)
{
	size_t every = count_layout(analysis) / MARKED + 1, seen = 0;

	marks->count = 0;
	for (size_t i = 0; i < analysis->data->count && marks->count < MARKED; i++) {
		const struct recording_event *event = &analysis->data->events[i];

		if (!is_layout(event) || seen++ % every)
			continue;
		tell_event(event, marks->texts[marks->count], sizeof(marks->texts[0]));
		marks->items[marks->count] = (struct report_mark){(double)event->time * 1e-9,
		                                                  marks->texts[marks->count]};
		marks->count++;
	}
}

struct layout {
	const struct recording_event *events[LISTED];
	size_t count;
};

static const struct report_column layout_columns[] = {
	{"Time", true}, {"Event", false}, {"Address", false}, {"Length", true}, {"", false},
};

static void layout_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct recording_event *event = ((const struct layout *)arg)->events[row];

	if (column == 0)
		format_ns(text, event->time);
	else if (column == 1)
		snprintf(text, size, "%s", analysis_kind_name(event->kind));
	else if (column == 2 && event->kind != RECORDING_FORK)
		snprintf(text, size, "0x%" PRIx64, event->address);
	else if (column == 3 && event->kind != RECORDING_FORK)
		format_bytes(text, event->length);
	else if (column == 4 && event->kind == RECORDING_REMAP)
		snprintf(text, size, "to 0x%" PRIx64, event->offset);
	else if (column == 4 && event->kind == RECORDING_FORK && event->offset == RECORDING_NOWHERE)
		snprintf(text, size, "the child is not served");
	else if (column == 4 && event->kind == RECORDING_FORK)
		snprintf(text, size, "the child is client %" PRIu64, event->offset);
}

static void write_layout(struct report *report, const struct analysis *analysis)
{
	size_t count = count_layout(analysis);
	struct layout layout = {.count = 0};
	char text[96] = "", all[FORMAT_SIZE];

	if (!count)
		return;
	for (size_t i = 0; i < analysis->data->count && layout.count < LISTED; i++)
		if (is_layout(&analysis->data->events[i]))
			layout.events[layout.count++] = &analysis->data->events[i];
	if (count > LISTED)
		snprintf(text, sizeof(text), "The first %d of %s.", LISTED, format_count(all, count));
	report_table(report, &(struct report_table){
				     .title = "Changes of the layout",
				     .text = text[0] ? text : NULL,
				     .columns = layout_columns,
				     .column_count = COUNT(layout_columns),
				     .row_count = layout.count,
				     .cell = layout_cell,
				     .arg = &layout,
			     });
}

/*
 * Over time.
 */

static struct report_timeline timeline_of(const struct analysis *analysis)
{
	return (struct report_timeline){
		.step = analysis->duration / ANALYSIS_BINS,
		.count = ANALYSIS_BINS,
	};
}

static void write_rates(struct report *report, const struct analysis *analysis)
{
	const struct report_series faults[] = {{"faults a second", analysis->fault_rate, true}};
	const struct report_series bytes[] = {{"for faults", analysis->demand_rate, true},
	                                      {"brought ahead", analysis->ahead_rate, true}};
	struct report_timeline timeline = timeline_of(analysis);
	struct marks marks;

	find_marks(analysis, &marks);
	timeline.title = "Faults over time";
	timeline.unit = REPORT_RATE;
	timeline.series = faults;
	timeline.series_count = 1;
	timeline.marks = marks.items;
	timeline.mark_count = marks.count;
	timeline.mark_name = "layout events";
	report_timeline(report, &timeline);
	timeline.title = "On demand, and ahead of it";
	timeline.text =
		"Bytes that were put in place a second: because somebody waited for them, and before anybody did.";
	timeline.unit = REPORT_BYTES_RATE;
	timeline.series = bytes;
	timeline.series_count = 2;
	timeline.mark_count = 0;
	report_timeline(report, &timeline);
}

static void write_latencies(struct report *report, const struct analysis *analysis)
{
	const struct report_series series[] = {
		{"p50", analysis->p50, false}, {"p99", analysis->p99, false}, {"slowest", analysis->max, false}};
	struct report_timeline timeline = timeline_of(analysis);

	report_histogram(
		report, &(struct report_histogram){
				.title = "How long faults took",
				.text = "From the moment that the manager learned of a fault until its page was there.",
				.things = "faults",
				.hist = &analysis->latency,
			});
	timeline.title = "Latency over time";
	timeline.unit = REPORT_SECONDS;
	timeline.log = true;
	timeline.series = series;
	timeline.series_count = 3;
	report_timeline(report, &timeline);
}

/*
 * Tables.
 */

static const struct report_column source_columns[] = {
	{"Source", false}, {"Faults", true}, {"Share", true},   {"Put in place", true},
	{"p50", true},     {"p99", true},    {"Slowest", true},
};

struct sources {
	const struct analysis *analysis;
	unsigned sources[ANALYSIS_SOURCES];
	size_t count;
};

static void source_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct sources *sources = arg;
	unsigned source = sources->sources[row];
	const struct hist *hist = &sources->analysis->by_source[source];

	switch (column) {
	case 0:
		snprintf(text, size, "%s", analysis_source_name(source));
		break;
	case 1:
		format_count(text, hist->count);
		break;
	case 2:
		format_share(text, hist->count, sources->analysis->faults);
		break;
	case 3:
		format_bytes(text, sources->analysis->bytes_by_source[source]);
		break;
	case 4:
		tell_quantile(text, hist, 0.5);
		break;
	case 5:
		tell_quantile(text, hist, 0.99);
		break;
	default:
		format_ns(text, hist->max);
	}
}

static void write_sources(struct report *report, const struct analysis *analysis)
{
	struct sources sources = {.analysis = analysis};

	for (unsigned i = 0; i < ANALYSIS_SOURCES; i++)
		if (analysis->by_source[i].count)
			sources.sources[sources.count++] = i;
	if (!sources.count)
		return;
	report_table(report, &(struct report_table){
				     .title = "Where the pages came from",
				     .columns = source_columns,
				     .column_count = COUNT(source_columns),
				     .row_count = sources.count,
				     .cell = source_cell,
				     .arg = &sources,
			     });
}

static const struct report_column region_columns[] = {
	{"Region", true}, {"Addresses", false},    {"Size", true},          {"Faults", true},
	{"Pages", true},  {"Of the region", true}, {"Brought ahead", true},
};

static void region_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct analysis *analysis = arg;
	const struct analysis_extent *extent = &analysis->extents[row];

	switch (column) {
	case 0:
		snprintf(text, size, "%zu", row + 1);
		break;
	case 1:
		snprintf(text, size, "0x%" PRIx64 " \xe2\x80\x93 0x%" PRIx64, extent->from, extent->to);
		break;
	case 2:
		format_bytes(text, extent->to - extent->from);
		break;
	case 3:
		format_count(text, extent->faults);
		break;
	case 4:
		format_count(text, extent->pages);
		break;
	case 5:
		format_share(text, extent->pages * analysis->data->about.page_size, extent->to - extent->from);
		break;
	default:
		format_bytes(text, extent->ahead);
	}
}

static void write_regions(struct report *report, struct analysis *analysis)
{
	if (!analysis->extent_count)
		return;
	report_table(
		report,
		&(struct report_table){
			.title = "Regions",
			.text = "Pages are those that faulted at least once. Regions that touch, or nearly, are one.",
			.columns = region_columns,
			.column_count = COUNT(region_columns),
			.row_count = analysis->extent_count,
			.cell = region_cell,
			.arg = analysis,
		});
}

static const struct report_column slow_columns[] = {
	{"Latency", true}, {"Time", true},         {"Access", false}, {"Address", false},
	{"Offset", false}, {"Put in place", true}, {"From", false},   {"Thread", true},
};

static void slow_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct recording_event *event = ((const struct analysis *)arg)->slowest[row];

	switch (column) {
	case 0:
		format_ns(text, event->latency);
		break;
	case 1:
		format_ns(text, event->time);
		break;
	case 2:
		snprintf(text, size, "%s", analysis_kind_name(event->kind));
		break;
	case 3:
		snprintf(text, size, "0x%" PRIx64, event->address);
		break;
	case 4:
		if (event->offset != RECORDING_NOWHERE)
			snprintf(text, size, "0x%" PRIx64, event->offset);
		break;
	case 5:
		format_bytes(text, event->length);
		break;
	case 6:
		snprintf(text, size, "%s", analysis_source_name(event->source));
		break;
	default:
		if (event->thread)
			snprintf(text, size, "%" PRIu32, event->thread);
	}
}

static void write_slowest(struct report *report, struct analysis *analysis)
{
	if (!analysis->slowest_count)
		return;
	report_table(report, &(struct report_table){
				     .title = "The slowest faults",
				     .columns = slow_columns,
				     .column_count = COUNT(slow_columns),
				     .row_count = analysis->slowest_count,
				     .cell = slow_cell,
				     .arg = analysis,
			     });
}

static void write_one(struct report *report, struct analysis *analysis, const char *name)
{
	write_title(report, analysis, name);
	write_numbers(report, analysis);
	write_heatmap(report, analysis);
	write_latencies(report, analysis);
	write_rates(report, analysis);
	write_sources(report, analysis);
	write_slowest(report, analysis);
	write_layout(report, analysis);
	write_regions(report, analysis);
}

int report_recordings(FILE *file, const struct recording_data *data, const char *const *names, size_t count)
{
	struct analysis *analyses = calloc(count + 1, sizeof(*analyses));
	struct report *report;
	int err = analyses ? 0 : -ENOMEM;

	for (size_t i = 0; i < count && !err; i++)
		err = analysis_make(&analyses[i], &data[i]);
	if (!err)
		err = report_begin(&report, file, "Page faults", NULL);
	if (!err) {
		if (count > 1)
			write_overview(report, analyses, names, count);
		for (size_t i = 0; i < count; i++)
			write_one(report, &analyses[i], names[i]);
		err = report_end(report);
	}
	for (size_t i = 0; analyses && i < count; i++)
		analysis_free(&analyses[i]);
	free(analyses);
	return err;
}
