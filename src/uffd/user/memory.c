// SPDX-License-Identifier: MIT
/*
 * Pages hidden, filled and shown.
 *
 * Two rules keep every step invisible to the program's other threads. Live private memory is made inaccessible before its
 * content goes, and new content is complete before the page becomes accessible. And a page hidden by a guard lies in memory
 * of the program's own protection, so that lifting the guard alone shows it.
 *
 * Content always goes in by a system call, never by an access: a source that cannot be read, or a file cut short, is an
 * error then and not a signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/rawsys.h"
#include "uffd/user/memory.h"
#include "uffd/user/own.h"

/*
 * The descriptor of /proc/self/mem, plus one. It writes to the address space it was opened in, so a forked child must not
 * use its parent's: the number lies in a page that fork leaves empty.
 */
static _Atomic int *_Atomic descriptor;

static _Atomic int *descriptor_slot(void)
{
	_Atomic int *slot = atomic_load_explicit(&descriptor, memory_order_acquire), *expected = NULL;
	size_t len = sizeof(*slot);
	long at;

	if (slot)
		return slot;
	at = raw_mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (raw_failed(at))
		return NULL;
	if (raw_madvise((uint64_t)at, len, MADV_WIPEONFORK)) {
		raw_munmap((uint64_t)at, len);
		return NULL;
	}
	slot = (_Atomic int *)at;
	/* Release: whoever finds the page finds its advice taken. */
	if (atomic_compare_exchange_strong_explicit(&descriptor, &expected, slot, memory_order_acq_rel,
	                                            memory_order_acquire))
		return slot;
	raw_munmap((uint64_t)at, len);
	return expected;
}

int user_memory_descriptor(void)
{
	_Atomic int *slot = descriptor_slot();
	int known = slot ? atomic_load_explicit(slot, memory_order_relaxed) : 0, fd;

	if (!slot)
		return -ENOMEM;
	if (known)
		return known - 1;
	fd = raw_open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fd;
	fd = user_own(fd);
	if (atomic_compare_exchange_strong_explicit(slot, &known, fd + 1, memory_order_relaxed, memory_order_relaxed))
		return fd;
	user_own_close(fd);
	return known - 1;
}

