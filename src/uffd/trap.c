// SPDX-License-Identifier: MIT
/*
 * The trap: one SIGBUS handler, and the sorted set of ranges it serves.
 *
 * The set is a sequence lock around a sorted array. Lookups happen in the signal handler, on any thread, in the middle of
 * anything, so they take no lock and write nothing. Changes are serialized by a mutex and run with signals blocked: a
 * signal handler that faulted on the changing thread would wait for that thread for ever. Only SIGBUS itself is never
 * blocked, since a fault would then kill. The memory of the set is mapped apart, so that a heap may be handled.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/futex.h"
#include "base/rawsys.h"
#include "uffd/chain.h"
#include "uffd/engine.h"
#include "uffd/trap.h"

/*
 * Elements are read while they change, hence atomic. They are stored with release and loaded with acquire, so that no load
 * moves past the second look at `sequence`, and no store ahead of the one that makes it odd.
 */
struct range {
	_Atomic uint64_t start;
	_Atomic uint64_t end;
	struct uf *_Atomic owner;
};

/* An array that was outgrown stays mapped, since a lookup may be in it; together they are no larger than the last. */
struct range_array {
	size_t capacity;
	struct range at[];
};

#define FIRST_CAPACITY 128

/* One for the process. */
static struct {
	pthread_mutex_t lock;      /* serializes changes; taken with signals blocked, and inside no other lock */
	uint64_t blocked_from;     /* the mask before that, as the kernel has it; under lock */
	_Atomic uint32_t sequence; /* futex: odd while the set changes; its even store publishes the change */
	_Atomic uint32_t waiting;  /* threads that sleep until it is even */
	struct range_array *_Atomic array;
	_Atomic size_t count;      /* of array->at; may be ahead of the array a lookup holds, which it then clips */
	_Atomic unsigned removals; /* counts ranges taken out; changed while `sequence` is odd */
	struct chain_link link;    /* SIGBUS; under lock but for its use in the handler */
} trap = {.lock = PTHREAD_MUTEX_INITIALIZER, .link = {.sig = SIGBUS}};

/* The index of the first range that ends behind addr. */
static size_t find(const struct range_array *array, size_t count, uint64_t addr)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (atomic_load_explicit(&array->at[middle].end, memory_order_acquire) <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The sequence number once no change is under way. */
static uint32_t settled_sequence(void)
{
	uint32_t sequence;

	while ((sequence = atomic_load_explicit(&trap.sequence, memory_order_acquire)) & 1) {
		/* A registration is at work on another thread, perhaps waiting for this processor. */
		atomic_fetch_add(&trap.waiting, 1);
		futex_wait(&trap.sequence, sequence);
		atomic_fetch_sub(&trap.waiting, 1);
	}
	return sequence;
}

struct uf *uf_trap_owner(uint64_t addr)
{
	struct uf *owner;
	uint32_t sequence;

	do {
		const struct range_array *array;
		size_t count, i;

		sequence = settled_sequence();
		array = atomic_load_explicit(&trap.array, memory_order_acquire);
		count = atomic_load_explicit(&trap.count, memory_order_acquire);
		owner = NULL;
		if (!array)
			continue;
		if (count > array->capacity)
			count = array->capacity;
		i = find(array, count, addr);
		if (i < count && atomic_load_explicit(&array->at[i].start, memory_order_acquire) <= addr)
			owner = atomic_load_explicit(&array->at[i].owner, memory_order_acquire);
	} while (atomic_load_explicit(&trap.sequence, memory_order_relaxed) != sequence);
	return owner;
}

static bool serve(struct uf *owner, const struct uf_fault *fault)
{
	int saved = errno; /* the handler may use libc */
	int err = owner->handler(owner, fault, owner->arg);

	errno = saved;
	return !err;
}

/*
 * Whether a range was taken out since this thread asked last. A fault that nobody serves may have been in a range that
 * another thread unregistered after the access, even if it has registered it again since. The access, repeated, then is an
 * ordinary one, or finds its handler. If it was none of that, the signal comes again, and the answer is no.
 */
static bool may_have_been_unregistered(void)
{
	static __thread unsigned seen __attribute__((tls_model("initial-exec")));
	unsigned removals;
	bool changed;

	/* An unregister that the handler ran into is counted only when it is over. */
	settled_sequence();
	removals = atomic_load_explicit(&trap.removals, memory_order_acquire);
	changed = removals != seen;
	seen = removals;
	return changed;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	/* Not BUS_MCEERR_AR: that is a poisoned page, which nobody can deliver. */
	if (info->si_code == BUS_ADRERR) {
		struct uf_fault fault = {
			.address = (uint64_t)(uintptr_t)info->si_addr,
			.flags = chain_access_flags(context),
		};
		struct uf *owner = uf_trap_owner(fault.address);

		if (owner && serve(owner, &fault))
			return;
		if (may_have_been_unregistered())
			return;
	}
	chain_pass_on(&trap.link, info, context);
}

static void lock_trap(void)
{
	uint64_t all_but_sigbus = ~((uint64_t)1 << (SIGBUS - 1)), before = 0;

	/* Raw, so that glibc's own signals are blocked as well. */
	raw_syscall6(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all_but_sigbus, (long)&before, sizeof(before), 0, 0);
	pthread_mutex_lock(&trap.lock);
	trap.blocked_from = before;
}

static void unlock_trap(void)
{
	uint64_t before = trap.blocked_from;

	pthread_mutex_unlock(&trap.lock);
	raw_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof(before), 0, 0);
}

