// SPDX-License-Identifier: MIT
/* The object: negotiation, and one meaning for the results of every engine. Contracts: <userfault/uffd.h>. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

#include "base/options.h"
#include "uffd/durable.h"
#include "uffd/engine.h"
#include "uffd/trap.h"
#include "uffd/trycopy.h"

#define KNOWN_OPEN_FLAGS (UF_OPEN_USER_MODE_ONLY | UF_OPEN_KERNEL_FAULTS | UF_OPEN_BLOCKING | UF_OPEN_INHERIT)

/* The size of uf_options in the first version of this header: what every caller has. */
#define OPTIONS_SIZE_0 (offsetof(struct uf_options, arg) + sizeof(void *))

/* With an argument of ours, which is memory. */
static int request_of(struct uf *uf, unsigned long request, void *arg)
{
	return uf ? uf->ops->ioctl(uf, request, arg) : -EINVAL;
}

/* The request on a copy of its structure. That it can be written back is made sure of before anything is done. */
static int ioctl_on_copy(struct uf *uf, unsigned long request, void *arg)
{
	uint64_t copy[16];
	size_t len = _IOC_SIZE(request);
	int err;

	if (len > sizeof(copy))
		return -EINVAL;
	if (try_copy(copy, arg, len) || try_copy(arg, copy, len))
		return uf->ops->ioctl(uf, request, NULL);
	err = uf->ops->ioctl(uf, request, copy);
	return try_copy(arg, copy, len) ? -EFAULT : err;
}

int uf_ioctl(struct uf *uf, unsigned long request, void *arg)
{
	if (uf && uf->ops->touches_arg)
		return ioctl_on_copy(uf, request, arg);
	return request_of(uf, request, arg);
}

int uf_engine_open(struct uf **out, const struct uf_engine_ops *ops, enum uf_way way, int open_flags)
{
	struct uf *uf = calloc(1, sizeof(*uf));
	int fd;

	if (!uf)
		return -ENOMEM;
	fd = ops->open(way, open_flags, &uf->state);
	if (fd < 0) {
		free(uf);
		return fd;
	}
	uf->ops = ops;
	uf->fd = fd;
	uf->way = way;
	*out = uf;
	return 0;
}

int uf_engine_available(const struct uf_engine_ops *ops, enum uf_way way, int open_flags, uint64_t *features,
                        uint64_t *ioctls)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uf *uf;
	int err;

	err = uf_engine_open(&uf, ops, way, open_flags);
	if (err)
		return err;
	err = request_of(uf, UFFDIO_API, &api);
	uf_close(uf);
	*features = api.features;
	*ioctls = api.ioctls;
	return err;
}

static int enable(struct uf *uf, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int err = request_of(uf, UFFDIO_API, &api);

	if (err)
		return err;
	/* The kernel turns the second on with the first, and answers with what it could do, not with what is on. */
	if (features & UFFD_FEATURE_WP_ASYNC)
		features |= UFFD_FEATURE_WP_UNPOPULATED;
	uf->features = features;
	uf->ioctls = api.ioctls;
	return 0;
}

/*
 * Opens and enables in one way. *opened tells whether there was a descriptor at all: if so, the error is about features
 * and says more than the refusal of another way.
 */
static int open_in_way(struct uf **out, const struct uf_engine_ops *ops, enum uf_way way, int open_flags,
                       const struct uf_options *opts, bool *opened)
{
	uint64_t required = opts->required | (opts->handler ? UFFD_FEATURE_SIGBUS : 0);
	uint64_t wanted, available, ioctls;
	struct uf *uf;
	int err;

	err = uf_engine_available(ops, way, open_flags, &available, &ioctls);
	if (err)
		return err;
	*opened = true;
	if (required & ~available)
		return -EOPNOTSUPP;
	wanted = opts->wanted & available;

	err = uf_engine_open(&uf, ops, way, open_flags);
	if (err)
		return err;
	err = enable(uf, required | wanted);
	/* Offered to everyone, granted to CAP_SYS_PTRACE only. A refused UFFDIO_API leaves the descriptor as it was. */
	if (err == -EPERM && (wanted & ~required & UFFD_FEATURE_EVENT_FORK))
		err = enable(uf, required | (wanted & ~(uint64_t)UFFD_FEATURE_EVENT_FORK));
	if (err) {
		uf_close(uf);
		return err;
	}
	uf->handler = opts->handler;
	uf->arg = opts->arg;
	/* With a handler few ever use it. */
	err = opts->handler || !ops->share ? 0 : ops->share(uf);
	if (err) {
		uf_close(uf);
		return err;
	}
	*out = uf;
	return 0;
}

