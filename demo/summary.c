// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "report/format.h"
#include "summary.h"

static int find_phases(struct summary *summary, const struct measured *measured)
{
	static const char *const names[PHASES] = {"before", "precopy", "stopped", "postcopy", "after"};
	double move = fact_number(measured, "move_ns") * 1e-9, begun = fact_number(measured, "begun_ns") * 1e-9,
	       complete = fact_number(measured, "complete_ns") * 1e-9,
	       stopped = begun - fact_number(measured, "stopped_ms") * 1e-3,
	       end = (double)measured->requests[measured->request_count - 1].answered * 1e-9;
	const double at[PHASES + 1] = {0, move, stopped, begun, complete, end};

	for (int i = 0; i < PHASES; i++) {
		/* Also when one of them is not a number. */
		if (!(at[i] <= at[i + 1]))
			return -EBADMSG;
		summary->phases[i] = (struct phase_summary){.name = names[i], .from = at[i], .to = at[i + 1]};
	}
	return 0;
}

/* Of what lasted from one moment to another. */
static enum phase phase_of(const struct summary *summary, double from, double to, double counts)
{
	int phase = BEFORE;

	if (from < summary->phases[STOPPED].to && to > summary->phases[STOPPED].from)
		return STOPPED;
	while (phase < AFTER && counts > summary->phases[phase].to)
		phase++;
	return (enum phase)phase;
}

static void count_requests(struct summary *summary, const struct measured *measured)
{
	double last = 0;

	for (size_t i = 0; i < measured->request_count; i++) {
		const struct request *request = &measured->requests[i];
		double answered = (double)request->answered * 1e-9, sent = answered - (double)request->took * 1e-9;
		struct phase_summary *silent = &summary->phases[phase_of(summary, last, answered, last)];

		hist_add(&summary->phases[phase_of(summary, sent, answered, answered)].latency, request->took);
		if (answered - last > silent->silence)
			silent->silence = answered - last;
		last = answered;
	}
	for (int i = PRECOPY; i <= POSTCOPY; i++)
		hist_merge(&summary->during, &summary->phases[i].latency);
}

static int count_faults(struct fault_summary *summary, const struct measured *measured, const char *folder)
{
	struct recordings recordings;
	int err = recordings_read(&recordings, measured, folder);

	summary->clients = recordings.count;
	for (size_t i = 0; i < recordings.count; i++) {
		const struct recording_data *data = &recordings.list[i];

		for (size_t j = 0; j < data->count; j++) {
			const struct recording_event *event = &data->events[j];

			if (event->kind == RECORDING_READ || event->kind == RECORDING_WRITE)
				hist_add(&summary->latency, event->latency);
			else if (event->kind == RECORDING_PREFETCH)
				summary->ahead += event->length;
		}
	}
	recordings_free(&recordings);
	return err;
}

int summary_make(struct summary *summary, const struct measured *measured)
{
	int err;

	memset(summary, 0, sizeof(*summary));
	err = find_phases(summary, measured);
	if (!err)
		err = count_faults(&summary->first, measured, "first");
	if (!err)
		err = count_faults(&summary->refused, measured, "refused");
	if (!err)
		err = count_faults(&summary->plain, measured, "scattered");
	if (!err)
		err = count_faults(&summary->prefetched, measured, "scattered-prefetched");
	if (!err)
		count_requests(summary, measured);
	return err;
}

double summary_rate(const struct phase_summary *phase)
{
	return phase->to > phase->from ? (double)phase->latency.count / (phase->to - phase->from) : 0;
}

/*
 * The table.
 */

/* To the right, by characters: a micro sign has two bytes. */
static void print_cell(FILE *file, const char *text)
{
	int width = 0;

	for (const char *at = text; *at; at++)
		width += (*at & 0xc0) != 0x80;
	fprintf(file, "%*s%s", width < 12 ? 12 - width : 1, "", text);
}

static void print_quantiles(FILE *file, const char *name, const struct summary *summary, double share)
{
	char text[FORMAT_SIZE];

	fprintf(file, "  %-18s", name);
	for (int i = 0; i < PHASES; i++) {
		const struct hist *hist = &summary->phases[i].latency;

		print_cell(file, hist->count ? format_ns(text, hist_quantile(hist, share)) : "-");
	}
	fputc('\n', file);
}

