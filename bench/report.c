// SPDX-License-Identifier: MIT
/* The table for people and the rows for programs. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench.h"

struct report {
	json_t *rows;
};

struct report *report_new(void)
{
	struct report *report = malloc(sizeof(*report));
	struct utsname name;

	if (!report)
		return NULL;
	report->rows = json_array();
	uname(&name);
	printf("%s %s, %s, %ld processors, pages of %ld bytes\n", name.sysname, name.release, name.machine,
	       sysconf(_SC_NPROCESSORS_ONLN), sysconf(_SC_PAGESIZE));
	printf("%-28s %10s %10s %-8s %7s  %-13s %6s\n", "figure", "value", "baseline", "unit", "ratio", "(quartiles)",
	       "rounds");
	return report;
}

void report_row(struct report *report, const char *name, const char *unit, double value, double baseline, double low,
                double high, unsigned rounds)
{
	double ratio = value / baseline;

	printf("%-28s %10.3f %10.3f %-8s %7.3f  (%.3f-%.3f) %6u\n", name, value, baseline, unit, ratio, low, high,
	       rounds);
	fflush(stdout);
	json_array_append_new(report->rows, json_pack("{s:s, s:f, s:s, s:f, s:f}", "name", name, "value", value, "unit",
	                                              unit, "baseline", baseline, "ratio", ratio));
}

int report_write(struct report *report, const char *path)
{
	int err = json_dump_file(report->rows, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));

	if (err)
		fprintf(stderr, "bench: cannot write %s\n", path);
	json_decref(report->rows);
	free(report);
	return err;
}
