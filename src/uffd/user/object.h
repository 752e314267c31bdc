/* SPDX-License-Identifier: MIT */
/*
 * object.h - one userfaultfd of the user engine
 *
 * engine.c makes and closes it and is the table, requests.c carries out UFFDIO_*, segv.c is the trap.
 */
#ifndef UFFD_USER_OBJECT_H
#define UFFD_USER_OBJECT_H

#include <stdatomic.h>

#include "uffd/engine.h"
#include "uffd/user/pending.h"
#include "uffd/user/space.h"

#define USER_CHANGERS 32 /* threads whose changes of layout are known one by one */

/*
 * Held by its descriptor, and by each thread that waits in a fault of it: its memory must outlast their waits. A thread that leaves
 * its wait by a longjmp keeps it for good.
 */
struct user_object {
	_Atomic uint32_t holders;
	struct user_pending pending;
	const struct uf *uf; /* whose handler resolves, if it has one */
	_Atomic uint64_t
		features; /* enabled: what UFFDIO_API asked for; with USER_ENABLED. Set once, by compare-and-swap */
	/*
	 * Changes of layout whose event has not been read yet: what delivers pages answers -EAGAIN meanwhile, since it may speak of
	 * places that are something else now. Changed and read with the space's lock held.
	 */
	uint32_t changers[USER_CHANGERS]; /* thread ids of those who do; 0: free */
	unsigned more_changers;           /* those for whom there was no room; one that is killed is never noticed */
	unsigned asked;                   /* how often somebody wanted to know it */
	_Atomic bool ended;
	bool user_mode_only; /* the kernel's own touches are not served */
	bool blocking,
		inheritable; /* opened without O_NONBLOCK, without O_CLOEXEC: so are the descriptors of its children */
	struct user_object *next; /* of this process; with the space's lock */
	_Atomic bool served;      /* there is a thread that serves other processes, or is about to be */
	struct service *service;  /* that thread's */
	bool inherited; /* by a fork: of it there is nothing here but the descriptor. Set before there is another thread */
	struct uf *_Atomic proxy; /* by which an inherited one is reached */
};

#define USER_ENABLED ((uint64_t)1 << 63)

/* Addresses lie below: as the kernel gives them to a program that asks for no others. */
#define USER_ADDRESS_END ((uint64_t)1 << 47)

/* All that this engine does, and so all that it offers. */
#define USER_FEATURES                                                                                         \
	((uint64_t)(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |     \
	            UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM | \
	            UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID |                 \
	            UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_EXACT_ADDRESS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
	            UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_POISON | UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_MOVE))

/*
 * An object with its descriptor (open_flags: O_NONBLOCK, O_CLOEXEC) and features (0: not enabled yet), of which nobody knows yet and that has
 * no thread; it is closed by closing the descriptor and releasing it. 0 or -errno.
 */
int user_object_create(int open_flags, uint64_t features, struct user_object **out);

/* The objects of this process, by `next`; with the space's lock held. */
struct user_object *user_object_first(void);
void user_object_list_only(struct user_object *first); /* in the child of a fork: these are all */

/* The end of an object whose last descriptor is closed: its ranges are ordinary again, and nobody waits any more. Once. */
void user_object_end(struct user_object *object);

/*
 * read(2), by whoever has a view of the pending messages. With nothing to read it is up to `waits`, or to O_NONBLOCK of the bell. With ids
 * it is uf_peek() (durable.h).
 */
enum user_waits { USER_WAITS_NEVER, USER_WAITS_AS_SET };

ssize_t user_read_messages(struct user_pending *pending, uint64_t features, enum user_waits waits,
                           struct uffd_msg *msgs, uint64_t *ids, size_t count);

void user_object_hold(struct user_object *object);
void user_object_release(struct user_object *object);

/* Whom a request wakes: those that wait in [start, end). Empty for nobody. */
struct user_wake {
	uint64_t start, end;
};

/*
 * UFFDIO_*: arg is the request's structure, in memory that is there. 0 or -errno, as the kernel's. Waking is left to the caller, who
 * may have to answer first: a process that is woken may be gone the next moment.
 */
int user_request(struct user_object *object, unsigned long request, void *arg, struct user_wake *wake);

/* UFFDIO_COPY of an enabled object, in the trap, from memory that is not registered. */
int user_request_errand(struct user_object *object, struct uffdio_copy *copy, struct user_wake *wake);

/* Installs the SIGSEGV handler, once for the process. */
int user_segv_install(void);

#endif
