/* SPDX-License-Identifier: MIT */
/*
 * userfault/dirty.h - which pages of this process were written
 *
 * A tracker watches ranges of the calling process and tells, as often as it is asked, which pages were written since it
 * was asked last. Asking and forgetting are one step: a write is reported once and never lost, however it races with
 * the question.
 *
 *	uf_dirty_open(&tracker, NULL);
 *	uf_dirty_track(tracker, heap, size, 0);
 *	... the program runs ...
 *	for (at = start; at < end;)
 *		n = uf_dirty_collect(tracker, at, end, ranges, 256, 0, &at);
 *
 * Two methods with the same answers:
 *   async   the kernel lifts the protection by itself and remembers (UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN, Linux 6.7);
 *           the first write to a page costs about a microsecond, no thread is needed
 *   sync    write-protection faults, resolved by a thread of the tracker (Linux 5.14; shared memory and hugetlbfs 5.19)
 *
 * Pages that the program gives back (MADV_DONTNEED, MADV_REMOVE) have changed: async reports them as written; with sync they
 * lose their protection and later writes to them are not seen: untrack and track them anew.
 *
 * Memory that is unmapped, or mapped anew, under a tracker is no longer watched and is passed over.
 *
 * Results, addresses and units are as in <userfault/uffd.h>. The functions may be called from any number of threads, but
 * not in signal handlers, and uf_dirty_close() comes last. The tracker's own memory is mapped apart: a heap may be
 * tracked. A forked child does not inherit the tracking and must not use the tracker.
 */
#ifndef USERFAULT_DIRTY_H
#define USERFAULT_DIRTY_H

#include <userfault/uffd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf_dirty;

enum uf_dirty_method {
	UF_DIRTY_AUTO, /* async where it is there, otherwise sync */
	UF_DIRTY_ASYNC,
	UF_DIRTY_SYNC,
};

struct uf_dirty_options {
	size_t size; /* sizeof(struct uf_dirty_options): the structure grows only at its end */
	enum uf_dirty_method method;
	enum uf_engine engine;
	unsigned flags; /* UF_DIRTY_USER_MODE_ONLY */
};

/*
 * uf_dirty_options.flags: sync may use a userfaultfd that serves the program's own writes only. A system call that writes to a
 * watched page, as read(2) into it, then fails with EFAULT. Without this flag such a userfaultfd is not good enough.
 */
#define UF_DIRTY_USER_MODE_ONLY (1u << 0)

/* A run of written pages: [start, end), bytes. */
struct uf_dirty_range {
	uint64_t start;
	uint64_t end;
};

#define UF_DIRTY_KEEP (1u << 0) /* uf_dirty_collect(): look only; what is reported stays dirty */

/*
 * uf_dirty_open - make a tracker; opts may be NULL
 *
 * -EINVAL (size, method, flags), -E2BIG as uf_open(), -EOPNOTSUPP (this method is not there), or what uf_open() answers.
 * UF_DIRTY_AUTO fails with what sync answers.
 */
int uf_dirty_open(struct uf_dirty **out, const struct uf_dirty_options *opts);

/* The method in use: UF_DIRTY_ASYNC or UF_DIRTY_SYNC. */
enum uf_dirty_method uf_dirty_method(const struct uf_dirty *tracker);

/*
 * uf_dirty_track - watch [addr, addr + len), which counts as clean from here on
 *
 * page_size   of the memory, bytes: 0 for the system's, the huge page's for hugetlbfs; one page is the unit of reports.
 *             -EINVAL: smaller than the memory's pages are
 *
 * The first write to a page that was never touched is reported too.
 * -EEXIST: a part is watched already by this tracker. -EBUSY: by another object. Others as uf_register().
 */
int uf_dirty_track(struct uf_dirty *tracker, void *addr, size_t len, size_t page_size);

/* Watch it no longer: the range must be one that was given to uf_dirty_track(), whole. -ENOENT: it is not. */
int uf_dirty_untrack(struct uf_dirty *tracker, void *addr, size_t len);

/*
 * uf_dirty_collect - the pages in [start, end) written since they were last collected, and clean from here on
 *
 * ranges, count   room for the answer, at least 1; ranges come in rising order, and neighbours are merged
 * flags           UF_DIRTY_KEEP, or 0
 * next            set to where to go on: `end` when all has been looked at, less when the room was used up
 *
 * Returns the number of ranges stored, 0 or more. What a page holds must be read after this returns; a write that comes
 * later is reported next time. Parts of [start, end) that are not watched are passed over.
 * -EINVAL: start > end, not aligned, count 0, unknown flag.
 */
ssize_t uf_dirty_collect(struct uf_dirty *tracker, uint64_t start, uint64_t end, struct uf_dirty_range *ranges,
                         size_t count, unsigned flags, uint64_t *next);

/* Stop watching everything; NULL is allowed. */
void uf_dirty_close(struct uf_dirty *tracker);

#ifdef __cplusplus
}
#endif
#endif
