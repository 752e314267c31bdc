/* SPDX-License-Identifier: MIT */
/* stores.h - the stores that the manager was started with, by name; those that are far away behind one shared cache */
#ifndef MANAGER_STORES_H
#define MANAGER_STORES_H

#include <userfault/store.h>

#include "manager/serve.h"
#include "store/cache.h"

#define STORES_MAX 1024

struct named_store {
	char *name;
	struct uf_store *store;
	uint64_t size;                                /* bytes */
	_Atomic uint64_t reads, read_bytes, failures; /* fetches for clients; attempts that failed */
};

/* A store's number is its place on the command line, so that it is the same for each worker. */
struct stores {
	struct named_store *list;
	size_t count;
	struct store_cache_pool *pool; /* NULL: nothing needs one */
};

/* Opens all, for reading. 0; or -errno, and what failed has been said. */
int stores_open(struct stores *stores, const struct serve_options *options);
void stores_close(struct stores *stores);

/* The number of a store; -1: there is none of this name. */
int stores_find(const struct stores *stores, const char *name);

/* So much was read from it for a client. Any thread. */
void stores_count(struct named_store *store, uint64_t bytes);

/* NAME=URI: 0, and where the URI begins; -EINVAL: it is not of that form, or not a name. */
int stores_split(const char *spec, size_t *name_len);

#endif
