// SPDX-License-Identifier: MIT
/* page FILE - a page with every part that a page can have: the latency of a service before, while and after it moves to another machine */
#include <math.h>
#include <stdio.h>

#include "report/page.h"

#define BINS 300

static const struct report_phase phases[] = {
	{"before", 0, 8}, {"precopy", 8, 14.2}, {"stopped", 14.2, 14.26}, {"postcopy", 14.26, 19}, {"after", 19, 30},
};

static double p50[BINS], p99[BINS], requests[BINS];

/* Requests a second, and how long they took, in seconds; while the service is stopped there are none. */
static void fill(void)
{
	for (int i = 0; i < BINS; i++) {
		double at = i * 0.1, noise = 1 + 0.1 * sin(i * 1.7) + 0.06 * sin(i * 0.31), slow = 1, tail = 3;

		if (at >= 8 && at < 14.2)
			slow = 1.25;
		if (at >= 14.2 && at < 19) {
			slow = 1 + 1.5 * exp(-(at - 14.2) * 1.2);
			tail = 3 + 60 * exp(-(at - 14.2));
		}
		p50[i] = 120e-6 * slow * noise;
		p99[i] = p50[i] * tail;
		requests[i] = 46000 / slow * noise;
	}
	p50[142] = NAN;
	p99[142] = NAN;
	requests[142] = 0;
}

static void cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	static const char *const cells[][4] = {
		{"before", "8.0 s", "121 \xc2\xb5s", "364 \xc2\xb5s"},
		{"precopy", "6.2 s", "151 \xc2\xb5s", "453 \xc2\xb5s"},
		{"stopped", "60 ms", "", ""},
		{"postcopy", "4.7 s", "139 \xc2\xb5s", "19 ms"},
		{"after <&>", "11 s", "119 \xc2\xb5s", "359 \xc2\xb5s"},
	};

	(void)arg;
	snprintf(text, size, "%s", cells[row][column]);
}

static void heat(struct report *report)
{
	static const struct report_row rows[] = {
		{0x1000, 0x2000, 0, 1}, {0x2000, 0x3000, 0x1000, 1}, {0x9000, 0xa000, UINT64_MAX, 2}};
	static const double faults[3 * 4] = {1, 2, 0, 100, 0, 0, 5, 0, 0, 0, 0, 1},
				       slowest[3 * 4] = {1e-6, 1e-3, 0, 2, 0, 0, 1e-5};

	report_heatmap(report, &(struct report_heatmap){
				       .title = "A small map",
				       .duration = 4,
				       .columns = 4,
				       .row_count = 3,
				       .rows = rows,
				       .layers = (struct report_layer[]){{"faults", REPORT_COUNT, faults},
	                                                                 {"slowest", REPORT_SECONDS, slowest}},
				       .layer_count = 2,
			       });
}

static void charts(struct report *report)
{
	struct report_timeline timeline = {
		.title = "Latency of requests",
		.text = "As the clients saw it.",
		.unit = REPORT_SECONDS,
		.log = true,
		.step = 0.1,
		.count = BINS,
		.series = (struct report_series[]){{"p50", p50, false}, {"p99", p99, false}},
		.series_count = 2,
		.phases = phases,
		.phase_count = 5,
	};
	static struct hist hist;

	report_timeline(report, &timeline);
	timeline.title = "Requests a second";
	timeline.unit = REPORT_RATE;
	timeline.log = false;
	timeline.series = (struct report_series[]){{"requests", requests, true}};
	timeline.series_count = 1;
	timeline.marks = (struct report_mark[]){{14.2, "stopped </script>"}, {14.26, "goes on"}};
	timeline.mark_count = 2;
	timeline.mark_name = "the stop";
	report_timeline(report, &timeline);
	for (int i = 0; i < 5000; i++)
		hist_add(&hist, 20000 + (uint64_t)(i % 71 * (i % 53)) * 90);
	report_histogram(report, &(struct report_histogram){
					 .title = "How long requests took", .things = "requests", .hist = &hist});
	heat(report);
}

int main(int argc, char **argv)
{
	static const struct report_column columns[] = {
		{"Phase", false}, {"Length", true}, {"p50", true}, {"p99", true}};
	FILE *file = argc == 2 ? fopen(argv[1], "we") : NULL;
	struct report *report;
	int failed;

	if (!file || report_begin(&report, file, "A service moves </title>", "Everything in one page."))
		return 1;
	fill();
	report_heading(report, "The move", "Memory followed after the stop.");
	report_numbers(report,
	               (struct report_number[]){{"Pause", "60 ms", "nobody was answered"},
	                                        {"Moved", "1.20 GiB", NULL},
	                                        {"Lost", "0", "requests"},
	                                        {"p99 while it moved", "19 ms", "364 \xc2\xb5s before"}},
	               4);
	charts(report);
	report_table(report,
	             &(struct report_table){
			     .title = "Phases", .columns = columns, .column_count = 4, .row_count = 5, .cell = cell});
	report_text(report, "Made up.");
	failed = report_end(report) != 0;
	return fclose(file) || failed;
}
