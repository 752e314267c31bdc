// SPDX-License-Identifier: MIT
/* A status as JSON, and back. The keys are documented in userfault-stat(1) and are only ever added to. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "manager/status.h"
#include "base/utf8.h"

/* What of a structure is under which key: one table for both directions, so that they cannot differ. */
struct field {
	const char *key;
	size_t offset;
	enum { NUMBER64, NUMBER32, TEXT } type;
	size_t size; /* of a TEXT */
};

#define FIELD64(type, key, member)                       \
	{                                                \
		key, offsetof(type, member), NUMBER64, 0 \
	}
#define FIELD32(type, key, member)                       \
	{                                                \
		key, offsetof(type, member), NUMBER32, 0 \
	}
#define FIELD_TEXT(type, key, member)                                          \
	{                                                                      \
		key, offsetof(type, member), TEXT, sizeof(((type *)0)->member) \
	}
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct field status_fields[] = {
	FIELD_TEXT(struct status, "version", version),
	FIELD64(struct status, "started_at_ns", started_at),
	FIELD64(struct status, "started_ns", started),
	FIELD64(struct status, "now_ns", now),
	FIELD32(struct status, "supervisor_pid", supervisor),
	FIELD32(struct status, "worker_pid", worker),
	FIELD64(struct status, "worker_restarts", worker_restarts),
	FIELD32(struct status, "workers", workers),
};

static const struct field handover_fields[] = {
	FIELD64(struct status, "accepted", accepted),
	FIELD64(struct status, "refused", refused),
};

static const struct field cache_fields[] = {
	FIELD64(struct status, "budget", cache.budget),
	FIELD64(struct status, "bytes", cache.bytes),
	FIELD64(struct status, "hits", cache.hits),
	FIELD64(struct status, "misses", cache.misses),
};

static const struct field store_fields[] = {
	FIELD_TEXT(struct status_store, "name", name),      FIELD64(struct status_store, "size", size),
	FIELD64(struct status_store, "reads", reads),       FIELD64(struct status_store, "read_bytes", read_bytes),
	FIELD64(struct status_store, "failures", failures),
};

static const struct field client_fields[] = {
	FIELD64(struct status_client, "id", id),
	FIELD64(struct status_client, "parent", parent),
	FIELD32(struct status_client, "pid", pid),
	FIELD32(struct status_client, "uid", uid),
	FIELD_TEXT(struct status_client, "name", name),
	FIELD_TEXT(struct status_client, "store", store),
	FIELD64(struct status_client, "age_ns", age),
	FIELD32(struct status_client, "regions", regions),
	FIELD64(struct status_client, "managed", managed),
	FIELD64(struct status_client, "resident", resident),
	FIELD64(struct status_client, "prefetched", prefetched),
	FIELD64(struct status_client, "poisoned", poisoned),
	FIELD64(struct status_client, "faults", faults),
	FIELD64(struct status_client, "outstanding", outstanding),
	FIELD64(struct status_client, "refaults", refaults),
	FIELD64(struct status_client, "waits", waits),
};

static const struct field resolved_fields[STATUS_SOURCES] = {
	FIELD64(struct status_client, "cache", resolved[STATUS_SOURCE_CACHE]),
	FIELD64(struct status_client, "store", resolved[STATUS_SOURCE_STORE]),
	FIELD64(struct status_client, "zero", resolved[STATUS_SOURCE_ZERO]),
	FIELD64(struct status_client, "prefetched", resolved[STATUS_SOURCE_PREFETCHED]),
};

static const struct field event_fields[STATUS_EVENTS] = {
	FIELD64(struct status_client, "fork", events[STATUS_EVENT_FORK]),
	FIELD64(struct status_client, "remap", events[STATUS_EVENT_REMAP]),
	FIELD64(struct status_client, "remove", events[STATUS_EVENT_REMOVE]),
	FIELD64(struct status_client, "unmap", events[STATUS_EVENT_UNMAP]),
};

static const struct field latency_fields[] = {
	FIELD64(struct hist, "count", count),
	FIELD64(struct hist, "sum_ns", sum),
	FIELD64(struct hist, "max_ns", max),
};

