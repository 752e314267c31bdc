// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/regions.h"

static int take_one(struct regions *regions, struct region *region, const struct uf_migrate_region *from)
{
	size_t name = from->name ? strnlen(from->name, UF_MIGRATE_NAME + 1) : 0;
	uint64_t addr = (uint64_t)(uintptr_t)from->addr;

	if (!name || name > UF_MIGRATE_NAME || (from->flags & ~(UF_MIGRATE_SHARED | UF_MIGRATE_FIXED)))
		return -EINVAL;
	if (!from->len || ((addr | from->len) & (regions->page_size - 1)) || addr + from->len < addr)
		return -EINVAL;
	for (const struct region *other = regions->at; other < region; other++)
		if (!strcmp(other->name, from->name) ||
		    (addr < other->addr + other->len && other->addr < addr + from->len))
			return -EINVAL;
	memcpy(region->name, from->name, name);
	region->addr = addr;
	region->len = from->len;
	region->flags = from->flags;
	region->first = regions->numbers;
	region->pages = from->len / regions->page_size;
	regions->pages += region->pages;
	regions->numbers += (region->pages + 63) / 64 * 64;
	return 0;
}

int regions_take(struct regions *regions, const struct uf_migrate_region *from, size_t count)
{
	int err = 0;

	*regions = (struct regions){.page_size = (size_t)sysconf(_SC_PAGESIZE)};
	if (!from || !count || count > UF_MIGRATE_REGIONS)
		return -EINVAL;
	regions->at = calloc(count, sizeof(*regions->at));
	if (!regions->at)
		return -ENOMEM;
	regions->count = count;
	for (size_t i = 0; i < count && !err; i++)
		err = take_one(regions, &regions->at[i], &from[i]);
	if (err)
		regions_drop(regions);
	return err;
}

void regions_drop(struct regions *regions)
{
	free(regions->at);
	regions->at = NULL;
}

/* Whether what lies at [start, end) is what the regions there say. */
static bool is_as_said(const struct regions *regions, uint64_t start, uint64_t end, bool is_private)
{
	for (size_t i = 0; i < regions->count; i++) {
		const struct region *region = &regions->at[i];

		if (start < region->addr + region->len && region->addr < end && !(region->flags & UF_MIGRATE_SHARED) &&
		    !is_private)
			return false;
	}
	return true;
}

int regions_check_kinds(const struct regions *regions)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t start, end, inode;
	char line[8192], shared;
	int err = 0;

	while (maps && !err && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*3c%c %*x %*x:%*x %" SCNu64, &start, &end, &shared,
		           &inode) == 4 &&
		    !is_as_said(regions, start, end, shared == 'p' && (!inode || strstr(line, " /dev/zero\n"))))
			err = -EINVAL;
	if (maps)
		fclose(maps);
	return err;
}

const struct region *regions_of_page(const struct regions *regions, uint64_t page)
{
	size_t low = 0, high = regions->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (regions->at[middle].first <= page)
			low = middle;
		else
			high = middle;
	}
	return &regions->at[low];
}

const struct region *regions_of_address(const struct regions *regions, uint64_t addr)
{
	for (size_t i = 0; i < regions->count; i++)
		if (addr - regions->at[i].addr < regions->at[i].len)
			return &regions->at[i];
	return NULL;
}
