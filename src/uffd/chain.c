// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "base/rawsys.h"
#include "uffd/chain.h"

void chain_install(struct chain_link *link, void (*handler)(int, siginfo_t *, void *), bool mask_all)
{
	struct sigaction action = {
		.sa_sigaction = handler,
		/* ONSTACK: the stack may lie in memory that is served. */
		.sa_flags = SA_SIGINFO | SA_ONSTACK | (mask_all ? 0 : SA_NODEFER),
	};

	if (link->installed)
		return;
	if (mask_all)
		sigfillset(&action.sa_mask);
	sigaction(link->sig, NULL, &link->previous);
	sigaction(link->sig, &action, NULL);
	link->installed = true;
}

void chain_raise(int sig, siginfo_t *info)
{
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, sig);
	pthread_sigmask(SIG_BLOCK, &one, NULL);
	raw_syscall6(SYS_rt_tgsigqueueinfo, getpid(), raw_gettid(), sig, (long)info, 0, 0);
}

/*
 * Dies of the signal, with its own siginfo in the core. It is sent again, as it was: that the access would raise it again is not
 * certain, for the page may have come meanwhile, and then nobody would serve the next fault.
 */
static void die_of(int sig, siginfo_t *info)
{
	struct sigaction fatal = {.sa_handler = SIG_DFL};

	sigaction(sig, &fatal, NULL);
	chain_raise(sig, info);
}

void chain_pass_on(const struct chain_link *link, siginfo_t *info, void *context)
{
	const struct sigaction *previous = &link->previous;
	bool has_handler = (previous->sa_flags & SA_SIGINFO) ||
	                   (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN);
	bool by_access = info->si_code > 0;
	sigset_t mask, before;

	if (!has_handler) {
		/* One that is raised by an access cannot be ignored: it kills. */
		if (previous->sa_handler == SIG_DFL || by_access)
			die_of(link->sig, info);
		return;
	}

	/* As the kernel would have called it: over the mask of the interrupted code, of which the frame has its 64 bits. */
	sigemptyset(&mask);
	memcpy(&mask, &((ucontext_t *)context)->uc_sigmask, sizeof(uint64_t));
	sigorset(&mask, &mask, &previous->sa_mask);
	if (!(previous->sa_flags & SA_NODEFER))
		sigaddset(&mask, link->sig);
	pthread_sigmask(SIG_SETMASK, &mask, &before);
	if (previous->sa_flags & SA_SIGINFO)
		previous->sa_sigaction(link->sig, info, context);
	else
		previous->sa_handler(link->sig);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
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
