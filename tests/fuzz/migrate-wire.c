// SPDX-License-Identifier: MIT
/*
 * For libFuzzer: whatever bytes come as a preface, a header or a range, what is made of them lies within what the two agreed on.
 * The first byte chooses which. Checksums are made right, or nothing would ever get past them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "migrate/wire.h"

#define PAGE 4096

static struct region list[2] = {
	{.name = "first", .addr = 1 << 20, .len = 100 * PAGE, .pages = 100},
	{.name = "second", .addr = 1 << 30, .len = 1000000ull * PAGE, .first = 128, .pages = 1000000},
};
static const struct regions regions = {.count = 2, .at = list, .numbers = 1000128, .pages = 1000100, .page_size = PAGE};

static void expect(bool what)
{
	if (!what)
		abort();
}

static void seal(unsigned char *raw, size_t len)
{
	uint32_t crc = crc32c(0, raw, len);

	for (int i = 0; i < 4; i++)
		raw[len + (size_t)i] = (unsigned char)(crc >> 8 * i);
}

static void one_preface(unsigned char *raw)
{
	unsigned char again[WIRE_PREFACE_SIZE];
	struct wire_preface preface;

	seal(raw, 60);
	if (wire_read_preface(&preface, raw))
		return;
	if (preface.lowest > WIRE_VERSION || preface.highest < WIRE_VERSION)
		return;
	expect(preface.channels >= 1 && preface.channels <= 2 && preface.channel < preface.channels);
	expect(preface.standing < WIRE_STANDINGS && preface.refusal < WIRE_REFUSALS);
	/* Nothing was read into it that is not there, and nothing overlooked. */
	wire_write_preface(again, &preface);
	expect(!memcmp(again, raw, sizeof(again)));
}

static void one_header(unsigned char *raw, enum wire_role from)
{
	unsigned char again[WIRE_HEADER_SIZE];
	struct wire_message message;

	seal(raw, 28);
	if (wire_read_header(&message, raw, from, &regions))
		return;
	expect(message.length <= WIRE_RUN);
	if (message.type == WIRE_PAGES || message.type == WIRE_ZEROS || message.type == WIRE_BITMAP ||
	    message.type == WIRE_REQUEST) {
		expect(message.region < 2 && message.count > 0);
		expect(message.at + message.count <= list[message.region].pages);
	}
	if (message.type == WIRE_PAGES)
		expect(message.length == (uint64_t)message.count * PAGE);
	if (message.type == WIRE_STATE)
		expect(message.at + message.length <= UF_MIGRATE_STATE_SIZE);
	if (message.type == WIRE_DISCARD)
		expect(message.region < 2 && message.length == message.count * WIRE_RANGE_SIZE);
	wire_write_header(again, &message);
	expect(!memcmp(again, raw, sizeof(again)));
}

static void one_range(const unsigned char *raw)
{
	uint64_t from, end;

	if (!wire_read_range(raw, &list[raw[0] & 1], &from, &end))
		expect(from < end && end <= list[raw[0] & 1].pages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char raw[WIRE_PREFACE_SIZE] = {0};

	if (!size)
		return 0;
	memcpy(raw, data + 1, size - 1 < sizeof(raw) ? size - 1 : sizeof(raw));
	switch (data[0] % 4) {
	case 0:
		one_preface(raw);
		break;
	case 1:
		one_header(raw, WIRE_SOURCE);
		break;
	case 2:
		one_header(raw, WIRE_DESTINATION);
		break;
	default:
		one_range(raw);
		break;
	}
	return 0;
}
