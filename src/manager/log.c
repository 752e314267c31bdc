// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/log.h"

__attribute__((format(printf, 2, 0))) static void say_list(enum log_level level, const char *format, va_list args)
{
	char line[1024];
	int start = getenv("JOURNAL_STREAM") ? snprintf(line, sizeof(line), "<%d>", level)
	                                     : snprintf(line, sizeof(line), "userfault: ");
	int len = vsnprintf(line + start, sizeof(line) - (size_t)start - 1, format, args);

	len = len < 0 ? 0 : len;
	len = start + len < (int)sizeof(line) - 1 ? start + len : (int)sizeof(line) - 2;
	for (int i = start; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	(void)!write(STDERR_FILENO, line, (size_t)len);
}

void say(enum log_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_list(level, format, args);
	va_end(args);
}

void say_sparingly(enum log_level level, const char *format, ...)
{
	static _Atomic uint64_t second;
	static _Atomic unsigned said, unsaid;
	uint64_t now = now_ns() / 1000000000u + 1;
	unsigned more;
	va_list args;

	/* Two threads at the turn of a second may say a few lines too many. */
	if (atomic_exchange(&second, now) != now) {
		atomic_store(&said, 0);
		more = atomic_exchange(&unsaid, 0);
		if (more)
			say(LOG_WARNING, "%u lines more like the last ones", more);
	}
	if (atomic_fetch_add(&said, 1) >= LOG_SPARINGLY) {
		atomic_fetch_add(&unsaid, 1);
		return;
	}
	va_start(args, format);
	say_list(level, format, args);
	va_end(args);
}
