// SPDX-License-Identifier: MIT
#include <stdint.h>
#include <ucontext.h>

#include "uffd/trycopy.h"

/* int try_copy(void *to, const void *from, size_t len): an access between begin and end that fails goes on at failed. */
#if defined(__x86_64__)
__asm__(".text\n"
        ".balign 16\n"
        ".globl try_copy\n"
        ".hidden try_copy\n"
        ".type try_copy, @function\n"
        "try_copy:\n"
        "	.cfi_startproc\n"
        "	movq %rdx, %rcx\n"
        "try_copy_begin:\n"
        "	rep movsb\n"
        "try_copy_end:\n"
        "	xorl %eax, %eax\n"
        "	ret\n"
        "try_copy_fault:\n"
        "	movl $-14, %eax\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size try_copy, . - try_copy\n");
#elif defined(__aarch64__)
__asm__(".text\n"
        ".balign 16\n"
        ".globl try_copy\n"
        ".hidden try_copy\n"
        ".type try_copy, %function\n"
        "try_copy:\n"
        "	.cfi_startproc\n"
        "	cbz x2, 2f\n"
        "try_copy_begin:\n"
        "1:	ldrb w3, [x1], #1\n"
        "	strb w3, [x0], #1\n"
        "try_copy_end:\n"
        "	subs x2, x2, #1\n"
        "	b.ne 1b\n"
        "2:	mov w0, #0\n"
        "	ret\n"
        "try_copy_fault:\n"
        "	mov w0, #-14\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size try_copy, . - try_copy\n");
#endif

extern const char try_copy_begin[] __attribute__((visibility("hidden")));
extern const char try_copy_end[] __attribute__((visibility("hidden")));
extern const char try_copy_fault[] __attribute__((visibility("hidden")));

bool try_copy_failed(void *signal_context)
{
	ucontext_t *context = signal_context;
#if defined(__x86_64__)
	greg_t *at = &context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	unsigned long long *at = &context->uc_mcontext.pc;
#endif

	if ((uintptr_t)*at < (uintptr_t)try_copy_begin || (uintptr_t)*at >= (uintptr_t)try_copy_end)
		return false;
	*at = (__typeof__(*at))(uintptr_t)try_copy_fault;
	return true;
}
