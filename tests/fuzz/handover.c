// SPDX-License-Identifier: MIT
/* Any bytes as a message that a client hands over; checked is what message.h promises of those that are taken. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "handover/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void check_name(const char *name)
{
	size_t len = strlen(name);

	MUST(len <= UF_HANDOVER_NAME_MAX);
	for (size_t i = 0; i < len; i++)
		MUST(name[i] >= ' ' && name[i] <= '~');
}

static void check_region(const struct handover_region *region)
{
	MUST(region->size && region->addr + region->size > region->addr &&
	     region->offset + region->size > region->offset);
	MUST(region->page_size >= HANDOVER_PAGE_MIN && region->page_size <= HANDOVER_PAGE_MAX);
	MUST(!(region->page_size & (region->page_size - 1)));
	MUST(!((region->addr | region->size | region->offset) % region->page_size));
	MUST(region->store[0]);
	check_name(region->store);
}

static void check(const struct handover_message *message)
{
	check_name(message->name);
	check_name(message->store);
	MUST(message->numbered ? message->kind != HANDOVER_ARRAY && message->number <= INT64_MAX : !message->number);
	MUST(message->kind == HANDOVER_SIZE ? !message->count && message->store[0] : message->count > 0);
	MUST(message->count <= HANDOVER_REGIONS_MAX);
	for (size_t i = 0; i < message->count; i++) {
		const struct handover_region *region = &message->regions[i];

		check_region(region);
		for (size_t j = 0; j < i; j++)
			MUST(region->addr >= message->regions[j].addr + message->regions[j].size ||
			     message->regions[j].addr >= region->addr + region->size);
	}
}

/* Where the message ends does not depend on how it is cut. */
static ssize_t trickle(const char *text, size_t len, char *cause, size_t cause_size)
{
	struct handover_scan scan = {0};
	ssize_t end = 0;

	for (size_t i = 0; !end && i <= len; i++)
		end = handover_scan(&scan, text, i, cause, cause_size);
	return end;
}

/* A message ends where the parser finds its end, if it finds one; it takes some zeros for nothing, and the manager passes none on. */
static void check_end(const char *text, size_t len, ssize_t end)
{
	json_error_t error;
	json_t *root;

	if (memchr(text, 0, len))
		return;
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error);
	MUST(!root || end < 0 || end == error.position);
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of just this size, so that a step too far is seen. */
	char *text = malloc(size ? size : 1), cause[128];
	struct handover_message message;
	struct handover_scan scan = {0};
	ssize_t end;

	if (!text)
		return 0;
	memcpy(text, data, size);
	end = handover_scan(&scan, text, size, cause, sizeof(cause));
	MUST(end <= (ssize_t)size);
	MUST(end == trickle(text, size, cause, sizeof(cause)));
	check_end(text, size, end);
	/* Whole or not, the parser stands by itself. */
	if (!handover_parse(&message, text, end > 0 ? (size_t)end : size, cause, sizeof(cause))) {
		check(&message);
		handover_free(&message);
	} else {
		MUST(strlen(cause) < sizeof(cause) && !strpbrk(cause, "\n\r\x1b"));
	}
	free(text);
	return 0;
}
