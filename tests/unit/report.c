// SPDX-License-Identifier: MIT
/* What pages are made of: numbers for people, the builder, and what is counted from a recording. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "report/analysis.h"
#include "report/format.h"
#include "report/page.h"
#include "support/test.h"

static void check_text(const char *got, const char *expected)
{
	if (strcmp(got, expected) != 0)
		FAIL("'%s', expected '%s'", got, expected);
}

TEST(numbers_for_people, "Numbers have three digits that count, also where they are rounded up to the next unit.")
{
	char text[FORMAT_SIZE];

	check_text(format_ns(text, 0), "0 ns");
	check_text(format_ns(text, 999), "999 ns");
	check_text(format_ns(text, 1000), "1.00 \xc2\xb5s");
	check_text(format_ns(text, 9996), "10.0 \xc2\xb5s");
	check_text(format_ns(text, 999499), "999 \xc2\xb5s");
	check_text(format_ns(text, 999500), "1.00 ms");
	check_text(format_ns(text, 59990000000), "60.0 s");
	check_text(format_ns(text, 185000000000), "3 min 5 s");
	check_text(format_ns(text, 25320000000000), "7 h 2 min");
	check_text(format_ns(text, UINT64_MAX), "213503 d 23 h");
	check_text(format_bytes(text, 1023), "1023 B");
	check_text(format_bytes(text, 4096), "4.00 KiB");
	check_text(format_bytes(text, (1 << 20) - 1), "1.00 MiB");
	check_text(format_bytes(text, UINT64_MAX), "16.0 EiB");
	check_text(format_count(text, 0), "0");
	check_text(format_count(text, 999), "999");
	check_text(format_count(text, UINT64_MAX), "18,446,744,073,709,551,615");
	check_text(format_short(text, 0), "0");
	check_text(format_short(text, 0.26), "0.3");
	check_text(format_short(text, 7), "7");
	check_text(format_short(text, 999.6), "1.00 k");
	check_text(format_short(text, 1234567), "1.23 M");
}

TEST(shares_do_not_lie, "A share that is more than nothing is not 0 %, and one that is not all is not 100 %.")
{
	char text[FORMAT_SIZE];

	check_text(format_share(text, 0, 0), "0 %");
	check_text(format_share(text, 0, 7), "0 %");
	check_text(format_share(text, 7, 7), "100 %");
	check_text(format_share(text, 1, 1000000000), "<0.01 %");
	check_text(format_share(text, 999999999, 1000000000), ">99.99 %");
	check_text(format_share(text, 997, 1000), "99.70 %");
	check_text(format_share(text, 1, 8), "12 %");
	check_text(format_share(text, 1, 80), "1.2 %");
}

/*
 * The builder.
 */

static void cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	(void)arg;
	snprintf(text, size, "<%zu&%zu>", row, column);
}

static void write_parts(struct report *report)
{
	static const double values[] = {1, NAN, INFINITY};
	static const struct report_column columns[] = {{"<a>", false}, {"b", true}};

	report_heading(report, "<h>", NULL);
	report_numbers(report, (struct report_number[]){{"l\"", "v'", "\xff"}}, 1);
	report_table(report,
	             &(struct report_table){
			     .title = "t", .columns = columns, .column_count = 2, .row_count = 2, .cell = cell});
	report_timeline(report, &(struct report_timeline){
					.title = "c",
					.step = 1,
					.count = 3,
					.series = (struct report_series[]){{"</script>", values, false}},
					.series_count = 1,
				});
}

TEST(text_is_escaped, "Whatever text is passed stays text, in every part of a page; what is no number is null.")
{
	struct report *report;
	char *page;
	size_t size;
	FILE *file = open_memstream(&page, &size);

	CHECK_EQ(report_begin(&report, file, "<title>", "&"), 0);
	write_parts(report);
	CHECK_EQ(report_end(report), 0);
	fclose(file);
	CHECK(strstr(page, "<title>&lt;title&gt;</title>"));
	CHECK(strstr(page, "<p class=\"subtitle\">&amp;</p>"));
	CHECK(strstr(page, "<h2>&lt;h&gt;</h2>"));
	CHECK(strstr(page, "<dt>l&quot;</dt><dd>v&#39;<small>\xef\xbf\xbd</small>"));
	CHECK(strstr(page, "<td>&lt;1&amp;0&gt;</td><td class=\"n\">&lt;1&amp;1&gt;</td>"));
	CHECK(strstr(page, "\"name\":\"\\u003c/script>\",\"values\":[1,null,null]"));
	free(page);
}

TEST(errors_are_kept, "An error of the file at any time is told in the end.")
{
	FILE *file = fopen("/dev/full", "we");
	struct report *report;

	CHECK(file);
	setvbuf(file, NULL, _IOFBF, 64);
	CHECK_EQ(report_begin(&report, file, "t", NULL), 0);
	write_parts(report);
	CHECK(report_end(report) < 0);
	fclose(file);
}

