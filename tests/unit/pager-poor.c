// SPDX-License-Identifier: MIT
/* Pagers of a system that has no memory for one page, until it has. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pager/pager.h"
#include "support/paged.h"
#include "uffd/engine.h"

#define PAGE 4096u
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)

/* An engine as it is, for which there is no memory for one page. */
static const struct uf_engine_ops *real;
static struct uf_engine_ops poor;
static _Atomic uint64_t wanting;
static _Atomic bool writes_before; /* another thread has written to the unit's first page just before that is told of */

/* By the kernel: whom else it meets there is what is being tested, and no race. */
static void poke(uint64_t at, char byte)
{
	struct iovec from = {&byte, 1}, to = {(void *)(uintptr_t)at, 1};

	CHECK_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), 1);
}

static int ioctl_of_the_poor(const struct uf *uf, unsigned long request, void *arg)
{
	struct uffdio_copy *copy = arg;
	uint64_t page = atomic_load(&wanting), len;
	int err;

	if (request != UFFDIO_COPY || copy->dst > page || copy->dst + copy->len <= page)
		return real->ioctl(uf, request, arg);
	if (copy->dst == page) {
		if (atomic_exchange(&writes_before, false))
			poke(page & ~(uint64_t)(64 * KIB - 1), 'b');
		copy->copy = -ENOMEM;
		return -ENOMEM;
	}
	len = copy->len;
	copy->len = page - copy->dst;
	err = real->ioctl(uf, request, arg);
	copy->len = len;
	/* As the kernel tells of what it has done a part of. */
	return err ? err : -EAGAIN;
}

static void be_poor(struct uf_pager *pager)
{
	real = pager->session.uf->ops;
	poor = *real;
	poor.ioctl = ioctl_of_the_poor;
	pager->session.uf->ops = &poor;
}

/* Inline, where no thread uses the object before the test does. */
TEST(pins_without_memory, "What there is no memory for cannot be pinned, and then nothing more is; later it can.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager;
	int ends[2];
	char *at;

	paged_way = UF_PAGER_INLINE;
	pager = paged_open(MIB);
	be_poor(pager);
	for (unsigned flags = UF_PAGER_READ_ONLY; flags <= UF_PAGER_SHARED; flags <<= 1) {
		at = paged_map(pager, store, 0, MIB, flags, 0);
		atomic_store(&wanting, (uint64_t)(uintptr_t)at + 2 * PAGE);
		CHECK_EQ(uf_pager_pin(pager, at, PAGE), 0);
		CHECK_EQ(uf_pager_pin(pager, at, 4 * PAGE), -ENOMEM);
		CHECK_EQ(paged_stats(pager).pinned, PAGE);
		atomic_store(&wanting, 0);
		CHECK_EQ(uf_pager_pin(pager, at, 4 * PAGE), 0);
		CHECK_EQ(paged_stats(pager).pinned, 4 * PAGE);
		CHECK_EQ(pipe(ends), 0);
		CHECK_EQ(write(ends[1], at, 4 * PAGE), 4 * PAGE);
		close(ends[0]);
		close(ends[1]);
		CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	}
	uf_pager_close(pager);
	uf_store_close(store);
}

static enum space_page state_of(struct uf_pager *pager, const char *at)
{
	signal_mask before = session_enter(&pager->session);
	struct space_range range;
	enum space_page state;

	CHECK(space_find(pager->session.space, (uint64_t)(uintptr_t)at, &range));
	state = page_state(atomic_load(state_at(&range, (uint64_t)(uintptr_t)at)));
	session_leave(&pager->session, before);
	return state;
}

/* The evictor sleeps, and the touch of one more unit does not wake it. */
static bool is_quiet(struct uf_pager *pager, uint64_t unit)
{
	return (atomic_load(&pager->evict) & 1) && atomic_load(&pager->resident) + 2 * unit <= pager->evict_above;
}

/* Writes a unit, and touches others until it rests, and will do so for a while. */
static void bring_to_rest(struct uf_pager *pager, char *at, uint64_t len, uint64_t unit)
{
	uint64_t next = unit;
	char byte;

	while (state_of(pager, at) != SPACE_RESTING || !is_quiet(pager, unit)) {
		if (state_of(pager, at) == SPACE_MISSING)
			write_pages(at, unit, 'a');
		/* It is dirty, or rests just before the evictor is woken once more, which may take it out. */
		CHECK_EQ(touch_read(at + next, &byte), 0);
		next = next + unit < len ? next + unit : unit;
		sched_yield();
	}
}

