// SPDX-License-Identifier: MIT
/*
 * UFFDIO_*, with the kernel's checks in the kernel's order and its answers.
 */
#include <errno.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "uffd/user/deliver.h"
#include "uffd/user/event.h"
#include "uffd/user/object.h"

static bool is_enabled(const struct user_object *object)
{
	return atomic_load(&object->features) & USER_ENABLED;
}

static bool has(const struct user_object *object, uint64_t feature)
{
	return atomic_load(&object->features) & feature;
}

#define LOWEST_ADDRESS  65536
#define ADDRESS_SPACE   USER_ADDRESS_END
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

static int request_api(struct user_object *object, struct uffdio_api *api)
{
	uint64_t none = 0;

	if (api->api != UFFD_API || (api->features & ~USER_FEATURES) ||
	    !atomic_compare_exchange_strong(&object->features, &none, api->features | USER_ENABLED)) {
		*api = (struct uffdio_api){0};
		return -EINVAL;
	}
	*api = (struct uffdio_api){.api = UFFD_API, .features = USER_FEATURES, .ioctls = OBJECT_REQUESTS};
	return 0;
}

/* What a range takes, by its modes and memory. */
static uint64_t range_requests(uint64_t start, uint64_t end, uint64_t mode)
{
	uint64_t requests = REQUEST(WAKE) | REQUEST(COPY) | REQUEST(POISON) | REQUEST(ZEROPAGE) | REQUEST(MOVE);

	for (uint64_t at = start; at < end;) {
		const struct user_range *range = user_space_at(at);

		if (!range)
			break;
		if (range->memory.type == UF_MEMORY_HUGETLB)
			requests &= ~(REQUEST(ZEROPAGE) | REQUEST(MOVE));
		at = range->memory.end;
	}
	if (mode & UFFDIO_REGISTER_MODE_WP)
		requests |= REQUEST(WRITEPROTECT);
	if (mode & UFFDIO_REGISTER_MODE_MINOR)
		requests |= REQUEST(CONTINUE);
	return requests;
}

#define KNOWN_MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR)

static int request_register(struct user_object *object, struct uffdio_register *reg)
{
	uint64_t end;
	signal_mask before;
	int err;

	if (!reg->mode || (reg->mode & ~KNOWN_MODES))
		return -EINVAL;
	err = check_range(reg->range.start, reg->range.len);
	if (err)
		return err;
	end = reg->range.start + reg->range.len;
	before = user_space_lock();
	err = user_space_register(object, reg->range.start, end, reg->mode, false);
	if (!err)
		reg->ioctls = range_requests(reg->range.start, end, reg->mode);
	user_space_unlock(before);
	return err;
}

static int request_unregister(struct user_object *object, struct uffdio_range *range, struct user_wake *wake)
{
	struct user_memory piece;
	signal_mask before;
	int err = check_range(range->start, range->len);

	if (err)
		return err;
	before = user_space_lock();
	/* More than one piece is as good as one. */
	err = user_memory_inspect(range->start, range->start + range->len, true, &piece, 1);
	if (err > 0 || err == -ENOSPC)
		err = user_space_unregister(object, range->start, range->start + range->len);
	else if (!err)
		err = -EINVAL;
	user_space_unlock(before);
	if (!err)
		*wake = (struct user_wake){range->start, range->start + range->len};
	return err;
}

static int request_wake(struct uffdio_range *range, struct user_wake *wake)
{
	int err = check_range(range->start, range->len);

	if (!err)
		*wake = (struct user_wake){range->start, range->start + range->len};
	return err;
}

/*
 * How a delivery ended: the field that tells, and the result. Some progress is a count and EAGAIN; the reason is told when the
 * caller goes on from there.
 */
static int delivered(__s64 *field, uint64_t start, size_t len, size_t done, int err, struct user_wake *wake)
{
	*field = done ? (int64_t)done : err;
	if (done && wake)
		*wake = (struct user_wake){start, start + done};
	if (!done)
		return err;
	return done == len ? 0 : -EAGAIN;
}

/*
 * Locks the space for a delivery. With -EAGAIN in *err nothing may be done: a change of layout has not been told of, so the request may
 * speak of what is not there any more.
 */
