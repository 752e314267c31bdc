// SPDX-License-Identifier: MIT
#include <string.h>

#include "heap.h"

enum {
	PAGE_SHIFT = 12,
	PAGE = 1 << PAGE_SHIFT,
	SLAB_PAGES = 4,
	SLAB_SIZE = SLAB_PAGES * PAGE,
	SMALL = 2048, /* the largest object of a slab */
	KINDS = 24,
	BINS = 32,
};

/* "kv heap" and the version of its layout. */
#define MAGIC 0x6b76206865617001ULL

enum state {
	INSIDE, /* of a run; nothing else is true of it */
	FREE,
	USED,
	SLAB,
};

/*
 * What is said of a page. For runs it is said at the first page, and for free ones the length also at the last, where the run
 * behind looks for it; for slabs `first` is said at each page.
 */
struct page {
	uint32_t state;
	uint32_t length;     /* pages of the run */
	uint32_t next, prev; /* in the list of free runs, or of slabs with room; 0 is the end */
	uint32_t first;      /* first page of the slab */
	uint16_t kind;
	uint16_t used;  /* objects */
	uint16_t fresh; /* objects from here on were never used */
	uint16_t
		returned; /* 1 + the first of those that were and are free; each holds the next one in its first bytes */
};

struct heap {
	uint64_t magic;
	uint64_t size;
	uint64_t used;
	heap_ref root;
	uint32_t begin; /* the first page behind the descriptions */
	uint32_t end;
	uint32_t room[KINDS]; /* slabs with room */
	uint32_t bins[BINS];  /* free runs, by the logarithm of their length */
	struct page pages[];  /* one for each page of the heap, and one more that belongs to none */
};

/* 16 to 128 in steps of 16, and then four steps to each doubling. */
static const uint16_t kind_size[KINDS] = {16,  32,  48,  64,  80,  96,  112, 128,  160,  192,  224,  256,
                                          320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048};

static unsigned kind_of(uint64_t size)
{
	unsigned doubling, step;

	if (size <= 128)
		return (unsigned)((size + 15) / 16 - 1);
	doubling = 63 - (unsigned)__builtin_clzll(size - 1);
	step = (unsigned)((size - 1) >> (doubling - 2)) & 3;
	return 8 + (doubling - 7) * 4 + step;
}

static unsigned bin_of(uint32_t length)
{
	return 31 - (unsigned)__builtin_clz(length);
}

static void list_add(struct heap *heap, uint32_t *head, uint32_t page)
{
	heap->pages[page].next = *head;
	heap->pages[page].prev = 0;
	if (*head)
		heap->pages[*head].prev = page;
	*head = page;
}

static void list_remove(struct heap *heap, uint32_t *head, uint32_t page)
{
	struct page *run = &heap->pages[page];

	if (run->next)
		heap->pages[run->next].prev = run->prev;
	if (run->prev)
		heap->pages[run->prev].next = run->next;
	else
		*head = run->next;
}

/* Only the ends of a run are written, so a run of any length costs the same. */
static void mark(struct heap *heap, uint32_t page, uint32_t length, enum state state)
{
	struct page *first = &heap->pages[page], *last = &heap->pages[page + length - 1];

	last->state = INSIDE;
	last->length = length;
	first->state = state;
	first->length = length;
}

static void add_free(struct heap *heap, uint32_t page, uint32_t length)
{
	mark(heap, page, length, FREE);
	heap->pages[page + length - 1].state = FREE;
	list_add(heap, &heap->bins[bin_of(length)], page);
}

static void remove_free(struct heap *heap, uint32_t page)
{
	uint32_t length = heap->pages[page].length;

	list_remove(heap, &heap->bins[bin_of(length)], page);
	mark(heap, page, length, INSIDE);
}

/* The first that is long enough: in its own bin it must be looked for, in the bins behind any will do. */
static uint32_t find_free(const struct heap *heap, uint32_t length)
{
	unsigned bin = bin_of(length);
	uint32_t page = heap->bins[bin];

	while (page && heap->pages[page].length < length)
		page = heap->pages[page].next;
	while (!page && ++bin < BINS)
		page = heap->bins[bin];
	return page;
}

