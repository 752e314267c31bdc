/* SPDX-License-Identifier: MIT */
/*
 * engine.h - the table every engine fills in, and the object it serves
 *
 * An engine is an implementation of the userfaultfd ABI: descriptors, UFFDIO_* requests with the kernel's structures and
 * answers, and messages. Everything above the table (negotiation, results, handlers) is written once, in object.c, and
 * so cannot differ between engines. An engine never sees a null object and never touches errno.
 */
#ifndef UFFD_ENGINE_H
#define UFFD_ENGINE_H

#include <signal.h>
#include <stdbool.h>

#include <userfault/uffd.h>

#include "base/pagemap.h"

struct uf_engine_ops {
	const char *name;
	bool faults_are_sigbus; /* with UFFD_FEATURE_SIGBUS: handlers are called by trap.c; otherwise the engine calls them */

	/*
	 * A descriptor had in this way, not yet enabled. open_flags: O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY. *state is the
	 * engine's own, for uf->state. Returns the descriptor or -errno.
	 */
	int (*open)(enum uf_way way, int open_flags, void **state);

	/* Whether fd is an enabled descriptor of this engine: 0 and its features, or as uf_adopt(). */
	int (*recognise)(int fd, uint64_t *features, void **state);

	/*
	 * ioctl(2) and read(2) on the descriptor, with the kernel's answers; read counts in messages. Where arg may be anything,
	 * in uf_ioctl(), an engine that would touch it itself is given a copy, or NULL where it cannot be read and written: -EFAULT,
	 * unless something else is wrong that comes first.
	 */
	bool touches_arg;
	int (*ioctl)(const struct uf *uf, unsigned long request, void *arg);
	ssize_t (*read)(const struct uf *uf, struct uffd_msg *msgs, size_t count);

	/* durable.h. NULL: what is read is read for good; nothing waits. */
	ssize_t (*peek)(const struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count);
	int (*accept)(const struct uf *uf, const uint64_t *ids, size_t count);
	void (*hang_up)(const struct uf *uf);
	bool (*lives)(const struct uf *uf);

	/* Where addresses end: in the page before that nothing is ever registered. 0: the kernel's, which looks at addresses last. */
	uint64_t address_end;

	void (*close)(struct uf *uf);

	/* PAGEMAP_SCAN of this process, as what the engine has protected is concerned; NULL: the kernel's own. */
	int (*scan)(struct pm_scan_arg *arg);

	/*
	 * For whoever stands between a program and its descriptors (src/preload/); of engines whose descriptors are not the kernel's.
	 * enabled: whether UFFDIO_API has been. take: what can be read now, or -EAGAIN, whatever the descriptor's flags say; with no room
	 * for any, 0 if there is something. wait, leave: as user_pending_sleep() and user_pending_leave(), after which to look. renumber:
	 * the descriptor has this number from now on; -1: none here, and close() closes none. forget: instead of close(), in the
	 * child of a fork, which has the parent's object as the fork has left it.
	 */
	bool (*enabled)(const struct uf *uf);
	/* The descriptor is about to be used as such: to be polled, or passed on. 0 or -errno. NULL: nothing to prepare. */
	int (*share)(const struct uf *uf);
	ssize_t (*take)(const struct uf *uf, struct uffd_msg *msgs, size_t count);
	int (*wait)(const struct uf *uf, const struct timespec *timeout, bool restart); /* user_pending_sleep() */
	void (*leave)(const struct uf *uf);
	void (*renumber)(struct uf *uf, int fd);
	void (*forget)(struct uf *uf);
};

/* Immutable once it has been returned to the caller, and so read without a lock by any thread and any handler. */
struct uf {
	const struct uf_engine_ops *ops;
	int fd;
	enum uf_way way;
	uint64_t features;
	uint64_t ioctls;
	uf_handler *handler;
	void *arg;
	void *state; /* the engine's */
};

extern const struct uf_engine_ops uf_engine_kernel, uf_engine_user;

/* Descriptors of the user engine that are adopted; it opens none. */
extern const struct uf_engine_ops uf_engine_remote;

/*
 * An object on a given engine, not yet enabled: UFFDIO_API is left to the caller, through uf_ioctl(). For code that
 * speaks the ABI itself; uf_open() is this and the negotiation. open_flags as above.
 */
int uf_engine_open(struct uf **out, const struct uf_engine_ops *ops, enum uf_way way, int open_flags);

/* uf_open() on one engine, which need not be one of those that uf_open() chooses from. */
int uf_engine_open_negotiated(struct uf **out, const struct uf_engine_ops *ops, const struct uf_options *opts);

/* The features and requests that a way offers: opens a descriptor of its own, since asking enables it. */
int uf_engine_available(const struct uf_engine_ops *ops, enum uf_way way, int open_flags, uint64_t *features,
                        uint64_t *ioctls);

/* uf_adopt() on one engine. */
int uf_engine_adopt(struct uf **out, const struct uf_engine_ops *ops, int fd);

#endif
