// SPDX-License-Identifier: MIT
/* The charts of a page: a frame to draw in, and the data, which page.js reads. */
#include <inttypes.h>

#include "report/page.h"
#include "report/write.h"

static const char *unit_name(enum report_unit unit)
{
	static const char *const names[REPORT_UNITS] = {
		[REPORT_COUNT] = "count",           [REPORT_RATE] = "rate",
		[REPORT_SECONDS] = "seconds",       [REPORT_BYTES] = "bytes",
		[REPORT_BYTES_RATE] = "bytes-rate",
	};

	return names[unit];
}

/* Durations are measured, and no clock is good for more than three digits; counts are exact. */
static int digits_of(enum report_unit unit)
{
	return unit == REPORT_SECONDS ? 4 : 10;
}

static void begin_chart(struct report *report, const char *kind, const char *title, const char *text)
{
	FILE *file = report->file;

	fputs("<figure class=\"chart\"><figcaption>", file);
	write_html(file, title);
	fputs("</figcaption>\n", file);
	write_paragraph(file, "caption", text);
	fprintf(file,
	        "<div class=\"controls\"></div><div class=\"plot\"><canvas class=\"%s\" role=\"img\" aria-label=\"",
	        kind);
	write_html(file, title);
	fprintf(file,
	        "\"></canvas></div><div class=\"legend\"></div>\n<script type=\"application/json\" id=\"chart-%u\">"
	        "{\"kind\":\"%s\"",
	        report->charts++, kind);
}

static void end_chart(struct report *report)
{
	fputs("}</script></figure>\n", report->file);
}

static void write_member(FILE *file, const char *key, double value)
{
	fprintf(file, ",\"%s\":", key);
	write_json_number(file, value, 10);
}

static void write_values(FILE *file, const double *values, size_t count, int digits)
{
	putc('[', file);
	for (size_t i = 0; i < count; i++) {
		if (i)
			putc(',', file);
		write_json_number(file, values[i], digits);
	}
	putc(']', file);
}

/*
 * Timeline.
 */

static void write_series(FILE *file, const struct report_timeline *timeline)
{
	fputs(",\"series\":[", file);
	for (size_t i = 0; i < timeline->series_count; i++) {
		const struct report_series *series = &timeline->series[i];

		fprintf(file, "%s{\"area\":%s,\"name\":", i ? "," : "", series->area ? "true" : "false");
		write_json_text(file, series->name);
		fputs(",\"values\":", file);
		write_values(file, series->values, timeline->count, 5);
		putc('}', file);
	}
	putc(']', file);
}

static void write_phases(FILE *file, const struct report_timeline *timeline)
{
	fputs(",\"phases\":[", file);
	for (size_t i = 0; i < timeline->phase_count; i++) {
		fputs(i ? ",{\"name\":" : "{\"name\":", file);
		write_json_text(file, timeline->phases[i].name);
		write_member(file, "from", timeline->phases[i].from);
		write_member(file, "to", timeline->phases[i].to);
		putc('}', file);
	}
	fputs("],\"marks\":[", file);
	for (size_t i = 0; i < timeline->mark_count; i++) {
		fputs(i ? ",{\"text\":" : "{\"text\":", file);
		write_json_text(file, timeline->marks[i].text);
		write_member(file, "at", timeline->marks[i].at);
		putc('}', file);
	}
	fputs("],\"markName\":", file);
	write_json_text(file, timeline->mark_count ? timeline->mark_name : "");
}

void report_timeline(struct report *report, const struct report_timeline *timeline)
{
	FILE *file = report->file;

	begin_chart(report, "timeline", timeline->title, timeline->text);
	fprintf(file, ",\"unit\":\"%s\",\"log\":%s", unit_name(timeline->unit), timeline->log ? "true" : "false");
	write_member(file, "start", timeline->start);
	write_member(file, "step", timeline->step);
	fprintf(file, ",\"count\":%zu", timeline->count);
	write_series(file, timeline);
	write_phases(file, timeline);
	end_chart(report);
}