static bool way_fits(enum uf_way way, unsigned flags)
{
	if (flags & UF_OPEN_USER_MODE_ONLY)
		return way != UF_WAY_SYSCALL; /* UF_WAY_USER_MODE is the same call with this flag */
	if (flags & UF_OPEN_KERNEL_FAULTS)
		return way != UF_WAY_USER_MODE;
	return true;
}

static bool way_is_of(enum uf_way way, const struct uf_engine_ops *ops)
{
	return (way == UF_WAY_USER_ENGINE) == (ops == &uf_engine_user);
}

int uf_engine_open_negotiated(struct uf **out, const struct uf_engine_ops *ops, const struct uf_options *opts)
{
	int open_flags = (opts->flags & UF_OPEN_BLOCKING ? 0 : O_NONBLOCK) |
	                 (opts->flags & UF_OPEN_INHERIT ? 0 : O_CLOEXEC) |
	                 (opts->flags & UF_OPEN_USER_MODE_ONLY ? UFFD_USER_MODE_ONLY : 0);
	int refusal = 0, shortage = 0;

	if (opts->handler && ops->faults_are_sigbus) {
		int err = uf_trap_install();

		if (err)
			return err;
	}
	for (enum uf_way way = 0; way < UF_WAY_COUNT; way++) {
		bool opened = false;
		int err;

		if (!way_is_of(way, ops) || !way_fits(way, opts->flags))
			continue;
		err = open_in_way(out, ops, way, open_flags, opts, &opened);
		if (!err)
			return 0;
		if (opened && !shortage)
			shortage = err;
		else if (!refusal)
			refusal = err;
	}
	return shortage ? shortage : refusal;
}

static int open_on_user_engine(struct uf **out, const struct uf_options *opts)
{
	return opts->flags & UF_OPEN_KERNEL_FAULTS ? -EOPNOTSUPP
	                                           : uf_engine_open_negotiated(out, &uf_engine_user, opts);
}

int uf_open(struct uf **out, const struct uf_options *opts)
{
	struct uf_options options = {.size = sizeof(options)};
	int err = opts ? options_take(&options, sizeof(options), opts, OPTIONS_SIZE_0) : 0;

	if (err)
		return err;
	if (!out || (options.flags & ~KNOWN_OPEN_FLAGS))
		return -EINVAL;
	if ((options.flags & UF_OPEN_USER_MODE_ONLY) && (options.flags & UF_OPEN_KERNEL_FAULTS))
		return -EINVAL;
	if (options.handler) {
		/* A child's faults would be served by a handler in the child, whose requests go to the parent. */
		if (options.required & UFFD_FEATURE_EVENT_FORK)
			return -EINVAL;
		options.wanted &= ~(uint64_t)UFFD_FEATURE_EVENT_FORK;
	}
	switch (options.engine) {
	case UF_ENGINE_AUTO:
		err = uf_engine_open_negotiated(out, &uf_engine_kernel, &options);
		/* What the kernel says tells more than what the last resort lacks. */
		return !err || open_on_user_engine(out, &options) ? err : 0;
	case UF_ENGINE_KERNEL:
		return uf_engine_open_negotiated(out, &uf_engine_kernel, &options);
	case UF_ENGINE_USER:
		return open_on_user_engine(out, &options);
	default:
		return -EINVAL;
	}
}

