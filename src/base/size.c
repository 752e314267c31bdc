// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/size.h"

/* What stands behind the digits, or NULL: there are none, or too many. */
static const char *take_digits(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return NULL;
	errno = 0;
	*value = strtoumax(text, &end, 10);
	return errno ? NULL : end;
}

bool number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
	uint64_t value;
	const char *end = take_digits(text, &value);

	if (!end || *end || value < least || value > most)
		return false;
	*number = value;
	return true;
}

bool size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	const char *unit;
	uint64_t value;
	const char *end = take_digits(text, &value);

	if (!end)
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (*end || value > (uint64_t)INT64_MAX >> shift)
		return false;
	*bytes = value << shift;
	return true;
}