/*
 * The child of a fork must find the set whole and unlocked. Signals stay as they are: other fork handlers run while the lock
 * is held, and may fault.
 */
static void before_fork(void)
{
	pthread_mutex_lock(&trap.lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&trap.lock);
}

int uf_trap_install(void)
{
	int err = 0;

	lock_trap();
	if (!trap.link.installed) {
		err = -pthread_atfork(before_fork, after_fork, after_fork);
		/* Nothing blocked: a handler may itself touch a handled page. */
		if (!err)
			chain_install(&trap.link, on_signal, false);
	}
	unlock_trap();
	return err;
}

/* Room for `extra` more. A new array is filled before it is published; the old one stays readable. */
static int reserve(size_t extra)
{
	struct range_array *old = atomic_load_explicit(&trap.array, memory_order_relaxed), *array;
	size_t count = atomic_load_explicit(&trap.count, memory_order_relaxed);
	size_t capacity = old ? old->capacity : FIRST_CAPACITY;

	while (capacity < count + extra)
		capacity *= 2;
	if (old && capacity == old->capacity)
		return 0;
	array = raw_map_own(sizeof(*array) + capacity * sizeof(array->at[0]));
	if (!array)
		return -ENOMEM;
	array->capacity = capacity;
	for (size_t i = 0; i < count; i++)
		array->at[i] = old->at[i];
	atomic_store_explicit(&trap.array, array, memory_order_release);
	return 0;
}

int uf_trap_begin(unsigned extra)
{
	int err;

	lock_trap();
	err = reserve(extra);
	if (err) {
		unlock_trap();
		return err;
	}
	atomic_fetch_add_explicit(&trap.sequence, 1, memory_order_acq_rel);
	return 0;
}

void uf_trap_end(void)
{
	/* Sequentially consistent with `waiting`: either a thread that waits is seen here, or it sees the change. */
	atomic_fetch_add(&trap.sequence, 1);
	if (atomic_load(&trap.waiting))
		futex_wake(&trap.sequence, INT_MAX);
	unlock_trap();
}

static void set_range(struct range *range, uint64_t start, uint64_t end, struct uf *owner)
{
	atomic_store_explicit(&range->start, start, memory_order_release);
	atomic_store_explicit(&range->end, end, memory_order_release);
	atomic_store_explicit(&range->owner, owner, memory_order_release);
}

/* Moves the ranges from index `from` on by `by` places, and counts them. */
static void shift(struct range_array *array, size_t from, ptrdiff_t by)
{
	size_t count = atomic_load_explicit(&trap.count, memory_order_relaxed);

	if (by > 0) {
		for (size_t i = count; i-- > from;)
			set_range(&array->at[i + (size_t)by], array->at[i].start, array->at[i].end, array->at[i].owner);
	} else {
		for (size_t i = from; i < count; i++)
			set_range(&array->at[i - (size_t)-by], array->at[i].start, array->at[i].end,
			          array->at[i].owner);
	}
	atomic_store_explicit(&trap.count, count + (size_t)by, memory_order_release);
}

static void clear(uint64_t start, uint64_t end)
{
	struct range_array *array = trap.array;
	size_t i = find(array, trap.count, start);

	if (i < trap.count && array->at[i].start < start && array->at[i].end > end) {
		/* The middle of one range goes: two remain. */
		uint64_t tail = array->at[i].end;

		shift(array, i + 1, 1);
		set_range(&array->at[i + 1], end, tail, array->at[i].owner);
		array->at[i].end = start;
		return;
	}
	if (i < trap.count && array->at[i].start < start)
		array->at[i++].end = start;
	while (i < trap.count && array->at[i].end <= end)
		shift(array, i + 1, -1);
	if (i < trap.count && array->at[i].start < end)
		array->at[i].start = end;
}

void uf_trap_remove(uint64_t start, uint64_t end)
{
	clear(start, end);
	atomic_fetch_add_explicit(&trap.removals, 1, memory_order_release);
}

void uf_trap_add(uint64_t start, uint64_t end, struct uf *owner)
{
	struct range_array *array = trap.array;
	size_t i;

	clear(start, end);
	i = find(array, trap.count, start);
	/* Neighbours of one owner become one range: a region registered piece by piece costs one place. */
	if (i > 0 && array->at[i - 1].end == start && array->at[i - 1].owner == owner) {
		if (i < trap.count && array->at[i].start == end && array->at[i].owner == owner) {
			end = array->at[i].end;
			shift(array, i + 1, -1);
		}
		array->at[i - 1].end = end;
		return;
	}
	if (i < trap.count && array->at[i].start == end && array->at[i].owner == owner) {
		array->at[i].start = start;
		return;
	}
	shift(array, i, 1);
	set_range(&array->at[i], start, end, owner);
}

void uf_trap_remove_owner(const struct uf *owner)
{
	struct range_array *array;
	size_t kept = 0;

	/* Fails only for want of a first array, and then there is nothing to remove. */
	if (uf_trap_begin(0))
		return;
	array = trap.array;
	for (size_t i = 0; i < trap.count; i++) {
		if (array->at[i].owner == owner)
			continue;
		set_range(&array->at[kept++], array->at[i].start, array->at[i].end, array->at[i].owner);
	}
	trap.count = kept;
	atomic_fetch_add_explicit(&trap.removals, 1, memory_order_release);
	uf_trap_end();
}
