// SPDX-License-Identifier: MIT
/*
 * microvm - a small virtual machine under KVM that migrates while its guest writes to all of its memory
 *
 *	microvm --incoming unix:/tmp/move                 waits for a guest
 *	microvm --to unix:/tmp/move                       runs one, and moves it there
 *
 * The guest goes over its memory in an order that is no order, again and again. In each page it finds what it wrote there the time before, or
 * tells that it does not: so a page that is old, or another one's, or zero, does not remain unnoticed, wherever the guest runs.
 *
 * What another virtual machine monitor would do in the same way:
 *
 *   memory    One region, that of KVM_SET_USER_MEMORY_REGION. At the destination KVM touches what is missing, in kernel mode: it takes
 *             a userfaultfd that serves the kernel's own faults (UF_OPEN_KERNEL_FAULTS), and so the kernel's engine. At the source
 *             the tracking of writes sees those of the guest too: they are made through the page tables of this process.
 *   state     Registers: KVM_GET_REGS and KVM_GET_SREGS. A real machine has devices besides.
 *   stop      The virtual processor is made to leave KVM_RUN, by a signal, and its thread waits. A system call that it was in the middle of
 *             (here: port I/O) is finished first, as KVM demands: by a KVM_RUN with immediate_exit.
 *   begin     Registers are set, and KVM_RUN.
 *
 * The guest has no kernel. It begins in 64-bit mode at the privilege of a program (ring 3), with the page tables and segments that it needs
 * already in place; it may use I/O ports (IOPL 3), and an exception ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <userfault.h>

/* Guest-physical addresses, which are the guest's virtual ones too. */
enum { PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, CODE = 0x10000, DATA = 2 << 20 };

enum { PORT_PASS = 0xf0, PORT_WRONG = 0xf1 };

#define MAX_DATA   (512ULL << 20)
#define WRONG_USE  2
#define STATE_NAME "microvm1"

/*
 * rbx  the pass, from 1 on          rdi  where the data begins
 * rsi  how far it is in the pass    rcx  pages of data - 1; their number is a power of two
 *
 * A page holds the pass in its first word, and in its second and its last that, times an odd number that tells the page. Memory that
 * was never written to is what pass 0 left.
 */
extern const char guest_begin[], guest_end[];
__asm__(".pushsection .rodata\n"
        "guest_begin:\n"
        "	xor %esi, %esi\n"
        "1:	imul $0x1e3779b1, %rsi, %rax\n"
        "	and %rcx, %rax\n"
        "	lea 1(%rax, %rax), %r10\n"
        "	shl $12, %rax\n"
        "	add %rdi, %rax\n"
        "	lea -1(%rbx), %r9\n"
        "	mov %r9, %r8\n"
        "	imul %r10, %r8\n"
        "	cmp %r9, (%rax)\n"
        "	jne 2f\n"
        "	cmp %r8, 8(%rax)\n"
        "	jne 2f\n"
        "	cmp %r8, 4088(%rax)\n"
        "	jne 2f\n"
        "	imul %rbx, %r10\n"
        "	mov %rbx, (%rax)\n"
        "	mov %r10, 8(%rax)\n"
        "	mov %r10, 4088(%rax)\n"
        "	inc %rsi\n"
        "	cmp %rcx, %rsi\n"
        "	jbe 1b\n"
        "	mov %ebx, %eax\n"
        "	mov $0xf0, %dx\n"
        "	out %eax, %dx\n"
        "	inc %rbx\n"
        "	jmp guest_begin\n"
        "2:	mov $0xf1, %dx\n"
        "	out %eax, %dx\n"
        "	jmp 2b\n"
        "guest_end:\n"
        ".popsection\n");

struct settings {
	const char *incoming, *to;
	uint64_t data;
	unsigned passes, precopy;
};

/* What moves besides the memory. */
struct state {
	char name[8];
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint64_t passes;
};

struct machine {
	uint8_t *memory;
	size_t size;
	int vm, vcpu;
	struct kvm_run *run;
	struct state state;
	pthread_t thread;