int uf_engine_adopt(struct uf **out, const struct uf_engine_ops *ops, int fd)
{
	struct uf *uf = calloc(1, sizeof(*uf));
	int err;

	if (!uf)
		return -ENOMEM;
	err = ops->recognise(fd, &uf->features, &uf->state);
	if (err) {
		free(uf);
		return err;
	}
	uf->ops = ops;
	uf->fd = fd;
	uf->way = UF_WAY_ADOPTED;
	uf->ioctls = UFFD_API_IOCTLS;
	*out = uf;
	return 0;
}

int uf_adopt(struct uf **out, int fd)
{
	static const struct uf_engine_ops *const engines[] = {&uf_engine_kernel, &uf_engine_remote};
	int err = -ENOTTY;

	if (!out)
		return -EINVAL;
	for (size_t i = 0; err == -ENOTTY && i < sizeof(engines) / sizeof(engines[0]); i++)
		err = uf_engine_adopt(out, engines[i], fd);
	return err;
}

/* Whether its handler is called by the trap, which must know the ranges. */
static bool is_trapped(const struct uf *uf)
{
	return uf->handler && uf->ops->faults_are_sigbus;
}

void uf_close(struct uf *uf)
{
	if (!uf)
		return;
	if (is_trapped(uf))
		uf_trap_remove_owner(uf);
	uf->ops->close(uf);
	free(uf);
}

int uf_fd(const struct uf *uf)
{
	int err;

	if (!uf)
		return -EINVAL;
	err = uf->ops->share ? uf->ops->share(uf) : 0;
	return err ? err : uf->fd;
}

uint64_t uf_features(const struct uf *uf)
{
	return uf ? uf->features : 0;
}

uint64_t uf_ioctls(const struct uf *uf)
{
	return uf ? uf->ioctls : 0;
}

enum uf_way uf_way(const struct uf *uf)
{
	return uf ? uf->way : UF_WAY_ADOPTED;
}

