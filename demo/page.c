// SPDX-License-Identifier: MIT
/*
 * page FOLDER FILE.html - what scripts/demo measured: a page, and a table on the standard output
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "chart.h"
#include "report/format.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ZOOM         0.25 /* seconds before the stop, and twice that behind it */

/* What all parts of the page are made from. */
struct demo {
	struct measured measured;
	struct summary summary;
};

/*
 * The move.
 */

/* From the begin of the move to its end, ns. */
static uint64_t longest_silence(const struct summary *summary)
{
	double longest = 0;

	for (int i = PRECOPY; i <= POSTCOPY; i++)
		longest = summary->phases[i].silence > longest ? summary->phases[i].silence : longest;
	return (uint64_t)(longest * 1e9);
}

static void write_move_numbers(struct report *report, const struct demo *demo)
{
	const struct measured *measured = &demo->measured;
	const struct summary *summary = &demo->summary;
	char value[6][FORMAT_SIZE], note[5][96], part[3][FORMAT_SIZE];
	double precopy = fact_number(measured, "migration_precopy"),
	       postcopy = fact_number(measured, "migration_postcopy");
	bool equal = fact_number(measured, "digests_equal") == 1;

	snprintf(note[0], sizeof(note[0]), "longest time without any answer: %s; before the move %s",
	         format_ns(part[0], longest_silence(summary)),
	         format_ns(part[1], (uint64_t)(summary->phases[BEFORE].silence * 1e9)));
	snprintf(note[1], sizeof(note[1]), "%s before, %s after",
	         format_ns(part[0], hist_quantile(&summary->phases[BEFORE].latency, 0.99)),
	         format_ns(part[1], hist_quantile(&summary->phases[AFTER].latency, 0.99)));
	snprintf(note[2], sizeof(note[2]), "%s before the stop, %s after it, in %s",
	         format_bytes(part[0], (uint64_t)precopy), format_bytes(part[1], (uint64_t)postcopy),
	         format_ns(part[2],
	                   (uint64_t)(fact_number(measured, "complete_ns") - fact_number(measured, "move_ns"))));
	snprintf(note[3], sizeof(note[3]), "%s faults in memory that was not there yet",
	         format_count(part[0], (uint64_t)fact_number(measured, "migration_faults")));
	snprintf(note[4], sizeof(note[4]), "p99 %s; %s engine",
	         format_ns(part[0], (uint64_t)fact_number(measured, "migration_fault_p99_ns")),
	         fact_text(measured, "migration_engine", "?"));
	format_count(value[2], measured->request_count);
	format_count(value[3], (uint64_t)fact_number(measured, "keys"));
	report_numbers(
		report,
		(struct report_number[]){
			{"Stopped", format_ns(value[0], (uint64_t)(fact_number(measured, "stopped_ms") * 1e6)),
	                 note[0]},
			{"p99 while it moved", format_ns(value[1], hist_quantile(&summary->during, 0.99)), note[1]},
			{"Requests answered", value[2], "each compared with what it must be"},
			{"Keys", value[3], equal ? "their digest is equal on both sides" : "their digests differ"},
			{"Moved", format_bytes(value[4], (uint64_t)(precopy + postcopy)), note[2]},
			{"Requested", format_bytes(part[0], (uint64_t)fact_number(measured, "migration_requested")),
	                 note[3]},
			{"A requested page, p50",
	                 format_ns(value[5], (uint64_t)fact_number(measured, "migration_fault_p50_ns")), note[4]},
			{"Wrong", fact_text(measured, "failures", "?"), "things that were not as they must be"},
		},
		8);
}

static const struct report_column phase_columns[] = {
	{"Phase", false}, {"Length", true}, {"Requests", true}, {"A second", true},
	{"p50", true},    {"p99", true},    {"Slowest", true},  {"Longest silence", true},
};