static signal_mask lock_settled(struct user_object *object, int *err)
{
	signal_mask before = user_space_lock();

	*err = user_events_pending(object) ? -EAGAIN : 0;
	return before;
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

static int check_copy(const struct uffdio_copy *copy)
{
	const uint64_t modes = UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP;
	int err = check_range(copy->dst, copy->len);

	if (err)
		return err;
	if ((copy->mode & ~modes) || copy->src + copy->len <= copy->src || copy->src + copy->len > ADDRESS_SPACE)
		return -EINVAL;
	return 0;
}

/* With the lock held. */
static size_t deliver_copy(const struct uffdio_copy *copy, int *err)
{
	return user_deliver_copy(copy->dst, (const void *)(uintptr_t)copy->src, copy->len,
	                         copy->mode & UFFDIO_COPY_MODE_WP, err);
}

int user_request_errand(struct user_object *object, struct uffdio_copy *copy, struct user_wake *wake)
{
	size_t done = 0;
	int err = check_copy(copy);

	*wake = (struct user_wake){0};
	if (err)
		return err;
	user_space_lock_in_trap();
	err = user_events_pending(object) ? -EAGAIN : 0;
	if (!err)
		done = deliver_copy(copy, &err);
	user_space_unlock_in_trap();
	return delivered(&copy->copy, copy->dst, copy->len, done, err, wake);
}

static int request_copy(struct user_object *object, struct uffdio_copy *copy, struct user_wake *wake)
{
	signal_mask before;
	size_t done = 0;
	int err = check_copy(copy);

	if (err)
		return err;
	do {
		before = lock_settled(object, &err);
		if (!err)
			done = deliver_copy(copy, &err);
		user_space_unlock(before);
	} while (!done && err == -EFAULT && touch_source((const char *)(uintptr_t)copy->src, copy->len));
	return delivered(&copy->copy, copy->dst, copy->len, done, err,
	                 copy->mode & UFFDIO_COPY_MODE_DONTWAKE ? NULL : wake);
}

static int request_move(struct user_object *object, struct uffdio_move *move, struct user_wake *wake)
{
	const uint64_t modes = UFFDIO_MOVE_MODE_DONTWAKE | UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
	signal_mask before;
	size_t done = 0;
	int err = check_range(move->dst, move->len);

	if (!err)
		err = check_range(move->src, move->len);
	if (!err && (move->mode & ~modes))
		err = -EINVAL;
	if (err)
		return err;
	before = lock_settled(object, &err);
	if (!err)
		done = user_deliver_move(move->dst, move->src, move->len, move->mode & UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
		                         &err);
	user_space_unlock(before);
	return delivered(&move->move, move->dst, move->len, done, err,
	                 move->mode & UFFDIO_MOVE_MODE_DONTWAKE ? NULL : wake);
}

static int request_zeropage(struct user_object *object, struct uffdio_zeropage *zero, struct user_wake *wake)
{
	signal_mask before;
	size_t done = 0;
	int err = check_range(zero->range.start, zero->range.len);

	if (!err && (zero->mode & ~UFFDIO_ZEROPAGE_MODE_DONTWAKE))
		err = -EINVAL;
	if (err)
		return err;
	before = lock_settled(object, &err);
	if (!err)
		done = user_deliver_zeropage(zero->range.start, zero->range.len, &err);
	user_space_unlock(before);
	return delivered(&zero->zeropage, zero->range.start, zero->range.len, done, err,
	                 zero->mode & UFFDIO_ZEROPAGE_MODE_DONTWAKE ? NULL : wake);
}

static int request_continue(struct user_object *object, struct uffdio_continue *cont, struct user_wake *wake)
{
	const uint64_t modes = UFFDIO_CONTINUE_MODE_DONTWAKE | UFFDIO_CONTINUE_MODE_WP;
	signal_mask before;
	size_t done = 0;
	int err = check_range(cont->range.start, cont->range.len);

	if (!err && (cont->mode & ~modes))
		err = -EINVAL;
	if (err)
		return err;
	before = lock_settled(object, &err);
	if (!err)
		done = user_deliver_continue(cont->range.start, cont->range.len, cont->mode & UFFDIO_CONTINUE_MODE_WP,
		                             &err);
	user_space_unlock(before);
	return delivered(&cont->mapped, cont->range.start, cont->range.len, done, err,
	                 cont->mode & UFFDIO_CONTINUE_MODE_DONTWAKE ? NULL : wake);
}

static int request_poison(struct user_object *object, struct uffdio_poison *poison, struct user_wake *wake)
{
	signal_mask before;
	size_t done = 0;
	int err = check_range(poison->range.start, poison->range.len);

	if (!err && (poison->mode & ~UFFDIO_POISON_MODE_DONTWAKE))
		err = -EINVAL;
	if (err)
		return err;
	before = lock_settled(object, &err);
	if (!err)
		done = user_deliver_poison(poison->range.start, poison->range.len, &err);
	user_space_unlock(before);
	return delivered(&poison->updated, poison->range.start, poison->range.len, done, err,
	                 poison->mode & UFFDIO_POISON_MODE_DONTWAKE ? NULL : wake);
}

static int request_writeprotect(struct user_object *object, struct uffdio_writeprotect *wp, struct user_wake *wake)
{
	const uint64_t modes = UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
	signal_mask before;
	bool protect;
	int err = check_range(wp->range.start, wp->range.len);

	if (!err && ((wp->mode & ~modes) || wp->mode == modes))
		err = -EINVAL;
	if (err)
		return err;
	protect = wp->mode & UFFDIO_WRITEPROTECT_MODE_WP;
	before = lock_settled(object, &err);
	if (!err)
		err = user_deliver_writeprotect(wp->range.start, wp->range.len, protect,
		                                has(object, UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC));
	user_space_unlock(before);
	if (!err && !protect && !(wp->mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE))
		*wake = (struct user_wake){wp->range.start, wp->range.start + wp->range.len};
	return err;
}

int user_request(struct user_object *object, unsigned long request, void *arg, struct user_wake *wake)
{
	*wake = (struct user_wake){0};
	if (request != UFFDIO_API && !is_enabled(object))
		return -EINVAL;
	if (!arg)
		return -EFAULT;
	switch (request) {
	case UFFDIO_API:
		return request_api(object, arg);
	case UFFDIO_REGISTER:
		return request_register(object, arg);
	case UFFDIO_UNREGISTER:
		return request_unregister(object, arg, wake);
	case UFFDIO_WAKE:
		return request_wake(arg, wake);
	case UFFDIO_COPY:
		return request_copy(object, arg, wake);
	case UFFDIO_MOVE:
		return request_move(object, arg, wake);
	case UFFDIO_ZEROPAGE:
		return request_zeropage(object, arg, wake);
	case UFFDIO_CONTINUE:
		return request_continue(object, arg, wake);
	case UFFDIO_POISON:
		return request_poison(object, arg, wake);
	case UFFDIO_WRITEPROTECT:
		return request_writeprotect(object, arg, wake);
	default:
		return -EINVAL;
	}
}
