// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/rawsys.h"
#include "migrate/source.h"

#define ENTRIES 512                 /* of the pagemap that are read at once */
#define HERE    ((uint64_t)3 << 62) /* in memory, or swapped */

int sender_open(struct sender *sender)
{
	*sender = (struct sender){.pagemap = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
	sender->entries = raw_map_own(ENTRIES * sizeof(uint64_t) + WIRE_RUN);
	if (!sender->entries) {
		sender_close(sender);
		return -ENOMEM;
	}
	sender->copy = (char *)(sender->entries + ENTRIES);
	return 0;
}

void sender_close(struct sender *sender)
{
	raw_unmap(sender->entries, ENTRIES * sizeof(uint64_t) + WIRE_RUN);
	if (sender->pagemap >= 0)
		raw_close(sender->pagemap);
	sender->entries = NULL;
	sender->pagemap = -1;
}

/* Asks about [addr, end), as far as there is room. */
static bool read_entries(struct sender *sender, uint64_t addr, uint64_t end, size_t page_size)
{
	uint64_t count = (end - addr) / page_size, size;

	if (count > ENTRIES)
		count = ENTRIES;
	size = count * sizeof(uint64_t);
	sender->entries_at = addr;
	sender->entries_end = addr + count * page_size;
	if (raw_pread(sender->pagemap, sender->entries, size, addr / page_size * sizeof(uint64_t)) != (ssize_t)size)
		sender->entries_end = addr;
	return sender->entries_end > addr;
}

/* A look at it would make a page of it, if only of the page of zeros. `end`: of what will be asked about next. */
static bool is_untouched(struct sender *sender, const struct region *region, uint64_t addr, uint64_t end,
                         size_t page_size)
{
	if ((region->flags & UF_MIGRATE_SHARED) || sender->pagemap < 0)
		return false;
	if ((addr < sender->entries_at || addr >= sender->entries_end) && !read_entries(sender, addr, end, page_size))
		return false;
	return !(sender->entries[(addr - sender->entries_at) / page_size] & HERE);
}

static bool is_zero(const void *page, size_t len)
{
	const uint64_t *words = page;

	for (size_t i = 0; i < len / sizeof(*words); i += 8)
		if (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] |
		    words[i + 7])
			return false;
	return true;
}

static int tell_zeros(struct uf_source *source, struct channel *channel, uint64_t from, uint64_t end)
{
	const struct region *region = regions_of_page(&source->regions, from);
	int err = 0;

	tally_add(&source->tally.zero, (end - from) * source->regions.page_size);
	while (from < end && !err) {
		uint32_t count = end - from < UINT32_MAX ? (uint32_t)(end - from) : UINT32_MAX;

		err = channel_send(channel,
		                   &(struct wire_message){
					   .type = WIRE_ZEROS,
					   .region = (uint32_t)(region - source->regions.at),
					   .at = from - region->first,
					   .count = count,
				   },
		                   NULL);
		from += count;
	}
	return err;
}

int send_zeros(struct uf_source *source, struct sender *sender, struct channel *channel)
{
	uint64_t from = sender->zeros_from, end = sender->zeros_end;

	sender->zeros_from = sender->zeros_end = 0;
	return from < end ? tell_zeros(source, channel, from, end) : 0;
}

static int hold_zeros(struct uf_source *source, struct sender *sender, struct channel *channel, uint64_t from,
                      uint64_t end)
{
	int err = 0;

	if (sender->zeros_end != from ||
	    regions_of_page(&source->regions, sender->zeros_from) != regions_of_page(&source->regions, from))
		err = send_zeros(source, sender, channel);
	if (sender->zeros_end != from)
		sender->zeros_from = from;
	sender->zeros_end = end;
	return err;
}

static int send_run(struct uf_source *source, struct sender *sender, struct channel *channel,
                    const struct region *region, uint64_t from, uint64_t end, bool live)
{
	size_t len = (end - from) * source->regions.page_size;
	const void *bytes = region_page(&source->regions, region, from);
	struct wire_message message = {
		.type = WIRE_PAGES,
		.region = (uint32_t)(region - source->regions.at),
		.at = from - region->first,
		.count = (uint32_t)(end - from),
		.length = (uint32_t)len,
	};

	if (live && channel->checksum)
		bytes = memcpy(sender->copy, bytes, len);
	tally_add(live ? &source->tally.precopy : &source->tally.postcopy, len);
	sender->bytes += len;
	return channel_send(channel, &message, bytes);
}

int send_pages(struct uf_source *source, struct sender *sender, struct channel *channel, uint64_t from, uint64_t end,
               bool live)
{
	const struct region *region = regions_of_page(&source->regions, from);
	size_t size = source->regions.page_size;
	uint64_t last = (uint64_t)(uintptr_t)region_page(&source->regions, region, end);
	int err = 0;

	/* What it said before may not be so any more. */
	sender->entries_end = sender->entries_at;
	while (from < end && !err) {
		bool zero = false, before = false;
		uint64_t at = from;

		/* As far as they are alike. */
		for (; at < end; at++, before = zero) {
			char *page = region_page(&source->regions, region, at);

			zero = is_untouched(sender, region, (uint64_t)(uintptr_t)page, last, size) ||
			       is_zero(page, size);
			if (at > from && zero != before)
				break;
		}
		err = before ? hold_zeros(source, sender, channel, from, at)
		             : send_run(source, sender, channel, region, from, at, live);
		from = at;
	}
	return err;
}
