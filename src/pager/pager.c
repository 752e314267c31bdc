// SPDX-License-Identifier: MIT
/* Opening, mapping, and what the session asks of its owner. Contracts: <userfault/pager.h>. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/huge.h"
#include "base/options.h"
#include "base/thread.h"
#include "pager/pager.h"
#include "store/store.h"
#include "uffd/engine.h"
#include "uffd/user/layout.h"

#define KINDS (UF_PAGER_READ_ONLY | UF_PAGER_PRIVATE | UF_PAGER_SHARED)
/* What lies between the resting pages that may be, and the end of their ring: room for what is just being taken out. */
#define RING_SLACK ((uint64_t)4 << 20)

static inline uint64_t address(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static inline uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

/*
 * What the session asks.
 */

signal_mask mappings_lock(struct uf_pager *pager)
{
	signal_mask before = block_signals();

	pthread_mutex_lock(&pager->mappings_lock);
	return before;
}

void mappings_unlock(struct uf_pager *pager, signal_mask before)
{
	pthread_mutex_unlock(&pager->mappings_lock);
	restore_signals(before);
}

void pager_failed(struct uf_pager *pager, struct uf_store *store, const char *what, uint64_t offset, int err)
{
	char line[sizeof(pager->last_error)], cause[sizeof(line) / 2];
	signal_mask before;

	/* Another request to the same store may have failed since; it hardly has another cause. */
	store_last_failure(store, cause, sizeof(cause));
	snprintf(line, sizeof(line), "%s at %llu given up: %s%s%s", what, (unsigned long long)offset, strerror(-err),
	         cause[0] ? ": " : "", cause);
	atomic_fetch_add(&pager->errors, 1);
	before = mappings_lock(pager);
	memcpy(pager->last_error, line, sizeof(line));
	mappings_unlock(pager, before);
	if (pager->options.failed)
		pager->options.failed(pager->options.arg, line);
}

static bool store_failed(void *arg, const struct space_range *range, uint64_t addr, int err)
{
	bool saved = atomic_load(state_at(range, addr)) & SPACE_SAVED;
	struct uf_store *from = saved ? source_of(range)->aside : source_of(range)->store;
	struct uf_pager *pager = arg;

	pager_failed(pager, from, "read", offset_at(range, addr), err);
	return pager->options.policy == UF_PAGER_POISON;
}

static const struct session_ops pager_ops = {
	.admit = budget_admit,
	.dismiss = budget_dismiss,
	.wait_room = budget_wait,
	.restore = clean_restore,
	.touched = pager_touched,
	.failed = store_failed,
};

static int on_fault(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	struct uf_pager *pager = arg;

	(void)uf;
	return session_fault(&pager->session, fault->address, fault->flags & UFFD_PAGEFAULT_FLAG_WRITE);
}

/*
 * Opening.
 */

static int open_object(struct uf_pager *pager, enum uf_engine engine, bool handled, struct uf **uf)
{
	struct uf_options opts = {
		.size = sizeof(opts),
		.engine = engine,
		/* On a thread only where that serves the kernel's touches too, unless it was asked for. */
		.flags = !handled && pager->options.way == UF_PAGER_AUTO ? UF_OPEN_KERNEL_FAULTS : 0,
		.wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON |
	                  UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
		.handler = handled ? on_fault : NULL,
		.arg = handled ? pager : NULL,
	};

	return uf_open(uf, &opts);
}

static int choose_way(struct uf_pager *pager, struct uf **uf)
{
	enum uf_pager_way way = pager->options.way;
	int err = -EOPNOTSUPP;

	if (way == UF_PAGER_AUTO && pager->options.engine != UF_ENGINE_USER)
		err = open_object(pager, UF_ENGINE_KERNEL, false, uf);
	if (!err) {
		pager->way = UF_PAGER_THREAD;
	} else {
		pager->way = way == UF_PAGER_THREAD ? UF_PAGER_THREAD : UF_PAGER_INLINE;
		err = open_object(pager, pager->options.engine, pager->way == UF_PAGER_INLINE, uf);
	}
	if (!err)
		pager->engine = uf_way(*uf) == UF_WAY_USER_ENGINE ? UF_ENGINE_USER : UF_ENGINE_KERNEL;
	return err;
}

static int open_session(struct uf_pager *pager)
{
	struct session_options options = {.ops = &pager_ops, .arg = pager};
	struct uf *uf;
	int err = choose_way(pager, &uf);

	if (err)
		return err;
	options.inline_faults = pager->way == UF_PAGER_INLINE;
	err = session_open(&pager->session, uf, &options);
	if (err)
		uf_close(uf);
	return err;
}

static int open_ring(struct uf_pager *pager)
{
	struct rest *rest = &pager->rest;
	uint64_t features = uf_features(pager->session.uf);
	int err = rest_init(rest, pager->session.page, pager->rest_target + RING_SLACK);

	pager->can_move = features & UFFD_FEATURE_MOVE;
	if (err)
		return err;
	/* What is locked is there already, and would not go. */
	munlock(rest->memory, (size_t)rest->slots * rest->page);
	clean_empty(rest->memory, (size_t)rest->slots * rest->page);
	madvise(rest->memory, (size_t)rest->slots * rest->page, MADV_NOHUGEPAGE);
	madvise(rest->memory, (size_t)rest->slots * rest->page, MADV_DONTFORK);
	return uf_register(pager->session.uf, rest->memory, (size_t)rest->slots * rest->page,
	                   UFFDIO_REGISTER_MODE_MISSING, NULL);
}

static int start(struct uf_pager *pager)
{
	int err = thread_start(&pager->evictor, clean_evictor, pager);

	pager->has_evictor = !err;
	return err ? err : worker_start(pager);
}

static void stop(struct uf_pager *pager)
{
	worker_end(pager);
	atomic_store(&pager->ending, true);
	if (pager->has_evictor) {
		atomic_store(&pager->evict, 0);
		futex_wake(&pager->evict, INT_MAX);
		pthread_join(pager->evictor, NULL);
	}
}

static void destroy(struct uf_pager *pager)
{
	raw_unmap(pager->copies, COPY_BYTES);
	if (pager->self >= 0)
		close(pager->self);
	pthread_mutex_destroy(&pager->cleaning);
	pthread_mutex_destroy(&pager->mappings_lock);
	pthread_rwlock_destroy(&pager->flushing);
	free(pager);
}

/* One that waits for those who flush must not wait for all who come after. */
static void init_flushing(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

static int create(struct uf_pager **out, const struct uf_pager_options *options)
{
	struct uf_pager *pager = calloc(1, sizeof(*pager));
	int err;

	if (!pager)
		return -ENOMEM;
	pager->options = *options;
	snprintf(pager->scratch, sizeof(pager->scratch), "%s", options->scratch ? options->scratch : "/var/tmp");
	pthread_mutex_init(&pager->cleaning, NULL);
	pthread_mutex_init(&pager->mappings_lock, NULL);
	pager->self = (int)raw_syscall3(SYS_pidfd_open, raw_getpid(), 0, 0);
	init_flushing(&pager->flushing);
	pager->copies = raw_map_own(COPY_BYTES);
	err = pager->copies ? budget_init(pager) : -ENOMEM;
	if (!err)
		err = open_session(pager);
	if (err) {
		destroy(pager);
		return err;
	}
	err = open_ring(pager);
	if (!err)
		err = start(pager);
	if (err) {
		uf_pager_close(pager);
		return err;
	}
	*out = pager;
	return 0;
}

int uf_pager_open(struct uf_pager **out, const struct uf_pager_options *opts)
{
	struct uf_pager_options options = {.size = sizeof(options)};
	int err = opts ? options_take(&options, sizeof(options), opts,
	                              offsetof(struct uf_pager_options, arg) + sizeof(void *))
	               : -EINVAL;

	if (err)
		return err;
	if (!out || options.flags || (unsigned)options.engine > UF_ENGINE_USER ||
	    (unsigned)options.way > UF_PAGER_INLINE || (unsigned)options.policy > UF_PAGER_WAIT ||
	    (options.scratch && strlen(options.scratch) >= sizeof((*out)->scratch)))
		return -EINVAL;
	return create(out, &options);
}

/*
 * Mappings.
 */

static void free_mapping(struct mapping *mapping)
{
	workingset_order_end(&mapping->record);
	uf_store_close(mapping->source.aside);
	free(mapping);
}

struct mapping *pager_mapping(struct uf_pager *pager, uint64_t addr)
{
	signal_mask before = session_enter(&pager->session);
	struct space_range range;
	bool found = space_find(pager->session.space, addr, &range);

	session_leave(&pager->session, before);
	return found ? mapping_of(&range) : NULL;
}

static void link_mapping(struct uf_pager *pager, struct mapping *mapping)
{
	signal_mask before = mappings_lock(pager);

	mapping->next = pager->mappings;
	pager->mappings = mapping;
	mappings_unlock(pager, before);
}

static void unlink_mapping(struct uf_pager *pager, struct mapping *mapping)
{
	signal_mask before = mappings_lock(pager);
	struct mapping **link = &pager->mappings;

	while (*link && *link != mapping)
		link = &(*link)->next;
	if (*link)
		*link = mapping->next;
	mappings_unlock(pager, before);
}

/* Where written pages of a private mapping go that must leave: a file without a name, as large as it needs to be, and full of holes. */
static int open_aside(struct uf_pager *pager, struct mapping *mapping)
{
	_cleanup_fd int fd = open(pager->scratch, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct uf_store_options opts = {.size = sizeof(opts)};
	char uri[64];

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(mapping->offset + mapping->len)))
		return -errno;
	snprintf(uri, sizeof(uri), "file:/proc/self/fd/%d", fd);
	return uf_store_open(&mapping->source.aside, uri, &opts, NULL, 0);
}

static int check_map(const struct uf_pager *pager, struct uf_store *store, uint64_t offset, uint64_t len,
                     unsigned flags, size_t unit)
{
	uint64_t size = store ? uf_store_size(store) : 0;

	if (!store || !len || (flags & ~(KINDS | UF_PAGER_HUGE)) || __builtin_popcount(flags & KINDS) != 1)
		return -EINVAL;
	if (unit < pager->session.page || unit > COPY_BYTES || (unit & (unit - 1)) || offset % unit ||
	    pager->budget < 8 * (uint64_t)unit)
		return -EINVAL;
	if (offset >= size || len > size - offset)
		return -ERANGE;
	if ((flags & UF_PAGER_SHARED) && (uf_store_flags(store) & UF_STORE_READ_ONLY))
		return -EROFS;
	/* Who has written what cannot be known without. */
	if (!(flags & UF_PAGER_READ_ONLY) && !pager->session.can_protect)
		return -EOPNOTSUPP;
	/* Pages of hugetlbfs leave by being given back, which the user engine does not serve there. */
	if ((flags & UF_PAGER_HUGE) && pager->engine == UF_ENGINE_USER)
		return -EOPNOTSUPP;
	return 0;
}

/*
 * Memory as it should be, of which nothing is there. Of a program that locks all its memory to come, mlockall(2), it would all be there if it could
 * be accessed before it is unlocked.
 */
static int prepare(struct mapping *mapping)
{
	void *addr = (void *)(uintptr_t)mapping->addr;

	/* A huge page is no unit of ours; and the child of a fork has no pager. */
	madvise(addr, mapping->len, MADV_NOHUGEPAGE);
	if (madvise(addr, mapping->len, MADV_DONTFORK) || munlock(addr, mapping->len) ||
	    mprotect(addr, mapping->len, mapping->flags & UF_PAGER_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

/* Address space that begins at a multiple of the unit. */
static int reserve(struct mapping *mapping)
{
	bool huge = mapping->flags & UF_PAGER_HUGE;
	uint64_t extra = huge ? 0 : mapping->unit, before;
	char *p = mmap(NULL, mapping->len + extra, PROT_NONE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (huge ? MAP_HUGETLB : 0), -1, 0);
	int err;

	if (p == MAP_FAILED)
		return -errno;
	mapping->addr = round_up(address(p), mapping->unit);
	before = mapping->addr - address(p);
	if (before)
		munmap(p, before);
	if (extra > before)
		munmap(p + before + mapping->len, extra - before);
	err = prepare(mapping);
	if (err)
		munmap((void *)(uintptr_t)mapping->addr, mapping->len);
	return err;
}

static int insert(struct uf_pager *pager, struct mapping *mapping)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING |
	                (mapping->flags & UF_PAGER_READ_ONLY ? 0 : UFFDIO_REGISTER_MODE_WP);
	struct space_range range = {
		.start = mapping->addr,
		.len = mapping->len,
		.source = mapping,
		.offset = mapping->offset,
		.unit = mapping->unit,
	};
	signal_mask before = session_change_begin(&pager->session);
	int err = space_insert(pager->session.space, &range, NULL);

	session_change_end(&pager->session, before);
	if (err)
		return err;
	err = uf_register(pager->session.uf, (void *)(uintptr_t)mapping->addr, mapping->len, mode, NULL);
	if (err) {
		before = session_change_begin(&pager->session);
		space_unmap(pager->session.space, mapping->addr, mapping->len);
		session_change_end(&pager->session, before);
	}
	return err;
}

static void note_unit(struct uf_pager *pager, uint64_t unit)
{
	uint64_t largest = atomic_load(&pager->largest_unit);

	while (unit > largest && !atomic_compare_exchange_weak(&pager->largest_unit, &largest, unit))
		;
}

static int finish_map(struct uf_pager *pager, struct mapping *mapping)
{
	int err = mapping->flags & UF_PAGER_PRIVATE ? open_aside(pager, mapping) : 0;

	if (!err)
		err = reserve(mapping);
	if (err)
		return err;
	note_unit(pager, mapping->unit);
	err = insert(pager, mapping);
	if (err)
		munmap((void *)(uintptr_t)mapping->addr, mapping->len);
	else
		link_mapping(pager, mapping);
	return err;
}

int uf_pager_map(struct uf_pager *pager, void **addr, struct uf_store *store, uint64_t offset, uint64_t len,
                 unsigned flags, size_t unit)
{
	struct mapping *mapping;
	int err;

	if (!pager || !addr)
		return -EINVAL;
	if (flags & UF_PAGER_HUGE) {
		size_t huge = huge_page_bytes();

		if (!huge || (unit && unit != huge))
			return -EINVAL;
		unit = huge;
	}
	unit = unit ? unit : pager->session.page;
	err = check_map(pager, store, offset, len, flags, unit);
	if (err)
		return err;
	mapping = calloc(1, sizeof(*mapping));
	if (!mapping)
		return -ENOMEM;
	mapping->offset = offset;
	mapping->len = mapping->mapped = round_up(len, unit);
	mapping->unit = unit;
	mapping->flags = flags;
	mapping->source.store = store;
	mapping->source.writable = !(flags & UF_PAGER_READ_ONLY);
	mapping->source.no_zeropage = flags & UF_PAGER_HUGE;
	err = finish_map(pager, mapping);
	if (err)
		free_mapping(mapping);
	else
		*addr = (void *)(uintptr_t)mapping->addr;
	return err;
}

/* Bytes of [start, start + len) that are in memory where they are mapped, or pinned. Inside the gate, or with it closed. */
static void count_present(struct uf_pager *pager, uint64_t start, uint64_t len, uint64_t *present, uint64_t *pinned)
{
	struct space_range range;

	*present = *pinned = 0;
	for (uint64_t at = start; at < start + len; at += range.unit) {
		uint8_t byte;

		if (!space_next(pager->session.space, at, &range) || range.start >= start + len)
			break;
		at = at < range.start ? range.start : at;
		byte = atomic_load(state_at(&range, at));
		if (page_state(byte) == SPACE_CLEAN || page_state(byte) == SPACE_DIRTY)
			*present += range.unit;
		if (byte & SPACE_PINNED)
			*pinned += range.unit;
	}
}

/* With `cleaning`. Nothing of it is on its way anywhere but fetches, which find that it is gone. */
static int cut(struct uf_pager *pager, struct mapping *mapping, uint64_t start, uint64_t len)
{
	uint64_t present, pinned;
	signal_mask before = session_change_begin(&pager->session);
	int err;

	count_present(pager, start, len, &present, &pinned);
	err = space_unmap(pager->session.space, start, len);
	session_change_end(&pager->session, before);
	if (err)
		return err;
	clean_forget(pager, start, len);
	uf_unregister(pager->session.uf, (void *)(uintptr_t)start, len);
	/* The user engine must know: what is poisoned outlives the registration, but not the memory. */
	user_layout_munmap(start, len);
	budget_dismiss(pager, present);
	atomic_fetch_sub(&pager->pinned, pinned);
	mapping->mapped -= len;
	return 0;
}

/* The next part of [*start, end) that is still the mapping's: others may lie where parts of it were. */
static bool next_part(struct uf_pager *pager, const struct mapping *mapping, uint64_t *start, uint64_t end,
                      uint64_t *len)
{
	signal_mask before = session_enter(&pager->session);
	struct space_range range;
	bool found;

	while ((found = space_next(pager->session.space, *start, &range) && range.start < end) &&
	       mapping_of(&range) != mapping)
		*start = range.start + range.len;
	session_leave(&pager->session, before);
	if (!found)
		return false;
	if (*start < range.start)
		*start = range.start;
	*len = (range.start + range.len < end ? range.start + range.len : end) - *start;
	return true;
}

static int unmap(struct uf_pager *pager, struct mapping *mapping, uint64_t start, uint64_t len, bool write)
{
	uint64_t end = start + len;
	int err = write && (mapping->flags & UF_PAGER_SHARED) ? clean_write(pager, start, len) : 0;
	signal_mask locked;
	bool last;

	if (err)
		return err;
	locked = clean_lock(pager);
	while (!err && next_part(pager, mapping, &start, end, &len)) {
		err = cut(pager, mapping, start, len);
		start += len;
	}
	last = !err && !mapping->mapped;
	clean_unlock(pager, locked);
	if (last) {
		unlink_mapping(pager, mapping);
		/* Its store may be closed after this. */
		pthread_rwlock_wrlock(&pager->flushing);
		pthread_rwlock_unlock(&pager->flushing);
		session_settle(&pager->session);
		free_mapping(mapping);
	}
	return err;
}

int uf_pager_unmap(struct uf_pager *pager, void *addr, uint64_t len)
{
	struct mapping *mapping = pager ? pager_mapping(pager, address(addr)) : NULL;

	if (!mapping || !len)
		return -EINVAL;
	len = round_up(len, mapping->unit);
	if (!len || address(addr) % mapping->unit || len > mapping->addr + mapping->len - address(addr))
		return -EINVAL;
	return unmap(pager, mapping, address(addr), len, true);
}

void uf_pager_close(struct uf_pager *pager)
{
	if (!pager)
		return;
	stop(pager);
	while (pager->mappings)
		unmap(pager, pager->mappings, pager->mappings->addr, pager->mappings->len, false);
	session_close(&pager->session);
	rest_end(&pager->rest);
	destroy(pager);
}

enum uf_pager_way uf_pager_way(const struct uf_pager *pager)
{
	return pager->way;
}

enum uf_engine uf_pager_engine(const struct uf_pager *pager)
{
	return pager->engine;
}

/*
 * Flush.
 */

/* The stores that are written to through [start, end): how many, and the first `room` of them, each once. */
static size_t stores_in(struct uf_pager *pager, uint64_t start, uint64_t end, struct uf_store **stores, size_t room)
{
	size_t count = 0;

	for (struct mapping *mapping = pager->mappings; mapping; mapping = mapping->next) {
		size_t i = 0;

		if (!(mapping->flags & UF_PAGER_SHARED) || mapping->addr >= end ||
		    mapping->addr + mapping->len <= start)
			continue;
		while (i < count && i < room && stores[i] != mapping->source.store)
			i++;
		if (i < count && i < room)
			continue;
		if (count < room)
			stores[count] = mapping->source.store;
		count++;
	}
	return count;
}

static int flush_stores(struct uf_pager *pager, uint64_t start, uint64_t end)
{
	struct uf_store **stores;
	signal_mask before;
	size_t count;
	int err = 0;

	pthread_rwlock_rdlock(&pager->flushing);
	before = mappings_lock(pager);
	count = stores_in(pager, start, end, NULL, 0);
	stores = calloc(count + 1, sizeof(struct uf_store *));
	if (stores)
		stores_in(pager, start, end, stores, count);
	mappings_unlock(pager, before);
	if (!stores)
		err = -ENOMEM;
	for (size_t i = 0; stores && i < count; i++) {
		int flushed = uf_store_flush(stores[i]);

		if (flushed)
			pager_failed(pager, stores[i], "flush", 0, flushed);
		err = err ? err : flushed;
	}
	pthread_rwlock_unlock(&pager->flushing);
	free(stores);
	return err;
}

int uf_pager_flush(struct uf_pager *pager, void *addr, uint64_t len)
{
	uint64_t start = address(addr), end = addr ? start + len : UINT64_MAX;
	int err;

	if (!pager || (addr && (!len || end < start)) || (!addr && len))
		return -EINVAL;
	err = clean_write(pager, start, end - start);
	return err ? err : flush_stores(pager, start, end);
}
