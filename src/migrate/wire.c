// SPDX-License-Identifier: MIT
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "migrate/wire.h"

static const unsigned char magic[8] = {'U', 'F', 'M', 'I', 'G', 'R', 'A', 'T'};

static void put16(unsigned char *raw, uint16_t value)
{
	value = htole16(value);
	memcpy(raw, &value, sizeof(value));
}

static void put32(unsigned char *raw, uint32_t value)
{
	value = htole32(value);
	memcpy(raw, &value, sizeof(value));
}

static uint16_t get16(const unsigned char *raw)
{
	uint16_t value;

	memcpy(&value, raw, sizeof(value));
	return le16toh(value);
}

static uint32_t get32(const unsigned char *raw)
{
	uint32_t value;

	memcpy(&value, raw, sizeof(value));
	return le32toh(value);
}

void wire_write_u64(unsigned char *raw, uint64_t value)
{
	value = htole64(value);
	memcpy(raw, &value, sizeof(value));
}

uint64_t wire_read_u64(const unsigned char *raw)
{
	uint64_t value;

	memcpy(&value, raw, sizeof(value));
	return le64toh(value);
}

/*
 * Prefaces.
 */

void wire_write_preface(unsigned char raw[WIRE_PREFACE_SIZE], const struct wire_preface *preface)
{
	memset(raw, 0, WIRE_PREFACE_SIZE);
	memcpy(raw, magic, sizeof(magic));
	put16(raw + 8, preface->lowest);
	put16(raw + 10, preface->highest);
	raw[12] = (unsigned char)preface->role;
	raw[13] = (unsigned char)preface->channel;
	raw[14] = (unsigned char)preface->channels;
	raw[15] = (unsigned char)preface->standing;
	put32(raw + 16, preface->refusal);
	put32(raw + 20, preface->features);
	put32(raw + 24, preface->required);
	put32(raw + 28, preface->page_size);
	put32(raw + 32, preface->timeout_ms);
	memcpy(raw + 36, preface->id, sizeof(preface->id));
	put32(raw + 60, crc32c(0, raw, 60));
}

static bool is_zero(const unsigned char *raw, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (raw[i])
			return false;
	return true;
}

static bool preface_makes_sense(const struct wire_preface *preface)
{
	return preface->channels >= 1 && preface->channels <= 2 && preface->channel < preface->channels &&
	       preface->standing < WIRE_STANDINGS && preface->refusal < WIRE_REFUSALS && preface->timeout_ms &&
	       preface->page_size && !(preface->page_size & (preface->page_size - 1));
}

int wire_read_preface(struct wire_preface *preface, const unsigned char raw[WIRE_PREFACE_SIZE])
{
	struct wire_preface read = {.lowest = get16(raw + 8), .highest = get16(raw + 10), .role = raw[12]};

	if (memcmp(raw, magic, sizeof(magic)) || get32(raw + 60) != crc32c(0, raw, 60))
		return -EPROTO;
	if (read.lowest > read.highest || (read.role != WIRE_SOURCE && read.role != WIRE_DESTINATION))
		return -EPROTO;
	/* What the rest means only a version that both know can tell. */
	if (read.lowest <= WIRE_VERSION && read.highest >= WIRE_VERSION) {
		read.channel = raw[13];
		read.channels = raw[14];
		read.standing = raw[15];
		read.refusal = get32(raw + 16);
		read.features = get32(raw + 20);
		read.required = get32(raw + 24);
		read.page_size = get32(raw + 28);
		read.timeout_ms = get32(raw + 32);
		memcpy(read.id, raw + 36, sizeof(read.id));
		if (!preface_makes_sense(&read) || !is_zero(raw + 52, 8))
			return -EPROTO;
	}
	*preface = read;
	return 0;
}

/*
 * Messages.
 */

void wire_write_header(unsigned char raw[WIRE_HEADER_SIZE], const struct wire_message *message)
{
	put32(raw, message->type);
	put32(raw + 4, message->length);
	put32(raw + 8, message->region);
	put32(raw + 12, message->count);
	wire_write_u64(raw + 16, message->at);
	put32(raw + 24, message->crc);
	put32(raw + 28, crc32c(0, raw, 28));
}

/* What a type's fields may be. */
enum use {
	NOTHING, /* 0 */
	PAGES,   /* region, at and count: pages of a region */
	REGION,  /* region */
	COUNT,   /* count: so many pieces of `piece` bytes follow */
	NUMBER,  /* at: any number */
	REASON,  /* count: a refusal; a text follows */
};

struct rule {
	enum use use;
	unsigned from; /* WIRE_SOURCE | WIRE_DESTINATION */
	uint32_t most; /* bytes that follow, at most */
};

