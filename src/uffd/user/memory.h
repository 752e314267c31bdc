/* SPDX-License-Identifier: MIT */
/*
 * memory.h - what can be done to the pages of each memory type without the kernel's userfaultfd, and how
 *
 * A page is *hidden* (every touch by the program traps with SIGSEGV; by a system call, EFAULT) or *shown* (as the program
 * mapped it, or read-only while it is write-protected). The functions here take pages from one state to the other, in ways
 * in which no thread of the process ever sees anything in between: not zeros, not half a page. They know nothing of who
 * waits for a page or who asked for it; that is space.h.
 *
 *	memory type          hidden by            content goes in by                     shown by
 *	private anonymous    guard page           pwrite(/proc/self/mem), behind         mprotect(prot)
 *	                                          mprotect(NONE) + guard removed
 *	                     mprotect(NONE)       pwrite(/proc/self/mem)                 mprotect(prot)
 *	private shmem        as private anonymous; zeros are written, since the file below may hold something
 *	shared (memfd, ...)  guard page           the alias                              guard removed
 *	                     mprotect(NONE)       the alias                              mprotect(prot)
 *	hugetlbfs, shared    mprotect(NONE)       the alias                              mprotect(prot)
 *	           private   mprotect(NONE)       pwrite(/proc/self/mem)                 mprotect(prot)
 *
 * The alias is written by pwrite(/proc/self/mem) too, which costs about as much as copying to it and meets an unreadable source
 * or a file cut short with an error, not a signal; by process_vm_writev() where /proc/self/mem is refused.
 *
 * The order when live memory is hidden: mprotect(NONE), then the guard, then mprotect back. A guard laid over live private
 * memory shows racing readers zeros. Over live shared memory it may be laid at once: the file keeps the content.
 *
 * A page hidden by a guard lies in memory of the program's own protection: write protection ends when a page is hidden. The
 * child of a fork inherits what is hidden and what is shown, of private and of shared memory alike, and the alias.
 *
 * Calls on one page must not run at the same time; on different pages they may. The caller has blocked signals and touches no
 * registered memory meanwhile. Only raw system calls are made, so all but user_memory_inspect() and user_memory_prepare() may be
 * called in the trap. memory.c changes pages; arm.c hides those that hold nothing; inspect.c finds out about memory, present.c which
 * pages hold something.
 */
#ifndef UFFD_USER_MEMORY_H
#define UFFD_USER_MEMORY_H

#include <stdbool.h>

#include <userfault/uffd.h>

enum user_trap {
	USER_TRAP_GUARD, /* MADV_GUARD_INSTALL: splits no mapping; Linux 6.13, shared memory 6.15; not mlocked, not hugetlbfs */
	USER_TRAP_PROTECT, /* mprotect(PROT_NONE): everywhere, but isolated pages cost a mapping each */
};

/* Memory of one kind and protection: a whole mapping, or the part of one that is registered. */
struct user_memory {
	uint64_t start, end;
	enum uf_memory type;
	bool shared; /* the pages belong to a file, and may be shown by other mappings too */
	int prot;    /* PROT_*: what the program mapped it with */
	size_t page_size;
	enum user_trap trap;
	char *alias;     /* shared: another mapping of the same pages, always readable and writable; else NULL */
	int alias_error; /* why there is none although shared: 0, or a negated errno value */
};

/*
 * user_memory_inspect - what lies in [start, end): up to `room` pieces, in rising order, holes passed over
 *
 * By PROCMAP_QUERY where the kernel has it (6.11), otherwise from /proc/self/smaps.
 * Returns how many, 0 when nothing is mapped; -EINVAL for memory that cannot be tracked: private mappings of files (but for
 * private shared-memory mappings), mappings of files that are not shared memory, special mappings; -ENOSPC: more than room.
 * The trap is the best that the memory allows, or USER_TRAP_PROTECT where `protect_only`; memory mlocked later must be
 * inspected again. Does not change anything. Files of tmpfs are known by /proc/self/mountinfo: one whose mount is not in the
 * caller's mount namespace cannot be tracked.
 */
int user_memory_inspect(uint64_t start, uint64_t end, bool protect_only, struct user_memory *pieces, size_t room);