static void phase_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct phase_summary *phase = &((const struct summary *)arg)->phases[row];
	const double shares[] = {0.5, 0.99, 1};

	if (column == 0)
		snprintf(text, size, "%s", phase->name);
	else if (column == 1)
		format_ns(text, (uint64_t)((phase->to - phase->from) * 1e9));
	else if (column == 2)
		format_count(text, phase->latency.count);
	else if (column == 3 && row != STOPPED)
		format_short(text, summary_rate(phase));
	else if (column == 7)
		format_ns(text, (uint64_t)(phase->silence * 1e9));
	else if (column > 3 && phase->latency.count)
		format_ns(text, hist_quantile(&phase->latency, shares[column - 4]));
}

static const char move_text[] = "Eight clients, each with one request on its way, read paragraphs of text and replace "
				"one in ten. Their connections stay: behind the "
				"stop the first process hands them on to the second, so each request makes one more "
				"hop, and takes longer than before the move.";

static const char phases_text[] = "Precopy: memory is sent while the server runs. Stopped: it runs nowhere. Postcopy: "
				  "it runs at its new place, and what it touches there "
				  "before it has arrived is requested. Requests that were on their way during the stop "
				  "are counted there. The longest silence is the "
				  "longest time in which no client got an answer.";

static int write_move(struct report *report, struct demo *demo)
{
	const struct report_table phases = {.title = "Phases",
	                                    .text = phases_text,
	                                    .columns = phase_columns,
	                                    .column_count = COUNT(phase_columns),
	                                    .row_count = PHASES,
	                                    .cell = phase_cell,
	                                    .arg = &demo->summary};
	double stop = demo->summary.phases[STOPPED].from;
	int err;

	report_heading(report, "A key-value server moves to another process while it is used", move_text);
	write_move_numbers(report, demo);
	err = chart_latency(report, &demo->summary, &demo->measured, "Latency of requests",
	                    "As the clients measured it, by the moment of the answer.", 0, HUGE_VAL);
	if (!err)
		err = chart_latency(report, &demo->summary, &demo->measured, "The stop, enlarged",
		                    "Where there is no line no client got an answer.", stop - ZOOM, stop + 2 * ZOOM);
	if (!err)
		err = chart_rate(report, &demo->summary, &demo->measured);
	report_table(report, &phases);
	return err;
}

/*
 * The programs.
 */

struct run {
	const char *name, *engine;
	const struct fault_summary *faults;
	double ns; /* of the wall */
};

struct runs {
	struct run list[4];
	size_t count;
};

static const struct report_column run_columns[] = {
	{"Run", false}, {"Engine", false}, {"Clients", true}, {"Faults", true},        {"Fault, p50", true},
	{"p99", true},  {"Slowest", true}, {"Time", true},    {"Brought ahead", true},
};

static void run_cell(void *arg, size_t row, size_t column, char *text, size_t size)
{
	const struct run *run = &((const struct runs *)arg)->list[row];
	const double shares[] = {0.5, 0.99, 1};

	if (column == 0)
		snprintf(text, size, "%s", run->name);
	else if (column == 1)
		snprintf(text, size, "%s", run->engine);
	else if (column == 2)
		format_count(text, run->faults->clients);
	else if (column == 3)
		format_count(text, run->faults->latency.count);
	else if (column == 7)
		format_ns(text, (uint64_t)run->ns);
	else if (column == 8)
		format_bytes(text, run->faults->ahead);
	else if (run->faults->latency.count)
		format_ns(text, hist_quantile(&run->faults->latency, shares[column - 4]));
}

static const char runs_text[] = "Times are of the wall: of eight programs until the last has ended; of scattered reads "
				"the median of five, each of a file that is not in "
				"the page cache. Faults are those of all clients and all rounds together; how long "
				"they took is the manager's view, from the moment that "
				"it learns of one until the page is there.";

