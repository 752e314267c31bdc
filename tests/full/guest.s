/* SPDX-License-Identifier: MIT */
/*
 * A boot sector that counts. Each pass looks, in every fourth page of [1 MiB, 33 MiB), for the number of the pass before, writes its own there,
 * and prints it, eight hexadecimal digits and a line end, on port 0xe9; a page that holds anything else prints "!".
 */
	.code16
	.globl _start
_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7000, %sp
	inb $0x92, %al			/* the address line 20 */
	orb $2, %al
	outb %al, $0x92
	lgdtl descriptor
	movl %cr0, %eax			/* a segment of 4 GiB stays when real mode comes back */
	orb $1, %al
	movl %eax, %cr0
	movw $8, %bx
	movw %bx, %fs
	andb $0xfe, %al
	movl %eax, %cr0
	xorl %ebp, %ebp			/* the number of the pass */
pass:
	movl $0x100000, %edi
page:
	cmpl %ebp, %fs:(%edi)
	je right
	testl %ebp, %ebp		/* the first pass finds what there is */
	jz right
	movb $'!', %al
	outb %al, $0xe9
right:
	leal 1(%ebp), %eax
	movl %eax, %fs:(%edi)
	addl $0x4000, %edi
	cmpl $0x2100000, %edi
	jb page
	incl %ebp
	movl %ebp, %edx
	movw $8, %cx
digit:
	roll $4, %edx
	movb %dl, %al
	andb $15, %al
	addb $'0', %al
	cmpb $'9', %al
	jbe print
	addb $39, %al
print:
	outb %al, $0xe9
	loop digit
	movb $10, %al
	outb %al, $0xe9
	jmp pass

	.balign 8
table:
	.quad 0
	.quad 0x00cf92000000ffff	/* data, from 0, 4 GiB */
descriptor:
	.word 15
	.long table
	.org 510
	.word 0xaa55