	/* The virtual processor's thread runs, stands still, or is told to; `changed` tells of each change and of each pass. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, stands;
	uint64_t passes;
};

static _Noreturn __attribute__((format(printf, 2, 3))) void die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("microvm: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(status);
}

/* The virtual processor */

static struct kvm_segment segment(uint16_t selector, uint8_t type)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .dpl = 3, .s = 1, .g = 1};
}

/* One page table for all levels but the last: 1 GiB in pages of 2 MiB, which the guest may use and write to. */
static void make_page_tables(struct machine *machine)
{
	/* present, writable, for ring 3, accessed; the last level also dirty, and large */
	const uint64_t table = 0x27, large = 0xe7;
	uint64_t *pd = (uint64_t *)(machine->memory + PD);

	*(uint64_t *)(machine->memory + PML4) = PDPT | table;
	*(uint64_t *)(machine->memory + PDPT) = PD | table;
	for (uint64_t i = 0; i < 512; i++)
		pd[i] = i << 21 | large;
}

static void make_guest(struct machine *machine)
{
	struct state *state = &machine->state;
	struct kvm_sregs *sregs = &state->sregs;

	make_page_tables(machine);
	memcpy(machine->memory + CODE, guest_begin, (size_t)(guest_end - guest_begin));
	if (ioctl(machine->vcpu, KVM_GET_SREGS, sregs))
		die(1, "no registers: %s", strerror(errno));
	sregs->cs = segment(0x33, 11);
	sregs->cs.l = 1;
	sregs->ss = sregs->ds = sregs->es = sregs->fs = sregs->gs = segment(0x2b, 3);
	sregs->cr0 = 0x80010033; /* PG WP NE ET MP PE */
	sregs->cr3 = PML4;
	sregs->cr4 = 0x20;   /* PAE */
	sregs->efer = 0x500; /* LMA LME */
	state->regs = (struct kvm_regs){.rip = CODE, .rflags = 0x3002, .rbx = 1, .rdi = DATA};
	state->regs.rcx = (machine->size - DATA) / 4096 - 1;
	memcpy(state->name, STATE_NAME, sizeof(state->name));
}

static void stand_still(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	machine->stands = true;
	pthread_cond_broadcast(&machine->changed);
	while (machine->stop)
		pthread_cond_wait(&machine->changed, &machine->lock);
	machine->stands = false;
	pthread_mutex_unlock(&machine->lock);
}

static void pass_done(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	machine->passes++;
	pthread_cond_broadcast(&machine->changed);
	pthread_mutex_unlock(&machine->lock);
}

static void handle_exit(struct machine *machine)
{
	struct kvm_run *run = machine->run;
	uint64_t page;

	if (run->exit_reason != KVM_EXIT_IO)
		die(1, "the guest has ended: KVM's reason %u", run->exit_reason);
	if (run->io.port == PORT_PASS) {
		pass_done(machine);
		return;
	}
	memcpy(&page, (char *)run + run->io.data_offset, 4);
	die(1, "pass %llu: the page at %#x is not what the guest wrote there", (unsigned long long)machine->passes + 1,
	    (unsigned)page);
}

static void *run_vcpu(void *arg)
{
	struct machine *machine = arg;

	for (;;) {
		/* Interrupted before it ran: what the last exit left to be done has been done. */
		if (!ioctl(machine->vcpu, KVM_RUN, 0))
			handle_exit(machine);
		else if (errno != EINTR && errno != EAGAIN)
			die(1, "KVM_RUN: %s", strerror(errno));
		else if (machine->run->immediate_exit)
			stand_still(machine);
	}
	return NULL;
}

static void start_vcpu(struct machine *machine)
{
	if (ioctl(machine->vcpu, KVM_SET_SREGS, &machine->state.sregs) ||
	    ioctl(machine->vcpu, KVM_SET_REGS, &machine->state.regs))
		die(1, "the registers cannot be set: %s", strerror(errno));
	if (pthread_create(&machine->thread, NULL, run_vcpu, machine))
		die(1, "no thread");
}

static void ignore(int number)
{
	(void)number;
}

