// SPDX-License-Identifier: MIT
/*
 * UFFDIO_*, with the kernel's checks in the kernel's order and its answers.
 *
 * The structure is copied in and its results are copied out by the kernel, so that a bad pointer is EFAULT and not a signal.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "uffd/user/object.h"

/* process_vm_readv(2) and process_vm_writev(2) on ourselves: 0 or -EFAULT. */
static int copy_between(long nr, void *ours, void *theirs, size_t len)
{
	struct iovec local = {.iov_base = ours, .iov_len = len}, remote = {.iov_base = theirs, .iov_len = len};

	return raw_syscall6(nr, raw_getpid(), (long)&local, 1, (long)&remote, 1, 0) == (long)len ? 0 : -EFAULT;
}

static int copy_in(void *to, const void *from, size_t len)
{
	return copy_between(SYS_process_vm_readv, to, (void *)from, len);
}

static int copy_out(void *to, const void *from, size_t len)
{
	return copy_between(SYS_process_vm_writev, (void *)from, to, len);
}

static struct user_object *object_of(const struct uf *uf)
{
	return uf->state;
}

static bool is_enabled(const struct user_object *object)
{
	return atomic_load(&object->features) & USER_ENABLED;
}

static bool has(const struct user_object *object, uint64_t feature)
{
	return atomic_load(&object->features) & feature;
}

#define LOWEST_ADDRESS  65536
#define ADDRESS_SPACE   ((uint64_t)1 << 47)
#define REQUEST(name)   ((uint64_t)1 << _UFFDIO_##name)
#define OBJECT_REQUESTS (REQUEST(API) | REQUEST(REGISTER) | REQUEST(UNREGISTER))

/* The kernel's validate_range(). */
static int check_range(uint64_t start, uint64_t len)
{
	uint64_t page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;

	if ((start | len) & page_mask)
		return -EINVAL;
	if (!len || start < LOWEST_ADDRESS || start >= ADDRESS_SPACE || len > ADDRESS_SPACE - start)
		return -EINVAL;
	return 0;
}

static int request_api(struct user_object *object, void *arg)
{
	struct uffdio_api api;
	uint64_t none = 0, asked;
	int err = copy_in(&api, arg, sizeof(api));

	if (err)
		return err;
	asked = api.features | USER_ENABLED;
	if (api.api != UFFD_API || (api.features & ~USER_FEATURES) || is_enabled(object))
		err = -EINVAL;
	api = (struct uffdio_api){0};
	if (!err)
		api = (struct uffdio_api){.api = UFFD_API, .features = USER_FEATURES, .ioctls = OBJECT_REQUESTS};
	if (copy_out(arg, &api, sizeof(api)))
		return -EFAULT;
	/* Last, as the kernel does it: what could not be answered is not enabled. */
	if (!err && !atomic_compare_exchange_strong(&object->features, &none, asked))
		err = -EINVAL;
	return err;
}

/* What a range takes, by its modes and memory. */
static uint64_t range_requests(uint64_t start, uint64_t end, uint64_t mode)
{
	uint64_t requests = REQUEST(WAKE) | REQUEST(COPY) | REQUEST(POISON) | REQUEST(ZEROPAGE);

	for (uint64_t at = start; at < end;) {
		const struct user_range *range = user_space_at(at);

		if (!range)
			break;
		if (range->memory.type == UF_MEMORY_HUGETLB)
			requests &= ~REQUEST(ZEROPAGE);
		at = range->memory.end;
	}
	if (mode & UFFDIO_REGISTER_MODE_WP)
		requests |= REQUEST(WRITEPROTECT);
	if (mode & UFFDIO_REGISTER_MODE_MINOR)
		requests |= REQUEST(CONTINUE);
	return requests;
}

#define KNOWN_MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR)

