/* SPDX-License-Identifier: MIT */
/*
 * userfault/pager.h - memory larger than memory: stores mapped into one's own process, under a budget
 *
 * A pager maps ranges of stores (<userfault/store.h>) as ordinary memory. A page is read when it is touched first, and leaves again when the
 * budget is used up: dropped if nobody has written to it, written back if somebody has. It is a mmap(2) whose rules are the program's.
 *
 *	uf_store_open(&store, "file:/data/table", NULL, NULL, 0);
 *	uf_pager_open(&pager, &(struct uf_pager_options){.size = sizeof(struct uf_pager_options), .budget = 1 << 30});
 *	uf_pager_map(pager, &table, store, 0, uf_store_size(store), UF_PAGER_SHARED, 0);
 *	... table[i] ...
 *	uf_pager_flush(pager, table, length);
 *
 * Results, and structures that grow, are as in <userfault/uffd.h>. Any number of threads may touch the memory and call the functions, but
 * not in signal handlers, and not while touching what another thread unmaps; uf_pager_close() comes last. What is mapped is the pager's
 * to change: no munmap(2), mremap(2), mprotect(2), madvise(2) or mlock(2) of it, nor mlockall(2) with MCL_CURRENT. Addresses and lengths are
 * bytes; unless it is said otherwise they need not be multiples of the unit, and all units that they reach into count.
 *
 * A mapping does not go to the child of a fork (MADV_DONTFORK): a touch there is SIGSEGV, and no function may be called there with
 * the pager.
 *
 * How faults are resolved
 *
 *   on a thread of the pager  also where the kernel itself touches the memory, as in a write(2) from it. Linux's userfaultfd with
 *                             full rights only.
 *   inline                    on the faulting thread, in a signal handler: no switch of threads, about half the cost. A system call that is
 *                             given a page which is not in memory fails with EFAULT: pin it, or touch it, before. So does
 *                             one that is to write to a page which is not dirty, as read(2) into it, pinned or not: write to it before.
 *                             All signals are blocked during the fault, as in a page fault of mmap(2) that waits for a disk.
 *                             A thread that blocks SIGBUS, or on the user engine SIGSEGV, dies of a touch.
 *
 * What a store cannot take, as when its disk is full, stays in memory and is tried again up to a hundred times a second. When nothing else
 * is left in the budget, touches wait until it can.
 */
#ifndef USERFAULT_PAGER_H
#define USERFAULT_PAGER_H

#include <userfault/store.h>
#include <userfault/uffd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf_pager;

enum uf_pager_way {
	UF_PAGER_AUTO,   /* on a thread where that serves the kernel's touches too, otherwise inline */
	UF_PAGER_THREAD, /* on a thread of the pager */
	UF_PAGER_INLINE, /* on the thread that touches */
};

/* What happens to a thread that touches a page that its store cannot read, after all attempts (uf_store_options.attempts). */
enum uf_pager_policy {
	UF_PAGER_POISON, /* SIGBUS, for everyone who touches it until uf_pager_advise(UF_PAGER_WILLNEED) has read it */
	UF_PAGER_WAIT,   /* it waits, and the store is asked again every second */
};

struct uf_pager_options {
	size_t size; /* sizeof(struct uf_pager_options): the structure grows only at its end */
	/*
	 * Bytes of memory that pages may take, at least 8 pages of the largest unit that is mapped. Not counted are buffers, of at most 20 MiB,
	 * a byte for each page that is mapped, as far as they are touched, and what the system caches of files.
	 */
	uint64_t budget;
	enum uf_engine engine; /* as for uf_open() */
	enum uf_pager_way way;
	enum uf_pager_policy policy;
	unsigned flags; /* none yet */
	/* A folder: written pages of private mappings leave to a nameless file there. NULL: /var/tmp */
	const char *scratch;
	/*
	 * Told of what fails, one line each; may be NULL. On any thread, with locks held and signals blocked: it must neither wait, nor call functions of
	 * the pager or the store, nor touch what is mapped.
	 */
	void (*failed)(void *arg, const char *cause);
	void *arg;
};