/* Writes where the program itself may not. */
static int write_forced(uint64_t to, const void *from, size_t len)
{
	int fd = user_memory_descriptor();

	if (fd < 0)
		return -EIO;
	while (len) {
		ssize_t n = raw_pwrite(fd, from, len, to);

		if (n <= 0)
			return n == -EFAULT ? -EFAULT : -EIO;
		from = (const char *)from + n;
		to += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int try_forced(void)
{
	static const char probe = 1;
	uint64_t at;
	long mapped = raw_mmap(0, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (raw_failed(mapped))
		return (int)mapped;
	at = (uint64_t)mapped;
	err = write_forced(at, &probe, 1);
	if (!err)
		err = raw_mprotect(at, 1, PROT_READ);
	if (!err && *(const volatile char *)mapped != probe)
		err = -EIO;
	raw_munmap(at, 1);
	return err;
}

bool user_memory_private_works(void)
{
	/* Unknown, yes, no. A matter of the kernel's configuration, so a child of a fork has the same answer. */
	static _Atomic int state;
	int known = atomic_load_explicit(&state, memory_order_relaxed);

	if (!known) {
		known = try_forced() ? 2 : 1;
		atomic_store_explicit(&state, known, memory_order_relaxed);
	}
	return known == 1;
}

/* The alias may be written by anyone: where /proc/self/mem is refused, process_vm_writev() does it, a little slower. */
static int write_alias(const struct user_memory *memory, uint64_t start, const void *from, size_t len)
{
	uint64_t to = (uint64_t)(uintptr_t)memory->alias + (start - memory->start);
	int err;

	if (!memory->alias)
		return memory->alias_error ? memory->alias_error : -EINVAL;
	if (user_memory_private_works()) {
		err = write_forced(to, from, len);
		/* As the kernel's userfaultfd says it: behind the end of the file, or no room in it. */
		return err == -EIO ? -EFAULT : err;
	}
	while (len) {
		ssize_t n = raw_process_vm_write(raw_getpid(), to, from, len);

		if (n <= 0)
			return n ? (int)n : -EFAULT;
		from = (const char *)from + n;
		to += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_pages(const struct user_memory *memory, uint64_t start, const void *from, size_t len)
{
	return memory->shared ? write_alias(memory, start, from, len) : write_forced(start, from, len);
}

static int write_zeros(const struct user_memory *memory, uint64_t start, size_t len)
{
	static char zeros[65536];

	for (size_t done = 0, n; done < len; done += n) {
		int err;

		n = len - done < sizeof(zeros) ? len - done : sizeof(zeros);
		err = write_pages(memory, start + done, zeros, n);
		if (err)
			return err;
	}
	return 0;
}

/* PROT_WRITE alone lets the program read as well on the processors we know. */
static int protection(const struct user_memory *memory, bool writable)
{
	if (writable || !(memory->prot & PROT_WRITE))
		return memory->prot;
	return (memory->prot & ~PROT_WRITE) | PROT_READ;
}

/* Linux 5.18 wants to be asked explicitly for mlocked memory. */
static int drop_private(uint64_t start, size_t len)
{
	int err = raw_madvise(start, len, MADV_DONTNEED);

	return err == -EINVAL ? raw_madvise(start, len, MADV_DONTNEED_LOCKED) : err;
}

static int hide_private(const struct user_memory *memory, uint64_t start, size_t len)
{
	int err = raw_mprotect(start, len, PROT_NONE);

	if (!err && memory->trap == USER_TRAP_GUARD)
		err = raw_madvise(start, len, MADV_GUARD_INSTALL);
	else if (!err)
		err = drop_private(start, len);
	if (err) {
		/* What was changed already may have been write-protected: better one write trap too many than one too few. */
		raw_mprotect(start, len, protection(memory, false));
		return err;
	}
	return memory->trap == USER_TRAP_GUARD ? raw_mprotect(start, len, memory->prot) : 0;
}

static int hide_shared(const struct user_memory *memory, uint64_t start, size_t len)
{
	int err;

	if (memory->trap == USER_TRAP_PROTECT) {
		err = raw_mprotect(start, len, PROT_NONE);
		if (err)
			raw_mprotect(start, len, protection(memory, false));
		return err;
	}
	/* The file keeps the content, so a reader that comes while the guard is laid finds it again. */
	err = raw_madvise(start, len, MADV_GUARD_INSTALL);
	return err ? err : raw_mprotect(start, len, memory->prot);
}

int user_memory_hide(const struct user_memory *memory, uint64_t start, uint64_t end)
{
	return memory->shared ? hide_shared(memory, start, end - start) : hide_private(memory, start, end - start);
}

int user_memory_show(const struct user_memory *memory, uint64_t start, size_t len, bool writable)
{
	int err = 0;

	if (memory->trap == USER_TRAP_PROTECT)
		return raw_mprotect(start, len, protection(memory, writable));
	if (!writable)
		err = raw_mprotect(start, len, protection(memory, false));
	if (!err)
		err = raw_madvise(start, len, MADV_GUARD_REMOVE);
	if (err && !writable)
		raw_mprotect(start, len, memory->prot);
	return err;
}

/* /proc/self/mem does not reach through a guard, so inaccessible memory takes its place while the content goes in. */
int user_memory_open(const struct user_memory *memory, uint64_t start, size_t len)
{
	int err;

	if (memory->shared || memory->trap == USER_TRAP_PROTECT)
		return 0;
	err = raw_mprotect(start, len, PROT_NONE);
	if (err) {
		raw_mprotect(start, len, memory->prot);
		return err;
	}
	err = raw_madvise(start, len, MADV_GUARD_REMOVE);
	if (err)
		user_memory_shut(memory, start, len);
	return err;
}

void user_memory_shut(const struct user_memory *memory, uint64_t start, size_t len)
{
	if (memory->shared)
		return;
	if (memory->trap == USER_TRAP_PROTECT)
		drop_private(start, len);
	else if (!raw_madvise(start, len, MADV_GUARD_INSTALL))
		raw_mprotect(start, len, memory->prot);
}

int user_memory_write(const struct user_memory *memory, uint64_t start, const void *src, size_t len)
{
	return src ? write_pages(memory, start, src, len) : write_zeros(memory, start, len);
}

int user_memory_publish(const struct user_memory *memory, uint64_t start, size_t len, bool writable)
{
	if (memory->shared)
		return user_memory_show(memory, start, len, writable);
	return raw_mprotect(start, len, protection(memory, writable));
}

bool user_memory_is_alone(void)
{
	static unsigned known_not;

	if (known_not && known_not--)
		return false;
	/* Undoes nothing when it succeeds, and that it does only then. */
	if (!raw_syscall3(SYS_unshare, CLONE_VM, 0, 0))
		return true;
	known_not = 64;
	return false;
}

/* A request that the kernel refuses after it has read its argument. */
static bool is_readable(uint64_t at)
{
	return raw_syscall6(SYS_rt_sigprocmask, -1, (long)at, 0, 8, 0, 0) == -EINVAL;
}

static bool all_readable(uint64_t src, size_t len)
{
	uint64_t page_mask = ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	bool readable = is_readable(src) && is_readable(src + len - 8);

	for (uint64_t page = (src & page_mask) + ~page_mask + 1; readable && page + 8 <= src + len;
	     page += ~page_mask + 1)
		readable = is_readable(page);
	return readable;
}

int user_memory_fill_alone(const struct user_memory *memory, uint64_t start, const void *src, size_t len, bool writable)
{
	int err;

	if (!all_readable((uintptr_t)src, len))
		return -EFAULT;
	err = raw_madvise(start, len, MADV_GUARD_REMOVE);
	if (err)
		return err;
	memcpy((void *)(uintptr_t)start, src, len);
	err = writable ? 0 : raw_mprotect(start, len, protection(memory, false));
	if (err)
		raw_madvise(start, len, MADV_GUARD_INSTALL);
	return err;
}

int user_memory_protect(const struct user_memory *memory, uint64_t start, size_t len, bool writable)
{
	return raw_mprotect(start, len, protection(memory, writable));
}
