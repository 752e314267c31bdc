/* SPDX-License-Identifier: MIT */
/*
 * resident.h - what of a file lies in the page cache, as memory
 *
 * The file is mapped as a whole, which takes addresses only. A block of it may be used from there once the page cache was seen to hold all of it;
 * that is asked once for each block, and again after some time where it did not. The cache may let go of it later: then whoever
 * uses it waits for the device. What is written to the file shows.
 */
#ifndef STORE_RESIDENT_H
#define STORE_RESIDENT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct resident {
	char *memory; /* NULL: it is not mapped */
	uint64_t size;
	_Atomic uint8_t *seen; /* for each block */
};

/* Where it cannot be mapped, nothing is resident. */
void resident_init(struct resident *resident, int fd, uint64_t size);
void resident_end(struct resident *resident);

/* The bytes [offset, offset + len), which the file has; or NULL. Any number of threads. */
const void *resident_at(struct resident *resident, int fd, size_t len, uint64_t offset);

#endif
