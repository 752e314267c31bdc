// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "handover/message.h"

/* Deeper than any message is, so that keys which we do not know may have values of any kind. */
#define DEPTH_MAX 16

/* A parsed value takes some hundred bytes of memory, however short its text: as many as the largest message with all our keys needs. */
#define VALUES_MAX (16 * HANDOVER_REGIONS_MAX)

__attribute__((format(printf, 4, 5))) static int refuse(char *cause, size_t size, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(cause, size, format, args);
	va_end(args);
	/* What is quoted in it came from the other side. */
	for (char *c = cause; size && *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return err;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void scan_quoted(struct handover_scan *scan, char c)
{
	if (scan->escaped)
		scan->escaped = false;
	else if (c == '\\')
		scan->escaped = true;
	else if (c == '"')
		scan->quoted = false;
}

/* Which bracket closes which is left to the parser: it is no message if they do not match. */
ssize_t handover_scan(struct handover_scan *scan, const char *text, size_t len, char *cause, size_t cause_size)
{
	while (scan->seen < len) {
		char c = text[scan->seen++];

		if (scan->seen > HANDOVER_MESSAGE_MAX)
			break;
		if (scan->quoted) {
			scan_quoted(scan, c);
			continue;
		}
		if (!scan->depth && !is_space(c) && c != '[' && c != '{')
			return refuse(cause, cause_size, -EINVAL, "neither a JSON array nor an object");
		if (!scan->depth && !is_space(c))
			scan->array = c == '[';
		scan->quoted = c == '"';
		if (c == '[' || c == '{' || c == ',')
			scan->values++;
		if (c == '[' || c == '{')
			scan->depth++;
		if ((c == ']' || c == '}') && !--scan->depth)
			return (ssize_t)scan->seen;
		if (scan->depth > DEPTH_MAX)
			return refuse(cause, cause_size, -EINVAL, "nested deeper than %d", DEPTH_MAX);
		if (scan->values > VALUES_MAX)
			return refuse(cause, cause_size, -EINVAL, "more than %d values", VALUES_MAX);
	}
	if (scan->seen > HANDOVER_MESSAGE_MAX)
		return refuse(cause, cause_size, -E2BIG, "longer than %u bytes", HANDOVER_MESSAGE_MAX);
	return 0;
}

/* What is being read, for the causes. */
struct reader {
	char *cause;
	size_t cause_size;
	size_t index; /* of the region */
	const json_t *from;
};

#define REFUSE(reader, ...)             refuse((reader)->cause, (reader)->cause_size, -EINVAL, __VA_ARGS__)
#define REFUSE_KEY(reader, format, ...) REFUSE(reader, "region %zu: " format, (reader)->index, ##__VA_ARGS__)

/* 1: it is there; 0: it is not. */
static int take_number(const struct reader *reader, const char *key, uint64_t *number)
{
	const json_t *value = json_object_get(reader->from, key);

	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return REFUSE_KEY(reader, "'%s' is not a number from 0 to 2^63 - 1", key);
	*number = (uint64_t)json_integer_value(value);
	return 1;
}

static int need_number(const struct reader *reader, const char *key, uint64_t *number)
{
	int there = take_number(reader, key, number);

	return there ? there : REFUSE_KEY(reader, "'%s' is missing", key);
}

/* 0, or -EINVAL: empty where it must not be, too long, or not to be printed. */
static int take_text(const json_t *value, char text[UF_HANDOVER_NAME_MAX + 1])
{
	const char *from = json_string_value(value);
	size_t len = from ? json_string_length(value) : 0;

	if (!len || len > UF_HANDOVER_NAME_MAX)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (from[i] < ' ' || from[i] > '~')
			return -EINVAL;
	memcpy(text, from, len + 1);
	return 0;
}

#define TEXT "1 to 64 bytes of printable ASCII"

/* Firecracker has deprecated page_size_kib for page_size; both of them hold bytes, and old versions have the first alone. */
static int take_page_size(const struct reader *reader, struct handover_region *region)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), old = size;
	int err = take_number(reader, "page_size_kib", &old);

	if (err >= 0) {
		size = old;
		err = take_number(reader, "page_size", &size);
	}
	if (err < 0)
		return err;
	if (size < HANDOVER_PAGE_MIN || size > HANDOVER_PAGE_MAX || (size & (size - 1)))
		return REFUSE_KEY(reader, "a page size of %llu is no power of two from %u to %u",
		                  (unsigned long long)size, HANDOVER_PAGE_MIN, HANDOVER_PAGE_MAX);
	region->page_size = (uint32_t)size;
	return 0;
}

static int take_numbers(const struct reader *reader, struct handover_region *region)
{
	int err = need_number(reader, "base_host_virt_addr", &region->addr);

	if (err >= 0)
		err = need_number(reader, "size", &region->size);
	if (err >= 0)
		err = need_number(reader, "offset", &region->offset);
	if (err >= 0)
		err = take_page_size(reader, region);
	if (err < 0)
		return err;
	if (!region->size)
		return REFUSE_KEY(reader, "'size' is 0");
	if ((region->addr | region->size | region->offset) & (region->page_size - 1))
		return REFUSE_KEY(reader, "address, size and offset are not multiples of the page size, %u",
		                  region->page_size);
	/* Each of the three is less than 2^63, so the sums do not wrap. */
	if (region->addr + region->size > INT64_MAX || region->offset + region->size > INT64_MAX)
		return REFUSE_KEY(reader, "its end is behind 2^63");
	return 0;
}