/*
 * Counting.
 */

#define PAGE 4096u

static struct recording_region regions[2000];
static struct recording_event events[4000];
static struct recording_data data = {.about = {.page_size = PAGE, .regions = regions}, .events = events};
static struct analysis analysis;

static void add_fault(uint64_t address)
{
	events[data.count++] = (struct recording_event){
		.time = data.count * 1000, .address = address, .length = PAGE, .latency = 5000, .kind = RECORDING_READ};
}

/* Extents are apart and in order, and rows cover each of them, without a hole and in order. */
static void check_rows(void)
{
	size_t row = 0;

	for (size_t i = 0; i < analysis.extent_count; i++) {
		const struct analysis_extent *extent = &analysis.extents[i];
		uint64_t at = extent->from;

		CHECK(extent->from < extent->to);
		if (i)
			CHECK(extent[-1].to < extent->from);
		CHECK_EQ(extent->row_from, row);
		for (unsigned j = 0; j < extent->row_count; j++, row++) {
			CHECK_EQ(analysis.rows[row].from, at);
			CHECK_EQ(analysis.rows[row].region, i + 1);
			at = analysis.rows[row].to;
		}
		CHECK_EQ(at, extent->to);
	}
	CHECK_EQ(analysis.row_count, row);
	CHECK(row <= ANALYSIS_ROWS + ANALYSIS_EXTENTS);
}

static double sum_of(enum analysis_layer layer)
{
	double sum = 0;

	for (size_t i = 0; i < analysis.row_count * ANALYSIS_BINS; i++)
		sum += analysis.layers[layer][i];
	return sum;
}

TEST(many_regions,
     "Of more regions than can be told apart those near to each other become one, and no fault is missing.")
{
	for (uint64_t i = 0; i < 2000; i++) {
		regions[i] = (struct recording_region){(i + 1) * i << 30, 16 * PAGE, i * 16 * PAGE};
		add_fault(regions[i].address + i % 16 * PAGE + 7);
	}
	data.about.region_count = 2000;
	CHECK_EQ(analysis_make(&analysis, &data), 0);
	CHECK(analysis.extent_count > 1 && analysis.extent_count <= ANALYSIS_EXTENTS);
	check_rows();
	CHECK_EQ(sum_of(LAYER_FAULTS), 2000);
	CHECK_EQ(analysis.pages, 2000);
	analysis_free(&analysis);
}

TEST(faults_without_a_region, "What faults outside of all regions has its place; a page that faults twice is one page.")
{
	regions[0] = (struct recording_region){1 << 30, 1 << 20, 0};
	data.about.region_count = 1;
	add_fault((1 << 30) + PAGE);
	add_fault(UINT64_C(7) << 40);
	add_fault((UINT64_C(7) << 40) + 100);
	add_fault(UINT64_MAX - PAGE);
	add_fault(0);
	CHECK_EQ(analysis_make(&analysis, &data), 0);
	CHECK_EQ(analysis.extent_count, 4);
	check_rows();
	CHECK_EQ(sum_of(LAYER_FAULTS), 5);
	CHECK_EQ(analysis.pages, 4);
	CHECK_EQ(analysis.extents[2].faults, 2);
	CHECK_EQ(analysis.extents[2].pages, 1);
	analysis_free(&analysis);
}

TEST(bytes_are_spread_over_rows, "A run is in each row that it reaches into, with the bytes that are there.")
{
	regions[0] = (struct recording_region){1 << 30, UINT64_C(1) << 30, 0};
	data.about.region_count = 1;
	events[0] = (struct recording_event){
		.kind = RECORDING_PREFETCH, .address = (1 << 30) + PAGE, .length = 100 << 20};
	events[1] = (struct recording_event){.kind = RECORDING_REMOVE, .address = 0, .length = UINT64_MAX};
	data.count = 2;
	CHECK_EQ(analysis_make(&analysis, &data), 0);
	CHECK_EQ(sum_of(LAYER_AHEAD), 100 << 20);
	CHECK_EQ(sum_of(LAYER_GONE), 1 << 30);
	CHECK_EQ(analysis.ahead, 100 << 20);
	analysis_free(&analysis);
}

TEST(the_slowest_are_in_order, "The slowest faults are remembered, the slowest first.")
{
	for (int i = 0; i < 500; i++) {
		add_fault((uint64_t)i << 20);
		events[i].latency = (uint64_t)(i * 7919 % 500) + 1;
	}
	CHECK_EQ(analysis_make(&analysis, &data), 0);
	CHECK_EQ(analysis.slowest_count, ANALYSIS_SLOWEST);
	for (size_t i = 0; i < ANALYSIS_SLOWEST; i++)
		CHECK_EQ(analysis.slowest[i]->latency, 500 - i);
	analysis_free(&analysis);
}
