/* SPDX-License-Identifier: MIT */
/*
 * rawsys.h - system calls without libc in between
 *
 * Each returns the kernel's own answer: a result, or a negated errno value. None touches errno, none is a cancellation
 * point, none is intercepted. errno is thread-local, and the code here also runs in signal handlers and in tasks that
 * share another thread's thread-local storage (CLONE_VM without CLONE_SETTLS), where libc's wrappers would write into
 * that thread's errno.
 */
#ifndef BASE_RAWSYS_H
#define BASE_RAWSYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

#if defined(__x86_64__)

static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
	                 : "=a"(ret)
	                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return ret;
}

static inline long raw_syscall3(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
	return x0;
}

static inline long raw_syscall3(long nr, long a, long b, long c)
{
	return raw_syscall6(nr, a, b, c, 0, 0, 0);
}

#else
#error "userfault knows the system call convention of x86-64 and arm64 only: add yours to src/base/rawsys.h"
#endif

static inline int raw_ioctl(int fd, unsigned long request, void *arg)
{
	return (int)raw_syscall3(SYS_ioctl, fd, (long)request, (long)arg);
}

static inline ssize_t raw_read(int fd, void *buf, size_t len)
{
	return raw_syscall3(SYS_read, fd, (long)buf, (long)len);
}

static inline int raw_close(int fd)
{
	return (int)raw_syscall3(SYS_close, fd, 0, 0);
}

/* openat(AT_FDCWD), without a mode: not for O_CREAT */
static inline int raw_open(const char *path, int flags)
{
	return (int)raw_syscall6(SYS_openat, -100, (long)path, flags, 0, 0, 0);
}

static inline int raw_gettid(void)
{
	return (int)raw_syscall3(SYS_gettid, 0, 0, 0);
}

static inline void raw_yield(void)
{
	raw_syscall3(SYS_sched_yield, 0, 0, 0);
}

#endif