static int request_register(struct user_object *object, void *arg)
{
	struct uffdio_register reg;
	uint64_t end;
	signal_mask before;
	int err = copy_in(&reg, arg, sizeof(reg));

	if (err)
		return err;
	if (!reg.mode || (reg.mode & ~KNOWN_MODES))
		return -EINVAL;
	err = check_range(reg.range.start, reg.range.len);
	if (err)
		return err;
	end = reg.range.start + reg.range.len;
	before = user_space_lock();
	err = user_space_register(object, reg.range.start, end, reg.mode, false);
	if (!err)
		reg.ioctls = range_requests(reg.range.start, end, reg.mode);
	user_space_unlock(before);
	if (err)
		return err;
	return copy_out((char *)arg + offsetof(struct uffdio_register, ioctls), &reg.ioctls, sizeof(reg.ioctls));
}

static int request_unregister(struct user_object *object, void *arg)
{
	struct uffdio_range range;
	struct user_memory piece;
	signal_mask before;
	int err = copy_in(&range, arg, sizeof(range));

	if (!err)
		err = check_range(range.start, range.len);
	if (err)
		return err;
	before = user_space_lock();
	/* More than one piece is as good as one. */
	err = user_memory_inspect(range.start, range.start + range.len, true, &piece, 1);
	if (err > 0 || err == -ENOSPC)
		err = user_space_unregister(object, range.start, range.start + range.len);
	else if (!err)
		err = -EINVAL;
	user_space_unlock(before);
	user_pending_wake(&object->pending, range.start, range.start + range.len);
	return err;
}

static int request_wake(struct user_object *object, void *arg)
{
	struct uffdio_range range;
	int err = copy_in(&range, arg, sizeof(range));

	if (!err)
		err = check_range(range.start, range.len);
	if (!err)
		user_pending_wake(&object->pending, range.start, range.start + range.len);
	return err;
}

/*
 * How a delivery ended: the field that tells, and the result. Some progress is a count and EAGAIN; the reason is told when the
 * caller goes on from there.
 */
static int delivered(struct user_object *object, void *field, uint64_t start, size_t len, size_t done, int err,
                     bool wake)
{
	int64_t result = done ? (int64_t)done : err;

	if (copy_out(field, &result, sizeof(result)))
		return -EFAULT;
	if (done && wake)
		user_pending_wake(&object->pending, start, start + done);
	if (!done)
		return err;
	return done == len ? 0 : -EAGAIN;
}

/* Touches the source where it is registered memory itself: its fault is taken here, before anything is held. */
static bool touch_source(const char *src, size_t len)
{
	uint64_t page = (uint64_t)(uintptr_t)src & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	bool touched = false;

	for (; page < (uint64_t)(uintptr_t)src + len; page += (uint64_t)sysconf(_SC_PAGESIZE)) {
		signal_mask before = user_space_lock();
		bool ours = user_space_at(page);

		user_space_unlock(before);
		if (ours) {
			(void)*(const volatile char *)page;
			touched = true;
		}
	}
	return touched;
}

static int request_copy(struct user_object *object, void *arg)
{
	const uint64_t modes = UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP;
	struct uffdio_copy copy;
	signal_mask before;
	size_t done;
	int err = copy_in(&copy, arg, offsetof(struct uffdio_copy, copy));

	if (!err)
		err = check_range(copy.dst, copy.len);
	if (err)
		return err;
	if ((copy.mode & ~modes) || copy.src + copy.len <= copy.src || copy.src + copy.len > ADDRESS_SPACE)
		return -EINVAL;
	do {
		before = user_space_lock();
		done = user_space_copy(copy.dst, (const void *)(uintptr_t)copy.src, copy.len,
		                       copy.mode & UFFDIO_COPY_MODE_WP, &err);
		user_space_unlock(before);
	} while (!done && err == -EFAULT && touch_source((const char *)(uintptr_t)copy.src, copy.len));
	return delivered(object, (char *)arg + offsetof(struct uffdio_copy, copy), copy.dst, copy.len, done, err,
	                 !(copy.mode & UFFDIO_COPY_MODE_DONTWAKE));
}

