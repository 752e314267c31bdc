/* SPDX-License-Identifier: MIT */
/*
 * wire.h - what goes over the wire, as userfault-migrate(5) has it
 *
 * Pure functions: from bytes to structures and back, without a system call. What comes out of wire_read_*() has been checked field by
 * field: pages lie in regions that both sides have, lengths are those of the type, and what is unused is zero.
 */
#ifndef MIGRATE_WIRE_H
#define MIGRATE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/regions.h"

#define WIRE_VERSION 1

#define WIRE_PREFACE_SIZE 64
#define WIRE_HEADER_SIZE  32
#define WIRE_REGION_SIZE  88
#define WIRE_RANGE_SIZE   16

#define WIRE_RUN         ((size_t)1 << 20)   /* bytes of pages in one message, and of a piece of state, at most */
#define WIRE_RANGES      4096                /* in one message, at most */
#define WIRE_BITMAP_BITS ((uint64_t)1 << 19) /* in one message, at most */
#define WIRE_TEXT        255                 /* bytes of a reason, at most */

/* Features, of both prefaces. */
#define WIRE_CHECKSUM (1u << 0)
#define WIRE_FEATURES WIRE_CHECKSUM

enum wire_role { WIRE_SOURCE = 1, WIRE_DESTINATION = 2 };

/* Where a side stands, in its preface. */
enum wire_standing {
	WIRE_FRESH = 0,     /* source: nothing has been sent. destination: nothing has been received */
	WIRE_PRECOPY = 1,   /* the source owns the program */
	WIRE_READY = 2,     /* destination: all is in place, and the commit has not come */
	WIRE_COMMITTED = 3, /* source: given away. destination: begun */
	WIRE_COMPLETE = 4,  /* destination: has all */
	WIRE_CANCELED = 5,  /* destination: has not begun, and never will */
	WIRE_STANDINGS,
};

/* Why a side refuses, in its preface or in WIRE_REFUSE. */
enum wire_refusal {
	WIRE_ACCEPTED = 0,
	WIRE_NO_VERSION = 1, /* no version in common */
	WIRE_NO_FEATURE = 2, /* a feature that is required */
	WIRE_NO_REGIONS = 3, /* other regions, or another page size */
	WIRE_BUSY = 4,       /* the destination has, or is waiting for, another source */
	WIRE_UNKNOWN = 5,    /* a source that has committed, but not to this destination */
	WIRE_NO_STATE = 6,   /* the program refuses the state */
	WIRE_FAILED = 7,     /* the destination cannot take the memory: see the text */
	WIRE_REFUSALS,
};

/* The first bytes in each direction of each connection. */
struct wire_preface {
	uint16_t lowest, highest; /* versions; in the answer both are the one chosen */
	enum wire_role role;
	unsigned channel, channels; /* which of how many: 0 or 1, of 1 or 2 */
	enum wire_standing standing;
	enum wire_refusal refusal;
	uint32_t features, required;
	uint32_t page_size;  /* bytes */
	uint32_t timeout_ms; /* the sender takes the other for lost after so long a silence */
	uint8_t id[16];      /* of the migration, made up by the source at random */
};

enum wire_type {
	/* from the source */
	WIRE_REGIONS = 1,
	WIRE_PAGES = 2,
	WIRE_ZEROS = 3,
	WIRE_DISCARD = 4,
	WIRE_BARRIER = 5,
	WIRE_ARM = 6,
	WIRE_STATE = 7,
	WIRE_STOPPED = 8,
	WIRE_COMMIT = 9,
	WIRE_ALL_SENT = 10,
	WIRE_BYE = 11,
	/* from the destination */
	WIRE_ACCEPT = 32,
	WIRE_REFUSE = 33,
	WIRE_BITMAP = 34,
	WIRE_REACHED = 35,
	WIRE_ARMED = 36,
	WIRE_PREPARED = 37,
	WIRE_STARTED = 38,
	WIRE_REQUEST = 39,
	WIRE_DONE = 40,
	/* from either */
	WIRE_CANCEL = 64,
	WIRE_ALIVE = 65,
};

struct wire_message {
	enum wire_type type;
	uint32_t length; /* bytes that follow */
	uint32_t region; /* its index */
	uint32_t count;  /* pages, regions, ranges, or a wire_refusal */
	uint64_t at;     /* the first page, counted from the region's first; or a number or offset */
	uint32_t crc;    /* of what follows; 0 without WIRE_CHECKSUM */
};

void wire_write_preface(unsigned char raw[WIRE_PREFACE_SIZE], const struct wire_preface *preface);

/* -EPROTO: not one, or one that contradicts itself. A version that is not ours is for the caller to refuse: what else is there is zero then. */
int wire_read_preface(struct wire_preface *preface, const unsigned char raw[WIRE_PREFACE_SIZE]);

void wire_write_header(unsigned char raw[WIRE_HEADER_SIZE], const struct wire_message *message);

/* -EPROTO: not a message that `from` may send at any time, about these regions. -EBADMSG: its checksum is wrong. */
int wire_read_header(struct wire_message *message, const unsigned char raw[WIRE_HEADER_SIZE], enum wire_role from,
                     const struct regions *regions);

/* Of WIRE_REGIONS: whether they are ours. */
void wire_write_region(unsigned char raw[WIRE_REGION_SIZE], const struct region *region);
bool wire_region_agrees(const unsigned char raw[WIRE_REGION_SIZE], const struct region *region);

/* Of WIRE_DISCARD: pages [from, end), counted as in the header. -EPROTO: not in the region. */
void wire_write_range(unsigned char raw[WIRE_RANGE_SIZE], uint64_t from, uint64_t end);
int wire_read_range(const unsigned char raw[WIRE_RANGE_SIZE], const struct region *region, uint64_t *from,
                    uint64_t *end);

uint64_t wire_read_u64(const unsigned char *raw);
void wire_write_u64(unsigned char *raw, uint64_t value);

#endif
