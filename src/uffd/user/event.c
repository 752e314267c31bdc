// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/rawsys.h"
#include "base/task.h"
#include "uffd/user/event.h"
#include "uffd/user/object.h"

static int reserve(struct user_events *events)
{
	size_t capacity = events->capacity ? events->capacity * 2 : 16;
	struct user_event *list;

	if (events->count < events->capacity)
		return 0;
	list = raw_map_own(capacity * sizeof(*list));
	if (!list)
		return -ENOMEM;
	if (events->list) {
		memcpy(list, events->list, events->count * sizeof(*list));
		raw_unmap(events->list, events->capacity * sizeof(*list));
	}
	events->list = list;
	events->capacity = capacity;
	return 0;
}

static uint32_t *entry_of(struct user_object *object, uint32_t tid)
{
	for (size_t i = 0; i < USER_CHANGERS; i++)
		if (object->changers[i] == tid)
			return &object->changers[i];
	return NULL;
}

/* Takes out the tasks that were killed before their event was read: they change nothing any more. */
static void forget_dead(struct user_object *object)
{
	for (size_t i = 0; i < USER_CHANGERS; i++)
		if (object->changers[i] && task_is_gone(object->changers[i]))
			object->changers[i] = 0;
}

/* One store each, so that whoever is killed in here has either done it or not. */
static void begin_change(struct user_object *object)
{
	uint32_t *entry = entry_of(object, 0);

	if (!entry) {
		forget_dead(object);
		entry = entry_of(object, 0);
	}
	if (entry)
		*entry = user_space_holder();
	else
		object->more_changers++;
}

static void end_change(struct user_object *object)
{
	uint32_t *entry = entry_of(object, user_space_holder());

	if (entry)
		*entry = 0;
	else if (object->more_changers)
		object->more_changers--;
}

static bool is_changing(const struct user_object *object)
{
	for (size_t i = 0; i < USER_CHANGERS; i++)
		if (object->changers[i])
			return true;
	return object->more_changers;
}

/* Asked again and again while an event is unread; to find out about a task is dear. */
#define ASKED_OFTEN 256

bool user_events_pending(struct user_object *object)
{
	if (!is_changing(object))
		return false;
	if (++object->asked % ASKED_OFTEN)
		return true;
	forget_dead(object);
	return is_changing(object);
}

int user_events_note(struct user_events *events, struct user_object *object, uint64_t feature,
                     const struct uffd_msg *msg)
{
	int err;

	if (!object || !(atomic_load(&object->features) & feature))
		return 0;
	err = reserve(events);
	if (err)
		return err;
	user_object_hold(object);
	begin_change(object);
	events->list[events->count++] = (struct user_event){.object = object, .msg = *msg};
	return 0;
}

bool user_events_has(const struct user_events *events, const struct user_object *object, uint8_t kind)
{
	for (size_t i = 0; i < events->count; i++)
		if (events->list[i].object == object && events->list[i].msg.event == kind)
			return true;
	return false;
}

static void forget(struct user_events *events)
{
	for (size_t i = 0; i < events->count; i++)
		user_object_release(events->list[i].object);
	raw_unmap(events->list, events->capacity * sizeof(*events->list));
	*events = (struct user_events){0};
}

void user_events_drop(struct user_events *events)
{
	for (size_t i = 0; i < events->count; i++)
		end_change(events->list[i].object);
	forget(events);
}

static struct user_ticket add(struct user_event *event)
{
	return user_pending_add(&event->object->pending, &event->msg, 0);
}

static void deliver_one(struct user_event *event, struct user_ticket ticket)
{
	struct user_object *object = event->object;

	/* After a wait for a slot the event is as true as before. */
	while (!ticket.slot && !atomic_load(&object->ended)) {
		user_pending_wait_slot(&object->pending, ticket);
		ticket = add(event);
	}
	/* An object that ended before the message was in did not end its wait. */
	if (atomic_load(&object->ended))
		user_pending_end(&object->pending);
	user_pending_tell(&object->pending, &ticket);
	if (ticket.slot)
		user_pending_wait_read(&object->pending, ticket);
	user_space_lock_in_trap();
	end_change(object);
	user_space_unlock_in_trap();
}

void user_events_deliver(struct user_events *events)
{
	struct user_ticket first = {0};

	/* Under the lock: so departures from one place are told in the order in which they were. Those that follow wait for this one to be read. */
	if (events->count)
		first = add(&events->list[0]);
	user_space_unlock_in_trap();
	for (size_t i = 0; i < events->count; i++)
		deliver_one(&events->list[i], i ? add(&events->list[i]) : first);
	forget(events);
}