/*
 * uf_pager_open - a pager without mappings
 *
 * As uf_open(), but that `opts` must be there. Also -EINVAL: a budget below 8 pages, or more than there can be; a path of more than 255
 * bytes in `scratch`.
 */
int uf_pager_open(struct uf_pager **out, const struct uf_pager_options *opts);

/* Unmaps what is mapped. What was written and has not reached its store is lost: uf_pager_flush() comes before. NULL is allowed. */
void uf_pager_close(struct uf_pager *pager);

/* uf_pager_map(): how writes are taken, which is one of the first three; and UF_PAGER_HUGE, which may be added. */
#define UF_PAGER_READ_ONLY (1u << 0) /* there are none: SIGSEGV */
#define UF_PAGER_PRIVATE   (1u << 1) /* they stay in this mapping and never reach the store */
#define UF_PAGER_SHARED    (1u << 2) /* they reach the store: when a page leaves, and with uf_pager_flush() */
#define UF_PAGER_HUGE      (1u << 3) /* in huge pages of the system's pool (hugetlbfs); the unit is their size */

/*
 * uf_pager_map - map `len` bytes of a store from `offset` on
 *
 * unit     bytes that are read and evicted together: a power of two from the system's page to 2 MiB; 0: the system's page
 * *addr    is set to where they are, a multiple of the unit. The mapping is as long as `len`, rounded up to the unit; behind the
 *          store's end it reads as zeros, and what is written there is lost, as with mmap(2)
 *
 * The store must stay open until the mapping ends. Two shared mappings of one part of a store do not see each other's writes.
 *
 * -EINVAL      offset not a multiple of the unit; length 0; flags that contradict each other; no such unit; a budget below 8 units
 * -ERANGE      the store ends before offset + len
 * -EROFS       UF_PAGER_SHARED, and the store is read-only
 * -EOPNOTSUPP  UF_PAGER_HUGE on the user engine, and writes where no write can be noticed; UF_PAGER_PRIVATE, and the file system of
 *              `scratch` knows no nameless files (O_TMPFILE)
 * -ENOMEM, and what open(2) says of `scratch`, and what uf_register() answers
 */
int uf_pager_map(struct uf_pager *pager, void **addr, struct uf_store *store, uint64_t offset, uint64_t len,
                 unsigned flags, size_t unit);

/*
 * uf_pager_unmap - end the mapping, or a part of it: [addr, addr + len), of which addr is a multiple of the unit
 *
 * Written pages of shared mappings are written back first, though the store is not flushed, and an error of that leaves the mapping as it
 * was. No thread may touch the range any more, and it may not be unmapped twice: something else may lie there. -EINVAL: not in
 * one mapping.
 */
int uf_pager_unmap(struct uf_pager *pager, void *addr, uint64_t len);

/*
 * uf_pager_flush - make what was written to shared mappings durable
 *
 * When it returns 0, every write to [addr, addr + len) that came before the call is on the store, and the store has been flushed. A page is
 * written as it was at one moment: two versions of it are never mixed. Writers go on meanwhile. addr NULL and len 0: everything. What
 * is not mapped, or not shared, is passed over.
 *
 * -EINVAL: length 0 with an address. -ENOMEM. Otherwise the first error of a store; what could not be written is still dirty. What was written and could
 * not be flushed is the store's to keep, or to say that it is lost: uf_store_flush().
 */
int uf_pager_flush(struct uf_pager *pager, void *addr, uint64_t len);

enum uf_pager_advice {
	UF_PAGER_WILLNEED,   /* read it in the background, as far as the budget goes; also what was poisoned */
	UF_PAGER_DONTNEED,   /* it may leave first; nothing is lost */
	UF_PAGER_RANDOM,     /* never read more than was touched */
	UF_PAGER_SEQUENTIAL, /* read far ahead at once */
	UF_PAGER_NORMAL,     /* find out: read ahead where touches follow one another */
};