static const struct {
	const char *key;
	double share;
} quantiles[] = {{"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}};

/*
 * Writing.
 */

/* The integers of JSON libraries are signed. */
static json_t *number(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *text(const char *bytes)
{
	char clean[UTF8_CLEAN(STATUS_NAME)];

	utf8_clean(clean, bytes);
	return json_string(clean);
}

static json_t *value_of(const struct field *field, const void *from)
{
	const char *at = (const char *)from + field->offset;
	uint64_t wide;
	uint32_t narrow;

	switch (field->type) {
	case TEXT:
		return text(at);
	case NUMBER32:
		memcpy(&narrow, at, sizeof(narrow));
		return number(narrow);
	default:
		memcpy(&wide, at, sizeof(wide));
		return number(wide);
	}
}

/* Adds to `object`; where memory is short it is said by the return value of the last who asks: see status_json(). */
static int put_fields(json_t *object, const struct field *fields, size_t count, const void *from)
{
	int err = 0;

	for (size_t i = 0; i < count; i++)
		err |= json_object_set_new(object, fields[i].key, value_of(&fields[i], from));
	return err;
}

static int put_object(json_t *object, const char *key, const struct field *fields, size_t count, const void *from)
{
	json_t *inner = json_object();

	return put_fields(inner, fields, count, from) | json_object_set_new(object, key, inner);
}

static json_t *buckets_of(const struct hist *hist)
{
	json_t *buckets = json_array();
	int err = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		if (hist->bucket[i])
			err |= json_array_append_new(
				buckets, json_pack("[o, o]", number(hist_start(i)), number(hist->bucket[i])));
	if (!err)
		return buckets;
	json_decref(buckets);
	return NULL;
}

static int put_latency(json_t *client, const struct hist *hist)
{
	json_t *latency = json_object();
	int err = put_fields(latency, latency_fields, COUNT(latency_fields), hist);

	for (size_t i = 0; i < COUNT(quantiles); i++)
		err |= json_object_set_new(latency, quantiles[i].key, number(hist_quantile(hist, quantiles[i].share)));
	err |= json_object_set_new(latency, "buckets", buckets_of(hist));
	return err | json_object_set_new(client, "latency", latency);
}

static int put_client(json_t *clients, const struct status_client *client)
{
	json_t *object = json_object();
	int err = put_fields(object, client_fields, COUNT(client_fields), client);

	err |= json_object_set_new(object, "engine", json_string(status_engine_name(client->engine)));
	err |= put_object(object, "resolved", resolved_fields, COUNT(resolved_fields), client);
	err |= put_object(object, "events", event_fields, COUNT(event_fields), client);
	err |= put_latency(object, &client->latency);
	return err | json_array_append_new(clients, object);
}

static int put_store(json_t *stores, const struct status_store *store)
{
	json_t *object = json_object();

	return put_fields(object, store_fields, COUNT(store_fields), store) | json_array_append_new(stores, object);
}

/* Every function of jansson takes NULL for what could not be made, and fails. */
static int put_status(json_t *root, const struct status *status)
{
	json_t *stores = json_array(), *clients = json_array();
	int err = put_fields(root, status_fields, COUNT(status_fields), status);

	err |= put_object(root, "handovers", handover_fields, COUNT(handover_fields), status);
	err |= put_object(root, "cache", cache_fields, COUNT(cache_fields), status);
	for (size_t i = 0; i < status->store_count; i++)
		err |= put_store(stores, &status->stores[i]);
	for (size_t i = 0; i < status->client_count; i++)
		err |= put_client(clients, &status->clients[i]);
	err |= json_object_set_new(root, "stores", stores);
	return err | json_object_set_new(root, "clients", clients);
}

char *status_json(const struct status *status)
{
	json_t *root = json_object();
	char *line = put_status(root, status) ? NULL : json_dumps(root, JSON_COMPACT);

	json_decref(root);
	return line;
}

/*
 * Reading.
 */

static void take_field(const struct field *field, const json_t *object, void *into)
{
	json_t *value = json_object_get(object, field->key);
	char *at = (char *)into + field->offset;
	uint64_t wide = (uint64_t)json_integer_value(value);
	uint32_t narrow = (uint32_t)wide;
	char name[STATUS_NAME];

	if (field->type == NUMBER64) {
		memcpy(at, &wide, sizeof(wide));
	} else if (field->type == NUMBER32) {
		memcpy(at, &narrow, sizeof(narrow));
	} else if (json_is_string(value)) {
		status_set_name(name, json_string_value(value));
		/* Shorter ones are ASCII. */
		strncpy(at, name, field->size - 1);
		at[field->size - 1] = '\0';
	}
}

static void take_fields(const struct field *fields, size_t count, const json_t *object, void *into)
{
	for (size_t i = 0; i < count; i++)
		take_field(&fields[i], object, into);
}

static void take_latency(const json_t *latency, struct hist *hist)
{
	json_t *pair;
	size_t i;

	take_fields(latency_fields, COUNT(latency_fields), latency, hist);
	json_array_foreach(json_object_get(latency, "buckets"), i, pair)
	{
		uint64_t start = (uint64_t)json_integer_value(json_array_get(pair, 0));

		hist->bucket[hist_bucket(start)] += (uint64_t)json_integer_value(json_array_get(pair, 1));
	}
}

static int take_client(const json_t *object, struct status *status)
{
	struct status_client *client = status_add_client(status);
	const char *engine = json_string_value(json_object_get(object, "engine"));

	if (!client)
		return -ENOMEM;
	take_fields(client_fields, COUNT(client_fields), object, client);
	client->engine = engine && !strcmp(engine, "user") ? STATUS_ENGINE_USER : STATUS_ENGINE_KERNEL;
	take_fields(resolved_fields, COUNT(resolved_fields), json_object_get(object, "resolved"), client);
	take_fields(event_fields, COUNT(event_fields), json_object_get(object, "events"), client);
	take_latency(json_object_get(object, "latency"), &client->latency);
	return 0;
}

static int take_store(const json_t *object, struct status *status)
{
	struct status_store *store = status_add_store(status);

	if (!store)
		return -ENOMEM;
	take_fields(store_fields, COUNT(store_fields), object, store);
	return 0;
}

static int take_status(const json_t *root, struct status *status)
{
	json_t *item;
	size_t i;
	int err = 0;

	take_fields(status_fields, COUNT(status_fields), root, status);
	take_fields(handover_fields, COUNT(handover_fields), json_object_get(root, "handovers"), status);
	take_fields(cache_fields, COUNT(cache_fields), json_object_get(root, "cache"), status);
	json_array_foreach(json_object_get(root, "stores"), i, item) if (!err) err = take_store(item, status);
	json_array_foreach(json_object_get(root, "clients"), i, item) if (!err) err = take_client(item, status);
	return err;
}

int status_from_json(struct status *status, const char *json)
{
	json_error_t error;
	json_t *root = json_loads(json, 0, &error);
	int err = -EBADMSG;

	*status = (struct status){0};
	if (!root && json_error_code(&error) == json_error_out_of_memory)
		err = -ENOMEM;
	/* An answer that is an error is an object too. */
	else if (json_is_object(root) && json_is_array(json_object_get(root, "clients")))
		err = take_status(root, status);
	if (err)
		status_free(status);
	json_decref(root);
	return err;
}
