/* SPDX-License-Identifier: MIT */
/*
 * message.h - what a client sends when it hands over its memory: userfault-handover(5)
 *
 * Pure functions of text, for the side that reads. The text comes from whoever could connect: nothing is taken from it that was not
 * checked, and what it costs to look at grows with its length alone, however it is cut into pieces.
 *
 *	handover_scan()    where a message ends, without going over the same bytes twice
 *	handover_parse()   what a whole one says
 *	handover_next()    both, on what has been received so far
 *
 * Needs jansson, so it is part of what uses it (the manager, its tests) and not of the library.
 */
#ifndef HANDOVER_MESSAGE_H
#define HANDOVER_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <userfault/handover.h>

#define HANDOVER_MESSAGE_MAX (1u << 20) /* bytes of a message, the white space before it included */
#define HANDOVER_REGIONS_MAX 4096       /* of one message */
#define HANDOVER_STORE       "default"  /* of regions that name none */
#define HANDOVER_PAGE_MIN    4096u
#define HANDOVER_PAGE_MAX    (1u << 30)

enum handover_kind {
	HANDOVER_ARRAY, /* regions in Firecracker's form: it is never answered, and nothing follows it */
	HANDOVER_GIVE,  /* regions, answered */
	HANDOVER_SIZE,  /* the question for a store's size, answered */
};

/* addr, size and offset are multiples of page_size; size is not zero; neither addr nor offset plus size overflows. */
struct handover_region {
	uint64_t addr, size, offset;
	uint32_t page_size;    /* a power of two from HANDOVER_PAGE_MIN to HANDOVER_PAGE_MAX */
	bool removed_is_store; /* what the program gives back comes from the store again; otherwise it is zeros */
	bool prefetch;
	char store[UF_HANDOVER_NAME_MAX + 1];
};

struct handover_message {
	enum handover_kind kind;
	struct handover_region *regions;      /* as they were sent; no two of them overlap */
	size_t count;                         /* 1 to HANDOVER_REGIONS_MAX; 0 with HANDOVER_SIZE */
	char name[UF_HANDOVER_NAME_MAX + 1];  /* of the client, or "" */
	char store[UF_HANDOVER_NAME_MAX + 1]; /* HANDOVER_SIZE: whose */
	bool numbered;                        /* it has a number, which its answer has too */
	uint64_t number;
};

/* How far a message has been looked at. All zeros: not at all, and so again after each message, but for `array`. */
struct handover_scan {
	size_t seen;
	unsigned depth, values;
	bool quoted, escaped;
	bool array; /* the last message that began did so as in Firecracker's form: it is not answered, whatever becomes of it */
};

/*
 * handover_scan - find the end of the first message in `text`
 *
 * text, len  all that was received since the last message; each call may have more than the one before, with the same beginning
 *
 * > 0      its length, the white space before it included; handover_parse() says whether it is one
 * 0        it has not come to its end
 * -EINVAL  it can be no message, whatever follows: neither an array nor an object, nested too deep, more values than one can have
 * -E2BIG   it is longer than HANDOVER_MESSAGE_MAX
 */
ssize_t handover_scan(struct handover_scan *scan, const char *text, size_t len, char *cause, size_t cause_size);

/*
 * handover_parse - a whole message
 *
 * 0, and it is to be freed with handover_free(); or -EINVAL, -ENOMEM, and `cause` (not NULL) has one printable line that tells why. Of what is
 * refused the number is there nevertheless, if it could be read, and nothing else.
 */
int handover_parse(struct handover_message *message, const char *text, size_t len, char *cause, size_t cause_size);

/* As handover_scan(); > 0: *message has been filled in, and `scan` is at the beginning again. < 0: of *message the number alone. */
ssize_t handover_next(struct handover_scan *scan, struct handover_message *message, const char *text, size_t len,
                      char *cause, size_t cause_size);

void handover_free(struct handover_message *message);

#endif