static inline uint64_t address(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

int uf_register(struct uf *uf, void *addr, size_t len, uint64_t mode, uint64_t *ioctls)
{
	struct uffdio_register reg = {.range = {address(addr), len}, .mode = mode};
	int err;

	if (!uf)
		return -EINVAL;
	if (is_trapped(uf)) {
		/* One new range, and one more where it cuts an older one in two. */
		err = uf_trap_begin(2);
		if (err)
			return err;
		err = request_of(uf, UFFDIO_REGISTER, &reg);
		if (!err)
			uf_trap_add(address(addr), address(addr) + len, uf);
		uf_trap_end();
	} else {
		err = request_of(uf, UFFDIO_REGISTER, &reg);
	}
	/* Last, since the caller's variable may itself lie in the range. */
	if (!err && ioctls)
		*ioctls = reg.ioctls;
	return err;
}

int uf_unregister(struct uf *uf, void *addr, size_t len)
{
	struct uffdio_range range = {address(addr), len};
	int err;

	if (!uf)
		return -EINVAL;
	if (is_trapped(uf)) {
		err = uf_trap_begin(1);
		if (err)
			return err;
		err = request_of(uf, UFFDIO_UNREGISTER, &range);
		if (!err)
			uf_trap_remove(address(addr), address(addr) + len);
		uf_trap_end();
	} else {
		err = request_of(uf, UFFDIO_UNREGISTER, &range);
		/* The kernel wakes missing faults only; a writer that waits would wait for ever. */
		if (!err)
			request_of(uf, UFFDIO_WAKE, &range);
	}
	return err;
}

/*
 * What a page-delivering request came to. `done` is its result field, which the kernel does not write on every path:
 * callers set it to 0 first. EAGAIN with progress is a count; EAGAIN without is a layout event not yet read, in whichever
 * of its two shapes (field 0, or field -EAGAIN) this kernel reports it.
 */
static ssize_t delivered(int err, int64_t done, size_t len)
{
	if (!err)
		return (ssize_t)len;
	if (err == -EAGAIN && done > 0)
		return (ssize_t)done;
	/* 4.11 and 4.12; no kernel since gives this code for anything else here */
	if (err == -ENOSPC)
		return -ESRCH;
	return err;
}

ssize_t uf_copy(struct uf *uf, void *dst, const void *src, size_t len, uint64_t mode)
{
	struct uffdio_copy copy = {.dst = address(dst), .src = address(src), .len = len, .mode = mode};
	int err = request_of(uf, UFFDIO_COPY, &copy);

	return delivered(err, copy.copy, len);
}

ssize_t uf_zeropage(struct uf *uf, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_zeropage zero = {.range = {address(addr), len}, .mode = mode};
	int err = request_of(uf, UFFDIO_ZEROPAGE, &zero);

	return delivered(err, zero.zeropage, len);
}

ssize_t uf_continue(struct uf *uf, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_continue cont = {.range = {address(addr), len}, .mode = mode};
	int err = request_of(uf, UFFDIO_CONTINUE, &cont);

	return delivered(err, cont.mapped, len);
}

ssize_t uf_move(struct uf *uf, void *dst, void *src, size_t len, uint64_t mode)
{
	struct uffdio_move move = {.dst = address(dst), .src = address(src), .len = len, .mode = mode};
	int err = request_of(uf, UFFDIO_MOVE, &move);

	return delivered(err, move.move, len);
}

ssize_t uf_poison(struct uf *uf, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_poison poison = {.range = {address(addr), len}, .mode = mode};
	int err = request_of(uf, UFFDIO_POISON, &poison);

	return delivered(err, poison.updated, len);
}

int uf_writeprotect(struct uf *uf, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_writeprotect wp = {.range = {address(addr), len}, .mode = mode};

	return request_of(uf, UFFDIO_WRITEPROTECT, &wp);
}

int uf_wake(struct uf *uf, void *addr, size_t len)
{
	struct uffdio_range range = {address(addr), len};

	return request_of(uf, UFFDIO_WAKE, &range);
}

ssize_t uf_read(struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	if (!uf || !msgs || !count)
		return -EINVAL;
	return uf->ops->read(uf, msgs, count);
}

ssize_t uf_peek(struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count)
{
	ssize_t n;

	if (!uf || !msgs || !ids || !count)
		return -EINVAL;
	if (uf->ops->peek)
		return uf->ops->peek(uf, msgs, ids, count);
	n = uf->ops->read(uf, msgs, count);
	for (ssize_t i = 0; i < n; i++)
		ids[i] = 0;
	return n;
}

int uf_accept(struct uf *uf, const uint64_t *ids, size_t count)
{
	if (!uf)
		return -EINVAL;
	return uf->ops->accept ? uf->ops->accept(uf, ids, count) : 0;
}

void uf_hang_up(struct uf *uf)
{
	if (uf && uf->ops->hang_up)
		uf->ops->hang_up(uf);
}

bool uf_all_told(struct uf *uf)
{
	/* Refused for that before it is looked at; and nothing can lie there. */
	struct uffdio_zeropage nothing = {.range = {.len = (uint64_t)sysconf(_SC_PAGESIZE)}};

	if (uf->ops->address_end)
		nothing.range.start = uf->ops->address_end - nothing.range.len;
	return uf->ops->ioctl(uf, UFFDIO_ZEROPAGE, &nothing) != -EAGAIN;
}

bool uf_counts_events(const struct uf *uf)
{
	unsigned major = 0, minor = 0;
	struct utsname system;

	if (uf->ops != &uf_engine_kernel)
		return true;
	uname(&system);
	sscanf(system.release, "%u.%u", &major, &minor);
	return major > 5 || (major == 5 && minor >= 15);
}

bool uf_lives(struct uf *uf)
{
	/* No copy from there to there can succeed, and only of a process that is gone is it said. */
	struct uffdio_copy nothing = {.dst = 0, .src = 0, .len = (uint64_t)sysconf(_SC_PAGESIZE)};

	if (uf->ops->lives)
		return uf->ops->lives(uf);
	return uf->ops->ioctl(uf, UFFDIO_COPY, &nothing) != -ESRCH;
}
