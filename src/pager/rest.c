// SPDX-License-Identifier: MIT
#include <errno.h>

#include "pager/rest.h"

static uint32_t power_of_two(uint64_t n)
{
	uint32_t power = 1;

	while (power < n && power < (1u << 30))
		power *= 2;
	return power;
}

int rest_init(struct rest *rest, size_t page, uint64_t bytes)
{
	*rest = (struct rest){.page = page, .slots = power_of_two(bytes / page)};
	rest->buckets = rest->slots;
	rest->memory = raw_map_own((size_t)rest->slots * page);
	rest->slot = raw_map_own(rest->slots * sizeof(*rest->slot));
	rest->bucket = raw_map_own(rest->buckets * sizeof(*rest->bucket));
	if (rest->memory && rest->slot && rest->bucket)
		return 0;
	rest_end(rest);
	return -ENOMEM;
}

void rest_end(struct rest *rest)
{
	raw_unmap(rest->memory, (size_t)rest->slots * rest->page);
	raw_unmap(rest->slot, rest->slots * sizeof(*rest->slot));
	raw_unmap(rest->bucket, rest->buckets * sizeof(*rest->bucket));
	*rest = (struct rest){0};
}

static uint32_t *bucket_of(struct rest *rest, uint64_t addr)
{
	return &rest->bucket[(addr / rest->page * 0x9e3779b97f4a7c15u) >> 32 & (rest->buckets - 1)];
}

char *rest_place(struct rest *rest, uint32_t pages)
{
	uint32_t to_end = rest->slots - rest->head;

	if (pages > rest->slots)
		return NULL;
	if (pages > to_end) {
		/* What is left at the end stays empty, and is popped like others. */
		if (rest->used + to_end + pages > rest->slots)
			return NULL;
		lock_take(&rest->lock);
		for (uint32_t i = rest->head; i < rest->slots; i++)
			rest->slot[i] = (struct rest_slot){0};
		rest->used += to_end;
		rest->head = 0;
		lock_release(&rest->lock);
	}
	return rest->used + pages > rest->slots ? NULL : rest->memory + (size_t)rest->head * rest->page;
}

void rest_put(struct rest *rest, uint64_t addr, uint32_t pages, bool live, bool dirty)
{
	uint32_t *bucket = bucket_of(rest, addr);

	for (uint32_t i = 0; i < pages; i++)
		rest->slot[rest->head + i] = (struct rest_slot){0};
	rest->slot[rest->head] = (struct rest_slot){
		.addr = addr, .next = *bucket, .pages = pages, .live = live, .dirty = dirty};
	*bucket = rest->head + 1;
	rest->head = (rest->head + pages) & (rest->slots - 1);
	rest->used += pages;
}

struct rest_slot *rest_find(struct rest *rest, uint64_t addr)
{
	for (uint32_t at = *bucket_of(rest, addr); at; at = rest->slot[at - 1].next)
		if (rest->slot[at - 1].addr == addr && rest->slot[at - 1].live)
			return &rest->slot[at - 1];
	return NULL;
}

struct rest_slot *rest_oldest(struct rest *rest, uint32_t ahead)
{
	if (ahead >= rest->used)
		return NULL;
	return &rest->slot[(rest->head - rest->used + ahead) & (rest->slots - 1)];
}

static void unlink_slot(struct rest *rest, struct rest_slot *slot)
{
	uint32_t *link = bucket_of(rest, slot->addr), self = (uint32_t)(slot - rest->slot) + 1;

	while (*link != self)
		link = &rest->slot[*link - 1].next;
	*link = slot->next;
}

uint32_t rest_pop(struct rest *rest, uint32_t count, void (*memory)(void *arg, char *at, size_t len), void *arg)
{
	uint32_t start = (rest->head - rest->used) & (rest->slots - 1), to_end = rest->slots - start;
	uint32_t first = count < to_end ? count : to_end, pages = 0;

	lock_take(&rest->lock);
	for (uint32_t i = 0; i < count; i++) {
		struct rest_slot *slot = &rest->slot[(start + i) & (rest->slots - 1)];

		if (slot->pages)
			unlink_slot(rest, slot);
		pages += slot->back ? 0 : slot->pages;
		*slot = (struct rest_slot){0};
	}
	lock_release(&rest->lock);
	/* Used until its memory is given back: nothing may be put there before. */
	memory(arg, rest->memory + (size_t)start * rest->page, (size_t)first * rest->page);
	if (count > first)
		memory(arg, rest->memory, (size_t)(count - first) * rest->page);
	lock_take(&rest->lock);
	rest->used -= count;
	lock_release(&rest->lock);
	return pages;
}
