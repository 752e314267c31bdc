/* SPDX-License-Identifier: MIT */
/*
 * cleanup.h - release at the end of a scope
 *
 *	_cleanup_fd int fd = open(...);      closed when the scope is left, unless handed on with take_fd(&fd)
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include "base/rawsys.h"

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		raw_close(*fd);
}

#define _cleanup_fd __attribute__((cleanup(cleanup_fd)))

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
