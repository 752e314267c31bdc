/* SPDX-License-Identifier: MIT */
/*
 * regions.h - the memory that moves, and numbers for its pages
 *
 * Every page of every region has one number, so that a set of pages is one bitmap. Each region begins at a multiple of 64: numbers
 * between regions stand for nothing and are in no set.
 */
#ifndef MIGRATE_REGIONS_H
#define MIGRATE_REGIONS_H

#include <userfault/migrate.h>

struct region {
	char name[UF_MIGRATE_NAME + 1];
	uint64_t addr, len; /* bytes */
	unsigned flags;
	uint64_t first; /* number of its first page */
	uint64_t pages;
};

struct regions {
	size_t count;
	struct region *at;
	uint64_t numbers; /* of pages, with those that stand for nothing */
	uint64_t pages;
	size_t page_size;
};

/* Copies and checks what a program has named: 0, or as uf_source_open(). */
int regions_take(struct regions *regions, const struct uf_migrate_region *from, size_t count);
void regions_drop(struct regions *regions);

/*
 * -EINVAL: what is not said to be shared is not private anonymous memory. Pages of it that were never touched, or are thrown away, would be
 * taken for zeros, and are not. 0 also where the kernel does not tell.
 */
int regions_check_kinds(const struct regions *regions);

/* The region of a page, by its number; of an address, or NULL. */
const struct region *regions_of_page(const struct regions *regions, uint64_t page);
const struct region *regions_of_address(const struct regions *regions, uint64_t addr);

static inline void *region_page(const struct regions *regions, const struct region *region, uint64_t page)
{
	return (void *)(uintptr_t)(region->addr + (page - region->first) * regions->page_size);
}

#endif
