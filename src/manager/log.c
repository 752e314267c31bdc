// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "manager/log.h"

void say(enum log_level level, const char *format, ...)
{
	char line[1024];
	int start = getenv("JOURNAL_STREAM") ? snprintf(line, sizeof(line), "<%d>", level)
	                                     : snprintf(line, sizeof(line), "userfault: ");
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line + start, sizeof(line) - (size_t)start - 1, format, args);
	va_end(args);
	len = len < 0 ? 0 : len;
	len = start + len < (int)sizeof(line) - 1 ? start + len : (int)sizeof(line) - 2;
	for (int i = start; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	(void)!write(STDERR_FILENO, line, (size_t)len);
}
