// SPDX-License-Identifier: MIT
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

#define COLUMNS 80

static __attribute__((format(printf, 1, 0))) void complain(const char *format, va_list args)
{
	fputs("userfault: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

int fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	return 1;
}

int usage_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	return EXIT_USAGE;
}

/* The long option that `word`, --NAME=VALUE, begins, and whose val getopt_long(3) has left in optopt. */
static bool has_value(const char *word, const struct option *options)
{
	size_t len = strcspn(word, "=");

	if (strncmp(word, "--", 2) != 0 || !word[len])
		return false;
	for (; options->name; options++)
		if (options->val == optopt && !strncmp(options->name, word + 2, len - 2))
			return true;
	return false;
}

int option_error(const char *command, int option, char **argv, const struct option *options)
{
	const char *word = argv[optind - 1];

	/* Of a short option the letter is told, and the word may be the one before it: there may be more letters to come. */
	if (option == ':')
		usage_error("%s: option '%s' needs a value", command, word);
	else if (!optopt)
		usage_error("%s: unknown option '%s'; 'userfault %s --help' shows the options", command, word, command);
	else if (has_value(word, options))
		usage_error("%s: option '%s' takes no value", command, word);
	else
		usage_error("%s: unknown option '-%c'; 'userfault %s --help' shows the options", command, optopt,
		            command);
	return EXIT_USAGE;
}

int finish_output(int status)
{
	/* Closed and not only flushed: some file systems report a failed write no earlier. */
	int failed = ferror(stdout);

	errno = 0;
	if (fclose(stdout) || failed)
		return fail("cannot write to the standard output: %s",
		            errno ? strerror(errno) : "an earlier write failed");
	return status;
}

void print_wrapped(int column, const char *text)
{
	int at = column;

	for (const char *word = text; *word;) {
		int len = (int)strcspn(word, " ");

		if (at > column && at + 1 + len > COLUMNS) {
			printf("\n%*s", column, "");
			at = column;
		}
		at += printf("%s%.*s", at > column ? " " : "", len, word);
		word += len + (word[len] == ' ');
	}
	putchar('\n');
}
