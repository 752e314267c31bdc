// SPDX-License-Identifier: MIT
/* `userfault report`: recordings of every kind become one page that says what is in them (tests/support/record.c). */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "command.h"
#include "report/recording.h"
#include "support/folder.h"
#include "support/test.h"

#define USERFAULT from_env("USERFAULT")

static char *page;
static size_t page_len;

static const char *record(const char *scene, const char *count)
{
	const char *path = in_folder(scene);

	CHECK_EQ(RUN(from_env("RECORD"), scene, path, count)->status, 0);
	return path;
}

static void read_page(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat info;

	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &info), 0);
	page_len = (size_t)info.st_size;
	page = calloc(1, page_len + 1);
	CHECK(page);
	CHECK_EQ(read(fd, page, page_len), page_len);
	close(fd);
}

static void report_on(const char *recording)
{
	const char *path = in_folder("page");
	const struct result *result = RUN(USERFAULT, "report", recording, "--output", path);

	if (result->status)
		FAIL("%s", result->err);
	CHECK(!result->out[0]);
	read_page(path);
}

/* The data of the i-th chart. */
static json_t *chart(unsigned i)
{
	char start[64], *at, *end;
	json_error_t error;
	json_t *root;

	snprintf(start, sizeof(start), "<script type=\"application/json\" id=\"chart-%u\">", i);
	at = strstr(page, start);
	CHECK(at);
	at += strlen(start);
	end = strstr(at, "</script>");
	CHECK(end);
	root = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
	if (!root)
		FAIL("chart %u: %s at %d: %.60s", i, error.text, error.position, at + error.position - 30);
	return root;
}

enum { HEATMAP, HISTOGRAM, LATENCY, RATES, BYTES, CHARTS };

static double number(json_t *array, size_t i)
{
	return json_number_value(json_array_get(array, i));
}

/* The sum of one layer over all cells. */
static double sum_of_layer(json_t *heatmap, size_t layer)
{
	json_t *cells = json_object_get(heatmap, "cells");
	size_t width = 1 + json_array_size(json_object_get(heatmap, "layers"));
	double sum = 0;

	for (size_t i = 0; i < json_array_size(cells); i += width)
		sum += number(cells, i + 1 + layer);
	return sum;
}

/* What a test looks for can be counted from the recording, without the code that made the page. */
struct counted {
	double faults, demand, ahead, span;
	uint64_t slowest;
};

static struct counted count(const char *path)
{
	struct counted counted = {.span = 1e-3};
	struct recording_data data;

	CHECK_EQ(recording_read(&data, path), 0);
	for (size_t i = 0; i < data.count; i++) {
		const struct recording_event *event = &data.events[i];
		bool fault = event->kind == RECORDING_READ || event->kind == RECORDING_WRITE;
		double end = (double)(event->time + event->latency) * 1e-9;

		counted.faults += fault;
		counted.demand += fault ? (double)event->length : 0;
		counted.ahead += event->kind == RECORDING_PREFETCH ? (double)event->length : 0;
		counted.span = end > counted.span ? end : counted.span;
		if (fault && event->latency > counted.slowest)
			counted.slowest = event->latency;
	}
	recording_free(&data);
	return counted;
}

static void check_near(double got, double expected)
{
	if (!(got >= expected * 0.9999 && got <= expected * 1.0001))
		FAIL("%.10g is not %.10g", got, expected);
}

static void check_integral(json_t *timeline, size_t series, double expected)
{
	json_t *values = json_object_get(json_array_get(json_object_get(timeline, "series"), series), "values");
	double sum = 0;

	for (size_t i = 0; i < json_array_size(values); i++)
		sum += number(values, i) * json_number_value(json_object_get(timeline, "step"));
	check_near(sum, expected);
}

static void check_charts(const struct counted *counted)
{
	json_t *bars, *histogram;
	double sum = 0;

	/* Every fault is in the heat map, the histogram and the rates. */
	check_near(sum_of_layer(chart(HEATMAP), 0), counted->faults);
	check_near(json_number_value(json_object_get(chart(HEATMAP), "duration")), counted->span);
	histogram = chart(HISTOGRAM);
	bars = json_object_get(histogram, "bars");
	for (size_t i = 0; i < json_array_size(bars); i += 3)
		sum += number(bars, i + 2);
	check_near(sum, counted->faults);
	check_near(json_number_value(json_object_get(histogram, "max")), (double)counted->slowest);
	check_integral(chart(RATES), 0, counted->faults);
	check_integral(chart(BYTES), 0, counted->demand);
	check_integral(chart(BYTES), 1, counted->ahead);
}

TEST(every_fault_is_on_the_page, "What the charts show adds up to what is in the recording.")
{
	const char *recording = record("service", "100000");
	struct counted counted = count(recording);

	report_on(recording);
	CHECK(strstr(page, "<dt>Faults</dt><dd>100,000<small>"));
	check_charts(&counted);
	CHECK_EQ(json_array_size(json_object_get(chart(HEATMAP), "layers")), 4);
}