static void print_phases(const struct summary *summary, FILE *file)
{
	char text[FORMAT_SIZE];

	fprintf(file, "  %-18s", "phase");
	for (int i = 0; i < PHASES; i++)
		print_cell(file, summary->phases[i].name);
	fprintf(file, "\n  %-18s", "length");
	for (int i = 0; i < PHASES; i++)
		print_cell(file, format_ns(text, (uint64_t)((summary->phases[i].to - summary->phases[i].from) * 1e9)));
	fprintf(file, "\n  %-18s", "requests");
	for (int i = 0; i < PHASES; i++)
		print_cell(file, format_count(text, summary->phases[i].latency.count));
	fprintf(file, "\n  %-18s", "requests a second");
	for (int i = 0; i < PHASES; i++)
		print_cell(file, i == STOPPED ? "-" : format_short(text, summary_rate(&summary->phases[i])));
	fputc('\n', file);
	print_quantiles(file, "latency, p50", summary, 0.5);
	print_quantiles(file, "latency, p99", summary, 0.99);
	print_quantiles(file, "latency, slowest", summary, 1);
	fprintf(file, "  %-18s", "longest silence");
	for (int i = 0; i < PHASES; i++)
		print_cell(file, format_ns(text, (uint64_t)(summary->phases[i].silence * 1e9)));
	fputc('\n', file);
}

static void print_move(const struct measured *measured, FILE *file)
{
	double total = fact_number(measured, "complete_ns") - fact_number(measured, "move_ns"),
	       requested = fact_number(measured, "migration_requested");
	char text[3][FORMAT_SIZE], faults[FORMAT_SIZE];

	fprintf(file, "  the server was stopped for %s\n",
	        format_ns(text[0], (uint64_t)(fact_number(measured, "stopped_ms") * 1e6)));
	fprintf(file, "  moved %s before the stop and %s after it, in %s\n",
	        format_bytes(text[0], (uint64_t)fact_number(measured, "migration_precopy")),
	        format_bytes(text[1], (uint64_t)fact_number(measured, "migration_postcopy")),
	        format_ns(text[2], (uint64_t)total));
	fprintf(file, "  %s were requested because the server touched them, %s faults: p50 %s,",
	        format_bytes(text[0], (uint64_t)requested),
	        format_count(faults, (uint64_t)fact_number(measured, "migration_faults")),
	        format_ns(text[1], (uint64_t)fact_number(measured, "migration_fault_p50_ns")));
	fprintf(file, " p99 %s\n", format_ns(text[0], (uint64_t)fact_number(measured, "migration_fault_p99_ns")));
	fprintf(file, "  digest of all keys: %s\n",
	        fact_number(measured, "digests_equal") == 1 ? "equal on both sides" : "NOT equal");
}

static void print_programs(const struct measured *measured, const char *run, const struct fault_summary *faults,
                           FILE *file)
{
	char name[32], text[3][FORMAT_SIZE];

	if (!faults->clients)
		return;
	snprintf(name, sizeof(name), "%s_same", run);
	fprintf(file, "  %zu programs got exactly the bytes of the file,", fact_times(measured, name));
	snprintf(name, sizeof(name), "%s_engine", run);
	fprintf(file, " %s engine: %s faults, p50 %s, p99 %s\n", fact_text(measured, name, "?"),
	        format_count(text[0], faults->latency.count), format_ns(text[1], hist_quantile(&faults->latency, 0.5)),
	        format_ns(text[2], hist_quantile(&faults->latency, 0.99)));
}

void summary_print(const struct summary *summary, const struct measured *measured, FILE *file)
{
	double without = fact_number(measured, "without_prefetch_ns"), with = fact_number(measured, "with_prefetch_ns");
	char text[2][FORMAT_SIZE];

	print_programs(measured, "first", &summary->first, file);
	print_programs(measured, "refused", &summary->refused, file);
	fprintf(file, "  what was recorded, brought ahead: the same reads of a cold file took %s instead of %s: %s\n",
	        format_ns(text[0], (uint64_t)with), format_ns(text[1], (uint64_t)without),
	        with < without ? "faster" : "not faster");
	fputc('\n', file);
	print_phases(summary, file);
	fputc('\n', file);
	print_move(measured, file);
}
