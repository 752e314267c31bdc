/* SPDX-License-Identifier: MIT */
/*
 * table.h - keys and values in a heap
 *
 * A hash table that grows by one bucket at a time (linear hashing): no operation ever moves the whole table, which would be a long pause, and
 * on a heap that has just migrated would fetch all of it at once. It does not shrink, but for table_clear().
 *
 * All of it lies in the heap (heap.h), so it is of one thread, and migrates with it. Keys and values are any bytes. What is passed in lies
 * outside the heap.
 */
#ifndef KV_TABLE_H
#define KV_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap.h"

/* The longest key, and the longest value, in bytes. */
#define TABLE_MAX_LENGTH (64ULL << 20)

struct slice {
	const char *data;
	size_t len;
};

/* Makes the table of an empty heap; seed is the secret that buckets are chosen with. -ENOMEM */
int table_init(struct heap *heap, const uint64_t seed[2]);

/* Whether the key is there; *value (or NULL) is then where its bytes are, until the next change. */
bool table_get(const struct heap *heap, struct slice key, struct slice *value);

/* -ENOMEM: nothing has changed. The value's bytes may not lie in the heap. */
int table_set(struct heap *heap, struct slice key, struct slice value);

/* At the end of the value, which is empty where there is none. -ENOMEM as above; -E2BIG: longer than TABLE_MAX_LENGTH. */
int table_append(struct heap *heap, struct slice key, struct slice bytes);

/* Whether there was one. */
bool table_delete(struct heap *heap, struct slice key);

/* Forgets everything, in a time that does not depend on how much it is. */
void table_clear(struct heap *heap);

uint64_t table_count(const struct heap *heap);

/* A digest of all keys and values: the same for two tables that hold the same, whatever the order and the seed. Reads all of it. */
void table_digest(const struct heap *heap, uint64_t digest[2]);

/* One pair more, for whoever has them elsewhere: a digest begins as zeros, and the order makes no difference. */
void table_digest_add(uint64_t digest[2], struct slice key, struct slice value);

/* Whether each entry is found where it lies and counted, and nothing else takes room in the heap; for tests. */
bool table_check(const struct heap *heap);

#endif