TEST(two_million_faults, "A page about two million faults is below 3 MB, and nothing is missing on it.")
{
	const char *recording = record("service", "2000000");
	struct counted counted = count(recording);

	report_on(recording);
	CHECK(page_len < 3000000);
	CHECK(strstr(page, "<dt>Faults</dt><dd>2,000,000<small>"));
	check_charts(&counted);
}

TEST(one_fault, "A recording of one fault is a page.")
{
	const char *recording = record("one", NULL);
	struct counted counted = count(recording);

	report_on(recording);
	CHECK(strstr(page, "<dt>Faults</dt><dd>1<small>"));
	check_charts(&counted);
}

TEST(no_fault, "A recording without any event is a page, on which latencies are not 0 but none.")
{
	report_on(record("empty", NULL));
	CHECK(strstr(page, "<dt>Faults</dt><dd>0<small>"));
	CHECK(strstr(page, "<dt>Latency, p50</dt><dd>none<small>"));
	for (unsigned i = 0; i < CHARTS; i++)
		chart(i);
}

TEST(names_stay_text, "Names that look like HTML, or are no text, stay text; the data cannot end its element.")
{
	report_on(record("strange", NULL));
	CHECK(strstr(
		page,
		"&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;lt;\xef\xbf\xbd\xef\xbf\xbd&quot;&#39;\\"));
	CHECK(strstr(page, "&lt;img src=x onerror=alert(2)&gt;"));
	CHECK(!strstr(page, "<script>alert") && !strstr(page, "<img"));
	for (unsigned i = 0; i < CHARTS; i++)
		chart(i);
}

TEST(the_page_needs_nothing_else, "The page loads nothing, and forbids itself to.")
{
	report_on(record("service", "1000"));
	CHECK(strstr(page, "content=\"default-src 'none';"));
	CHECK(!strstr(page, " src=") && !strstr(page, "@import") && !strstr(page, "url(") && !strstr(page, "<link"));
	CHECK(!strstr(page, "http://"));
	/* But for where it is said what the page is. */
	CHECK(!strstr(page, "https://"));
}

TEST(several_recordings, "Several recordings are compared on one page, and each has its part.")
{
	const char *first = record("service", "1000"), *second = record("one", NULL), *path = in_folder("page");
	unsigned parts = 0;

	CHECK_EQ(RUN(USERFAULT, "report", "-o", path, first, second)->status, 0);
	read_page(path);
	CHECK(strstr(page, "<figcaption>All recordings</figcaption>"));
	for (const char *at = page; (at = strstr(at, "<h2>")); at++)
		parts++;
	CHECK_EQ(parts, 2);
	chart(2 * CHARTS - 1);
}

TEST(cut_recordings, "A recording whose writer was killed is a page that says so.")
{
	const char *recording = record("service", "1000");
	struct stat info;

	CHECK_EQ(stat(recording, &info), 0);
	CHECK_EQ(truncate(recording, info.st_size - 100), 0);
	report_on(recording);
	CHECK(strstr(page, "was not ended in order"));
	report_on(record("service", "1000"));
	CHECK(!strstr(page, "was not ended in order"));
}

TEST(to_the_standard_output, "Without --output the page goes to the standard output, if that is no terminal.")
{
	const struct result *result = RUN(USERFAULT, "report", record("one", NULL));

	CHECK_EQ(result->status, 0);
	CHECK(!strncmp(result->out, "<!DOCTYPE html>", 15));
	result = RUN_TO("/dev/full", USERFAULT, "report", record("one", NULL));
	CHECK_EQ(result->status, 1);
	CHECK(strstr(result->err, "cannot write to the standard output"));
}

static void check_failure(const struct result *result, int status, const char *part)
{
	CHECK_EQ(result->status, status);
	CHECK(!result->out[0]);
	if (!strstr(result->err, part))
		FAIL("'%s' has no '%s'", result->err, part);
}

TEST(what_cannot_be_read_or_written,
     "Files that are none, and places where no page can be, are named; a page that was there stays.")
{
	const char *one = record("one", NULL), *path = in_folder("page");

	check_failure(RUN(USERFAULT, "report"), 2, "no recording given");
	check_failure(RUN(USERFAULT, "report", "--outpt", "x", one), 2, "unknown option");
	check_failure(RUN(USERFAULT, "report", "/nowhere"), 1, "/nowhere: No such file");
	check_failure(RUN(USERFAULT, "report", "/dev/null"), 1, "/dev/null: not a recording");
	check_failure(RUN(USERFAULT, "report", one, "-o", "/nowhere/page"), 1,
	              "cannot write /nowhere/page: No such file");
	CHECK_EQ(RUN(USERFAULT, "report", one, "-o", path)->status, 0);
	check_failure(RUN(USERFAULT, "report", "/dev/null", "-o", path), 1, "not a recording");
	read_page(path);
	CHECK(page_len > 10000);
}