static uint32_t take_pages(struct heap *heap, uint32_t length, enum state state)
{
	uint32_t page = find_free(heap, length), had;

	if (!page)
		return 0;
	had = heap->pages[page].length;
	remove_free(heap, page);
	mark(heap, page, length, state);
	if (had > length)
		add_free(heap, page + length, had - length);
	return page;
}

static void give_pages(struct heap *heap, uint32_t page)
{
	uint32_t length = heap->pages[page].length, behind = page + length;

	mark(heap, page, length, INSIDE);
	if (behind < heap->end && heap->pages[behind].state == FREE) {
		length += heap->pages[behind].length;
		remove_free(heap, behind);
	}
	if (page > heap->begin && heap->pages[page - 1].state == FREE) {
		uint32_t before = heap->pages[page - 1].length;

		page -= before;
		length += before;
		remove_free(heap, page);
	}
	add_free(heap, page, length);
}

static uint32_t new_slab(struct heap *heap, unsigned kind)
{
	uint32_t slab = take_pages(heap, SLAB_PAGES, SLAB);

	if (!slab)
		return 0;
	for (uint32_t page = slab; page < slab + SLAB_PAGES; page++) {
		heap->pages[page].state = SLAB;
		heap->pages[page].first = slab;
	}
	heap->pages[slab].kind = (uint16_t)kind;
	heap->pages[slab].used = heap->pages[slab].fresh = heap->pages[slab].returned = 0;
	list_add(heap, &heap->room[kind], slab);
	return slab;
}

static heap_ref object_at(const struct heap *heap, uint32_t slab, unsigned number)
{
	return ((heap_ref)slab << PAGE_SHIFT) + number * kind_size[heap->pages[slab].kind];
}

static unsigned slab_objects(const struct heap *heap, uint32_t slab)
{
	return SLAB_SIZE / kind_size[heap->pages[slab].kind];
}

static heap_ref alloc_object(struct heap *heap, unsigned kind)
{
	uint32_t slab = heap->room[kind];
	struct page *page;
	heap_ref ref;

	if (!slab)
		slab = new_slab(heap, kind);
	if (!slab)
		return 0;
	page = &heap->pages[slab];
	if (page->returned) {
		ref = object_at(heap, slab, page->returned - 1u);
		memcpy(&page->returned, heap_at(heap, ref), sizeof(page->returned));
	} else {
		ref = object_at(heap, slab, page->fresh++);
	}
	if (++page->used == slab_objects(heap, slab))
		list_remove(heap, &heap->room[kind], slab);
	heap->used += kind_size[kind];
	return ref;
}

static void free_object(struct heap *heap, uint32_t slab, heap_ref ref)
{
	struct page *page = &heap->pages[slab];
	unsigned kind = page->kind;

	heap->used -= kind_size[kind];
	if (page->used-- == slab_objects(heap, slab))
		list_add(heap, &heap->room[kind], slab);
	if (page->used) {
		memcpy(heap_at(heap, ref), &page->returned, sizeof(page->returned));
		page->returned = (uint16_t)(1 + (ref - object_at(heap, slab, 0)) / kind_size[kind]);
		return;
	}
	list_remove(heap, &heap->room[kind], slab);
	for (uint32_t inside = slab; inside < slab + SLAB_PAGES; inside++)
		heap->pages[inside].state = INSIDE;
	give_pages(heap, slab);
}

struct heap *heap_init(void *memory, uint64_t size)
{
	struct heap *heap = memory;
	uint64_t pages = size >> PAGE_SHIFT, described = sizeof(*heap) + (pages + 1) * sizeof(struct page);

	memset(heap, 0, sizeof(*heap));
	heap->magic = MAGIC;
	heap->size = size;
	heap->begin = (uint32_t)((described + PAGE - 1) >> PAGE_SHIFT);
	heap->end = (uint32_t)pages;
	add_free(heap, heap->begin, heap->end - heap->begin);
	return heap;
}

struct heap *heap_attach(void *memory, uint64_t size)
{
	struct heap *heap = memory;

	return heap->magic == MAGIC && heap->size == size ? heap : NULL;
}