static bool find_rule(uint32_t type, struct rule *rule)
{
	const unsigned either = WIRE_SOURCE | WIRE_DESTINATION;

	switch (type) {
	case WIRE_REGIONS:
		*rule = (struct rule){COUNT, WIRE_SOURCE, UF_MIGRATE_REGIONS * WIRE_REGION_SIZE};
		return true;
	case WIRE_PAGES:
		*rule = (struct rule){PAGES, WIRE_SOURCE, WIRE_RUN};
		return true;
	case WIRE_ZEROS:
		*rule = (struct rule){PAGES, WIRE_SOURCE, 0};
		return true;
	case WIRE_DISCARD:
		*rule = (struct rule){REGION, WIRE_SOURCE, WIRE_RANGES * WIRE_RANGE_SIZE};
		return true;
	case WIRE_BARRIER:
		*rule = (struct rule){NUMBER, WIRE_SOURCE, 0};
		return true;
	case WIRE_STATE:
		*rule = (struct rule){NUMBER, WIRE_SOURCE, WIRE_RUN};
		return true;
	case WIRE_STOPPED:
		*rule = (struct rule){NUMBER, WIRE_SOURCE, 0};
		return true;
	case WIRE_ARM:
	case WIRE_COMMIT:
	case WIRE_ALL_SENT:
	case WIRE_BYE:
		*rule = (struct rule){NOTHING, WIRE_SOURCE, 0};
		return true;
	case WIRE_ACCEPT:
	case WIRE_ARMED:
	case WIRE_PREPARED:
	case WIRE_STARTED:
	case WIRE_DONE:
		*rule = (struct rule){NOTHING, WIRE_DESTINATION, 0};
		return true;
	case WIRE_REFUSE:
		*rule = (struct rule){REASON, WIRE_DESTINATION, WIRE_TEXT};
		return true;
	case WIRE_BITMAP:
		*rule = (struct rule){PAGES, WIRE_DESTINATION, WIRE_BITMAP_BITS / 8};
		return true;
	case WIRE_REACHED:
		*rule = (struct rule){NUMBER, WIRE_DESTINATION, 0};
		return true;
	case WIRE_REQUEST:
		*rule = (struct rule){PAGES, WIRE_DESTINATION, 0};
		return true;
	case WIRE_CANCEL:
		*rule = (struct rule){REASON, either, WIRE_TEXT};
		return true;
	case WIRE_ALIVE:
		*rule = (struct rule){NOTHING, either, 0};
		return true;
	default:
		return false;
	}
}

static bool pages_fit(const struct wire_message *message, const struct regions *regions)
{
	uint64_t length = 0;

	if (message->region >= regions->count || !message->count || message->at >= regions->at[message->region].pages ||
	    message->count > regions->at[message->region].pages - message->at)
		return false;
	if (message->type == WIRE_PAGES)
		length = (uint64_t)message->count * regions->page_size;
	if (message->type == WIRE_BITMAP) {
		length = ((uint64_t)message->count + 63) / 64 * 8;
		if (message->at % 64)
			return false;
	}
	return message->length == length;
}

static bool fits(const struct wire_message *message, const struct rule *rule, const struct regions *regions)
{
	switch (rule->use) {
	case PAGES:
		return pages_fit(message, regions);
	case REGION:
		return message->region < regions->count && !message->at && message->count &&
		       message->length == (uint64_t)message->count * WIRE_RANGE_SIZE;
	case COUNT:
		return !message->region && !message->at && message->count &&
		       message->length == (uint64_t)message->count * WIRE_REGION_SIZE;
	case NUMBER:
		if (message->type == WIRE_STATE &&
		    (!message->length || message->at > UF_MIGRATE_STATE_SIZE - message->length))
			return false;
		if (message->type == WIRE_STOPPED && message->at > UF_MIGRATE_STATE_SIZE)
			return false;
		return !message->region && !message->count;
	case REASON:
		return !message->region && !message->at && message->count < WIRE_REFUSALS;
	default:
		return !message->region && !message->at && !message->count && !message->length;
	}
}

int wire_read_header(struct wire_message *message, const unsigned char raw[WIRE_HEADER_SIZE], enum wire_role from,
                     const struct regions *regions)
{
	struct rule rule;

	if (get32(raw + 28) != crc32c(0, raw, 28))
		return -EBADMSG;
	if (!find_rule(get32(raw), &rule) || !(rule.from & from))
		return -EPROTO;
	*message = (struct wire_message){
		.type = get32(raw),
		.length = get32(raw + 4),
		.region = get32(raw + 8),
		.count = get32(raw + 12),
		.at = wire_read_u64(raw + 16),
		.crc = get32(raw + 24),
	};
	if (message->length > rule.most || (!message->length && message->crc))
		return -EPROTO;
	return fits(message, &rule, regions) ? 0 : -EPROTO;
}

/*
 * What follows them.
 */

/* UF_MIGRATE_SHARED is each side's own affair. */
#define AGREED_FLAGS UF_MIGRATE_FIXED

void wire_write_region(unsigned char raw[WIRE_REGION_SIZE], const struct region *region)
{
	memset(raw, 0, WIRE_REGION_SIZE);
	wire_write_u64(raw, region->len);
	wire_write_u64(raw + 8, region->addr);
	put32(raw + 16, region->flags & AGREED_FLAGS);
	memcpy(raw + 24, region->name, sizeof(region->name));
}

bool wire_region_agrees(const unsigned char raw[WIRE_REGION_SIZE], const struct region *region)
{
	unsigned char ours[WIRE_REGION_SIZE];

	wire_write_region(ours, region);
	/* The address is told in any case, and matters where the flags say so. */
	if (!(region->flags & UF_MIGRATE_FIXED))
		memcpy(ours + 8, raw + 8, 8);
	return !memcmp(ours, raw, sizeof(ours));
}

void wire_write_range(unsigned char raw[WIRE_RANGE_SIZE], uint64_t from, uint64_t end)
{
	wire_write_u64(raw, from);
	wire_write_u64(raw + 8, end - from);
}

int wire_read_range(const unsigned char raw[WIRE_RANGE_SIZE], const struct region *region, uint64_t *from,
                    uint64_t *end)
{
	uint64_t count = wire_read_u64(raw + 8);

	*from = wire_read_u64(raw);
	if (*from >= region->pages || !count || count > region->pages - *from)
		return -EPROTO;
	*end = *from + count;
	return 0;
}
