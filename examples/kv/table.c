// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "hash.h"
#include "table.h"

/* Segment 0 has FIRST buckets, and each further one as many as all before it. */
enum { FIRST = 512, FIRST_BITS = 9, SEGMENTS = 40 };

/*
 * Of the 2^level buckets that there were at the last doubling the first `split` are divided in two by one more bit of the hash. Buckets come
 * into use in order, and are emptied then: a segment need not be.
 */
struct table {
	uint64_t seed[2];
	uint64_t count;
	uint64_t split;
	uint32_t level;
	heap_ref segments[SEGMENTS];
};

struct entry {
	heap_ref next;
	uint64_t hash;
	heap_ref value; /* 0: empty */
	uint64_t value_len;
	uint64_t key_len;
	char key[];
};

static struct table *table_of(const struct heap *heap)
{
	return heap_at(heap, heap_root(heap));
}

static struct entry *entry_at(const struct heap *heap, heap_ref ref)
{
	return heap_at(heap, ref);
}

static struct slice key_of(const struct entry *entry)
{
	return (struct slice){entry->key, entry->key_len};
}

static struct slice value_of(const struct heap *heap, const struct entry *entry)
{
	return (struct slice){entry->value ? heap_at(heap, entry->value) : "", entry->value_len};
}

static uint64_t buckets(const struct table *table)
{
	return (1ULL << table->level) + table->split;
}

static unsigned segment_of(uint64_t bucket)
{
	return bucket < FIRST ? 0 : 64 - FIRST_BITS - (unsigned)__builtin_clzll(bucket);
}

static uint64_t segment_start(unsigned segment)
{
	return segment ? (uint64_t)FIRST << (segment - 1) : 0;
}

static uint64_t segment_buckets(unsigned segment)
{
	return segment ? (uint64_t)FIRST << (segment - 1) : FIRST;
}

static heap_ref *bucket_at(const struct heap *heap, uint64_t bucket)
{
	unsigned segment = segment_of(bucket);
	heap_ref *first = heap_at(heap, table_of(heap)->segments[segment]);

	return first + (bucket - segment_start(segment));
}

static uint64_t bucket_of(const struct table *table, uint64_t hash)
{
	uint64_t bucket = hash & ((1ULL << table->level) - 1);

	return bucket < table->split ? hash & ((2ULL << table->level) - 1) : bucket;
}

/* The link that leads to the entry, or, if there is none, the end of its bucket. */
static heap_ref *find(const struct heap *heap, struct slice key, uint64_t hash)
{
	heap_ref *link = bucket_at(heap, bucket_of(table_of(heap), hash));

	while (*link) {
		struct entry *entry = entry_at(heap, *link);

		if (entry->hash == hash && entry->key_len == key.len && !memcmp(entry->key, key.data, key.len))
			break;
		link = &entry->next;
	}
	return link;
}

static uint64_t hash_key(const struct heap *heap, struct slice key)
{
	return hash_bytes(table_of(heap)->seed, key.data, key.len);
}

/* Divides the next bucket in two. Without room for that, buckets just get longer. */
static void grow(struct heap *heap)
{
	struct table *table = table_of(heap);
	uint64_t added = buckets(table);
	unsigned segment = segment_of(added);
	heap_ref *from = bucket_at(heap, table->split), *to;

	if (segment == SEGMENTS)
		return;
	if (added == segment_start(segment) && !table->segments[segment])
		table->segments[segment] = heap_alloc(heap, segment_buckets(segment) * sizeof(heap_ref));
	if (!table->segments[segment])
		return;
	to = bucket_at(heap, added);
	*to = 0;
	while (*from) {
		struct entry *entry = entry_at(heap, *from);

		if (entry->hash >> table->level & 1) {
			*to = *from;
			*from = entry->next;
			entry->next = 0;
			to = &entry->next;
		} else {
			from = &entry->next;
		}
	}
	if (++table->split == 1ULL << table->level) {
		table->split = 0;
		table->level++;
	}
}

static heap_ref new_entry(struct heap *heap, struct slice key, uint64_t hash)
{
	heap_ref ref = heap_alloc(heap, sizeof(struct entry) + key.len);
	struct entry *entry = entry_at(heap, ref);

	if (!ref)
		return 0;
	*entry = (struct entry){.hash = hash, .key_len = key.len};
	memcpy(entry->key, key.data, key.len);
	return ref;
}

static void free_entry(struct heap *heap, heap_ref ref)
{
	heap_free(heap, entry_at(heap, ref)->value);
	heap_free(heap, ref);
}

/* Puts an entry at the end of its bucket, and makes room for the next one. */
static void link_entry(struct heap *heap, heap_ref *link, heap_ref ref)
{
	struct table *table = table_of(heap);

	*link = ref;
	if (++table->count > buckets(table))
		grow(heap);
}

/* Room for a value that stays in place where it fits and does not waste the half of it. */
static bool fits(const struct heap *heap, const struct entry *entry, uint64_t len)
{
	uint64_t usable = entry->value ? heap_usable(heap, entry->value) : 0;

	return len <= usable && (len >= usable / 2 || usable <= 64) && len;
}

static int set_value(struct heap *heap, struct entry *entry, struct slice value)
{
	heap_ref ref = entry->value;

	if (!fits(heap, entry, value.len)) {
		ref = heap_alloc(heap, value.len);
		if (!ref && value.len)
			return -ENOMEM;
		heap_free(heap, entry->value);
	}
	if (value.len)
		memcpy(heap_at(heap, ref), value.data, value.len);
	entry->value = ref;
	entry->value_len = value.len;
	return 0;
}

