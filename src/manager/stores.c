// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "handover/message.h"
#include "manager/log.h"
#include "manager/stores.h"

int stores_split(const char *spec, size_t *name_len)
{
	const char *end = strchr(spec, '=');

	if (!end || end == spec || end - spec > UF_HANDOVER_NAME_MAX)
		return -EINVAL;
	for (const char *c = spec; c < end; c++)
		if (*c <= ' ' || *c > '~')
			return -EINVAL;
	*name_len = (size_t)(end - spec);
	return 0;
}

/* Of one attempt. */
static void attempt_failed(void *arg, const char *cause)
{
	struct named_store *store = arg;

	atomic_fetch_add_explicit(&store->failures, 1, memory_order_relaxed);
	say(LOG_WARNING, "store %s: %s", store->name, cause);
}

static int open_one(struct stores *stores, struct named_store *store, const char *spec, uint64_t budget)
{
	struct uf_store_options options = {
		.size = sizeof(options), .flags = UF_STORE_READ_ONLY, .failed = attempt_failed, .arg = store};
	struct uf_store *inner;
	char cause[256];
	size_t name_len;
	int err = stores_split(spec, &name_len);

	if (err)
		return err;
	store->name = strndup(spec, name_len);
	if (!store->name)
		return -ENOMEM;
	err = uf_store_open(&inner, spec + name_len + 1, &options, cause, sizeof(cause));
	if (err) {
		say(LOG_ERROR, "store %s: %s", store->name, cause);
		return err;
	}
	store->store = inner;
	store->size = uf_store_size(inner);
	if (!budget || !store_cache_helps(inner))
		return 0;
	if (!stores->pool)
		err = store_cache_pool_open(&stores->pool, budget);
	if (!err)
		err = store_cache_open(&store->store, inner, stores->pool);
	if (err)
		say(LOG_ERROR, "no memory for a cache of %llu bytes", (unsigned long long)budget);
	return err;
}

int stores_open(struct stores *stores, const struct serve_options *options)
{
	int err = 0;

	*stores = (struct stores){.list = calloc(options->store_count, sizeof(*stores->list))};
	if (!stores->list)
		return -ENOMEM;
	while (!err && stores->count < options->store_count) {
		err = open_one(stores, &stores->list[stores->count], options->stores[stores->count], options->budget);
		stores->count++;
	}
	if (err)
		stores_close(stores);
	return err;
}

void stores_close(struct stores *stores)
{
	for (size_t i = 0; i < stores->count; i++) {
		uf_store_close(stores->list[i].store);
		free(stores->list[i].name);
	}
	free(stores->list);
	store_cache_pool_close(stores->pool);
	*stores = (struct stores){0};
}

int stores_find(const struct stores *stores, const char *name)
{
	for (size_t i = 0; i < stores->count; i++)
		if (!strcmp(stores->list[i].name, name))
			return (int)i;
	return -1;
}

void stores_count(struct named_store *store, uint64_t bytes)
{
	atomic_fetch_add_explicit(&store->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->read_bytes, bytes, memory_order_relaxed);
}
