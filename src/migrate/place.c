// SPDX-License-Identifier: MIT
/* Contracts: migrate/destination.h. */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "migrate/destination.h"
#include "uffd/user/layout.h"

static void *address_of(const struct uf_destination *destination, uint64_t page)
{
	return region_page(&destination->regions, regions_of_page(&destination->regions, page), page);
}

static size_t size_of(const struct uf_destination *destination, uint64_t from, uint64_t end)
{
	return (end - from) * destination->regions.page_size;
}

int place_empty(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	const struct region *region = regions_of_page(&destination->regions, from);

	/* The user engine must know of it; with the kernel's it is the system call alone. */
	return user_layout_madvise((uint64_t)(uintptr_t)region_page(&destination->regions, region, from),
	                           size_of(destination, from, end),
	                           region->flags & UF_MIGRATE_SHARED ? MADV_REMOVE : MADV_DONTNEED);
}

int place_empty_all(struct uf_destination *destination)
{
	int err = 0;

	for (size_t i = 0; i < destination->regions.count && !err; i++) {
		const struct region *region = &destination->regions.at[i];

		err = place_empty(destination, region->first, region->first + region->pages);
		bitmap_clear(destination->have, region->first, region->first + region->pages);
		bitmap_clear(destination->asked, region->first, region->first + region->pages);
	}
	atomic_store(&destination->present, 0);
	return err;
}

static void forget(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	atomic_fetch_sub(&destination->present, bitmap_clear(destination->have, from, end));
}

/*
 * Whether it can be written to by whoever has no system call for it: what arrives over TLS is decrypted into it. Each page is tried by one that
 * writes a word, whose answer is an error and no signal.
 */
static bool is_writable(const char *memory, size_t len, size_t page_size)
{
	for (size_t at = 0; at < len; at += page_size)
		if (raw_syscall3(SYS_getcpu, (long)(memory + at), 0, 0))
			return false;
	return true;
}

int place_receive(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	uint64_t from = destination->regions.at[message->region].first + message->at, end = from + message->count;
	char *memory = address_of(destination, from);
	int err = -EFAULT;

	/* What is there until all of it has come is neither the old content nor the new one. */
	forget(destination, from, end);
	/* Cheaper all at once than a fault for each page in the middle of a copy. Before Linux 5.14 those come. */
	if (!raw_madvise((uint64_t)(uintptr_t)memory, message->length, MADV_POPULATE_WRITE) || !channel->stream.tls ||
	    is_writable(memory, message->length, destination->regions.page_size))
		err = channel_receive_body(channel, message, memory);
	if (err)
		place_empty(destination, from, end);
	else
		atomic_fetch_add(&destination->present, bitmap_set(destination->have, from, end));
	return err;
}

int place_nothing(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	int err = 0;

	for (uint64_t at = from; !err && (at = bitmap_next(destination->have, at, end)) < end;) {
		uint64_t until = bitmap_next_clear(destination->have, at, end);

		err = place_empty(destination, at, until);
		at = until;
	}
	if (!err)
		atomic_fetch_add(&destination->present, bitmap_set(destination->have, from, end));
	return err;
}

/* They are here; those who have waited for them are counted. */
static void arrived(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	uint64_t now = 0;

	atomic_fetch_add(&destination->present, bitmap_set(destination->have, from, end));
	for (uint64_t at = from; (at = bitmap_next(destination->asked, at, end)) < end; at++) {
		if (!bitmap_clear(destination->asked, at, at + 1))
			continue;
		now = now ? now : now_ns();
		tally_latency(&destination->tally, now - destination->asked_ns[at]);
	}
}

/* How many pages a request that delivers has settled, or an error: it is called again for the rest. */
static ssize_t settled(struct uf_destination *destination, uint64_t from, uint64_t end, ssize_t done)
{
	size_t page_size = destination->regions.page_size;

	switch (done) {
	case -EEXIST:
		uf_wake(destination->uf, address_of(destination, from), page_size);
		return 1;
	case -EAGAIN:
		sched_yield();
		return 0;
	case -ENOENT:
		/* Two mappings, or none: the program has changed how it is mapped. Page by page, and what is gone is not needed. */
		return end - from > 1 ? 0 : 1;
	default:
		return done < 0 ? done : done / (ssize_t)page_size;
	}
}