/* On the user engine a page may be in memory before it can be touched, and then it cannot be seen from here when that is. */
TEST_OF("kernel", back_in_parts,
        "What is written to a part of a unit while there is no memory for the rest of it is not lost.")
{
	const uint64_t unit = 64 * KIB;
	struct uf_store *store = filled_memory(8 * MIB);
	struct uf_pager *pager;
	struct toucher toucher;
	unsigned char there = 0;
	char *at, byte;

	paged_way = UF_PAGER_INLINE;
	pager = paged_open(2 * MIB);
	be_poor(pager);
	at = paged_map(pager, store, 0, 8 * MIB, UF_PAGER_SHARED, unit);
	bring_to_rest(pager, at, 8 * MIB, unit);
	atomic_store(&wanting, (uint64_t)(uintptr_t)at + 4 * PAGE);
	start_touch(&toucher, at + 8 * PAGE);
	while (!(there & 1))
		CHECK_EQ(mincore(at, PAGE, &there), 0);
	CHECK_EQ(touch_write(at, 'b'), 0);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), -ENOMEM);
	atomic_store(&wanting, 0);
	end_touch(&toucher);
	CHECK_EQ(toucher.byte, 'a');
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t i = unit; i < 8 * MIB; i += unit)
			CHECK_EQ(touch_read(at + i, &byte), 0);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	CHECK_EQ(uf_store_read(store, &byte, 1, 0), 0);
	CHECK_EQ(byte, 'b');
	CHECK_EQ(touch_read(at, &byte), 0);
	CHECK_EQ(byte, 'b');
	uf_pager_close(pager);
	uf_store_close(store);
}

#ifndef __SANITIZE_THREAD__ /* it does not see that what was protected is not written to while it is looked at */
static char peek(const char *at)
{
	char byte;
	struct iovec to = {&byte, 1}, from = {(void *)(uintptr_t)at, 1};

	/* Not even the kernel has it for an instant, while the user engine changes how it is protected. */
	while (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 1)
		CHECK_EQ(errno, EFAULT);
	return byte;
}

/* A shared mapping, of whose first unit four pages can be had, and its ninth is being written to. */
static char *map_in_parts(struct uf_pager *pager, struct uf_store *store, struct toucher *toucher)
{
	unsigned char there = 0;
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 64 * KIB);

	atomic_store(&wanting, (uint64_t)(uintptr_t)at + 4 * PAGE);
	start_write(toucher, at + 8 * PAGE);
	while (!(there & 1))
		CHECK_EQ(mincore(at, PAGE, &there), 0);
	return at;
}

TEST(first_in_parts, "While there is no memory for a part of a unit nothing is written to the rest of it.")
{
	struct uf_store *store = filled_memory(MIB);
	struct toucher first, second;
	struct uf_pager *pager;
	char *at, before, byte;

	paged_way = UF_PAGER_INLINE;
	pager = paged_open(2 * MIB);
	be_poor(pager);
	CHECK_EQ(uf_store_read(store, &before, 1, PAGE), 0);
	at = map_in_parts(pager, store, &first);
	while (state_of(pager, at) != SPACE_MISSING)
		sched_yield();
	start_write(&second, at + PAGE);
	for (unsigned i = 0; i < 1000; i++) {
		CHECK_EQ(peek(at + PAGE), before);
		sched_yield();
	}
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	atomic_store(&wanting, 0);
	end_touch(&first);
	end_touch(&second);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	for (unsigned page = 1; page < 16; page += 7) {
		CHECK_EQ(uf_store_read(store, &byte, 1, page * PAGE), 0);
		CHECK_EQ(byte, at[page * PAGE]);
		CHECK(page == 15 || byte == 't');
	}
	uf_pager_close(pager);
	uf_store_close(store);
}

/* Flushed by a thread that then looks what the store has. */
struct flushed {
	struct uf_pager *pager;
	struct uf_store *store;
	int err;
	char byte;
};

static void *flush(void *arg)
{
	struct flushed *flushed = arg;

	flushed->err = uf_pager_flush(flushed->pager, NULL, 0);
	CHECK_EQ(uf_store_read(flushed->store, &flushed->byte, 1, 0), 0);
	return NULL;
}

TEST(first_in_parts_written, "What was written to a part of it just before is not passed over by a flush.")
{
	struct flushed flushed = {.store = filled_memory(MIB)};
	struct toucher toucher;
	pthread_t flusher;
	char *at;

	paged_way = UF_PAGER_INLINE;
	flushed.pager = paged_open(2 * MIB);
	be_poor(flushed.pager);
	atomic_store(&writes_before, true);
	at = map_in_parts(flushed.pager, flushed.store, &toucher);
	while (peek(at) != 'b')
		sched_yield();
	CHECK_EQ(pthread_create(&flusher, NULL, flush, &flushed), 0);
	for (unsigned i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&wanting, 0);
	end_touch(&toucher);
	CHECK_EQ(pthread_join(flusher, NULL), 0);
	CHECK_EQ(flushed.err, 0);
	CHECK_EQ(flushed.byte, 'b');
	uf_pager_close(flushed.pager);
	uf_store_close(flushed.store);
}
#endif
