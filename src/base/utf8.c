// SPDX-License-Identifier: MIT
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

/* The smallest value that may be written with so many bytes: anything less is another way to write a shorter one. */
static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};

size_t utf8_length(const char *text)
{
	const unsigned char *bytes = (const unsigned char *)text;
	size_t len = bytes[0] < 0x80       ? 1
	             : bytes[0] >> 5 == 6  ? 2
	             : bytes[0] >> 4 == 14 ? 3
	             : bytes[0] >> 3 == 30 ? 4
	                                   : 0;
	uint32_t value;

	if (len < 2)
		return len;
	value = bytes[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		/* The zero at the end is no such byte either. */
		if (bytes[i] >> 6 != 2)
			return 0;
		value = value << 6 | (bytes[i] & 0x3f);
	}
	if (value < smallest[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 0;
	return len;
}

void utf8_clean(char *out, const char *text)
{
	while (*text) {
		size_t len = utf8_length(text);

		memcpy(out, len ? text : "\xef\xbf\xbd", len ? len : 3);
		out += len ? len : 3;
		text += len ? len : 1;
	}
	*out = '\0';
}
