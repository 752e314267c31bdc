// SPDX-License-Identifier: MIT
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

#include <userfault/uffd.h>

#include "base/rawsys.h"
#include "uffd/chain.h"

/*
 * sigaction(2) as the kernel has it, and not as whoever stands before libc's has it: a library that is loaded to serve a program wraps that
 * function for the program's sake.
 */
struct kernel_action {
	void *handler;
	unsigned long flags;
	void (*restorer)(void);
	signal_mask mask;
};

#if defined(__x86_64__)
#define SA_RESTORER 0x04000000
/* Exactly these bytes, and if it has a name, exactly this: debuggers and unwinders know the frame of a signal by them. */
__asm__(".text\n"
        ".balign 16\n"
        "nop\n"
        ".type __restore_rt, @function\n"
        "__restore_rt:\n"
        "	movq $15, %rax\n"
        "	syscall\n"
        ".size __restore_rt, . - __restore_rt\n");
extern void chain_restorer(void) __asm__("__restore_rt") __attribute__((visibility("hidden")));
#endif

static void set_action(int sig, const struct sigaction *action)
{
	struct kernel_action kernel = {
		.handler = (void *)action->sa_sigaction,
		.flags = (unsigned long)action->sa_flags,
	};

#if defined(__x86_64__)
	kernel.flags |= SA_RESTORER;
	kernel.restorer = chain_restorer;
#endif
	memcpy(&kernel.mask, &action->sa_mask, sizeof(kernel.mask));
	raw_syscall6(SYS_rt_sigaction, sig, (long)&kernel, 0, sizeof(kernel.mask), 0, 0);
}

static void get_action(int sig, struct sigaction *action)
{
	struct kernel_action kernel = {0};

	raw_syscall6(SYS_rt_sigaction, sig, 0, (long)&kernel, sizeof(kernel.mask), 0, 0);
	memset(action, 0, sizeof(*action));
	action->sa_sigaction = (void (*)(int, siginfo_t *, void *))kernel.handler;
	action->sa_flags = (int)(kernel.flags & 0xffffffff);
	memcpy(&action->sa_mask, &kernel.mask, sizeof(kernel.mask));
}

/* The link of a signal. Set once. */
static struct chain_link *_Atomic links[64];

void chain_install(struct chain_link *link, void (*handler)(int, siginfo_t *, void *), bool mask_all)
{
	struct sigaction action = {
		.sa_sigaction = handler,
		/* ONSTACK: the stack may lie in memory that is served. */
		.sa_flags = SA_SIGINFO | SA_ONSTACK | (mask_all ? 0 : SA_NODEFER),
	};
	signal_mask before;

	if (link->installed)
		return;
	if (mask_all)
		sigfillset(&action.sa_mask);
	/* A program that sets its own at this moment waits here, and finds the link. */
	before = block_signals();
	lock_take(&link->lock);
	atomic_store(&links[link->sig], link);
	get_action(link->sig, &link->previous);
	set_action(link->sig, &action);
	link->installed = true;
	lock_release(&link->lock);
	restore_signals(before);
}

bool chain_program_action(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct chain_link *link = sig > 0 && sig < 64 ? atomic_load(&links[sig]) : NULL;
	struct sigaction new, was;
	signal_mask before;

	if (!link)
		return false;
	/* The program's memory is touched with nothing held. */
	if (act)
		new = *act;
	before = block_signals();
	lock_take(&link->lock);
	was = link->previous;
	if (act)
		link->previous = new;
	lock_release(&link->lock);
	restore_signals(before);
	if (old)
		*old = was;
	return true;
}

static signal_mask *mask_of(void *context)
{
	return (signal_mask *)&((ucontext_t *)context)->uc_sigmask;
}

static bool is_ignored(int sig)
{
	struct sigaction action;

	get_action(sig, &action);
	return !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_IGN;
}

/* To this thread, with its own siginfo; blocked until the handler returns. */
static void send_to_self(int sig, siginfo_t *info)
{
	signal_mask one = (signal_mask)1 << (sig - 1);

	raw_syscall6(SYS_rt_sigprocmask, SIG_BLOCK, (long)&one, 0, sizeof(one), 0, 0);
	raw_syscall6(SYS_rt_tgsigqueueinfo, raw_getpid(), raw_gettid(), sig, (long)info, 0, 0);
}