static int take_ours(const struct reader *reader, struct handover_region *region)
{
	const json_t *store = json_object_get(reader->from, "store");
	const json_t *removed = json_object_get(reader->from, "removed");
	const json_t *prefetch = json_object_get(reader->from, "prefetch");
	const char *what = json_string_value(removed);

	snprintf(region->store, sizeof(region->store), HANDOVER_STORE);
	if (store && take_text(store, region->store))
		return REFUSE_KEY(reader, "'store' is not " TEXT);
	if (removed && (!what || (strcmp(what, "zeros") != 0 && strcmp(what, "store") != 0)))
		return REFUSE_KEY(reader, "'removed' is neither \"zeros\" nor \"store\"");
	if (prefetch && !json_is_boolean(prefetch))
		return REFUSE_KEY(reader, "'prefetch' is neither true nor false");
	region->removed_is_store = what && !strcmp(what, "store");
	region->prefetch = json_is_true(prefetch);
	return 0;
}

static int take_region(struct reader *reader, const json_t *from, struct handover_region *region)
{
	int err;

	reader->from = from;
	if (!json_is_object(from))
		return REFUSE_KEY(reader, "it is not an object");
	err = take_numbers(reader, region);
	return err ? err : take_ours(reader, region);
}

struct span {
	uint64_t begin, end;
	size_t index;
};

static int by_address(const void *a, const void *b)
{
	const struct span *left = a, *right = b;

	return left->begin < right->begin ? -1 : left->begin > right->begin;
}

static int check_overlap(const struct reader *reader, const struct handover_message *message)
{
	struct span *spans = malloc(message->count * sizeof(*spans));
	int err = spans ? 0 : refuse(reader->cause, reader->cause_size, -ENOMEM, "out of memory");

	for (size_t i = 0; !err && i < message->count; i++) {
		const struct handover_region *region = &message->regions[i];

		spans[i] = (struct span){region->addr, region->addr + region->size, i};
	}
	if (!err)
		qsort(spans, message->count, sizeof(*spans), by_address);
	for (size_t i = 1; !err && i < message->count; i++)
		if (spans[i].begin < spans[i - 1].end)
			err = REFUSE(reader, "regions %zu and %zu overlap", spans[i - 1].index, spans[i].index);
	free(spans);
	return err;
}

static int take_regions(struct reader *reader, const json_t *from, struct handover_message *message)
{
	size_t count = json_array_size(from);
	int err = 0;

	if (!count)
		return REFUSE(reader, "no regions");
	if (count > HANDOVER_REGIONS_MAX)
		return REFUSE(reader, "more than %d regions", HANDOVER_REGIONS_MAX);
	message->regions = calloc(count, sizeof(*message->regions));
	if (!message->regions)
		return refuse(reader->cause, reader->cause_size, -ENOMEM, "out of memory");
	message->count = count;
	for (size_t i = 0; !err && i < count; i++) {
		reader->index = i;
		err = take_region(reader, json_array_get(from, i), &message->regions[i]);
	}
	return err ? err : check_overlap(reader, message);
}

static int take_object(struct reader *reader, const json_t *from, struct handover_message *message)
{
	const json_t *regions = json_object_get(from, "regions"), *size = json_object_get(from, "size");
	const json_t *name = json_object_get(from, "name"), *number = json_object_get(from, "number");

	if (number && (!json_is_integer(number) || json_integer_value(number) < 0))
		return REFUSE(reader, "'number' is not a number from 0 to 2^63 - 1");
	if (number) {
		message->numbered = true;
		message->number = (uint64_t)json_integer_value(number);
	}
	if (!regions == !size)
		return REFUSE(reader, "an object has either 'regions' or 'size'");
	if (name && take_text(name, message->name))
		return REFUSE(reader, "'name' is not " TEXT);
	if (size) {
		message->kind = HANDOVER_SIZE;
		return take_text(size, message->store) ? REFUSE(reader, "'size' is not the name of a store, " TEXT) : 0;
	}
	message->kind = HANDOVER_GIVE;
	return json_is_array(regions) ? take_regions(reader, regions, message)
	                              : REFUSE(reader, "'regions' is not an array");
}

int handover_parse(struct handover_message *message, const char *text, size_t len, char *cause, size_t cause_size)
{
	struct reader reader = {.cause = cause, .cause_size = cause_size};
	json_error_t error;
	json_t *root;
	int err;

	*message = (struct handover_message){.kind = HANDOVER_ARRAY};
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!root && json_error_code(&error) == json_error_out_of_memory)
		return refuse(cause, cause_size, -ENOMEM, "out of memory");
	if (!root)
		return refuse(cause, cause_size, -EINVAL, "not JSON: %s", error.text);
	err = json_is_array(root) ? take_regions(&reader, root, message) : take_object(&reader, root, message);
	json_decref(root);
	if (err) {
		free(message->regions);
		*message = (struct handover_message){.numbered = message->numbered, .number = message->number};
	}
	return err;
}

ssize_t handover_next(struct handover_scan *scan, struct handover_message *message, const char *text, size_t len,
                      char *cause, size_t cause_size)
{
	ssize_t end = handover_scan(scan, text, len, cause, cause_size);
	int err;

	*message = (struct handover_message){0};
	if (end <= 0)
		return end;
	*scan = (struct handover_scan){.array = scan->array};
	err = handover_parse(message, text, (size_t)end, cause, cause_size);
	return err ? err : end;
}

void handover_free(struct handover_message *message)
{
	free(message->regions);
	*message = (struct handover_message){0};
}
