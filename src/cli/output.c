// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
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
