// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>

#include "manager/status.h"
#include "base/utf8.h"

/* Room for one more of `size` bytes, zeroed. The room doubles whenever it is full, which a power of two tells. */
static void *add(void **items, size_t *count, size_t size)
{
	char *item;

	if (!(*count & (*count - 1))) {
		void *larger = reallocarray(*items, *count ? 2 * *count : 1, size);

		if (!larger)
			return NULL;
		*items = larger;
	}
	item = (char *)*items + (*count)++ * size;
	memset(item, 0, size);
	return item;
}

struct status_store *status_add_store(struct status *status)
{
	void *items = status->stores, *item = add(&items, &status->store_count, sizeof(struct status_store));

	status->stores = items;
	return item;
}

struct status_client *status_add_client(struct status *status)
{
	void *items = status->clients, *item = add(&items, &status->client_count, sizeof(struct status_client));

	status->clients = items;
	return item;
}

void status_free(struct status *status)
{
	free(status->stores);
	free(status->clients);
	*status = (struct status){0};
}

void status_set_name(char name[STATUS_NAME], const char *text)
{
	size_t len = strlen(text);

	if (len >= STATUS_NAME) {
		len = STATUS_NAME - 1;
		/* What is cut off may not begin in the middle of a character; of what is no text nothing can be kept whole. */
		for (size_t back = len; back > len - 4; back--)
			if (back + utf8_length(text + back) > len) {
				len = back;
				break;
			}
	}
	memcpy(name, text, len);
	name[len] = '\0';
}

static const char *name_of(const char *const names[], size_t count, size_t index)
{
	return index < count ? names[index] : "unknown";
}

const char *status_engine_name(enum status_engine engine)
{
	static const char *const names[] = {[STATUS_ENGINE_KERNEL] = "kernel", [STATUS_ENGINE_USER] = "user"};

	return name_of(names, 2, engine);
}

const char *status_source_name(enum status_source source)
{
	static const char *const names[STATUS_SOURCES] = {
		[STATUS_SOURCE_CACHE] = "cache",
		[STATUS_SOURCE_STORE] = "store",
		[STATUS_SOURCE_ZERO] = "zero",
		[STATUS_SOURCE_PREFETCHED] = "prefetched",
	};

	return name_of(names, STATUS_SOURCES, source);
}

const char *status_event_name(enum status_event event)
{
	static const char *const names[STATUS_EVENTS] = {
		[STATUS_EVENT_FORK] = "fork",
		[STATUS_EVENT_REMAP] = "remap",
		[STATUS_EVENT_REMOVE] = "remove",
		[STATUS_EVENT_UNMAP] = "unmap",
	};

	return name_of(names, STATUS_EVENTS, event);
}
