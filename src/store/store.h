/* SPDX-License-Identifier: MIT */
/*
 * store.h - the stores that are built in
 *
 * store.c is what every store has in common: ranges, retries, short results, the background (pool.h). Each kind of store is a file that opens
 * one by the part of the URI behind the colon.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>

#include <userfault/store.h>

/* What an opener says of what it has opened. */
struct store_opened {
	const struct uf_store_ops *ops;
	void *state;
	uint64_t size;
	unsigned flags;
	/* Begins to read it, so that a read finds it at hand; does not wait for it. NULL: not offered. */
	void (*will_need)(void *state, size_t len, uint64_t offset);
	/* See store_at(). NULL: not offered. */
	const void *(*at)(void *state, size_t len, uint64_t offset);
};

typedef int store_opener(struct store_opened *opened, const char *rest, unsigned flags, struct uf_store_cause *cause);

store_opener store_open_memory, store_open_file;

/*
 * One attempt to read, which may wait: whole, or an error. [signal] For stores with UF_STORE_READS_IN_SIGNAL; of others it is -EOPNOTSUPP.
 * The rest is as with uf_store_read().
 */
int store_read_once(struct uf_store *store, void *buf, size_t len, uint64_t offset);

/* That it will be read soon, by somebody who waits. False: the store cannot begin without that. */
bool store_will_need(struct uf_store *store, size_t len, uint64_t offset);

/*
 * store_at - where these bytes lie in memory, for whoever can do with them there; NULL: they have to be read
 *
 * For the kernel alone, as the source of UFFDIO_COPY: they may leave memory at any time, and then it waits for them, or says -EFAULT where the
 * store has been cut. Valid as long as the store is open. All within the store.
 */
const void *store_at(struct uf_store *store, size_t len, uint64_t offset);

/* The last attempt that failed: what was asked for, and why it failed. "" for none. */
void store_last_failure(struct uf_store *store, char *line, size_t size);

/* Writes the cause, for people, unless it is NULL, and returns the error. */
int store_fail(struct uf_store_cause *cause, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