static int add_bytes(struct heap *heap, struct entry *entry, struct slice bytes)
{
	uint64_t len = entry->value_len + bytes.len;
	heap_ref ref = entry->value;

	if (len > TABLE_MAX_LENGTH)
		return -E2BIG;
	if (!bytes.len)
		return 0;
	if (!ref || heap_usable(heap, ref) < len) {
		/* More than is needed, so that many short pieces do not copy the value as often. */
		ref = heap_alloc(heap, len + len / 4);
		if (!ref)
			ref = heap_alloc(heap, len);
		if (!ref)
			return -ENOMEM;
		memcpy(heap_at(heap, ref), value_of(heap, entry).data, entry->value_len);
		heap_free(heap, entry->value);
		entry->value = ref;
	}
	memcpy((char *)heap_at(heap, ref) + entry->value_len, bytes.data, bytes.len);
	entry->value_len = len;
	return 0;
}

static int change(struct heap *heap, struct slice key, struct slice bytes,
                  int (*how)(struct heap *heap, struct entry *entry, struct slice bytes))
{
	uint64_t hash = hash_key(heap, key);
	heap_ref *link = find(heap, key, hash), ref = *link;
	int err;

	if (!ref)
		ref = new_entry(heap, key, hash);
	if (!ref)
		return -ENOMEM;
	err = how(heap, entry_at(heap, ref), bytes);
	if (err && !*link)
		free_entry(heap, ref);
	else if (!*link)
		link_entry(heap, link, ref);
	return err;
}

int table_init(struct heap *heap, const uint64_t seed[2])
{
	heap_ref root = heap_alloc(heap, sizeof(struct table));
	heap_ref segment = heap_alloc(heap, FIRST * sizeof(heap_ref));
	struct table *table = heap_at(heap, root);

	if (!root || !segment)
		return -ENOMEM;
	*table = (struct table){.seed = {seed[0], seed[1]}, .level = FIRST_BITS, .segments = {segment}};
	memset(heap_at(heap, segment), 0, FIRST * sizeof(heap_ref));
	heap_set_root(heap, root);
	return 0;
}

bool table_get(const struct heap *heap, struct slice key, struct slice *value)
{
	heap_ref ref = *find(heap, key, hash_key(heap, key));

	if (ref && value)
		*value = value_of(heap, entry_at(heap, ref));
	return ref;
}

int table_set(struct heap *heap, struct slice key, struct slice value)
{
	return change(heap, key, value, set_value);
}

int table_append(struct heap *heap, struct slice key, struct slice bytes)
{
	return change(heap, key, bytes, add_bytes);
}

bool table_delete(struct heap *heap, struct slice key)
{
	heap_ref *link = find(heap, key, hash_key(heap, key)), ref = *link;

	if (!ref)
		return false;
	*link = entry_at(heap, ref)->next;
	free_entry(heap, ref);
	table_of(heap)->count--;
	return true;
}

void table_clear(struct heap *heap)
{
	uint64_t seed[2] = {table_of(heap)->seed[0], table_of(heap)->seed[1]};

	/* It had room for its table before. */
	heap_init(heap, heap_size(heap));
	table_init(heap, seed);
}

uint64_t table_count(const struct heap *heap)
{
	return table_of(heap)->count;
}

/* Key and value are hashed apart, and the one's hash is part of the other's key: no byte can move from one to the other unseen. */
static uint64_t hash_pair(uint64_t number, struct slice key, struct slice value)
{
	uint64_t first[2] = {number, 0}, second[2];

	second[0] = hash_bytes(first, key.data, key.len);
	second[1] = number;
	return hash_bytes(second, value.data, value.len);
}

void table_digest_add(uint64_t digest[2], struct slice key, struct slice value)
{
	digest[0] += hash_pair(1, key, value);
	digest[1] += hash_pair(2, key, value);
}

void table_digest(const struct heap *heap, uint64_t digest[2])
{
	const struct table *table = table_of(heap);

	digest[0] = digest[1] = 0;
	for (uint64_t bucket = 0; bucket < buckets(table); bucket++) {
		for (heap_ref ref = *bucket_at(heap, bucket); ref; ref = entry_at(heap, ref)->next) {
			const struct entry *entry = entry_at(heap, ref);

			table_digest_add(digest, key_of(entry), value_of(heap, entry));
		}
	}
}

bool table_check(const struct heap *heap)
{
	const struct table *table = table_of(heap);
	uint64_t count = 0, used = heap_usable(heap, heap_root(heap));

	for (uint64_t bucket = 0; bucket < buckets(table); bucket++) {
		for (heap_ref ref = *bucket_at(heap, bucket); ref; ref = entry_at(heap, ref)->next, count++) {
			const struct entry *entry = entry_at(heap, ref);

			if (*find(heap, key_of(entry), hash_key(heap, key_of(entry))) != ref)
				return false;
			used += heap_usable(heap, ref) + (entry->value ? heap_usable(heap, entry->value) : 0);
		}
	}
	for (unsigned segment = 0; segment < SEGMENTS && table->segments[segment]; segment++)
		used += heap_usable(heap, table->segments[segment]);
	return count == table->count && used == heap_used(heap) && heap_check(heap);
}