/* RANDOM, SEQUENTIAL and NORMAL are of the whole mapping that addr lies in. -EINVAL: not in one mapping, or no such advice. */
int uf_pager_advise(struct uf_pager *pager, void *addr, uint64_t len, enum uf_pager_advice advice);

/*
 * uf_pager_pin - bring pages into memory and keep them there
 *
 * Then system calls can use them, and touches cost nothing; but for the instant in which a flush copies a page. Where they can be written to
 * they count as written while they are pinned. A flag of a page, not a count. -ENOMEM: less than 8 units, or an eighth, of the budget would
 * be left for the others, or the system has no memory for them; -EIO: the store cannot read one. Then nothing
 * more is pinned.
 */
int uf_pager_pin(struct uf_pager *pager, void *addr, uint64_t len);
int uf_pager_unpin(struct uf_pager *pager, void *addr, uint64_t len);

/*
 * Working sets: which pages a run of the program touched first, in which order, to be brought in at the next start.
 *
 * uf_pager_record   begins to record the mapping that addr lies in, forgetting what was recorded; or ends it (on = 0). Recorded is a page
 *                   that is touched and not in memory, so begin before the first touch; nothing is read ahead meanwhile. It takes
 *                   33 bits for each page of the mapping, as far as they are touched; after 64 Mi pages nothing is added
 * uf_pager_save     writes what was recorded so far to a file, replaced as a whole. -ENODATA: nothing was recorded
 * uf_pager_replay   reads the pages that a file names in few large reads, many at a time, in the background; touched pages go first. Pages
 *                   are named by their offset in the store. As many as the budget allows. -EBADMSG: not such a file, or damaged; nothing is read.
 *                   With `wait`, returns when all are there
 *
 * Also -EINVAL: addr is not mapped; -ENOMEM; and what open(2) and its like say of the file. One thread at a time for a mapping.
 */
int uf_pager_record(struct uf_pager *pager, void *addr, int on);
int uf_pager_save(struct uf_pager *pager, void *addr, const char *path);
int uf_pager_replay(struct uf_pager *pager, void *addr, const char *path, int wait);

/* Counts since uf_pager_open(); bytes where it says so. */
struct uf_pager_statistics {
	size_t size;                                    /* set by the caller: sizeof(struct uf_pager_statistics) */
	uint64_t budget;                                /* bytes */
	uint64_t resident;                              /* bytes in memory now, with what is just being evicted */
	uint64_t dirty;                                 /* of those, written to and not yet written back; a snapshot */
	uint64_t pinned;                                /* bytes */
	uint64_t faults;                                /* missing pages that were touched */
	uint64_t write_faults;                          /* first writes to pages that were in memory */
	uint64_t refaults;                              /* of `faults`, pages found among those just evicted */
	uint64_t read;                                  /* bytes read from stores */
	uint64_t ahead;                                 /* of those, bytes that nobody had touched yet */
	uint64_t written;                               /* bytes written to stores and to scratch */
	uint64_t evicted;                               /* bytes */
	uint64_t waits;                                 /* faults that had to wait for room */
	uint64_t errors;                                /* requests to stores that failed after all attempts */
	uint64_t poisoned;                              /* bytes lost to them and not read since */
	uint64_t latency_p50, latency_p99, latency_max; /* of faults, ns, to within 5 % */
	/* latency[i]: faults that took less than 2^i ns, and not less than 2^(i-1) */
	uint64_t latency[48];
	char last_error[512]; /* "" for none */
};

/* 0, or -EINVAL: stats->size is not that of a structure. It looks at the state of every page that is mapped: not for every microsecond. */
int uf_pager_stats(struct uf_pager *pager, struct uf_pager_statistics *stats);

/* How faults are resolved, and on which engine: what AUTO has chosen. */
enum uf_pager_way uf_pager_way(const struct uf_pager *pager);
enum uf_engine uf_pager_engine(const struct uf_pager *pager);

#ifdef __cplusplus
}
#endif

#endif
