// SPDX-License-Identifier: MIT
/* Apart, since the modules have it too. */
#include <stdarg.h>
#include <stdio.h>

#include "store/store.h"

int store_fail(struct uf_store_cause *cause, int err, const char *format, ...)
{
	va_list args;

	if (!cause)
		return err;
	va_start(args, format);
	vsnprintf(cause->text, sizeof(cause->text), format, args);
	va_end(args);
	return err;
}
