// SPDX-License-Identifier: MIT
/* The calls by which a program changes its own layout: map-memory.h and <uffd/user/layout.h> by libc's names. */
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/types.h>

#include "preload/map-memory.h"
#include "preload/next.h"
#include "uffd/user/layout.h"

static void *as_address(long result)
{
	result = as_libc(result);
	return result == -1 ? MAP_FAILED : (void *)result;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return as_address(map_mmap((uintptr_t)addr, len, prot, flags, fd, (uint64_t)offset));
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return as_address(map_mmap((uintptr_t)addr, len, prot, flags, fd, (uint64_t)offset));
}

EXPORT int munmap(void *addr, size_t len)
{
	return (int)as_libc(map_munmap((uintptr_t)addr, len));
}

EXPORT void *mremap(void *addr, size_t old_len, size_t new_len, int flags, ...)
{
	uint64_t new_addr = 0;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_list args;

		va_start(args, flags);
		new_addr = va_arg(args, uintptr_t);
		va_end(args);
	}
	return as_address(map_mremap((uintptr_t)addr, old_len, new_len, flags, new_addr));
}

EXPORT int mprotect(void *addr, size_t len, int prot)
{
	return (int)as_libc(map_mprotect((uintptr_t)addr, len, prot, -1));
}

EXPORT int pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	return (int)as_libc(map_mprotect((uintptr_t)addr, len, prot, pkey));
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	return (int)as_libc(map_madvise((uintptr_t)addr, len, advice));
}

EXPORT int mlock(const void *addr, size_t len)
{
	return (int)as_libc(user_layout_mlock((uintptr_t)addr, len, 0));
}

EXPORT int mlock2(const void *addr, size_t len, unsigned flags)
{
	return (int)as_libc(user_layout_mlock((uintptr_t)addr, len, flags));
}

EXPORT int mlockall(int flags)
{
	return (int)as_libc(user_layout_mlockall(flags));
}

EXPORT int shmdt(const void *addr)
{
	return (int)as_libc(user_layout_shmdt((uintptr_t)addr));
}
