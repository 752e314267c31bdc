// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "report/format.h"

/* Three digits. What would be rounded up to a thousand has no decimals anyway. */
static char *scaled(char text[FORMAT_SIZE], double value, const char *unit)
{
	/* Where the next decimal would be rounded into one more digit. */
	int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;

	snprintf(text, FORMAT_SIZE, "%.*f %s", decimals, value, unit);
	return text;
}

char *format_ns(char text[FORMAT_SIZE], uint64_t ns)
{
	uint64_t seconds = ns / 1000000000u;

	if (ns < 1000)
		snprintf(text, FORMAT_SIZE, "%" PRIu64 " ns", ns);
	else if (ns < 999500)
		scaled(text, (double)ns / 1e3, "\xc2\xb5s");
	else if (ns < 999500000)
		scaled(text, (double)ns / 1e6, "ms");
	else if (seconds < 60)
		scaled(text, (double)ns / 1e9, "s");
	else if (seconds < 3600)
		snprintf(text, FORMAT_SIZE, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
	else if (seconds < 48 * 3600)
		snprintf(text, FORMAT_SIZE, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600, seconds / 60 % 60);
	else
		snprintf(text, FORMAT_SIZE, "%" PRIu64 " d %" PRIu64 " h", seconds / 86400, seconds / 3600 % 24);
	return text;
}

char *format_bytes(char text[FORMAT_SIZE], uint64_t bytes)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 1024) {
		snprintf(text, FORMAT_SIZE, "%" PRIu64 " B", bytes);
		return text;
	}
	for (; value >= 1023.5 && unit < 5; unit++)
		value /= 1024;
	return scaled(text, value, units[unit]);
}

char *format_count(char text[FORMAT_SIZE], uint64_t count)
{
	char digits[FORMAT_SIZE];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, count), at = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			text[at++] = ',';
		text[at++] = digits[i];
	}
	text[at] = '\0';
	return text;
}

char *format_short(char text[FORMAT_SIZE], double count)
{
	static const char *const units[] = {"k", "M", "G", "T", "P", "E"};
	unsigned unit = 0;

	if (count < 999.5) {
		snprintf(text, FORMAT_SIZE, "%.*f", count < 9.95 && count != (double)(int)count, count);
		return text;
	}
	for (count /= 1000; count >= 999.5 && unit < 5; unit++)
		count /= 1000;
	return scaled(text, count, units[unit]);
}

char *format_share(char text[FORMAT_SIZE], uint64_t part, uint64_t whole)
{
	double percent = whole ? 100 * (double)part / (double)whole : 0;

	if (part && part < whole && percent < 0.01)
		strcpy(text, "<0.01 %");
	else if (part < whole && percent > 99.99)
		strcpy(text, ">99.99 %");
	else if (percent >= 99.5 && part < whole)
		snprintf(text, FORMAT_SIZE, "%.2f %%", percent);
	else
		snprintf(text, FORMAT_SIZE, "%.*f %%",
		         !part || percent >= 9.95 ? 0
		         : percent >= 0.995       ? 1
		                                  : 2,
		         percent);
	return text;
}