static void write_runs(struct report *report, const struct demo *demo)
{
	const struct measured *measured = &demo->measured;
	const struct summary *summary = &demo->summary;
	const char *engine = fact_text(measured, "first_engine", "?");
	const struct run all[] = {
		{"eight programs", engine, &summary->first, fact_number(measured, "first_us") * 1e3},
		{"eight programs, the kernel's refused", fact_text(measured, "refused_engine", "?"), &summary->refused,
	         fact_number(measured, "refused_us") * 1e3},
		{"scattered reads", engine, &summary->plain, fact_number(measured, "without_prefetch_ns")},
		{"scattered reads, brought ahead", engine, &summary->prefetched,
	         fact_number(measured, "with_prefetch_ns")},
	};
	struct runs runs = {.count = 0};
	struct report_table table = {.title = "All runs",
	                             .text = runs_text,
	                             .columns = run_columns,
	                             .column_count = COUNT(run_columns),
	                             .cell = run_cell,
	                             .arg = &runs};

	for (size_t i = 0; i < COUNT(all); i++)
		if (all[i].faults->clients)
			runs.list[runs.count++] = all[i];
	table.row_count = runs.count;
	report_table(report, &table);
}

static const char programs_text[] = "sha256sum, md5sum, cksum, wc, grep, cmp, Python's mmap and a program that jumps "
				    "about read a file that is not there: a manager serves it "
				    "to them, page by page as they touch it, from a store of";

static const char map_text[] = "Bytes of the store upwards, time to the right; all programs together. A rising line is "
			       "one that reads from the beginning to the end; dots "
			       "all over are the one that jumps about.";

static int write_programs(struct report *report, struct demo *demo)
{
	bool twice = demo->summary.refused.clients;
	char text[600], again[100] = "";
	int err;

	if (twice)
		snprintf(again, sizeof(again), "; where the kernel's userfaultfd is refused, %zu of them did",
		         fact_times(&demo->measured, "refused_same"));
	snprintf(text, sizeof(text), "%s %s MiB. %zu of them got exactly what they get from the file itself%s.",
	         programs_text, fact_text(&demo->measured, "store_mib", "?"), fact_times(&demo->measured, "first_same"),
	         again);
	report_heading(report, "Eight programs that know nothing of page faults", text);
	err = chart_faults(report, &demo->measured, "first", "Where and when pages were asked for", map_text);
	if (!err && twice)
		err = chart_faults(report, &demo->measured, "refused", "The same on the user engine",
		                   "Where the kernel refuses userfaultfd.");
	report_histogram(
		report, &(struct report_histogram){
				.title = "How long faults took",
				.text = "From the moment that the manager learned of a fault until its page was there.",
				.things = "faults",
				.hist = &demo->summary.first.latency,
			});
	write_runs(report, demo);
	return err;
}

static int write_page(struct demo *demo, FILE *file)
{
	struct report *report;
	char text[256];
	int err, failed;

	snprintf(text, sizeof(text), "make demo, %s, on %s", fact_text(&demo->measured, "date", "?"),
	         fact_text(&demo->measured, "machine", "?"));
	err = report_begin(&report, file, "userfault: a run of the demo", text);
	if (err)
		return err;
	err = write_move(report, demo);
	if (!err)
		err = write_programs(report, demo);
	failed = report_end(report);
	return err ? err : failed;
}

static int tell(const char *path, int err)
{
	fprintf(stderr, "page: %s: %s\n", path, err == -EBADMSG ? "not what the demo measures" : strerror(-err));
	return 1;
}

int main(int argc, char **argv)
{
	static struct demo demo;
	FILE *file;
	int err;

	if (argc != 3) {
		fprintf(stderr, "usage: page FOLDER FILE.html\n");
		return 2;
	}
	err = measured_open(&demo.measured, argv[1]);
	if (!err)
		err = summary_make(&demo.summary, &demo.measured);
	if (err)
		return tell(argv[1], err);
	file = fopen(argv[2], "we");
	err = file ? write_page(&demo, file) : -errno;
	if (file && fclose(file) && !err)
		err = -errno;
	if (err)
		return tell(argv[2], err);
	summary_print(&demo.summary, &demo.measured, stdout);
	measured_close(&demo.measured);
	return fflush(stdout) ? 1 : 0;
}
