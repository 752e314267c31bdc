// SPDX-License-Identifier: MIT
/*
 * Address spaces are nearly empty: what is shown are the regions that were told of, and what faulted outside of them, with the gaps left out.
 */
#include <errno.h>
#include <stdlib.h>

#include "report/extents.h"

#define GAP_PAGES 64 /* a smaller gap is shown as it is */

struct spans {
	struct analysis_extent *items;
	size_t count, room;
};

static uint64_t sum(uint64_t address, uint64_t length)
{
	return length > UINT64_MAX - address ? UINT64_MAX : address + length;
}

static int add_span(struct spans *spans, uint64_t from, uint64_t length, uint64_t offset)
{
	if (!length)
		return 0;
	if (spans->count == spans->room) {
		size_t room = spans->room ? 2 * spans->room : 64;
		struct analysis_extent *larger = reallocarray(spans->items, room, sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		spans->items = larger;
		spans->room = room;
	}
	spans->items[spans->count++] = (struct analysis_extent){
		.from = from, .to = sum(from, length), .offset = offset};
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct analysis_extent *one = a, *other = b;

	return (one->from > other->from) - (one->from < other->from);
}

static int by_value(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

	return (one > other) - (one < other);
}

/* Makes one of those between which there is at most `gap`. They are in order, and stay so. */
static void merge(struct spans *spans, uint64_t gap)
{
	size_t last = 0;

	for (size_t i = 1; i < spans->count; i++) {
		struct analysis_extent *before = &spans->items[last], *span = &spans->items[i];

		if (span->from > before->to && span->from - before->to > gap)
			spans->items[++last] = *span;
		else if (span->to > before->to)
			before->to = span->to;
	}
	spans->count = spans->count ? last + 1 : 0;
}

static void sort_and_merge(struct spans *spans, uint64_t gap)
{
	/* Of none there is no array. */
	if (spans->count)
		qsort(spans->items, spans->count, sizeof(*spans->items), by_address);
	merge(spans, gap);
}

/* As many as can be told apart: of the gaps the largest stay. */
static int limit(struct spans *spans)
{
	uint64_t *gaps;

	if (spans->count <= ANALYSIS_EXTENTS)
		return 0;
	gaps = malloc((spans->count - 1) * sizeof(*gaps));
	if (!gaps)
		return -ENOMEM;
	for (size_t i = 1; i < spans->count; i++)
		gaps[i - 1] = spans->items[i].from - spans->items[i - 1].to;
	qsort(gaps, spans->count - 1, sizeof(*gaps), by_value);
	merge(spans, gaps[spans->count - ANALYSIS_EXTENTS]);
	free(gaps);
	return 0;
}

/* The extent with the address in it; NULL: none. They are in order and apart. */
static struct analysis_extent *find(struct analysis_extent *extents, size_t count, uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (extents[middle].to <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && extents[low].from <= address ? &extents[low] : NULL;
}

static bool has_place(const struct recording_event *event)
{
	return event->kind == RECORDING_READ || event->kind == RECORDING_WRITE || event->kind == RECORDING_PREFETCH ||
	       event->kind == RECORDING_POISON;
}

static int add_regions(const struct recording_data *data, struct spans *spans)
{
	int err = 0;

	for (size_t i = 0; i < data->about.region_count && !err; i++) {
		const struct recording_region *region = &data->about.regions[i];

		err = add_span(spans, region->address, region->length, region->offset);
	}
	for (size_t i = 0; i < data->count && !err; i++) {
		const struct recording_event *event = &data->events[i];

		if (event->kind == RECORDING_MAP)
			err = add_span(spans, event->address, event->length, event->offset);
		else if (event->kind == RECORDING_REMAP)
			err = add_span(spans, event->offset, event->length, RECORDING_NOWHERE);
	}
	return err;
}

/* What happened where no region was told of. One page of it: its length may be anything. */
static int add_strays(const struct recording_data *data, struct spans *spans)
{
	size_t known = spans->count;
	int err = 0;

	for (size_t i = 0; i < data->count && !err; i++) {
		const struct recording_event *event = &data->events[i];

		/* The array may move while it grows; what is known stays in front, in order. */
		if (has_place(event) && !find(spans->items, known, event->address))
			err = add_span(spans, event->address & -(uint64_t)data->about.page_size, data->about.page_size,
			               RECORDING_NOWHERE);
	}
	return err;
}

static int find_extents(struct analysis *analysis)
{
	uint64_t page = analysis->data->about.page_size;
	struct spans spans = {0};
	int err = add_regions(analysis->data, &spans);

	/* Those that touch stay one each only if they are of different stores, which nobody can tell: they are one. */
	sort_and_merge(&spans, 0);
	if (!err)
		err = add_strays(analysis->data, &spans);
	sort_and_merge(&spans, GAP_PAGES * page);
	if (!err)
		err = limit(&spans);
	analysis->extents = spans.items;
	analysis->extent_count = spans.count;
	return err;
}

/*
 * Rows.
 */

static uint64_t round_up(uint64_t value, uint64_t page)
{
	return value > UINT64_MAX - page ? value : (value + page - 1) / page * page;
}

/* Bytes to a row of an extent: its share of the rows, at least one, whole pages. */
static uint64_t row_size(const struct analysis *analysis, const struct analysis_extent *extent, double total)
{
	uint64_t length = extent->to - extent->from;
	double share = (double)length / total * ANALYSIS_ROWS;
	uint64_t rows = share < 1 ? 1 : (uint64_t)share;

	return round_up(length / rows + (length % rows != 0), analysis->data->about.page_size);
}

static unsigned rows_of(const struct analysis_extent *extent, uint64_t size)
{
	uint64_t length = extent->to - extent->from;

	return (unsigned)(length / size + (length % size != 0));
}

static void fill_rows(struct analysis *analysis, struct analysis_extent *extent, uint64_t size)
{
	for (unsigned i = 0; i < extent->row_count; i++) {
		uint64_t from = extent->from + i * size;

		analysis->rows[extent->row_from + i] = (struct report_row){
			.from = from,
			.to = extent->to - from < size ? extent->to : from + size,
			.offset = extent->offset == RECORDING_NOWHERE ? UINT64_MAX : extent->offset + i * size,
			.region = (unsigned)(extent - analysis->extents) + 1,
		};
	}
}

static int make_rows(struct analysis *analysis)
{
	double total = 0;

	for (size_t i = 0; i < analysis->extent_count; i++)
		total += (double)(analysis->extents[i].to - analysis->extents[i].from);
	for (size_t i = 0; i < analysis->extent_count; i++) {
		struct analysis_extent *extent = &analysis->extents[i];

		extent->row_from = (unsigned)analysis->row_count;
		extent->row_count = rows_of(extent, row_size(analysis, extent, total));
		analysis->row_count += extent->row_count;
	}
	analysis->rows = calloc(analysis->row_count + 1, sizeof(*analysis->rows));
	if (!analysis->rows)
		return -ENOMEM;
	for (size_t i = 0; i < analysis->extent_count; i++)
		fill_rows(analysis, &analysis->extents[i], row_size(analysis, &analysis->extents[i], total));
	for (size_t i = 0; i < LAYER_COUNT; i++) {
		analysis->layers[i] = calloc(analysis->row_count * ANALYSIS_BINS + 1, sizeof(double));
		if (!analysis->layers[i])
			return -ENOMEM;
	}
	return 0;
}

/*
 * What happened there.
 */

/* Spreads bytes of an event over the rows that it reaches into. */
static void spread(struct analysis *analysis, const struct recording_event *event, enum analysis_layer layer)
{
	size_t bin = analysis_bin(analysis, event->time);
	uint64_t end = sum(event->address, event->length);

	for (size_t i = 0; i < analysis->extent_count; i++) {
		const struct analysis_extent *extent = &analysis->extents[i];

		if (extent->to <= event->address || extent->from >= end)
			continue;
		for (size_t row = extent->row_from; row < extent->row_from + extent->row_count; row++) {
			uint64_t from = analysis->rows[row].from, to = analysis->rows[row].to;

			from = from > event->address ? from : event->address;
			to = to < end ? to : end;
			if (from < to)
				analysis->layers[layer][row * ANALYSIS_BINS + bin] += (double)(to - from);
		}
	}
}

static void place_fault(struct analysis *analysis, struct analysis_extent *extent, const struct recording_event *event)
{
	const struct report_row *rows = &analysis->rows[extent->row_from];
	size_t row = extent->row_from + (event->address - extent->from) / (rows[0].to - rows[0].from);
	size_t cell = row * ANALYSIS_BINS + analysis_bin(analysis, event->time);
	double latency = (double)event->latency * 1e-9;

	extent->faults++;
	analysis->layers[LAYER_FAULTS][cell]++;
	if (latency > analysis->layers[LAYER_SLOWEST][cell])
		analysis->layers[LAYER_SLOWEST][cell] = latency;
}

static void place_events(struct analysis *analysis)
{
	for (size_t i = 0; i < analysis->data->count; i++) {
		const struct recording_event *event = &analysis->data->events[i];
		struct analysis_extent *extent = find(analysis->extents, analysis->extent_count, event->address);

		switch (event->kind) {
		case RECORDING_READ:
		case RECORDING_WRITE:
			if (extent)
				place_fault(analysis, extent, event);
			break;
		case RECORDING_PREFETCH:
			if (extent)
				extent->ahead += event->length;
			spread(analysis, event, LAYER_AHEAD);
			break;
		case RECORDING_REMOVE:
		case RECORDING_UNMAP:
		case RECORDING_REMAP:
			spread(analysis, event, LAYER_GONE);
			break;
		default:
			break;
		}
	}
}

/* How many different pages faulted. */
static int count_pages(struct analysis *analysis)
{
	uint64_t page = analysis->data->about.page_size, *pages;
	size_t count = 0;

	pages = malloc((analysis->faults + 1) * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	for (size_t i = 0; i < analysis->data->count; i++) {
		const struct recording_event *event = &analysis->data->events[i];

		if (event->kind == RECORDING_READ || event->kind == RECORDING_WRITE)
			pages[count++] = event->address & -page;
	}
	qsort(pages, count, sizeof(*pages), by_value);
	for (size_t i = 0; i < count; i++) {
		struct analysis_extent *extent;

		if (i && pages[i] == pages[i - 1])
			continue;
		analysis->pages++;
		extent = find(analysis->extents, analysis->extent_count, pages[i]);
		if (extent)
			extent->pages++;
	}
	free(pages);
	return 0;
}

int extents_make(struct analysis *analysis)
{
	int err = find_extents(analysis);

	if (!err)
		err = make_rows(analysis);
	if (err)
		return err;
	place_events(analysis);
	return count_pages(analysis);
}
