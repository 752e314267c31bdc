// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/rawsys.h"
#include "uffd/user/own.h"

/* Low enough for the usual limit of 1024, and behind what most programs use. */
#define FIRST 768
#define MOST  65536

/* One bit a number. Relaxed: whoever asks about a number and whoever makes it his own at that moment are a race of the program. */
static _Atomic uint64_t owned[MOST / 64];

static void mark(int fd, bool own)
{
	uint64_t bit = (uint64_t)1 << (fd % 64);

	if (fd < 0 || fd >= MOST)
		return;
	if (own)
		atomic_fetch_or_explicit(&owned[fd / 64], bit, memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&owned[fd / 64], ~bit, memory_order_relaxed);
}

int user_own(int fd)
{
	int high = (int)raw_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, FIRST);

	if (high >= 0)
		raw_close(fd);
	else
		high = fd;
	mark(high, true);
	return high;
}

void user_own_close(int fd)
{
	if (fd < 0)
		return;
	mark(fd, false);
	raw_close(fd);
}

bool user_own_is(int fd)
{
	return fd >= 0 && user_own_next((unsigned)fd) == (unsigned)fd;
}

unsigned user_own_next(unsigned fd)
{
	while (fd < MOST) {
		uint64_t bits = atomic_load_explicit(&owned[fd / 64], memory_order_relaxed) >> (fd % 64);

		if (bits)
			return fd + (unsigned)__builtin_ctzll(bits);
		fd = (fd / 64 + 1) * 64;
	}
	return UINT_MAX;
}