static void open_machine(struct machine *machine, uint64_t data)
{
	struct kvm_userspace_memory_region region = {0};
	struct sigaction action = {.sa_handler = ignore};
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), size;

	if (kvm < 0)
		die(1, "/dev/kvm: %s", strerror(errno));
	machine->size = DATA + data;
	machine->memory = mmap(NULL, machine->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	                       -1, 0);
	if (machine->memory == MAP_FAILED)
		die(1, "no memory: %s", strerror(errno));
	machine->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	region.memory_size = machine->size;
	region.userspace_addr = (uintptr_t)machine->memory;
	if (machine->vm < 0 || ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region))
		die(1, "no virtual machine: %s", strerror(errno));
	machine->vcpu = ioctl(machine->vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (machine->vcpu < 0 || size < 0)
		die(1, "no virtual processor: %s", strerror(errno));
	machine->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpu, 0);
	if (machine->run == MAP_FAILED)
		die(1, "no virtual processor: %s", strerror(errno));
	sigaction(SIGUSR1, &action, NULL);
	close(kvm);
}

static void wait_for_passes(struct machine *machine, uint64_t passes)
{
	pthread_mutex_lock(&machine->lock);
	while (machine->passes < passes)
		pthread_cond_wait(&machine->changed, &machine->lock);
	pthread_mutex_unlock(&machine->lock);
}

static void say_failed(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "microvm: %s\n", cause);
}

/* The source */

static int stop(void *arg, const void **state, size_t *len)
{
	struct machine *machine = arg;

	pthread_mutex_lock(&machine->lock);
	machine->stop = true;
	machine->run->immediate_exit = 1;
	pthread_kill(machine->thread, SIGUSR1);
	while (!machine->stands)
		pthread_cond_wait(&machine->changed, &machine->lock);
	machine->state.passes = machine->passes;
	pthread_mutex_unlock(&machine->lock);
	if (ioctl(machine->vcpu, KVM_GET_REGS, &machine->state.regs) ||
	    ioctl(machine->vcpu, KVM_GET_SREGS, &machine->state.sregs))
		die(1, "the registers cannot be read: %s", strerror(errno));
	*state = &machine->state;
	*len = sizeof(machine->state);
	return 0;
}

static void resume(void *arg)
{
	struct machine *machine = arg;

	pthread_mutex_lock(&machine->lock);
	machine->run->immediate_exit = 0;
	machine->stop = false;
	pthread_cond_broadcast(&machine->changed);
	pthread_mutex_unlock(&machine->lock);
}

static void move_away(struct machine *machine, const struct settings *settings)
{
	struct uf_migrate_region region = {.name = "memory", .addr = machine->memory, .len = machine->size};
	struct uf_source_options opts = {
		.size = sizeof(opts),
		.passes = settings->precopy,
		.engine = UF_ENGINE_KERNEL,
		.stop = stop,
		.resume = resume,
		.failed = say_failed,
		.arg = machine,
	};
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	struct uf_source *source = NULL;
	int err;

	make_guest(machine);
	start_vcpu(machine);
	wait_for_passes(machine, settings->passes);
	err = uf_source_open(&source, &region, 1, &opts);
	if (!err)
		err = uf_source_run(source, settings->to);
	/* Once the guest has been given away there is no way back. */
	while (err && source && uf_source_owner(source) != UF_OWNER_SOURCE) {
		sleep(1);
		err = uf_source_run(source, settings->to);
	}
	if (err)
		die(1, "the guest stays here: %s", strerror(-err));
	uf_source_stats(source, &stats);
	uf_source_close(source);
	printf("gone after %llu passes: %.1f MiB before the stop and %.1f after it, stopped for %.1f ms\n",
	       (unsigned long long)machine->state.passes, (double)stats.precopy / 1048576,
	       (double)stats.postcopy / 1048576, (double)stats.stopped_ns / 1e6);
}

/* The destination */

static int prepare(void *arg, const void *state, size_t len)
{
	(void)arg;
	return len != sizeof(struct state) || memcmp(state, STATE_NAME, 8) != 0 ? -EPROTO : 0;
}

static void start(void *arg, const void *state, size_t len)
{
	struct machine *machine = arg;

	(void)len;
	memcpy(&machine->state, state, sizeof(machine->state));
	machine->passes = machine->state.passes;
	start_vcpu(machine);
}

