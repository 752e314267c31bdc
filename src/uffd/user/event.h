/* SPDX-License-Identifier: MIT */
/*
 * event.h - layout events on their way to the objects that asked for them
 *
 * They are noted with the space's lock held, before or while something changes, and delivered after the lock has been released. From the
 * note on until its event is read an object counts as changing (object.h). Signals stay blocked for all that time.
 */
#ifndef UFFD_USER_EVENT_H
#define UFFD_USER_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <userfault/uffd.h>

struct user_object;

struct user_event {
	struct user_object *object; /* held */
	struct uffd_msg msg;
};

struct user_events {
	struct user_event *list;
	size_t count, capacity;
};

/* Adds an event, unless the object did not ask for its feature. 0 or -ENOMEM. With the lock held. */
int user_events_note(struct user_events *events, struct user_object *object, uint64_t feature,
                     const struct uffd_msg *msg);

bool user_events_has(const struct user_events *events, const struct user_object *object, uint8_t kind);

/*
 * Whether an object is changing still. A task that was killed before its event was read changes nothing any more. With the lock held.
 */
bool user_events_pending(struct user_object *object);

/* Nothing has changed after all. With the lock held. */
void user_events_drop(struct user_events *events);

/*
 * Releases the lock, and returns when all events have been read, or their objects have ended. With the lock held, signals blocked, and
 * so left.
 */
void user_events_deliver(struct user_events *events);

#endif
