// SPDX-License-Identifier: MIT
/*
 * How much memory pages may take. Faults may use all of the budget, what nobody waits for only the part that the evictor leaves
 * alone; so room for faults is made before it is needed, and off their way.
 */
#include <errno.h>
#include <unistd.h>

#include "pager/pager.h"

/* In room_wanted, beside the number of threads that sleep: the loop holds a fault. */
#define LOOP_WAITS (1u << 31)

int budget_init(struct uf_pager *pager)
{
	uint64_t page = (uint64_t)getpagesize(), budget = pager->options.budget & ~(page - 1);
	uint64_t slack = budget / 16 > page ? budget / 16 & ~(page - 1) : page;

	if (budget < 8 * page || budget > (uint64_t)1 << 46)
		return -EINVAL;
	pager->budget = budget;
	pager->evict_above = budget - slack;
	pager->evict_to = budget - 2 * slack;
	/* Of a small budget all is needed. */
	pager->rest_target = budget < 256 * page ? 0 : budget / 8;
	atomic_store(&pager->largest_unit, page);
	return 0;
}

bool budget_wants(struct uf_pager *pager)
{
	uint64_t resident = atomic_load(&pager->resident);

	return resident > pager->evict_above ||
	       (atomic_load(&pager->room_wanted) && resident + atomic_load(&pager->largest_unit) > pager->budget);
}

static void wake_evictor(struct uf_pager *pager)
{
	/* Its bit 0 says that the evictor sleeps: mostly it does not, and then there is nobody to wake. */
	if (!(atomic_load(&pager->evict) & 1))
		return;
	atomic_fetch_and(&pager->evict, ~1u);
	futex_wake(&pager->evict, INT_MAX);
}

static uint64_t try_admit(struct uf_pager *pager, uint64_t bytes, uint64_t unit, uint64_t limit)
{
	uint64_t resident = atomic_load(&pager->resident), room;

	do {
		room = resident < limit ? limit - resident : 0;
		room = (room < bytes ? room : bytes) & ~(unit - 1);
	} while (room && !atomic_compare_exchange_weak(&pager->resident, &resident, resident + room));
	return room;
}

/*
 * A stream may also use half of what the evictor keeps free: if it could not while the evictor is at work, each of its pages would come by
 * a fault of its own.
 */
static uint64_t limit_for(const struct uf_pager *pager, enum session_need need)
{
	switch (need) {
	case NEED_TOUCHED:
		return pager->budget;
	case NEED_STREAM:
		return pager->evict_above + (pager->budget - pager->evict_above) / 2;
	default:
		return pager->evict_above;
	}
}

uint64_t budget_admit(void *arg, uint64_t bytes, uint64_t unit, enum session_need need)
{
	struct uf_pager *pager = arg;
	bool must = need == NEED_TOUCHED;
	uint64_t limit = limit_for(pager, need);
	uint64_t room = try_admit(pager, bytes, unit, limit);

	if (!room && must) {
		/*
		 * The loop holds the fault, inline too where only it can read; and is rung when there is room: said first, and then looked at
		 * again.
		 */
		atomic_fetch_or(&pager->room_wanted, LOOP_WAITS);
		room = try_admit(pager, bytes, unit, limit);
	}
	if ((!room && must) || atomic_load(&pager->resident) > pager->evict_above)
		wake_evictor(pager);
	return room;
}

/* Sequentially consistent with budget_wait(): either the change of `resident` is seen there, or the waiter here. */
void budget_dismiss(void *arg, uint64_t bytes)
{
	struct uf_pager *pager = arg;

	atomic_fetch_sub(&pager->resident, bytes);
	if (!atomic_load(&pager->room_wanted))
		return;
	atomic_fetch_add(&pager->room, 1);
	futex_wake(&pager->room, INT_MAX);
	if (atomic_fetch_and(&pager->room_wanted, ~LOOP_WAITS) & LOOP_WAITS)
		session_retry(&pager->session);
}

void budget_wait(void *arg)
{
	struct uf_pager *pager = arg;
	uint32_t room;

	atomic_fetch_add(&pager->room_wanted, 1);
	room = atomic_load(&pager->room);
	if (atomic_load(&pager->resident) + atomic_load(&pager->largest_unit) > pager->budget) {
		wake_evictor(pager);
		futex_wait(&pager->room, room);
	}
	atomic_fetch_sub(&pager->room_wanted, 1);
}