/*
 * Makes the alias that shared memory needs; nothing to do for private memory. 0, or -EPERM: the file may not be written, or it
 * is of hugetlbfs, whose memory can be mapped again only by a process with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN;
 * -EFAULT: more than one mapping; -ENOMEM.
 */
int user_memory_prepare(struct user_memory *memory);
void user_memory_dispose(struct user_memory *memory);

/*
 * user_memory_present - which pages of [start, end) hold something now, one byte a page (0 or 1)
 *
 * Private: populated or swapped out (pagemap), and for private shared memory also in the file. Shared: in the file, hidden or
 * not (mincore); of hugetlbfs: in the page tables of the program's mapping or the alias, since the kernel tells nothing of its
 * files. Exact for private memory that is shown; on Linux before 6.15 a page hidden by a guard counts as there. Pages of
 * the file that are swapped out are brought in for it: -EAGAIN when they do not stay (memory too scarce for the file). Of
 * private shared memory those that only the file holds are overlooked while swapped out. Where the
 * process neither owns the file nor may open it for writing, mincore() tells nothing and every page counts as there.
 */
int user_memory_present(const struct user_memory *memory, uint64_t start, uint64_t end, uint8_t *present);

/*
 * Hides [start, end). Private memory loses its content; shared memory keeps it in the file. From any state: write protection
 * ends. On failure nothing is hidden that was shown, but pages may have become write-protected: -ENOMEM when no mapping is
 * left; -EINVAL when the memory has been mlocked since it was inspected.
 */
int user_memory_hide(const struct user_memory *memory, uint64_t start, uint64_t end);

/*
 * Hides those pages of [start, end) that hold nothing and leaves the others shown, all of which are shown before; no thread can
 * populate a page in between. One byte a page tells which are there.
 */
int user_memory_arm(const struct user_memory *memory, uint64_t start, uint64_t end, uint8_t *present);

/*
 * From hidden to shown, atomically, with what the file holds (shared), or as ordinary fresh memory (private). writable: false
 * leaves the pages write-protected. 0, or -errno with the pages still hidden: -ENOMEM when no mapping is left.
 */
int user_memory_show(const struct user_memory *memory, uint64_t start, size_t len, bool writable);

/*
 * From hidden to shown with new content, in three steps; nobody sees the pages before the last one.
 *
 * user_memory_open: makes hidden pages ready for content. user_memory_write: puts in a copy of `len` bytes at src, memory of this
 * process that is readable now (-EFAULT otherwise), or zeros (NULL). user_memory_publish: shows them; what was opened and not written is
 * fresh memory. user_memory_shut: open pages are hidden as before, and empty.
 * 0, or -errno: -ENOMEM when no mapping is left (vm.max_map_count; a page of private memory needs two for a moment even with
 * guards), -EIO when /proc/self/mem is refused or private memory is exhausted, -EFAULT also for a shared page behind the end of
 * its file. After a failure of open the pages are not open; after one of write or publish they are open still, and not shown.
 */
int user_memory_open(const struct user_memory *memory, uint64_t start, size_t len);
int user_memory_write(const struct user_memory *memory, uint64_t start, const void *src, size_t len);
int user_memory_publish(const struct user_memory *memory, uint64_t start, size_t len, bool writable);
void user_memory_shut(const struct user_memory *memory, uint64_t start, size_t len);

/*
 * The three steps in one, where nobody else is there who could see what lies between them: a task that shares this memory with no other.
 * Hidden pages of private memory, writable for the program. src as above.
 */
int user_memory_fill_alone(const struct user_memory *memory, uint64_t start, const void *src, size_t len,
                           bool writable);

/* Whether no other task shares the caller's memory. False also where the kernel will not tell. */
bool user_memory_is_alone(void);

/* Shown pages: takes write access away, or gives it back (as far as prot allows). */
int user_memory_protect(const struct user_memory *memory, uint64_t start, size_t len, bool writable);

/* Whether /proc/self/mem can be written where the program itself may not, which private memory needs. Tried once. */
bool user_memory_private_works(void);

/*
 * The descriptor of /proc/self/mem that is kept for this process (own.h), opened when first needed (-errno: it cannot be). A child of
 * a fork gets its own, by itself.
 */
int user_memory_descriptor(void);

#endif
