/* SPDX-License-Identifier: MIT */
/*
 * descriptors.h - which descriptors of this process are userfaultfds of the user engine
 *
 * Learnt from the calls that make, duplicate and close descriptors, and from the descriptor itself where it came in another way: over a
 * socket, through fork or exec. What is known may be out of date after a close that was not seen, or that happened in a task with a
 * descriptor table of its own; an entry that is in doubt is checked against the descriptor before it is used.
 *
 * No lock: an entry is one atomic word, and what it points to is never freed, only used again (descriptors.c).
 */
#ifndef PRELOAD_DESCRIPTORS_H
#define PRELOAD_DESCRIPTORS_H

#include <stdbool.h>

#include "uffd/engine.h"

/* Numbers from here on cannot be known: opening gives EMFILE instead. */
#define DESCRIPTORS_MAX 65536

struct handle;

/* Whether any descriptor of ours is known in this process: the only thing that wrappers look at in programs that have none. */
bool descriptors_any(void);

/*
 * descriptors_get - the object behind a descriptor, to be given back with descriptors_put()
 *
 * `unknown`: a descriptor that is not known may be one as well; find out, and adopt it. That costs a system call. NULL: it is not ours.
 */
struct handle *descriptors_get(int fd, bool unknown);
void descriptors_put(struct handle *handle);

struct uf *handle_object(const struct handle *handle); /* NULL: it is /dev/userfaultfd itself */

/* Whether reads wait. Learnt when the handle is made, and from handle_flags_changed(): another process may change it unseen. */
bool handle_blocks(const struct handle *handle);
void handle_flags_changed(struct handle *handle, int fd);

/* A new object, or (NULL) a descriptor that stands for /dev/userfaultfd. 0, or -errno and the object still is the caller's. */
int descriptors_add(int fd, struct uf *uf);

/* `to` is a duplicate of `from` now; whatever it was before has been closed by that. Nothing happens when `from` is not ours. */
void descriptors_duplicated(int from, int to);

/* Before a close, also that by dup2(2): true when it was ours and is closed now; false: the caller closes. */
bool descriptors_close(int fd);

/* The descriptors that are known, in rising order: the first at or behind fd, or -1. */
int descriptors_next(int fd);

/* In the child of a fork: whatever is known belongs to the parent, and is adopted anew when it is needed. */
void descriptors_forked(void);

#endif
