/* SPDX-License-Identifier: MIT */
/*
 * options.h - structures that begin with their size and grow at the end
 *
 * A caller compiled with an older header passes a shorter structure, one compiled with a newer header a longer one.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * Copies the caller's structure over `to`, whose defaults stay where the caller's ends. -EINVAL: shorter than the first version
 * ever was; -E2BIG: longer than ours, and what we do not know is not zero.
 */
static inline int options_take(void *to, size_t to_size, const void *from, size_t first_size)
{
	size_t size;

	memcpy(&size, from, sizeof(size));
	if (size < first_size)
		return -EINVAL;
	for (size_t i = to_size; i < size; i++)
		if (((const unsigned char *)from)[i])
			return -E2BIG;
	memcpy(to, from, size < to_size ? size : to_size);
	return 0;
}

#endif