enum delivery { COPY, ZERO, POISON };

static ssize_t deliver(struct uf_destination *destination, enum delivery how, void *to, const char *bytes, size_t len)
{
	switch (how) {
	case COPY:
		return uf_copy(destination->uf, to, bytes, len, 0);
	case ZERO:
		return uf_zeropage(destination->uf, to, len, 0);
	default:
		return uf_poison(destination->uf, to, len, 0);
	}
}

static int place(struct uf_destination *destination, enum delivery how, uint64_t from, uint64_t end, const char *bytes)
{
	uint64_t most = end - from;

	for (uint64_t at = from; at < end;) {
		uint64_t until = end - at < most ? end : at + most;
		ssize_t done = deliver(destination, how, address_of(destination, at),
		                       bytes ? bytes + size_of(destination, from, at) : NULL,
		                       size_of(destination, at, until));

		if (done == -ENOENT)
			most = 1;
		done = settled(destination, at, until, done);
		if (done < 0)
			return (int)done;
		at += (uint64_t)done;
	}
	return 0;
}

int place_copy(struct uf_destination *destination, uint64_t from, uint64_t end, const char *bytes)
{
	int err = place(destination, COPY, from, end, bytes);

	if (!err)
		arrived(destination, from, end);
	return err;
}

int place_zeros(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	int err = place(destination, ZERO, from, end, NULL);

	if (!err)
		arrived(destination, from, end);
	return err;
}

int place_poison(struct uf_destination *destination, uint64_t from, uint64_t end)
{
	if (!(uf_features(destination->uf) & UFFD_FEATURE_POISON))
		return -EOPNOTSUPP;
	return place(destination, POISON, from, end, NULL);
}

int place_poison_missing(struct uf_destination *destination)
{
	int err = 0;

	for (size_t i = 0; i < destination->regions.count && !err; i++) {
		const struct region *region = &destination->regions.at[i];
		uint64_t end = region->first + region->pages, at = region->first;

		while (!err && (at = bitmap_next_clear(destination->have, at, end)) < end) {
			uint64_t until = bitmap_next(destination->have, at, end);

			err = place_poison(destination, at, until);
			if (!err)
				tally_add(&destination->tally.poisoned, size_of(destination, at, until));
			at = until;
		}
	}
	return err;
}

/* Pages of hugetlbfs can be registered too, and then nothing of the size of a page can be delivered; nor zeros, which is how it shows. */
static int watch(struct uf_destination *destination, const struct region *region, uint64_t len)
{
	const uint64_t needed = (uint64_t)1 << _UFFDIO_COPY | (uint64_t)1 << _UFFDIO_ZEROPAGE;
	uint64_t ioctls = 0;
	int err = uf_register(destination->uf, (void *)(uintptr_t)region->addr, len, UFFDIO_REGISTER_MODE_MISSING,
	                      &ioctls);

	return err || (ioctls & needed) == needed ? err : -EINVAL;
}

int place_try(struct uf_destination *destination)
{
	int err = 0;

	for (size_t i = 0; i < destination->regions.count && !err; i++) {
		const struct region *region = &destination->regions.at[i];

		err = watch(destination, region, destination->regions.page_size);
		if (!err)
			err = uf_unregister(destination->uf, (void *)(uintptr_t)region->addr,
			                    destination->regions.page_size);
	}
	return err;
}

int place_arm(struct uf_destination *destination)
{
	int err = 0;

	for (size_t i = 0; i < destination->regions.count && !err; i++) {
		const struct region *region = &destination->regions.at[i];

		/* A child would read zeros where pages are missing. */
		err = raw_madvise(region->addr, region->len, MADV_DONTFORK);
		if (!err)
			err = watch(destination, region, region->len);
	}
	if (err)
		place_disarm(destination);
	return err;
}

void place_disarm(struct uf_destination *destination)
{
	for (size_t i = 0; i < destination->regions.count; i++) {
		const struct region *region = &destination->regions.at[i];

		uf_unregister(destination->uf, (void *)(uintptr_t)region->addr, region->len);
		raw_madvise(region->addr, region->len, MADV_DOFORK);
	}
}
