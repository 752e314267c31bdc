/* SPDX-License-Identifier: MIT */
/* write.h - pieces of memory that are written to stores, many at a time; under the pager's `cleaning` */
#ifndef PAGER_WRITE_H
#define PAGER_WRITE_H

#include "pager/pager.h"

/* In flight at the same time. */
#define WRITES 32u

/* A piece of what is to be written: whole units of one mapping, in a row, in memory that stays as it is. */
struct piece {
	struct uf_store_request request;
	struct writing *writing;
	struct mapping *mapping;
	uint64_t addr, len, unit, offset;
	const char *from;
};

struct writing {
	struct piece *pieces;
	size_t count, room;
	_Atomic uint32_t in_flight; /* futex */
};

/* Whether it was added; it may have been joined to the last one. Inside the gate. */
bool write_add(struct writing *writing, const struct space_range *range, uint64_t addr, const char *from);

/* Writes all pieces, and waits; each one's request.result tells what came of it. The first error. Not inside the gate. */
int write_all(struct uf_pager *pager, struct writing *writing);

#endif
