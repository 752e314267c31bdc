// SPDX-License-Identifier: MIT
/* What the program tells, and asks: advice, pinned pages, statistics. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pager/pager.h"

static inline uint64_t address(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* Rounds outwards to the mapping's unit. NULL: not in one mapping. */
static struct mapping *find(struct uf_pager *pager, void *addr, uint64_t *start, uint64_t *len)
{
	struct mapping *mapping = pager ? pager_mapping(pager, address(addr)) : NULL;
	uint64_t end = address(addr) + *len;

	if (!mapping || !*len || end < address(addr) || end > mapping->addr + mapping->len)
		return NULL;
	*start = address(addr) & ~(mapping->unit - 1);
	*len = ((end + mapping->unit - 1) & ~(mapping->unit - 1)) - *start;
	return mapping;
}

static int bring(struct uf_pager *pager, struct job *job)
{
	return atomic_load(&pager->ending) ? -ECANCELED : session_bring(&pager->session, job->addr, job->len, true);
}

static int will_need(struct uf_pager *pager, uint64_t start, uint64_t len, bool wait)
{
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return -ENOMEM;
	*job = (struct job){.run = bring, .addr = start, .len = len};
	return worker_do(pager, job, wait);
}

/* Calls `change` for the byte of each page. Inside the gate. */
static void for_pages(struct uf_pager *pager, uint64_t start, uint64_t len,
                      void (*change)(struct uf_pager *pager, const struct space_range *range, _Atomic uint8_t *state))
{
	struct space_range range;

	for (uint64_t at = start; at < start + len; at += range.unit) {
		/* Parts of the mapping may have been unmapped. */
		if (!space_next(pager->session.space, at, &range) || range.start >= start + len)
			break;
		at = at < range.start ? range.start : at;
		change(pager, &range, state_at(&range, at));
	}
}

static void forget_use(struct uf_pager *pager, const struct space_range *range, _Atomic uint8_t *state)
{
	(void)pager;
	(void)range;
	atomic_fetch_and(state, (uint8_t) ~(SPACE_ACTIVE | SPACE_AHEAD));
}

/* The hand begins there, and finds nothing that it would spare. */
static void dont_need(struct uf_pager *pager, uint64_t start, uint64_t len)
{
	signal_mask locked = clean_lock(pager), before;

	before = session_enter(&pager->session);
	for_pages(pager, start, len, forget_use);
	pager->hand = start;
	session_leave(&pager->session, before);
	clean_unlock(pager, locked);
}

int uf_pager_advise(struct uf_pager *pager, void *addr, uint64_t len, enum uf_pager_advice advice)
{
	uint64_t start;
	struct mapping *mapping = find(pager, addr, &start, &len);

	if (!mapping)
		return -EINVAL;
	switch (advice) {
	case UF_PAGER_WILLNEED:
		return will_need(pager, start, len, false);
	case UF_PAGER_DONTNEED:
		dont_need(pager, start, len);
		return 0;
	case UF_PAGER_RANDOM:
		atomic_store(&mapping->source.order, ORDER_RANDOM);
		return 0;
	case UF_PAGER_SEQUENTIAL:
		atomic_store(&mapping->source.order, ORDER_SEQUENTIAL);
		return 0;
	case UF_PAGER_NORMAL:
		atomic_store(&mapping->source.order, ORDER_UNKNOWN);
		return 0;
	default:
		return -EINVAL;
	}
}

/*
 * Pins.
 */

static void mark_pinned(struct uf_pager *pager, const struct space_range *range, _Atomic uint8_t *state)
{
	if (!(atomic_fetch_or(state, SPACE_PINNED) & SPACE_PINNED))
		atomic_fetch_add(&pager->pinned, range->unit);
}

static void clear_pinned(struct uf_pager *pager, const struct space_range *range, _Atomic uint8_t *state)
{
	if (atomic_fetch_and(state, (uint8_t)~SPACE_PINNED) & SPACE_PINNED)
		atomic_fetch_sub(&pager->pinned, range->unit);
}

static void change_pinned(struct uf_pager *pager, uint64_t start, uint64_t len, bool on)
{
	signal_mask before = session_enter(&pager->session);

	for_pages(pager, start, len, on ? mark_pinned : clear_pinned);
	session_leave(&pager->session, before);
}

/*
 * Marks what is not pinned yet; *fresh: a byte for each page, 1 if it was. With the gate closed, so that two who pin do not take the same
 * room, and nobody evicts a page that he has looked at before.
 */
static int mark_fresh(struct uf_pager *pager, const struct mapping *mapping, uint64_t start, uint64_t len, char *fresh)
{
	signal_mask before = session_change_begin(&pager->session);
	uint64_t left = 8 * atomic_load(&pager->largest_unit), wanted = 0;
	struct space_range range;
	int err = 0;

	for (uint64_t at = start; at < start + len; at += mapping->unit)
		if (space_find(pager->session.space, at, &range) && mapping_of(&range) == mapping &&
		    !(atomic_load(state_at(&range, at)) & SPACE_PINNED)) {
			fresh[(at - start) / mapping->unit] = 1;
			wanted += mapping->unit;
		}
	if (left < pager->budget / 8)
		left = pager->budget / 8;
	if (atomic_load(&pager->pinned) + wanted + left > pager->budget)
		err = -ENOMEM;
	else
		for_pages(pager, start, len, mark_pinned);
	session_change_end(&pager->session, before);
	return err;
}