/*
 * Dies of the signal, with its own siginfo in the core. It is sent again, as it was: that the access would raise it again is not
 * certain, for the page may have come meanwhile, and then nobody would serve the next fault.
 */
static void die_of(int sig, siginfo_t *info, void *context)
{
	const struct sigaction fatal = {.sa_handler = SIG_DFL};

	*mask_of(context) &= ~((signal_mask)1 << (sig - 1));
	set_action(sig, &fatal);
	send_to_self(sig, info);
}

void chain_raise(int sig, siginfo_t *info, void *context)
{
	if ((*mask_of(context) & ((signal_mask)1 << (sig - 1))) || is_ignored(sig))
		die_of(sig, info, context);
	else
		send_to_self(sig, info);
}

/* The program's action; one that is good for a single signal is used up by it. */
static struct sigaction take_action(struct chain_link *link)
{
	signal_mask before = block_signals();
	struct sigaction action;

	lock_take(&link->lock);
	action = link->previous;
	if (action.sa_flags & (int)SA_RESETHAND)
		link->previous = (struct sigaction){.sa_handler = SIG_DFL};
	lock_release(&link->lock);
	restore_signals(before);
	return action;
}

/* As the kernel would have called it: over the mask of the interrupted code. */
static void call_action(const struct chain_link *link, const struct sigaction *action, siginfo_t *info, void *context)
{
	signal_mask self = (signal_mask)1 << (link->sig - 1);
	signal_mask mask, before = block_signals();

	memcpy(&mask, &action->sa_mask, sizeof(mask));
	mask |= *mask_of(context);
	if (!(action->sa_flags & SA_NODEFER))
		mask |= self;
	restore_signals(link->stays_open ? mask & ~self : mask);
	if (action->sa_flags & SA_SIGINFO)
		action->sa_sigaction(link->sig, info, context);
	else
		action->sa_handler(link->sig);
	restore_signals(before);
}

void chain_pass_on(struct chain_link *link, siginfo_t *info, void *context)
{
	struct sigaction previous = take_action(link);
	bool by_access = info->si_code > 0;

	if ((previous.sa_flags & SA_SIGINFO) || (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN))
		call_action(link, &previous, info, context);
	/* One that is raised by an access cannot be ignored: it kills. */
	else if (previous.sa_handler == SIG_DFL || by_access)
		die_of(link->sig, info, context);
}

uint64_t chain_access_flags(const void *signal_context)
{
	const ucontext_t *context = signal_context;
	uint64_t flags = 0;
#if defined(__x86_64__)
	long error = context->uc_mcontext.gregs[REG_ERR];

	if (error & 2)
		flags = UFFD_PAGEFAULT_FLAG_WRITE | (error & 1 ? UFFD_PAGEFAULT_FLAG_WP : 0);
#elif defined(__aarch64__)
	/* A chain of records in the signal frame; ESR_MAGIC holds the syndrome of the fault. */
	const unsigned char *record = context->uc_mcontext.__reserved;
	const unsigned char *end = record + sizeof(context->uc_mcontext.__reserved);

	while (record + 16 <= end) {
		uint32_t head[2];
		uint64_t syndrome;

		memcpy(head, record, sizeof(head));
		if (!head[0] || head[1] < 8)
			break;
		if (head[0] == 0x45535201) {
			memcpy(&syndrome, record + 8, sizeof(syndrome));
			if (syndrome & (1 << 6))
				flags = UFFD_PAGEFAULT_FLAG_WRITE |
				        ((syndrome & 0x3c) == 0x0c ? UFFD_PAGEFAULT_FLAG_WP : 0);
			break;
		}
		record += head[1];
	}
#endif
	return flags;
}

bool chain_access_is_fetch(const void *signal_context, const void *address)
{
	const ucontext_t *context = signal_context;
#if defined(__x86_64__)
	return context->uc_mcontext.gregs[REG_RIP] == (greg_t)(uintptr_t)address;
#elif defined(__aarch64__)
	return context->uc_mcontext.pc == (uintptr_t)address;
#endif
}
