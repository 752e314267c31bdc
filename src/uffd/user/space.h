/* SPDX-License-Identifier: MIT */
/*
 * space.h - what is registered in this process, and the state of each of its pages
 *
 * The engine's picture of one address space: sorted, disjoint ranges, each with one byte a page. It knows nothing of messages and
 * of who waits. deliver.h is what touches and requests do to pages, layout.h what the program does to ranges. A child of a fork
 * has a copy of the picture, together with the page tables that it describes.
 *
 * One lock guards it all. It is taken with signals blocked, held for the time of a few system calls, and never around a wait:
 * a thread that waits in a fault holds nothing. While it is held, nothing touches registered memory.
 *
 * Its holder can be killed at any instruction while others go on (base/lock.h). So a page's state is written in an order that
 * tells what is left to do: before memory is hidden it is HIDDEN and HIDING, and whoever takes the lock over finishes that; before a
 * page is shown it is not HIDDEN any more, its content is complete, and a thread that traps on it shows it (user_space_mend).
 * Changes of the list of ranges are written down first, and finished by whoever takes the lock over.
 */
#ifndef UFFD_USER_SPACE_H
#define UFFD_USER_SPACE_H

#include <userfault/uffd.h>

#include "base/lock.h"
#include "uffd/user/memory.h"

struct user_object;

#define USER_PAGE_HIDDEN    (1u << 0) /* a touch traps */
#define USER_PAGE_PROTECTED (1u << 1) /* write-protected; together with HIDDEN: a mark on a page that is not there */
#define USER_PAGE_POISONED  (1u << 2) /* HIDDEN for good: SIGBUS */
#define USER_PAGE_READY     (1u << 4) /* HIDDEN, with its content: it waits for a mapping (scarce.h) */
#define USER_PAGE_HIDING    (1u << 3) /* only while the lock is held: shown until now */

struct user_range {
	struct user_memory memory;
	struct user_object
		*object; /* NULL: nobody's any more, but there is poison in it, which outlives registrations */
	uint64_t mode;   /* UFFDIO_REGISTER_MODE_* */
	uint8_t *pages;  /* USER_PAGE_*, one a page of memory.page_size */
};

/* The state of the page that addr lies in. */
static inline uint8_t *user_page_state(const struct user_range *range, uint64_t addr)
{
	return &range->pages[(addr - range->memory.start) / range->memory.page_size];
}

signal_mask user_space_lock(void);
void user_space_unlock(signal_mask before);

/* The same in the trap, where signals are blocked already and stay so. */
void user_space_lock_in_trap(void);
uint32_t user_space_holder(void); /* the thread id of the caller, who holds the lock */
void user_space_unlock_in_trap(void);

/* In a child of a fork whose lock may be held by a thread that is not there. */
void user_space_reset(void);

/* Ranges that are registered from now on are hidden by mprotect(2) alone, as on kernels without guard pages. For tests. */
void user_space_use_mprotect(void);

/* Everything below: with the lock held. */

/* The range that holds addr, or NULL. Valid until the next change of the space. */
struct user_range *user_space_at(uint64_t addr);

/*
 * user_space_register - track [start, end) for an object, or change the modes of what it tracks there already
 *
 * Errors as UFFDIO_REGISTER: -EBUSY, -EINVAL, -ENOMEM. With -errno nothing has changed.
 */
int user_space_register(struct user_object *object, uint64_t start, uint64_t end, uint64_t mode, bool protect_only);

/*
 * Makes [start, end) ordinary memory again. -EINVAL: a part belongs to another object, and nothing has changed; -ENOMEM: no
 * memory to cut a range in two. user_space_forget: all that belongs to an object, which cannot fail.
 */
int user_space_unregister(struct user_object *object, uint64_t start, uint64_t end);
void user_space_forget(struct user_object *object);

/* Whether that was ever done: a thread may have trapped before, and ask only now. */
bool user_space_has_released(void);

/* The first range that ends behind addr, or NULL; and whether one overlaps [start, end). */
struct user_range *user_space_next(uint64_t addr);
bool user_space_in(uint64_t start, uint64_t end);

/*
 * user_memory_hide() for pages of a range, of which only those that are shown now may hold something. Their states become HIDDEN,
 * with whatever else they were; on failure they are as before.
 */
int user_space_hide(struct user_range *range, uint64_t start, uint64_t end);

/* A page that is not HIDDEN has trapped all the same: if a holder of the lock was ever killed, shows it. */
void user_space_mend(struct user_range *range, uint64_t addr);

/* Calls `visit` for each range in [start, end), cut to it, in rising order, until it returns something other than 0; returns that. */
int user_space_each(uint64_t start, uint64_t end, int (*visit)(struct user_range *range, void *arg), void *arg);

/*
 * What layout.c needs. user_space_split: cuts ranges, so that none reaches across start or end, and makes room for another such
 * pair; 0 or -ENOMEM. user_space_drop: forgets [start, end), which is not mapped any more, after user_space_split().
 * user_space_move: what is registered in [from, from + len) is at `to` now; nothing is registered there.
 * user_space_release: makes a range ordinary memory, which nobody tracks; but for what is poisoned in it.
 * user_space_repeat: registers the empty memory at `start` as `range` is, whose twin it is; all of it is hidden. 0 or -errno.
 */
int user_space_split(uint64_t start, uint64_t end);
void user_space_drop(uint64_t start, uint64_t end);
void user_space_move(uint64_t from, size_t len, uint64_t to);
void user_space_release(struct user_range *range);
int user_space_repeat(const struct user_range *range, uint64_t start);

/*
 * Whether something registered may lie in [start, end): as it was when the lock was released last, so needs no lock. Never for the holder of the
 * lock: what it maps and passes to the kernel is the engine's own, also where its calls come through the wrappers of src/preload.
 */
bool user_space_reaches(uint64_t start, uint64_t end);

#endif
