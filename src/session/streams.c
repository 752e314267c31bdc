// SPDX-License-Identifier: MIT
/*
 * How much to read at once. Touches that follow one another, upwards or downwards, are a stream; each source remembers a few. The first touch
 * of one reads its page alone, each further one twice as much, up to a limit: a page touched at random costs one page.
 */
#include "session/fill.h"

#define STREAMS (sizeof(((struct session_source *)0)->streams) / sizeof(struct session_stream))
#define MOST    ((uint64_t)1 << 20)
#define FIRST   ((uint64_t)256 << 10) /* of sources that are read in sequence, as was said */
#define STRIDE  ((uint64_t)16 << 10)  /* a stream may skip so much */

static inline uint64_t peek(_Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void put(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

/* The stream that a touch goes on with, and whether downwards. */
static struct session_stream *find(struct session_source *source, uint64_t addr, bool *down)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		struct session_stream *stream = &source->streams[i];
		uint64_t next = peek(&stream->next), previous = peek(&stream->previous);

		*down = false;
		if (next && addr >= next && addr - next < STRIDE)
			return stream;
		*down = true;
		if (previous && addr <= previous && previous - addr < STRIDE)
			return stream;
	}
	return NULL;
}

static uint64_t grown(const struct session_stream *stream, const struct space_range *range, int order)
{
	uint64_t bytes = 2 * atomic_load_explicit(&((struct session_stream *)stream)->bytes, memory_order_relaxed);
	uint64_t least = order == ORDER_SEQUENTIAL ? FIRST : 2 * range->unit;

	if (bytes < least)
		bytes = least;
	if (bytes > MOST)
		bytes = MOST;
	return bytes < range->unit ? range->unit : bytes & ~(range->unit - 1);
}

void fill_window(const struct space_range *range, uint64_t addr, uint64_t *start, uint64_t *end)
{
	struct session_source *source = source_of(range);
	int order = atomic_load_explicit(&source->order, memory_order_relaxed);
	struct session_stream *stream;
	uint64_t bytes, limit = range->start + range->len;
	bool down;

	*start = addr;
	*end = addr + range->unit;
	if (order == ORDER_RANDOM || atomic_load_explicit(&source->recording, memory_order_relaxed))
		return;
	stream = find(source, addr, &down);
	if (!stream) {
		if (order == ORDER_SEQUENTIAL && limit - addr > range->unit)
			*end = limit - addr < FIRST ? limit : addr + (FIRST > range->unit ? FIRST : range->unit);
		return;
	}
	bytes = grown(stream, range, order);
	if (down)
		*start = addr - range->start < bytes ? range->start : addr + range->unit - bytes;
	else
		*end = limit - addr < bytes ? limit : addr + bytes;
}

void fill_window_done(const struct space_range *range, uint64_t addr, uint64_t start, uint64_t end)
{
	struct session_source *source = source_of(range);
	struct session_stream *stream;
	bool down;

	if (atomic_load_explicit(&source->order, memory_order_relaxed) == ORDER_RANDOM)
		return;
	stream = find(source, addr, &down);
	if (!stream)
		stream = &source->streams[atomic_fetch_add_explicit(&source->turn, 1, memory_order_relaxed) % STREAMS];
	put(&stream->next, end);
	put(&stream->previous, start - range->unit);
	atomic_store_explicit(&stream->bytes, (uint32_t)(end - start), memory_order_relaxed);
}