static enum space_page state_of(struct uf_pager *pager, uint64_t addr)
{
	signal_mask before = session_enter(&pager->session);
	enum space_page state = SPACE_MISSING;
	struct space_range range;

	if (space_find(pager->session.space, addr, &range))
		state = page_state(atomic_load(state_at(&range, addr)));
	session_leave(&pager->session, before);
	return state;
}

/* A touch would come again when there was no memory for the page; this one gives up. */
static int bring_unit(struct uf_pager *pager, uint64_t addr, bool write)
{
	enum space_page state;
	int err;

	do {
		err = session_fault(&pager->session, addr, write);
		state = err ? SPACE_LOST : state_of(pager, addr);
	} while (state == SPACE_FILLING);
	return state == SPACE_MISSING ? -ENOMEM : err;
}

/* Where they are written to as well, they are let be: a system call is not served there as a touch is. */
static int bring_pinned(struct uf_pager *pager, const struct mapping *mapping, uint64_t start, uint64_t len)
{
	int err = 0;

	will_need(pager, start, len, true);
	for (uint64_t at = start; !err && at < start + len; at += mapping->unit)
		err = bring_unit(pager, at, false);
	for (uint64_t at = start; !err && mapping->source.writable && at < start + len; at += mapping->unit)
		err = bring_unit(pager, at, true);
	return err;
}

int uf_pager_pin(struct uf_pager *pager, void *addr, uint64_t len)
{
	uint64_t start;
	struct mapping *mapping = find(pager, addr, &start, &len);
	char *fresh;
	int err;

	if (!mapping)
		return -EINVAL;
	fresh = calloc(len / mapping->unit, 1);
	if (!fresh)
		return -ENOMEM;
	/* First marked, so that what is there stays while the rest comes. */
	err = mark_fresh(pager, mapping, start, len, fresh);
	if (!err) {
		err = bring_pinned(pager, mapping, start, len);
		for (uint64_t at = start; err && at < start + len; at += mapping->unit)
			if (fresh[(at - start) / mapping->unit])
				change_pinned(pager, at, mapping->unit, false);
	}
	free(fresh);
	return err;
}

int uf_pager_unpin(struct uf_pager *pager, void *addr, uint64_t len)
{
	uint64_t start;

	if (!find(pager, addr, &start, &len))
		return -EINVAL;
	change_pinned(pager, start, len, false);
	return 0;
}

/*
 * Statistics.
 */

static inline uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t count_state(struct uf_pager *pager, enum space_page wanted)
{
	signal_mask before = session_enter(&pager->session);
	struct space_range range;
	uint64_t bytes = 0;

	for (uint64_t at = 0; space_next(pager->session.space, at, &range); at = range.start + range.len)
		for (uint64_t page = range.start; page < range.start + range.len; page += range.unit)
			if (page_state(atomic_load_explicit(state_at(&range, page), memory_order_relaxed)) == wanted)
				bytes += range.unit;
	session_leave(&pager->session, before);
	return bytes;
}

static void count_latency(struct session_stats *from, struct uf_pager_statistics *stats)
{
	struct hist hist = {.max = get(&from->latency_max), .sum = get(&from->latency_sum)};

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		unsigned power = i < HIST_SUB ? 0 : i / HIST_SUB + 3;

		hist.bucket[i] = get(&from->latency[i]);
		hist.count += hist.bucket[i];
		/* Bucket i holds what is at least 2^power and less than twice that. */
		stats->latency[power + 1 < 48 ? power + 1 : 47] += hist.bucket[i];
	}
	stats->latency_p50 = hist_quantile(&hist, 0.5);
	stats->latency_p99 = hist_quantile(&hist, 0.99);
	stats->latency_max = hist.max;
}

int uf_pager_stats(struct uf_pager *pager, struct uf_pager_statistics *stats)
{
	struct uf_pager_statistics now = {.size = sizeof(now)};
	struct session_stats *from;
	signal_mask before;
	size_t size;

	if (!pager || !stats || stats->size < offsetof(struct uf_pager_statistics, latency_p50))
		return -EINVAL;
	from = &pager->session.stats;
	now.budget = pager->budget;
	now.resident = get(&pager->resident);
	now.pinned = get(&pager->pinned);
	now.dirty = count_state(pager, SPACE_DIRTY);
	now.faults = get(&from->faults);
	now.write_faults = get(&from->write_faults);
	now.refaults = get(&from->refaults);
	now.read = get(&from->read);
	now.ahead = get(&from->ahead);
	now.waits = get(&from->waits);
	now.poisoned = count_state(pager, SPACE_LOST);
	now.written = get(&pager->written);
	now.evicted = get(&pager->evicted);
	now.errors = get(&pager->errors);
	count_latency(from, &now);
	before = mappings_lock(pager);
	memcpy(now.last_error, pager->last_error, sizeof(now.last_error));
	mappings_unlock(pager, before);
	size = stats->size < sizeof(now) ? stats->size : sizeof(now);
	now.size = stats->size;
	memcpy(stats, &now, size);
	return 0;
}
