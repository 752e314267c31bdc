// SPDX-License-Identifier: MIT
/* memory:SIZE */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rawsys.h"
#include "base/size.h"
#include "store/store.h"

/* What was never written reads as zeros, and is known to, by pieces of this size. */
#define PIECE 4096

struct memory {
	char *bytes;
	uint64_t size;
	_Atomic uint8_t *written; /* one for each piece */
};

static int64_t memory_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	const struct memory *memory = state;

	(void)cause;
	memcpy(buf, memory->bytes + offset, len);
	return (int64_t)len;
}

static int memory_try_read(void *state, void *buf, size_t len, uint64_t offset)
{
	const struct memory *memory = state;

	memcpy(buf, memory->bytes + offset, len);
	return 0;
}

static int64_t memory_write(void *state, const void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct memory *memory = state;

	(void)cause;
	/* Before the bytes: a piece must not be taken for zeros when it is not. */
	for (uint64_t piece = offset / PIECE; piece <= (offset + len - 1) / PIECE; piece++)
		atomic_store(&memory->written[piece], 1);
	memcpy(memory->bytes + offset, buf, len);
	return (int64_t)len;
}

static int memory_extent(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	const struct memory *memory = state;
	uint64_t piece = offset / PIECE, end = offset + len;
	bool written = atomic_load(&memory->written[piece]);

	do
		piece++;
	while (piece * PIECE < end && atomic_load(&memory->written[piece]) == written);
	extent->len = (piece * PIECE < end ? piece * PIECE : end) - offset;
	extent->zero = !written;
	return 0;
}

static size_t written_size(const struct memory *memory)
{
	return (memory->size + PIECE - 1) / PIECE;
}

static void memory_close(void *state)
{
	struct memory *memory = state;

	raw_unmap(memory->bytes, memory->size);
	raw_unmap((void *)memory->written, written_size(memory));
	free(memory);
}

static const struct uf_store_ops memory_ops = {
	.size = sizeof(memory_ops),
	.version = UF_STORE_OPS_VERSION,
	.read = memory_read,
	.try_read = memory_try_read,
	.write = memory_write,
	.extent = memory_extent,
	.close = memory_close,
};

int store_open_memory(struct store_opened *opened, const char *rest, unsigned flags, struct uf_store_cause *cause)
{
	uint64_t size = 0;
	struct memory *memory;

	(void)flags;
	if (!size_parse(rest, &size) || !size)
		return store_fail(cause, -EINVAL, "no size: digits, and perhaps K, M, G or T");
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return -ENOMEM;
	memory->size = size;
	memory->bytes = raw_map_own(size);
	memory->written = raw_map_own(written_size(memory));
	if (!memory->bytes || !memory->written) {
		memory_close(memory);
		return store_fail(cause, -ENOMEM, "so much cannot be mapped");
	}
	*opened = (struct store_opened){
		.ops = &memory_ops,
		.state = memory,
		.size = size,
		.flags = UF_STORE_TRIES_IN_SIGNAL | UF_STORE_READS_IN_SIGNAL,
	};
	return 0;
}