static int request_zeropage(struct user_object *object, void *arg)
{
	struct uffdio_zeropage zero;
	signal_mask before;
	size_t done;
	int err = copy_in(&zero, arg, offsetof(struct uffdio_zeropage, zeropage));

	if (!err)
		err = check_range(zero.range.start, zero.range.len);
	if (!err && (zero.mode & ~UFFDIO_ZEROPAGE_MODE_DONTWAKE))
		err = -EINVAL;
	if (err)
		return err;
	before = user_space_lock();
	done = user_space_zeropage(zero.range.start, zero.range.len, &err);
	user_space_unlock(before);
	return delivered(object, (char *)arg + offsetof(struct uffdio_zeropage, zeropage), zero.range.start,
	                 zero.range.len, done, err, !(zero.mode & UFFDIO_ZEROPAGE_MODE_DONTWAKE));
}

static int request_continue(struct user_object *object, void *arg)
{
	const uint64_t modes = UFFDIO_CONTINUE_MODE_DONTWAKE | UFFDIO_CONTINUE_MODE_WP;
	struct uffdio_continue cont;
	signal_mask before;
	size_t done;
	int err = copy_in(&cont, arg, offsetof(struct uffdio_continue, mapped));

	if (!err)
		err = check_range(cont.range.start, cont.range.len);
	if (!err && (cont.mode & ~modes))
		err = -EINVAL;
	if (err)
		return err;
	before = user_space_lock();
	done = user_space_continue(cont.range.start, cont.range.len, cont.mode & UFFDIO_CONTINUE_MODE_WP, &err);
	user_space_unlock(before);
	return delivered(object, (char *)arg + offsetof(struct uffdio_continue, mapped), cont.range.start,
	                 cont.range.len, done, err, !(cont.mode & UFFDIO_CONTINUE_MODE_DONTWAKE));
}

static int request_poison(struct user_object *object, void *arg)
{
	struct uffdio_poison poison;
	signal_mask before;
	size_t done;
	int err = copy_in(&poison, arg, offsetof(struct uffdio_poison, updated));

	if (!err)
		err = check_range(poison.range.start, poison.range.len);
	if (!err && (poison.mode & ~UFFDIO_POISON_MODE_DONTWAKE))
		err = -EINVAL;
	if (err)
		return err;
	before = user_space_lock();
	done = user_space_poison(poison.range.start, poison.range.len, &err);
	user_space_unlock(before);
	return delivered(object, (char *)arg + offsetof(struct uffdio_poison, updated), poison.range.start,
	                 poison.range.len, done, err, !(poison.mode & UFFDIO_POISON_MODE_DONTWAKE));
}

static int request_writeprotect(struct user_object *object, void *arg)
{
	const uint64_t modes = UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
	struct uffdio_writeprotect wp;
	signal_mask before;
	bool protect;
	int err = copy_in(&wp, arg, sizeof(wp));

	if (!err)
		err = check_range(wp.range.start, wp.range.len);
	if (!err && ((wp.mode & ~modes) || wp.mode == modes))
		err = -EINVAL;
	if (err)
		return err;
	protect = wp.mode & UFFDIO_WRITEPROTECT_MODE_WP;
	before = user_space_lock();
	err = user_space_writeprotect(wp.range.start, wp.range.len, protect, has(object, UFFD_FEATURE_WP_UNPOPULATED));
	user_space_unlock(before);
	if (!err && !protect && !(wp.mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE))
		user_pending_wake(&object->pending, wp.range.start, wp.range.start + wp.range.len);
	return err;
}

int user_request(const struct uf *uf, unsigned long request, void *arg)
{
	struct user_object *object = object_of(uf);

	if (request != UFFDIO_API && !is_enabled(object))
		return -EINVAL;
	switch (request) {
	case UFFDIO_API:
		return request_api(object, arg);
	case UFFDIO_REGISTER:
		return request_register(object, arg);
	case UFFDIO_UNREGISTER:
		return request_unregister(object, arg);
	case UFFDIO_WAKE:
		return request_wake(object, arg);
	case UFFDIO_COPY:
		return request_copy(object, arg);
	case UFFDIO_ZEROPAGE:
		return request_zeropage(object, arg);
	case UFFDIO_CONTINUE:
		return request_continue(object, arg);
	case UFFDIO_POISON:
		return request_poison(object, arg);
	case UFFDIO_WRITEPROTECT:
		return request_writeprotect(object, arg);
	default:
		return -EINVAL;
	}
}
