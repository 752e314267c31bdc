/* SPDX-License-Identifier: MIT */
/*
 * next.h - the function that a wrapper stands before
 *
 *	WRAP(ssize_t, read, (int fd, void *buf, size_t count))
 *	{
 *		...
 *		return NEXT(read)(fd, buf, count);
 *	}
 *
 * NEXT() is whatever comes behind us in the order of libraries: libc, or another preloaded library. It is looked up when first needed,
 * which may allocate, so what memory itself is made of (mmap and its kin) is never called this way: see base/rawsys.h. A wrapper of a
 * cancellation point calls NEXT() for what may block, and holds nothing meanwhile.
 */
#ifndef PRELOAD_NEXT_H
#define PRELOAD_NEXT_H

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>

#include "base/rawsys.h"

/* What the program finds in place of libc's. */
#define EXPORT __attribute__((visibility("default")))

#define WRAP(type, name, parameters)                                          \
	__attribute__((unused)) static type(*_Atomic next_##name) parameters; \
	EXPORT type name parameters;                                          \
	EXPORT type name parameters

/* For NEXT() where another file has the wrapper. */
#define NEXT_ONLY(type, name, parameters) static type(*_Atomic next_##name) parameters

#define NEXT(name) ((__typeof__(atomic_load(&next_##name)))next_function((void *_Atomic *)&next_##name, #name))

static inline void *next_function(void *_Atomic *slot, const char *name)
{
	void *function = atomic_load_explicit(slot, memory_order_relaxed);

	if (!function) {
		int saved = errno;

		function = dlsym(RTLD_NEXT, name);
		errno = saved;
		atomic_store_explicit(slot, function, memory_order_relaxed);
	}
	return function;
}

/* The kernel's answer as libc gives it. */
static inline long as_libc(long result)
{
	if (raw_failed(result)) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

#endif
