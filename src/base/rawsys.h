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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

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

static inline ssize_t raw_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	return raw_syscall6(SYS_pread64, fd, (long)buf, (long)len, (long)offset, 0, 0);
}

static inline ssize_t raw_pwrite(int fd, const void *buf, size_t len, uint64_t offset)
{
	return raw_syscall6(SYS_pwrite64, fd, (long)buf, (long)len, (long)offset, 0, 0);
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

/* Of an answer that may be an address: whether it is a negated errno value. */
static inline bool raw_failed(long answer)
{
	return answer < 0 && answer > -4096;
}

/* Addresses of memory are numbers here: most of what is done to it must not look like an access. */
static inline long raw_mmap(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset)
{
	return raw_syscall6(SYS_mmap, (long)addr, (long)len, prot, flags, fd, (long)offset);
}

/* Fresh memory of our own: apart from the heap, and to be had in the trap. NULL when there is none. */
static inline void *raw_map_own(size_t len)
{
	long at = raw_mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return raw_failed(at) ? NULL : (void *)at;
}

static inline int raw_munmap(uint64_t addr, size_t len)
{
	return (int)raw_syscall3(SYS_munmap, (long)addr, (long)len, 0);
}

/* The same by a pointer; NULL is allowed. */
static inline void raw_unmap(void *at, size_t len)
{
	if (at)
		raw_munmap((uint64_t)(uintptr_t)at, len);
}

/* Without a place to go to: not for MREMAP_FIXED */
static inline long raw_mremap(uint64_t addr, size_t old_len, size_t new_len, int flags)
{
	return raw_syscall6(SYS_mremap, (long)addr, (long)old_len, (long)new_len, flags, 0, 0);
}

static inline int raw_mprotect(uint64_t addr, size_t len, int prot)
{
	return (int)raw_syscall3(SYS_mprotect, (long)addr, (long)len, prot);
}

static inline int raw_madvise(uint64_t addr, size_t len, int advice)
{
	return (int)raw_syscall3(SYS_madvise, (long)addr, (long)len, advice);
}

static inline int raw_mincore(uint64_t addr, size_t len, unsigned char *vec)
{
	return (int)raw_syscall3(SYS_mincore, (long)addr, (long)len, (long)vec);
}

/* process_vm_readv(2) and process_vm_writev(2), from one piece of memory to another */
static inline ssize_t raw_process_vm_read(int pid, void *to, uint64_t from, size_t len)
{
	struct iovec local = {to, len}, remote = {(void *)(uintptr_t)from, len};

	return raw_syscall6(SYS_process_vm_readv, pid, (long)&local, 1, (long)&remote, 1, 0);
}

static inline ssize_t raw_process_vm_write(int pid, uint64_t to, const void *from, size_t len)
{
	struct iovec local = {(void *)(uintptr_t)from, len}, remote = {(void *)(uintptr_t)to, len};

	return raw_syscall6(SYS_process_vm_writev, pid, (long)&local, 1, (long)&remote, 1, 0);
}

static inline int raw_getpid(void)
{
	return (int)raw_syscall3(SYS_getpid, 0, 0, 0);
}

#endif
