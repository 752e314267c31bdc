/* SPDX-License-Identifier: MIT */
/*
 * send.h - pages into messages
 *
 * Runs of zeros become ranges, as long as they can be; other pages are sent from where they lie, in runs. One for each thread that sends.
 */
#ifndef MIGRATE_SEND_H
#define MIGRATE_SEND_H

#include <stdbool.h>
#include <stdint.h>

struct uf_source;
struct channel;

struct sender {
	int pagemap;       /* /proc/self/pagemap, or -1: untouched pages are looked at */
	uint64_t *entries; /* what it says of the pages from one address to another */
	uint64_t entries_at, entries_end;
	char *copy;                     /* of a run that changes while it is sent; or NULL */
	uint64_t zeros_from, zeros_end; /* page numbers of zeros that have not been told of */
	uint64_t bytes;                 /* of pages that were sent since sender_bytes() was asked */
};

int sender_open(struct sender *sender);
void sender_close(struct sender *sender);

/*
 * Sends the pages [from, end), which the caller has claimed and which lie in one region; WIRE_RUN bytes at most. `live`: the program may
 * write to them meanwhile. Zeros may be held back until send_zeros().
 */
int send_pages(struct uf_source *source, struct sender *sender, struct channel *channel, uint64_t from, uint64_t end,
               bool live);
int send_zeros(struct uf_source *source, struct sender *sender, struct channel *channel);

/* Of pages that were sent since it was asked last. Of zeros none. */
static inline uint64_t sender_bytes(struct sender *sender)
{
	uint64_t bytes = sender->bytes;

	sender->bytes = 0;
	return bytes;
}

#endif
