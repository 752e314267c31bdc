/* SPDX-License-Identifier: MIT */
/*
 * cleanup.h - release at the end of a scope
 *
 *	_cleanup_fd int fd = open(...);      closed when the scope is left, unless handed on with take_fd(&fd)
 *	_cleanup_free char *p = strdup(...); freed, unless handed on with take_ptr(p)
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>

#include "base/rawsys.h"

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		raw_close(*fd);
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

#define _cleanup_fd   __attribute__((cleanup(cleanup_fd)))
#define _cleanup_free __attribute__((cleanup(cleanup_free)))

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p)                     \
	({                              \
		__typeof__(p) _p = (p); \
		(p) = NULL;             \
		_p;                     \
	})

#endif
