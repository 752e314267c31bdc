// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/rawsys.h"
#include "uffd/user/event.h"
#include "uffd/user/fork.h"
#include "uffd/user/own.h"
#include "uffd/user/service.h"

struct pair {
	struct user_object *parent, *child;
};

/* Between user_fork_prepare() and what follows it, with the space's lock held. */
static struct {
	signal_mask before;
	struct pair *pairs;
	size_t count, capacity;
	struct user_events events;
} fork_state;

/* A word that a child finds empty. NULL until there is something to fork. */
static _Atomic uint32_t *_Atomic announced;

static void announce(void)
{
	_Atomic uint32_t *word = atomic_load(&announced);
	size_t len = sizeof(*word);

	if (!word) {
		word = raw_map_own(len);
		if (!word)
			return;
		if (raw_madvise((uint64_t)(uintptr_t)word, len, MADV_WIPEONFORK)) {
			raw_unmap(word, len);
			return;
		}
	}
	atomic_store(word, 1);
	atomic_store(&announced, word);
}

static struct pair *pair_of(const struct user_object *parent)
{
	for (size_t i = 0; i < fork_state.count; i++)
		if (fork_state.pairs[i].parent == parent)
			return &fork_state.pairs[i];
	return NULL;
}

static int reserve_pair(void)
{
	size_t capacity = fork_state.capacity ? 2 * fork_state.capacity : 16;
	struct pair *pairs;

	if (fork_state.count < fork_state.capacity)
		return 0;
	pairs = raw_map_own(capacity * sizeof(*pairs));
	if (!pairs)
		return -ENOMEM;
	for (size_t i = 0; i < fork_state.count; i++)
		pairs[i] = fork_state.pairs[i];
	raw_unmap(fork_state.pairs, fork_state.capacity * sizeof(*pairs));
	fork_state.pairs = pairs;
	fork_state.capacity = capacity;
	return 0;
}

/* Where there is no room for a second object the child has ordinary memory: fork(2) cannot be made to fail here. */
static int duplicate(struct user_range *range, void *unused)
{
	struct user_object *parent = range->object, *child;
	uint64_t features = parent ? atomic_load(&parent->features) : 0;
	struct uffd_msg msg = {.event = UFFD_EVENT_FORK};

	(void)unused;
	if (!(features & UFFD_FEATURE_EVENT_FORK) || pair_of(parent) || reserve_pair())
		return 0;
	if (user_object_create((parent->inheritable ? 0 : O_CLOEXEC) | (parent->blocking ? 0 : O_NONBLOCK), features,
	                       &child))
		return 0;
	child->pending.bell = user_own(child->pending.bell);
	child->user_mode_only = parent->user_mode_only;
	msg.arg.fork.ufd = (uint32_t)child->pending.bell | (parent->inheritable ? CHILD_INHERIT : 0);
	if (user_events_note(&fork_state.events, parent, UFFD_FEATURE_EVENT_FORK, &msg)) {
		user_own_close(child->pending.bell);
		user_object_release(child);
		return 0;
	}
	fork_state.pairs[fork_state.count++] = (struct pair){parent, child};
	return 0;
}

static struct user_object *first_unserved(void)
{
	signal_mask before = user_space_lock();
	struct user_object *object = user_object_first();

	while (object && atomic_load(&object->served))
		object = object->next;
	if (object)
		user_object_hold(object);
	user_space_unlock(before);
	return object;
}

/* The child reaches its parent's objects as any other process. Where there can be no thread it will not. */
static void serve_all(void)
{
	struct user_object *object;
	int err = 0;

	while (!err && (object = first_unserved())) {
		err = user_service_ensure(object);
		user_object_release(object);
	}
}

void user_fork_prepare(void)
{
	signal_mask before;

	serve_all();
	before = user_space_lock();
	fork_state.before = before;
	fork_state.count = 0;
	user_space_each(0, UINT64_MAX, duplicate, NULL);
	if (user_object_first())
		announce();
}

void user_fork_parent(void)
{
	struct user_events events = fork_state.events;
	signal_mask before = fork_state.before;
	struct pair *pairs = fork_state.pairs;
	size_t count = fork_state.count, capacity = fork_state.capacity;

	/* Taken out: another thread may fork while this one waits. */
	fork_state.events = (struct user_events){0};
	fork_state.pairs = NULL;
	fork_state.count = fork_state.capacity = 0;
	/* The child has the other ends. Where there is none after all, the descriptor is that of a process that is gone. */
	for (size_t i = 0; i < count; i++) {
		user_own_close(pairs[i].child->pending.rope);
		pairs[i].child->pending.rope = -1;
	}
	user_events_deliver(&events);
	/* Whoever has read the event has a descriptor of his own. */
	for (size_t i = 0; i < count; i++) {
		user_own_close(pairs[i].child->pending.bell);
		user_object_release(pairs[i].child);
	}
	raw_unmap(pairs, capacity * sizeof(*pairs));
	restore_signals(before);
}

/* Of the parent's objects nothing stays but the descriptors. */
static void leave_objects(void)
{
	for (struct user_object *object = user_object_first(), *next; object; object = next) {
		next = object->next;
		user_service_forget(object);
		user_pending_dispose(&object->pending);
		object->inherited = true;
	}
	user_object_list_only(NULL);
}

static int hand_over(struct user_range *range, void *unused)
{
	const struct pair *pair = pair_of(range->object);

	(void)unused;
	if (pair)
		range->object = pair->child;
	return 0;
}

static bool is_child(const struct user_object *object)
{
	for (size_t i = 0; i < fork_state.count; i++)
		if (fork_state.pairs[i].child == object)
			return true;
	return false;
}

/* What belongs to nobody here any more becomes ordinary memory. */
static void forget_left(void)
{
	for (struct user_object *object = user_object_first(); object; object = object->next)
		if (!is_child(object))
			user_space_forget(object);
}

static void start_children(void)
{
	struct user_object *first = NULL;

	for (size_t i = 0; i < fork_state.count; i++) {
		struct user_object *child = fork_state.pairs[i].child;

		child->next = first;
		first = child;
	}
	user_object_list_only(first);
	for (size_t i = 0; i < fork_state.count; i++) {
		struct user_object *child = fork_state.pairs[i].child;

		if (user_service_start_in_child(child))
			user_space_forget(child);
		user_own_close(child->pending.bell);
		child->pending.bell = -1;
	}
}

void user_fork_child(void)
{
	signal_mask before = fork_state.before;

	if (atomic_load(&announced))
		atomic_store(atomic_load(&announced), 1);
	user_space_each(0, UINT64_MAX, hand_over, NULL);
	forget_left();
	leave_objects();
	start_children();
	fork_state.count = 0;
	fork_state.events = (struct user_events){0};
	user_space_unlock(before);
}

void user_fork_notice(void)
{
	_Atomic uint32_t *word = atomic_load(&announced);

	if (!word || atomic_load(word) || atomic_exchange(word, 1))
		return;
	/* Whatever another thread of the parent was doing, it is not doing it here. */
	user_space_reset();
	user_space_lock_in_trap();
	fork_state.count = 0;
	forget_left();
	leave_objects();
	user_space_unlock_in_trap();
}

/* Before whoever stands above the engine: their locks are taken before ours, and in the child they find it in order. */
__attribute__((constructor(200))) static void listen(void)
{
	pthread_atfork(user_fork_prepare, user_fork_parent, user_fork_child);
}