static void receive(struct machine *machine, const struct settings *settings)
{
	struct uf_migrate_region region = {.name = "memory", .addr = machine->memory, .len = machine->size};
	struct uf_destination_options opts = {
		.size = sizeof(opts),
		.engine = UF_ENGINE_KERNEL,
		.open_flags = UF_OPEN_KERNEL_FAULTS,
		.prepare = prepare,
		.start = start,
		.failed = say_failed,
		.arg = machine,
	};
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	struct uf_destination *destination;
	char address[256];
	int err = uf_destination_open(&destination, &region, 1, &opts);

	if (err)
		die(1,
		    "KVM touches a guest's memory in the kernel, which takes a userfaultfd with full rights: %s "
		    "('userfault probe' tells why)",
		    strerror(-err));
	err = uf_destination_listen(destination, settings->incoming);
	if (!err)
		err = uf_destination_address(destination, address, sizeof(address));
	if (err)
		die(1, "cannot wait at %s: %s", settings->incoming, strerror(-err));
	printf("incoming %s\n", address);
	fflush(stdout);
	do
		err = uf_destination_run(destination, NULL);
	while (err == -ECANCELED);
	if (err)
		die(1, "the guest cannot arrive: %s", strerror(-err));
	wait_for_passes(machine, machine->state.passes + settings->passes);
	uf_destination_stats(destination, &stats);
	uf_destination_close(destination);
	printf("came after %llu passes, and each page was right in %u more: %llu faults\n",
	       (unsigned long long)machine->state.passes, settings->passes, (unsigned long long)stats.faults);
}

/* The command line */

static const char help[] =
	"usage: microvm --incoming URI [OPTION...]\n"
	"       microvm --to URI [OPTION...]\n"
	"A virtual machine whose guest writes to all of its memory and verifies it, and that moves meanwhile.\n"
	"  --incoming URI   wait there for a guest: tcp://HOST:PORT or unix:PATH\n"
	"  --to URI         run a guest, and move it to where another one waits\n"
	"  --memory SIZE    that it uses: a power of two, 1M to 512M; with K, M or G; 64M. The same on both sides\n"
	"  --passes N       over its memory, before it moves, or when it has arrived; 3\n"
	"  --precopy N      times that memory is sent before the stop, at most; 3\n";

static uint64_t parse_number(const char *text, uint64_t least, uint64_t most)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	suffix = *end ? strchr(suffixes, *end) : NULL;
	if (end == text || *text == '-' || errno || (*end && (!suffix || end[1])) || number > most)
		die(WRONG_USE, "%s is not from %llu to %llu", text, (unsigned long long)least,
		    (unsigned long long)most);
	number = suffix ? number << (10 * (suffix - suffixes + 1)) : number;
	if (number < least || number > most)
		die(WRONG_USE, "%s is not from %llu to %llu", text, (unsigned long long)least,
		    (unsigned long long)most);
	return number;
}

static struct settings parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"incoming", 1, NULL, 'i'}, {"to", 1, NULL, 't'},   {"memory", 1, NULL, 'm'}, {"passes", 1, NULL, 'p'},
		{"precopy", 1, NULL, 'c'},  {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct settings settings = {.data = 64 << 20, .passes = 3, .precopy = 3};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'i':
			settings.incoming = optarg;
			break;
		case 't':
			settings.to = optarg;
			break;
		case 'm':
			settings.data = parse_number(optarg, 1 << 20, MAX_DATA);
			break;
		case 'p':
			settings.passes = (unsigned)parse_number(optarg, 1, 1000000);
			break;
		case 'c':
			settings.precopy = (unsigned)parse_number(optarg, 0, 1000);
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			exit(WRONG_USE);
		}
	}
	if (optind != argc || !settings.incoming == !settings.to)
		die(WRONG_USE, "it takes --incoming or --to; see --help");
	if (settings.data & (settings.data - 1))
		die(WRONG_USE, "the memory is a power of two");
	return settings;
}

int main(int argc, char **argv)
{
	struct settings settings = parse(argc, argv);
	struct machine machine = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

	open_machine(&machine, settings.data);
	if (settings.incoming)
		receive(&machine, &settings);
	else
		move_away(&machine, &settings);
	/* The virtual processor's thread ends with the process. */
	fflush(stdout);
	_exit(0);
}
