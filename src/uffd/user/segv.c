// SPDX-License-Identifier: MIT
/*
 * The trap: a touch of a hidden or write-protected page.
 *
 * The handler runs with every signal blocked, so the space's lock can be taken. Before anything that may last (the program's
 * own handler, the wait for a monitor) the lock is released and the mask is that of the interrupted code again: other signals
 * run during the wait, and their handlers may fault, or never return.
 */
#include <errno.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "uffd/chain.h"
#include "uffd/trycopy.h"
#include "uffd/user/deliver.h"
#include "uffd/user/fork.h"
#include "uffd/user/object.h"
#include "uffd/user/window.h"

static struct {
	struct lock lock; /* guards the installation */
	struct chain_link link;
} segv = {.link = {.sig = SIGSEGV, .stays_open = true}};

static signal_mask interrupted_mask(const void *context)
{
	signal_mask mask;

	memcpy(&mask, &((const ucontext_t *)context)->uc_sigmask, sizeof(mask));
	return mask;
}

/* As the kernel: SIGBUS at the same address, which is also what a poisoned page gives. */
static void raise_sigbus(siginfo_t *info, void *context)
{
	siginfo_t bus = *info;

	bus.si_signo = SIGBUS;
	bus.si_code = BUS_ADRERR;
	chain_raise(SIGBUS, &bus, context);
}

/* Resolved on this thread. False: the handler would not. From here on signals are as the program has them. */
static bool call_handler(const struct uf *uf, uint64_t address, uint64_t flags, void *context)
{
	struct uf_fault fault = {.address = address, .flags = flags};
	int saved = errno, err;

	restore_signals(interrupted_mask(context));
	err = uf->handler((struct uf *)uf, &fault, uf->arg);
	errno = saved;
	return !err;
}

/* Puts the fault in, with the lock held, so that whoever resolves it from now on finds it; then waits. */
static void wait_in_fault(const struct user_range *range, uint64_t address, uint64_t flags, void *context)
{
	struct user_object *object = range->object;
	uint64_t page_size = range->memory.page_size;

	struct uffd_msg msg = {
		.event = UFFD_EVENT_PAGEFAULT,
		.arg.pagefault = {.flags = flags, .address = address, .feat.ptid = user_space_holder()},
	};
	struct user_ticket ticket = user_pending_add(&object->pending, &msg, page_size);

	user_object_hold(object);
	if (!(flags & UFFD_PAGEFAULT_FLAG_WP) && user_pending_is_read_elsewhere(&object->pending))
		user_window_prepare(range, address & ~(page_size - 1));
	user_space_unlock_in_trap();
	user_pending_tell(&object->pending, &ticket);
	if (ticket.slot) {
		user_pending_wait_done(&object->pending, ticket, interrupted_mask(context));
	} else {
		restore_signals(interrupted_mask(context));
		user_pending_wait_slot(&object->pending, ticket);
	}
	user_object_release(object);
}

/* Memory that was unmapped by a call that nobody saw is forgotten: repeating the access would never end. */
static bool is_gone(const struct user_range *range, uint64_t address)
{
	uint64_t page = address & ~(uint64_t)(range->memory.page_size - 1);
	unsigned char resident[1];

	if (raw_mincore(page, 1, resident) != -ENOMEM)
		return false;
	if (!user_space_split(page, page + range->memory.page_size))
		user_space_drop(page, page + range->memory.page_size);
	return true;
}

/* With the lock held, which is released. False: not ours, let the signal go its way. */
static bool take_fault(struct user_range *range, uint64_t address, siginfo_t *info, void *context)
{
	bool write = chain_access_flags(context) & UFFD_PAGEFAULT_FLAG_WRITE;
	struct user_object *object;
	uint64_t flags, features;
	const struct uf *uf;

	if (!range) {
		user_space_unlock_in_trap();
		return false;
	}
	object = range->object;
	features = object ? atomic_load(&object->features) : 0;
	switch (user_deliver_judge(range, &address, write, features & UFFD_FEATURE_WP_ASYNC, &flags)) {
	case USER_RETRY:
		if (is_gone(range, address))
			break;
		user_space_mend(range, address);
		user_space_unlock_in_trap();
		return true;
	case USER_POISONED:
		user_space_unlock_in_trap();
		if (!try_copy_failed(context))
			raise_sigbus(info, context);
		return true;
	case USER_FAULT:
		if (!(features & UFFD_FEATURE_SIGBUS)) {
			wait_in_fault(range, address, flags, context);
			return true;
		}
		uf = object->uf;
		user_space_unlock_in_trap();
		if (!uf || !uf->handler || !call_handler(uf, address, flags, context))
			raise_sigbus(info, context);
		return true;
	case USER_FOREIGN:
		break;
	}
	user_space_unlock_in_trap();
	return false;
}

static bool is_registered(uint64_t address)
{
	bool registered;

	user_space_lock_in_trap();
	registered = user_space_at(address);
	user_space_unlock_in_trap();
	return registered;
}

/* How often a refusal is looked at. */
#define LOOKS 8

/*
 * Memory that is not registered was the source of a UFFDIO_MOVE just now, and so write-protected for a moment; or it was registered, and hidden,
 * when the thread trapped, and is no more: if the access is allowed (again), the trap is a late one. Guards that are nobody's, and
 * other protection, make the kernel refuse. `was_registered`: it was found to be so after the trap, and the protection to be the program's own.
 */
static bool is_late(const siginfo_t *info, const void *context, bool was_registered)
{
	bool write = chain_access_flags(context) & UFFD_PAGEFAULT_FLAG_WRITE;
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);

	/* Hidden by guards it is the other code. */
	if (!(info->si_code == SEGV_ACCERR && user_deliver_has_moved()) &&
	    !((info->si_code == SEGV_ACCERR || info->si_code == SEGV_MAPERR) && user_space_has_released()))
		return false;
	/* To read where one may not execute proves nothing. */
	if (chain_access_is_fetch(context, info->si_addr))
		return false;
	/* It may be registered, and hidden, again by now, and be released once more: each refusal is looked at, and one that lasts counts. */
	for (int i = 0; i < LOOKS; i++)
		if (!raw_madvise((uint64_t)(uintptr_t)info->si_addr & ~(page_size - 1), page_size,
		                 write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) ||
		    (!was_registered && is_registered((uint64_t)(uintptr_t)info->si_addr)))
			return true;
	return false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
	struct user_range *range;
	bool registered;

	(void)sig;
	if (info->si_code > 0) {
		user_fork_notice();
		user_space_lock_in_trap();
		range = user_space_at(address);
		registered = range;
		if (take_fault(range, address, info, context) || is_late(info, context, registered) ||
		    try_copy_failed(context))
			return;
	}
	chain_pass_on(&segv.link, info, context);
}

int user_segv_install(void)
{
	signal_mask before = block_signals();

	lock_take(&segv.lock);
	chain_install(&segv.link, on_signal, true);
	lock_release(&segv.lock);
	restore_signals(before);
	return 0;
}