/*
 * Histogram.
 */

#define MERGED 2 /* buckets to a bar: 8 bars to each doubling are as many as can be told apart */

void report_histogram(struct report *report, const struct report_histogram *histogram)
{
	static const struct {
		const char *name;
		double share;
	} marks[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}};
	const struct hist *hist = histogram->hist;
	FILE *file = report->file;
	unsigned last = hist_bucket(UINT64_MAX);
	const char *comma = "";

	begin_chart(report, "histogram", histogram->title, histogram->text);
	fprintf(file, ",\"count\":%" PRIu64 ",\"max\":%" PRIu64 ",\"marks\":[", hist->count, hist->max);
	for (size_t i = 0; hist->count && i < sizeof(marks) / sizeof(marks[0]); i++)
		fprintf(file, "%s[\"%s\",%" PRIu64 "]", i ? "," : "", marks[i].name,
		        hist_quantile(hist, marks[i].share));
	fputs("],\"things\":", file);
	write_json_text(file, histogram->things);
	/* From, to, and how many. */
	fputs(",\"bars\":[", file);
	for (unsigned i = 0; i <= last; i += MERGED) {
		uint64_t count = hist->bucket[i] + hist->bucket[i + 1];

		if (!count)
			continue;
		fprintf(file, "%s%" PRIu64 ",%" PRIu64 ",%" PRIu64, comma, hist_start(i),
		        i + MERGED > last ? UINT64_MAX : hist_start(i + MERGED), count);
		comma = ",";
	}
	putc(']', file);
	end_chart(report);
}

/*
 * Heat map.
 */

/* Addresses as text: a number of JavaScript's has 53 bits. */
static void write_rows(FILE *file, const struct report_heatmap *heatmap)
{
	fputs(",\"rows\":[", file);
	for (size_t i = 0; i < heatmap->row_count; i++) {
		const struct report_row *row = &heatmap->rows[i];

		fprintf(file, "%s[\"%" PRIx64 "\",\"%" PRIx64 "\",", i ? "," : "", row->from, row->to);
		if (row->offset == UINT64_MAX)
			fprintf(file, "null,%u]", row->region);
		else
			fprintf(file, "\"%" PRIx64 "\",%u]", row->offset, row->region);
	}
	putc(']', file);
}

static void write_layers(FILE *file, const struct report_heatmap *heatmap)
{
	fputs(",\"layers\":[", file);
	for (size_t i = 0; i < heatmap->layer_count; i++) {
		fprintf(file, "%s{\"unit\":\"%s\",\"name\":", i ? "," : "", unit_name(heatmap->layers[i].unit));
		write_json_text(file, heatmap->layers[i].name);
		putc('}', file);
	}
	putc(']', file);
}

/* Of each cell that has a value: how far it is behind the last one, and the values of the layers. */
static void write_cells(FILE *file, const struct report_heatmap *heatmap)
{
	size_t cells = heatmap->row_count * heatmap->columns, last = 0;
	const char *comma = "";

	fputs(",\"cells\":[", file);
	for (size_t cell = 0; cell < cells; cell++) {
		bool any = false;

		for (size_t i = 0; i < heatmap->layer_count; i++)
			any |= heatmap->layers[i].values[cell] != 0;
		if (!any)
			continue;
		fprintf(file, "%s%zu", comma, cell - last);
		for (size_t i = 0; i < heatmap->layer_count; i++) {
			putc(',', file);
			write_json_number(file, heatmap->layers[i].values[cell], digits_of(heatmap->layers[i].unit));
		}
		comma = ",";
		last = cell;
	}
	putc(']', file);
}

void report_heatmap(struct report *report, const struct report_heatmap *heatmap)
{
	FILE *file = report->file;

	begin_chart(report, "heatmap", heatmap->title, heatmap->text);
	write_member(file, "duration", heatmap->duration);
	fprintf(file, ",\"columns\":%zu", heatmap->columns);
	write_rows(file, heatmap);
	write_layers(file, heatmap);
	write_cells(file, heatmap);
	end_chart(report);
}
