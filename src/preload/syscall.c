// SPDX-License-Identifier: MIT
/* syscall(2): the same calls by their numbers. */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "preload/abi.h"
#include "preload/map-memory.h"
#include "preload/map.h"
#include "preload/next.h"
#include "preload/process.h"
#include "uffd/user/layout.h"

/* By libc's name, which is wrapped; the answer the way the kernel gives it. */
#define BY_NAME(call)                                   \
	({                                              \
		long result_ = (long)(call);            \
		result_ == -1 ? -(long)errno : result_; \
	})

static long by_number(long nr, const long a[6])
{
	switch (nr) {
	case SYS_userfaultfd:
		return abi_userfaultfd((int)a[0]);
	case SYS_ioctl:
		return BY_NAME(ioctl((int)a[0], (unsigned long)a[1], (void *)a[2]));
	case SYS_read:
		return BY_NAME(read((int)a[0], (void *)a[1], (size_t)a[2]));
	case SYS_write:
		return BY_NAME(write((int)a[0], (void *)a[1], (size_t)a[2]));
	case SYS_openat:
		return BY_NAME(openat((int)a[0], (const char *)a[1], (int)a[2], (mode_t)a[3]));
#ifdef SYS_open
	case SYS_open:
		return BY_NAME(open((const char *)a[0], (int)a[1], (mode_t)a[2]));
	case SYS_dup2:
		return BY_NAME(dup2((int)a[0], (int)a[1]));
#endif
	case SYS_pread64:
		return BY_NAME(pread64((int)a[0], (void *)a[1], (size_t)a[2], (off64_t)a[3]));
	case SYS_fstat:
		return BY_NAME(fstat((int)a[0], (struct stat *)a[1]));
	case SYS_newfstatat:
		return BY_NAME(fstatat((int)a[0], (const char *)a[1], (struct stat *)a[2], (int)a[3]));
	case SYS_lseek:
		return BY_NAME(lseek((int)a[0], (off_t)a[1], (int)a[2]));
	case SYS_openat2:
		return map_find((int)a[0], (const char *)a[1], 0) ? -ENOSYS : process_fork(nr, a);
	case SYS_close:
		return BY_NAME(close((int)a[0]));
	case SYS_dup:
		return BY_NAME(dup((int)a[0]));
	case SYS_dup3:
		return BY_NAME(dup3((int)a[0], (int)a[1], (int)a[2]));
	case SYS_close_range:
		return abi_close_range((unsigned)a[0], (unsigned)a[1], (unsigned)a[2]);
	case SYS_mmap:
		return map_mmap((uint64_t)a[0], (size_t)a[1], (int)a[2], (int)a[3], (int)a[4], (uint64_t)a[5]);
	case SYS_munmap:
		return map_munmap((uint64_t)a[0], (size_t)a[1]);
	case SYS_mremap:
		return map_mremap((uint64_t)a[0], (size_t)a[1], (size_t)a[2], (int)a[3], (uint64_t)a[4]);
	case SYS_mprotect:
		return map_mprotect((uint64_t)a[0], (size_t)a[1], (int)a[2], -1);
	case SYS_pkey_mprotect:
		return map_mprotect((uint64_t)a[0], (size_t)a[1], (int)a[2], (int)a[3]);
	case SYS_madvise:
		return map_madvise((uint64_t)a[0], (size_t)a[1], (int)a[2]);
	case SYS_mlock:
		return user_layout_mlock((uint64_t)a[0], (size_t)a[1], 0);
	case SYS_mlock2:
		return user_layout_mlock((uint64_t)a[0], (size_t)a[1], (unsigned)a[2]);
	case SYS_mlockall:
		return user_layout_mlockall((int)a[0]);
	case SYS_shmdt:
		return user_layout_shmdt((uint64_t)a[0]);
	default:
		return process_fork(nr, a);
	}
}

EXPORT long syscall(long nr, ...)
{
	long a[6];
	va_list args;

	va_start(args, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	return as_libc(by_number(nr, a));
}