heap_ref heap_alloc(struct heap *heap, uint64_t size)
{
	uint32_t page;

	if (!size || size > heap->size)
		return 0;
	if (size <= SMALL)
		return alloc_object(heap, kind_of(size));
	page = take_pages(heap, (uint32_t)((size + PAGE - 1) >> PAGE_SHIFT), USED);
	heap->used += page ? (uint64_t)heap->pages[page].length << PAGE_SHIFT : 0;
	return (heap_ref)page << PAGE_SHIFT;
}

void heap_free(struct heap *heap, heap_ref ref)
{
	uint32_t page = (uint32_t)(ref >> PAGE_SHIFT);

	if (!ref)
		return;
	if (heap->pages[page].state == SLAB) {
		free_object(heap, heap->pages[page].first, ref);
		return;
	}
	heap->used -= (uint64_t)heap->pages[page].length << PAGE_SHIFT;
	give_pages(heap, page);
}

uint64_t heap_usable(const struct heap *heap, heap_ref ref)
{
	const struct page *page = &heap->pages[ref >> PAGE_SHIFT];

	if (page->state == SLAB)
		return kind_size[heap->pages[page->first].kind];
	return (uint64_t)page->length << PAGE_SHIFT;
}

uint64_t heap_size(const struct heap *heap)
{
	return heap->size;
}

uint64_t heap_used(const struct heap *heap)
{
	return heap->used;
}

heap_ref heap_root(const struct heap *heap)
{
	return heap->root;
}

void heap_set_root(struct heap *heap, heap_ref root)
{
	heap->root = root;
}

/* How many there are in a list, all of the given state, and linked in both directions; or -1. */
static int64_t list_length(const struct heap *heap, uint32_t head, enum state state)
{
	uint32_t before = 0;
	int64_t length = 0;

	for (uint32_t page = head; page; before = page, page = heap->pages[page].next, length++)
		if (page < heap->begin || page >= heap->end || heap->pages[page].state != state ||
		    heap->pages[page].prev != before || length > heap->end)
			return -1;
	return length;
}

/* Every object that was used once is either in use or in the slab's list, which holds none twice. */
static bool check_slab(const struct heap *heap, uint32_t slab)
{
	const struct page *page = &heap->pages[slab];
	uint8_t seen[SLAB_SIZE / 16] = {0};
	unsigned objects = slab_objects(heap, slab), listed = 0;

	for (uint16_t at = page->returned; at; listed++) {
		if (at > page->fresh || seen[at - 1]++)
			return false;
		memcpy(&at, heap_at(heap, object_at(heap, slab, at - 1u)), sizeof(at));
	}
	for (uint32_t inside = slab; inside < slab + SLAB_PAGES; inside++)
		if (heap->pages[inside].state != SLAB || heap->pages[inside].first != slab)
			return false;
	return page->used && page->fresh <= objects && page->used + listed == page->fresh;
}

bool heap_check(const struct heap *heap)
{
	int64_t free_runs = 0, roomy = 0;
	uint64_t used = 0;
	bool before = false;

	for (unsigned bin = 0; bin < BINS; bin++) {
		int64_t length = list_length(heap, heap->bins[bin], FREE);

		if (length < 0)
			return false;
		free_runs += length;
	}
	for (unsigned kind = 0; kind < KINDS; kind++) {
		int64_t length = list_length(heap, heap->room[kind], SLAB);

		if (length < 0)
			return false;
		roomy += length;
	}
	for (uint32_t page = heap->begin; page < heap->end; page += heap->pages[page].length) {
		const struct page *run = &heap->pages[page];
		bool is_free = run->state == FREE;

		/* Two free runs side by side would have been joined. */
		if (run->state == INSIDE || !run->length || run->length > heap->end - page || (is_free && before))
			return false;
		if (is_free && heap->pages[page + run->length - 1].length != run->length)
			return false;
		if (run->state == SLAB) {
			if (!check_slab(heap, page))
				return false;
			used += (uint64_t)run->used * kind_size[run->kind];
			roomy -= run->used < slab_objects(heap, page);
		}
		used += run->state == USED ? (uint64_t)run->length << PAGE_SHIFT : 0;
		free_runs -= is_free;
		before = is_free;
	}
	return !free_runs && !roomy && used == heap->used;
}
