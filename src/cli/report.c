// SPDX-License-Identifier: MIT
/* userfault report: recordings as a page to look at. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command.h"
#include "report/recordings.h"

#define USAGE "usage: userfault report RECORDING... [--output FILE.html]"

static int refuse(const char *path, int err)
{
	if (err == -EBADMSG)
		return fail("report: %s: not a recording", path);
	if (err == -EPROTONOSUPPORT)
		return fail("report: %s: made by another version of userfault", path);
	return fail("report: %s: %s", path, strerror(-err));
}

static int write_failed(const char *path, int err)
{
	return fail("report: cannot write %s: %s", path ? path : "the standard output", strerror(-err));
}

/* Beside the file, and then in its place: a page that is looked at is never half of one. */
static int write_page(const char *path, const struct recording_data *data, char **names, size_t count)
{
	char *temporary = NULL;
	FILE *file;
	int fd, err;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	fd = mkostemp(temporary, O_CLOEXEC);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	err = file ? report_recordings(file, data, (const char *const *)names, count) : -errno;
	if (file && fclose(file) && !err)
		err = -errno;
	if (!err && (chmod(temporary, 0644) || rename(temporary, path)))
		err = -errno;
	if (err && fd >= 0)
		unlink(temporary);
	free(temporary);
	return err;
}

static int make_report(const char *output, char **paths, size_t count)
{
	struct recording_data *data = calloc(count, sizeof(*data));
	int status = data ? 0 : fail("report: %s", strerror(ENOMEM)), err;

	for (size_t i = 0; i < count && !status; i++) {
		err = recording_read(&data[i], paths[i]);
		status = err ? refuse(paths[i], err) : 0;
	}
	if (!status) {
		err = output ? write_page(output, data, paths, count)
		             : report_recordings(stdout, data, (const char *const *)paths, count);
		/* What is wrong with the standard output finish_output() says. */
		if (err && (output || err == -ENOMEM))
			status = write_failed(output, err);
	}
	for (size_t i = 0; data && i < count; i++)
		recording_free(&data[i]);
	free(data);
	return status ? status : finish_output(0);
}

int cmd_report(int argc, char **argv)
{
	static const struct option options[] = {
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *output = NULL;
	int option, err = 0;

	opterr = 0;
	optind = 1;
	while (!err && (option = getopt_long(argc, argv, ":o:", options, NULL)) >= 0) {
		switch (option) {
		case 'o':
			output = optarg;
			break;
		case 'h':
			printf(USAGE "\n");
			return finish_output(0);
		default:
			err = option_error("report", option, argv, options);
		}
	}
	if (err)
		return err;
	if (optind == argc)
		return usage_error("report: no recording given; " USAGE);
	if (!output && isatty(STDOUT_FILENO))
		return usage_error("report: a page is nothing for a terminal: give --output FILE.html, or redirect it");
	return make_report(output, argv + optind, (size_t)(argc - optind));
}
