// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/futex.h"
#include "base/lock.h"
#include "base/rawsys.h"
#include "base/task.h"
#include "uffd/user/own.h"
#include "uffd/user/pending.h"

#define MAGIC 0x75664d32 /* "ufM2" */

/* A thread that is in futex(2), or about to be: found by all who have the word, or, faster, by those alone who share its memory. */
enum sleep { AWAKE, ASLEEP, ASLEEP_AMONG_US };

enum slot_state { FREE, UNREAD, READ, ERRAND, BUSY, FAILED, CARRIED, DONE };

/*
 * The fields below `word` are written while the slot is FREE and claimed, and published by the store that makes it UNREAD. A
 * reader may look at them just when the slot is being used again; it finds out by its compare-and-swap. Hence relaxed atomics.
 */
struct user_slot {
	_Atomic uint32_t word;     /* futex: generation << 3 | state */
	_Atomic uint32_t sleeping; /* enum sleep: whoever moves the word must wake it */
	_Atomic uint32_t event;    /* UFFD_EVENT_* */
	_Atomic uint32_t tid;
	_Atomic uint64_t order;   /* rises from message to message: the oldest is read first */
	_Atomic uint64_t args[3]; /* a fault: exact address, flags, page size; an event: as in struct uffd_msg */
	/*
	 * The errand of this generation: generation << 32 | tray << 8 | mode, set once by compare-and-swap; of another generation: none.
	 * The result is written while BUSY. Of an event: word << 32 | who holds it, by compare-and-swap; of another word: nobody does. Only
	 * who holds it moves it to READ, so of two readers one has it.
	 */
	_Atomic uint64_t errand;
	_Atomic int32_t result;
	_Atomic uint8_t watching; /* the monitor is in futex(2), or about to be, until the errand is over */
	_Atomic uint8_t missed;   /* somebody meant to wake it while it was BUSY */
	_Atomic uint16_t cpu;     /* where its thread was when it put the message in, plus one */
};
_Static_assert(sizeof(struct user_slot) == 64, "one cache line: neighbours are other threads");

#define CLAIMED_WORDS (USER_SLOTS / 64)

struct user_pending_shared {
	uint32_t magic;
	uint32_t slot_size;
	/*
	 * There is a ring in the bell, or on its way. Who puts a message in sets this, and rings if it was not set. Who takes a
	 * ring out clears it after that, and then looks whether something is unread: a message that came meanwhile either found
	 * it cleared, and has rung, or is seen by that look. So it is never set without a ring to come, unless whoever was to
	 * ring or to clear it was killed, which user_pending_renew() puts right.
	 */
	_Atomic uint32_t rung;
	/*
	 * Readers that sleep here are woken instead of rung for, which is cheaper. One that is woken looks at the messages, and announces
	 * what it leaves behind. A reader counts itself before it looks for the last time, and a message is in before its sender looks at
	 * the count, so one of them sees the other. Where a wake finds nobody after all (a reader that died keeps its count), the bell rings.
	 */
	_Atomic uint32_t sleepers;
	_Atomic uint32_t calls; /* futex: counts wakes */
	/*
	 * While no other process has attached, the owner's threads sleep among themselves, its readers counted here. Whoever attaches is
	 * counted first, and those readers are woken then, to sleep again where they are found by it.
	 */
	_Atomic uint32_t attached, own_sleepers;
	_Atomic uint32_t freed;  /* futex, counts slots given back: a thread that finds none waits for it */
	_Atomic uint32_t hungry; /* threads that wait for that */
	_Atomic uint64_t order;
	_Atomic uint64_t claimed[CLAIMED_WORDS]; /* one bit a slot: what searches have to look at */
	_Atomic uint32_t words; /* of those: how many were ever used. Rises before a bit is set there */
	/*
	 * Looks at the messages by readers that would not sleep, and the count when a message came last. A reader that has looked again and again
	 * since is polling, on another processor, and will see the next message by itself. Counts and guesses: relaxed.
	 */
	_Atomic uint32_t looks, looks_seen;
	/* The last message was fetched by a reader that sleeps here between them, so it may be about to come back. A guess: relaxed. */
	_Atomic uint32_t habit;
	/*
	 * Spinning (see there): readers that do, or step aside, which need not be told; where the last fault and the last reader were, plus
	 * one; whether it has been worth it. A reader that dies in it leaves its count behind: then spins are in vain, until they are not
	 * tried any more.
	 */
	_Atomic uint32_t spinning;
	_Atomic uint16_t fault_cpu, reader_cpu;
	_Atomic int32_t credit;
	/* Stepping aside (see there): for how many waits it is not tried any more, and for how many the next time that it is late. */
	_Atomic uint32_t rest, next_rest;
	struct user_slot slots[USER_SLOTS];
	char trays[USER_TRAYS][USER_TRAY];
};

#define get(field)        atomic_load_explicit(&(field), memory_order_relaxed)
#define set(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

static inline enum slot_state state_of(uint32_t word)
{
	return (enum slot_state)(word & 7);
}

static inline uint32_t with_state(uint32_t word, enum slot_state state)
{
	return (word & ~7u) | state;
}

static inline uint32_t next_generation(uint32_t word)
{
	return (word & ~7u) + 8;
}

static inline bool same_generation(uint32_t a, uint32_t b)
{
	return (a & ~7u) == (b & ~7u);
}

/* Moves a slot on, unless it is not what it was any more. */
static bool move_slot(struct user_slot *slot, uint32_t from, enum slot_state to)
{
	return atomic_compare_exchange_strong(&slot->word, &from, with_state(from, to));
}

/* Iterates over claimed slots: the next index at or behind `from`, or USER_SLOTS. */
static uint32_t next_claimed(const struct user_pending_shared *shared, uint32_t from)
{
	uint32_t words = atomic_load(&shared->words), end = 64 * (words < CLAIMED_WORDS ? words : CLAIMED_WORDS);

	while (from < end) {
		uint64_t bits = atomic_load(&shared->claimed[from / 64]) >> (from % 64);

		if (bits)
			return from + (uint32_t)__builtin_ctzll(bits);
		from = (from / 64 + 1) * 64;
	}
	return USER_SLOTS;
}

#define for_each_claimed(i, shared) \
	for (uint32_t i = next_claimed(shared, 0); i < USER_SLOTS; i = next_claimed(shared, i + 1))

/*
 * Rings. Only the owner has the rope; another process asks it to, by a byte on the way back, which its service thread
 * answers by calling user_pending_ring(). When the socket is full there are rings enough; when nobody is there any more,
 * nothing is lost, for the message stays in its slot.
 */
void user_pending_ring(struct user_pending *pending)
{
	char one = 1;

	raw_syscall6(SYS_sendto, pending->rope >= 0 ? pending->rope : pending->bell, (long)&one, 1,
	             MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
}

/* Takes one ring out of the bell. */
static bool unring(struct user_pending *pending)
{
	char one;

	return raw_syscall6(SYS_recvfrom, pending->bell, (long)&one, 1, MSG_DONTWAIT, 0, 0) == 1;
}

static bool call_sleeper(struct user_pending *pending)
{
	struct user_pending_shared *shared = pending->shared;
	int scope = pending->rope >= 0 && atomic_load(&shared->own_sleepers) ? FUTEX_PRIVATE_FLAG : 0;

	if (!scope && !atomic_load(&shared->sleepers))
		return false;
	atomic_fetch_add(&shared->calls, 1);
	return futex_wake_in(scope, &shared->calls, 1) > 0;
}

static void wake_sleeper(struct user_slot *slot)
{
	uint32_t sleep = atomic_load(&slot->sleeping);

	if (sleep != AWAKE)
		futex_wake_in(sleep == ASLEEP_AMONG_US ? FUTEX_PRIVATE_FLAG : 0, &slot->word, INT_MAX);
}

static void ring_once(struct user_pending *pending)
{
	if (!atomic_exchange(&pending->shared->rung, 1))
		user_pending_ring(pending);
}

static void announce(struct user_pending *pending)
{
	if (!call_sleeper(pending))
		ring_once(pending);
}

/*
 * Spinning. To wake a thread on another processor takes longer than a fault takes to be served, so both sides wait for a while without
 * sleeping where the other one is on another processor. Where that has been in vain it is left for the next times. A reader that has looked
 * for nothing so often since the last message, without sleeping, is polling.
 */
#define POLLER_LOOKS 4
#define SPIN_NS      50000
#define MOST_CREDIT  16
#define SPIN_COST    4
#define REST         64

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Plus one. */
static uint16_t this_cpu(void)
{
	return (uint16_t)(current_cpu() + 1);
}

static bool may_spin(struct user_pending_shared *shared, uint16_t partner)
{
	int32_t credit = get(shared->credit);

	if (!partner || partner == this_cpu())
		return false;
	if (credit < 0)
		set(shared->credit, credit + 1);
	return credit >= 0;
}

static void note_spin(struct user_pending_shared *shared, bool worth)
{
	int32_t credit = get(shared->credit);

	if (worth)
		credit = credit < MOST_CREDIT ? credit + 1 : credit;
	else
		credit = credit >= SPIN_COST ? credit - SPIN_COST : -REST;
	set(shared->credit, credit);
}

/*
 * Stepping aside. On one processor a thread that sleeps has to be woken, by a call that as often as not has the sleeper take the processor
 * from its waker. sched_yield(2) lets the other one run without that: half the price, and who has been served goes on until it waits again.
 * Where a third program wants the processor it runs first, for its whole slice, while a sleeper would be let in before it. So whoever
 * waits for an answer looks at the clock, and where it came late or not at all, both sides sleep for the next times, each time longer.
 */
#define STEPS      3
#define LATE_NS    300000
#define MOST_RESTS 4096

static bool may_step_aside(struct user_pending_shared *shared, uint16_t partner)
{
	return partner == this_cpu() && !get(shared->rest);
}

static void note_steps(struct user_pending_shared *shared, bool worth)
{
	uint32_t rest = get(shared->next_rest);

	if (!worth)
		set(shared->rest, rest + REST);
	if (!worth)
		set(shared->next_rest, rest < MOST_RESTS ? 2 * rest + REST : rest);
	else if (rest)
		set(shared->next_rest, rest - 1);
}

static void step_aside(void)
{
	raw_syscall3(SYS_sched_yield, 0, 0, 0);
}

/* Whether a reader on another processor has looked for nothing again and again since the last message. */
static bool is_polled(struct user_pending_shared *shared)
{
	uint32_t looks = get(shared->looks), before = get(shared->looks_seen);

	set(shared->looks_seen, looks);
	return looks - before >= POLLER_LOOKS && get(shared->reader_cpu) != this_cpu();
}

bool user_pending_is_read_elsewhere(const struct user_pending *pending)
{
	uint16_t reader = get(pending->shared->reader_cpu);

	return reader && reader != this_cpu();
}

/* Whether the last reader was on this processor, where spinning for it would keep it away. */
static bool is_here(struct user_pending_shared *shared)
{
	return get(shared->reader_cpu) == this_cpu();
}

/* For a message that has just been put in. */
static enum user_expected expected_reader(struct user_pending *pending, bool polled)
{
	struct user_pending_shared *shared = pending->shared;

	/* Sequentially consistent with the message: a reader that has stopped spinning since then looks once more. */
	if (polled || (atomic_load(&shared->spinning) && (is_here(shared) || get(shared->credit) >= 0)))
		return USER_EXPECTS_POLLER;
	return get(shared->habit) ? USER_EXPECTS_SLEEPER : USER_EXPECTS_NOBODY;
}

/* Takes out one ring, or all there are, and rings anew if that was one too many. */
static void take_rings(struct user_pending *pending, bool all)
{
	if (!unring(pending))
		return;
	while (all && unring(pending))
		;
	atomic_store(&pending->shared->rung, 0);
	/* So there are readers that listen to the bell. */
	set(pending->shared->habit, 0);
	if (user_pending_unread(pending))
		announce(pending);
}

/* There was nothing to read, though the bell may have rung for it. Who polls does not ask for late rings each time. */
static void silence_bell(struct user_pending *pending)
{
	bool all = atomic_fetch_add(&pending->shared->looks, 1) % 64 == 0;

	if (all || atomic_load(&pending->shared->rung))
		take_rings(pending, all);
}

static void settle_bell(struct user_pending *pending)
{
	if (user_pending_unread(pending))
		announce(pending);
	else if (atomic_load(&pending->shared->rung))
		take_rings(pending, false);
}

static int map_shared(struct user_pending *pending)
{
	void *p = mmap(NULL, sizeof(struct user_pending_shared), PROT_READ | PROT_WRITE, MAP_SHARED, pending->memfd, 0);

	if (p == MAP_FAILED)
		return -errno;
	pending->shared = p;
	return 0;
}

int user_pending_create(struct user_pending *pending, int open_flags)
{
	_cleanup_fd int memfd = memfd_create("userfault", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int pair[2], err;
	int type = SOCK_SEQPACKET | (open_flags & O_NONBLOCK ? SOCK_NONBLOCK : 0) |
	           (open_flags & O_CLOEXEC ? SOCK_CLOEXEC : 0);

	if (memfd < 0)
		return -errno;
	/* Nobody may shrink it under the feet of another process that has it mapped. */
	if (ftruncate(memfd, sizeof(struct user_pending_shared)) ||
	    fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	*pending = (struct user_pending){.memfd = memfd};
	err = map_shared(pending);
	if (err)
		return err;
	if (socketpair(AF_UNIX, type, 0, pair)) {
		err = -errno;
		raw_unmap(pending->shared, sizeof(*pending->shared));
		return err;
	}
	pending->shared->magic = MAGIC;
	pending->shared->slot_size = sizeof(struct user_slot);
	pending->bell = pair[0];
	pending->rope = user_own(pair[1]);
	pending->memfd = user_own(take_fd(&memfd));
	return 0;
}

int user_pending_attach(struct user_pending *pending, int memfd, int bell)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
	struct user_pending view = {.memfd = memfd, .bell = bell, .rope = -1};
	off_t size;
	int seals, err;

	/* The seals first: without them its owner could take the memory away from under us. */
	seals = fcntl(memfd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed)
		return -EINVAL;
	size = lseek(memfd, 0, SEEK_END);
	if (size != (off_t)sizeof(struct user_pending_shared))
		return -EINVAL;
	err = map_shared(&view);
	if (err)
		return err;
	if (view.shared->magic != MAGIC || view.shared->slot_size != sizeof(struct user_slot)) {
		raw_unmap(view.shared, sizeof(*view.shared));
		return -EINVAL;
	}
	view.memfd = user_own(memfd);
	*pending = view;
	return 0;
}

void user_pending_dispose(struct user_pending *pending)
{
	raw_unmap(pending->shared, sizeof(*pending->shared));
	user_own_close(pending->memfd);
	user_own_close(pending->rope);
}

/* Ends whatever the slot stands for. A reader may be moving it from UNREAD to READ at this moment. */
static void end_generation(struct user_pending *pending, struct user_slot *slot, uint32_t word)
{
	while (!atomic_compare_exchange_weak(&slot->word, &word, next_generation(word)))
		;
	if (state_of(word) == UNREAD)
		settle_bell(pending);
}

/* Its generation has been ended. */
static void free_slot(struct user_pending_shared *shared, struct user_slot *slot)
{
	uint32_t index = (uint32_t)(slot - shared->slots);

	/* Before it can be claimed: this thread must not take it for its own while another one has it. */
	atomic_store(&slot->tid, 0);
	atomic_fetch_and(&shared->claimed[index / 64], ~((uint64_t)1 << (index % 64)));
	atomic_fetch_add(&shared->freed, 1);
	if (atomic_load(&shared->hungry))
		futex_wake(&shared->freed, INT_MAX);
}

static void give_back(struct user_pending *pending, struct user_slot *slot)
{
	end_generation(pending, slot, atomic_load(&slot->word));
	free_slot(pending->shared, slot);
}

static void use_word(struct user_pending_shared *shared, uint32_t word)
{
	uint32_t words = get(shared->words);

	while (words <= word && !atomic_compare_exchange_weak(&shared->words, &words, word + 1))
		;
}

/* This thread's slot if it left one behind, which then is free to be used again; else any that is free. */
static struct user_slot *claim(struct user_pending *pending, uint32_t tid, uint32_t first)
{
	struct user_pending_shared *shared = pending->shared;

	for (uint32_t i = 0; i < USER_SLOTS; i++) {
		uint32_t index = (first + i) % USER_SLOTS;
		struct user_slot *slot = &shared->slots[index];
		uint64_t bit = (uint64_t)1 << (index % 64);

		use_word(shared, index / 64);
		if (!(atomic_fetch_or(&shared->claimed[index / 64], bit) & bit))
			return slot;
		if (get(slot->tid) == tid) {
			end_generation(pending, slot, atomic_load(&slot->word));
			return slot;
		}
	}
	/* Results that nobody has fetched, by monitors that have died. */
	for (uint32_t i = 0; i < USER_SLOTS; i++) {
		struct user_slot *slot = &shared->slots[i];
		uint32_t word = atomic_load(&slot->word);

		if (state_of(word) == CARRIED &&
		    atomic_compare_exchange_strong(&slot->word, &word, next_generation(word)))
			return slot;
	}
	return NULL;
}

struct user_ticket user_pending_add(struct user_pending *pending, const struct uffd_msg *msg, size_t page_size)
{
	/* Before the search: a slot given back after it is noticed by user_pending_wait_slot(). */
	struct user_ticket ticket = {.word = atomic_load(&pending->shared->freed)};
	bool told = msg->event == UFFD_EVENT_PAGEFAULT && msg->arg.pagefault.feat.ptid;
	uint32_t tid = told ? msg->arg.pagefault.feat.ptid : (uint32_t)raw_gettid();
	struct user_slot *slot = claim(pending, tid, tid % 64);

	if (!slot)
		return ticket;
	ticket = (struct user_ticket){.slot = slot, .word = with_state(atomic_load(&slot->word), UNREAD)};
	set(slot->tid, tid);
	set(slot->event, msg->event);
	if (msg->event == UFFD_EVENT_PAGEFAULT) {
		set(slot->args[0], msg->arg.pagefault.address);
		set(slot->args[1], msg->arg.pagefault.flags);
		set(slot->args[2], page_size);
	} else {
		set(slot->args[0], msg->arg.reserved.reserved1);
		set(slot->args[1], msg->arg.reserved.reserved2);
		set(slot->args[2], msg->arg.reserved.reserved3);
	}
	set(slot->order, atomic_fetch_add(&pending->shared->order, 1));
	set(slot->sleeping, AWAKE);
	set(slot->watching, 0);
	set(slot->missed, 0);
	set(slot->cpu, this_cpu());
	set(pending->shared->fault_cpu, get(slot->cpu));
	atomic_store(&slot->word, ticket.word);
	return ticket;
}

void user_pending_tell(struct user_pending *pending, struct user_ticket *ticket)
{
	bool polled = is_polled(pending->shared);

	if (!ticket->slot || call_sleeper(pending))
		return;
	ticket->expected = expected_reader(pending, polled);
	if (ticket->expected == USER_EXPECTS_NOBODY)
		ring_once(pending);
}

void user_pending_wait_slot(struct user_pending *pending, struct user_ticket ticket)
{
	struct user_pending_shared *shared = pending->shared;

	atomic_fetch_add(&shared->hungry, 1);
	futex_wait(&shared->freed, ticket.word);
	atomic_fetch_sub(&shared->hungry, 1);
}

/* Whether a thread that waits for `goal` has to go on waiting with its slot in this state. */
static bool is_waiting(uint32_t word, struct user_ticket ticket, enum slot_state goal)
{
	if (!same_generation(word, ticket.word))
		return false;
	return goal == DONE ? state_of(word) != DONE && state_of(word) != ERRAND : state_of(word) < goal;
}

/* Both return the word as it is then. */

static uint32_t wait_aside(struct user_pending_shared *shared, struct user_ticket ticket, enum slot_state goal)
{
	uint32_t word = atomic_load(&ticket.slot->word), rest = get(shared->rest);
	uint64_t start;

	if (rest)
		set(shared->rest, rest - 1);
	if (!is_waiting(word, ticket, goal) || !may_step_aside(shared, this_cpu()))
		return word;
	start = now_ns();
	for (unsigned i = 0; i < STEPS && is_waiting(word, ticket, goal); i++) {
		step_aside();
		word = atomic_load(&ticket.slot->word);
	}
	note_steps(shared, !is_waiting(word, ticket, goal) && now_ns() - start < LATE_NS);
	return word;
}

static uint32_t spin(struct user_pending *pending, struct user_ticket ticket, enum slot_state goal)
{
	uint32_t word = atomic_load(&ticket.slot->word);
	uint64_t end;

	if (is_here(pending->shared))
		return wait_aside(pending->shared, ticket, goal);
	if (ticket.expected != USER_EXPECTS_POLLER && !may_spin(pending->shared, get(pending->shared->reader_cpu)))
		return word;
	end = now_ns() + SPIN_NS;

	while (is_waiting(word, ticket, goal) && now_ns() < end) {
		for (unsigned i = 0; i < 16 && is_waiting(word, ticket, goal); i++) {
			relax();
			word = atomic_load(&ticket.slot->word);
		}
	}
	note_spin(pending->shared, !is_waiting(word, ticket, goal));
	return word;
}

/* The reader that was expected has not come: it is told as any other. */
static void expect_nobody(struct user_pending *pending, struct user_ticket *ticket)
{
	ticket->expected = USER_EXPECTS_NOBODY;
	if (atomic_load(&ticket->slot->word) != ticket->word)
		return;
	set(pending->shared->habit, 0);
	announce(pending);
}

/* Sleeps until the slot has moved. False: a signal handler has run, which ends the wait of a fault. */
static bool sleep_on(struct user_pending *pending, struct user_ticket *ticket, uint32_t word, enum slot_state goal,
                     int scope)
{
	/* How long a reader is expected before it is told. */
	static const struct timespec expectation = {.tv_nsec = 5 * 1000 * 1000};
	bool fault = goal == DONE;
	long err;

	if (ticket->expected == USER_EXPECTS_POLLER)
		expect_nobody(pending, ticket);
	err = futex_sleep_in(scope, &ticket->slot->word, word, ticket->expected ? &expectation : NULL, !fault);
	if (err == -ETIMEDOUT && ticket->expected)
		expect_nobody(pending, ticket);
	return !(err == -EINTR && fault);
}

/*
 * With an errand in the slot. Signals are blocked: a handler that faults would use the slot for itself. True: the page is in place, and
 * the slot is the monitor's.
 */
static bool carry_out(struct user_pending *pending, struct user_slot *slot, uint32_t word)
{
	uint64_t errand = atomic_load(&slot->errand);
	uint32_t tray = (uint32_t)(errand >> 8) % USER_TRAYS, tid = get(slot->tid);
	uint64_t page = get(slot->args[0]) & ~(uint64_t)(USER_TRAY - 1);
	int err;

	if (!move_slot(slot, word, BUSY))
		return false;
	err = pending->carry_out(pending, page, pending->shared->trays[tray], errand & 0xff);
	set(slot->result, err);
	/* Before it is another's: this thread must not take it for its own then. */
	set(slot->tid, err ? tid : 0);
	atomic_store(&slot->word, with_state(word, err ? FAILED : CARRIED));
	/* Either it sees the state, or this sees that it watches. */
	if (atomic_load(&slot->watching))
		futex_wake(&slot->word, INT_MAX);
	return !err;
}

/* With signals as in `open`, if that is given. False: a handler has run, which ends the wait of a fault. */
static bool sleep_while_waiting(struct user_pending *pending, struct user_ticket *ticket, uint32_t word,
                                enum slot_state goal, const signal_mask *open)
{
	struct user_slot *slot = ticket->slot;
	bool interrupted = false;
	int scope;

	if (open)
		restore_signals(*open);
	while (is_waiting(word, *ticket, goal) && !interrupted) {
		/* Sequentially consistent with the move of the word: either we see that, or its mover sees this. */
		scope = goal == DONE && !atomic_load(&pending->shared->attached) ? FUTEX_PRIVATE_FLAG : 0;
		atomic_store(&slot->sleeping, scope ? ASLEEP_AMONG_US : ASLEEP);
		word = atomic_load(&slot->word);
		if (is_waiting(word, *ticket, goal))
			interrupted = !sleep_on(pending, ticket, word, goal, scope);
		word = atomic_load(&slot->word);
	}
	if (open)
		block_signals();
	return !interrupted;
}

/* Waits until the message has come at least as far as `goal`, or the slot stands for another. */
static void wait_for(struct user_pending *pending, struct user_ticket ticket, enum slot_state goal,
                     const signal_mask *open)
{
	struct user_slot *slot = ticket.slot;
	bool interrupted = false, gone = false;
	uint32_t word = spin(pending, ticket, goal);

	for (;;) {
		if (is_waiting(word, ticket, goal)) {
			interrupted = !sleep_while_waiting(pending, &ticket, word, goal, open);
			word = atomic_load(&slot->word);
		}
		if (goal != DONE || interrupted || !same_generation(word, ticket.word) || state_of(word) != ERRAND)
			break;
		gone = carry_out(pending, slot, word);
		word = atomic_load(&slot->word);
		if (gone || atomic_load(&slot->missed))
			break;
	}
	if (!gone && same_generation(word, ticket.word))
		give_back(pending, slot);
}

void user_pending_wait_done(struct user_pending *pending, struct user_ticket ticket, signal_mask open)
{
	wait_for(pending, ticket, DONE, &open);
}

void user_pending_wait_read(struct user_pending *pending, struct user_ticket ticket)
{
	wait_for(pending, ticket, READ, NULL);
}

/*
 * Holding an event. A task of the owner holds it by its own number: it can be killed alone, and then the next one that looks takes it over.
 * Of other processes the owner knows which have gone.
 */
#define IS_TASK USER_READERS

static uint32_t reader_of(const struct user_pending *pending)
{
	return pending->rope < 0 ? pending->reader : IS_TASK | (uint32_t)raw_gettid();
}

static uint64_t hold_by(uint32_t word, uint32_t reader)
{
	return (uint64_t)word << 32 | reader;
}

/* Who holds what has this word; 0: nobody. */
static uint32_t holder_of(const struct user_slot *slot, uint32_t word)
{
	uint64_t hold = atomic_load(&slot->errand);

	return hold >> 32 == word ? (uint32_t)hold : 0;
}

static bool is_gone(const struct user_pending *pending, uint32_t holder)
{
	return pending->rope >= 0 && (holder & IS_TASK) && holder != reader_of(pending) &&
	       task_is_gone(holder & ~IS_TASK);
}

/* Unread, and nobody holds it. */
static bool is_to_be_read(const struct user_pending *pending, const struct user_slot *slot, uint32_t word)
{
	uint32_t holder;

	if (state_of(word) != UNREAD || get(slot->event) == UFFD_EVENT_PAGEFAULT)
		return state_of(word) == UNREAD;
	holder = holder_of(slot, word);
	return !holder || is_gone(pending, holder);
}

/* False: it has been read meanwhile, or another one holds it. */
static bool hold(struct user_pending *pending, struct user_slot *slot, uint32_t word)
{
	uint64_t before = atomic_load(&slot->errand);
	uint32_t holder = before >> 32 == word ? (uint32_t)before : 0;

	/* Looked at after it: what was there is not a later message's, of which another may have hold. */
	if (atomic_load(&slot->word) != word || (holder && !is_gone(pending, holder)))
		return false;
	/* What was copied from the slot before is of this message if the word still is the same then. */
	return atomic_compare_exchange_strong(&slot->errand, &before, hold_by(word, reader_of(pending))) &&
	       atomic_load(&slot->word) == word;
}

/* Nobody holds it any more, if this one did. */
static bool release(struct user_slot *slot, uint32_t word, uint32_t reader)
{
	uint64_t before = hold_by(word, reader);

	return atomic_compare_exchange_strong(&slot->errand, &before, 0);
}

static void fill_message(struct uffd_msg *msg, const struct user_slot *slot, bool exact)
{
	*msg = (struct uffd_msg){.event = (__u8)get(slot->event)};
	if (msg->event == UFFD_EVENT_PAGEFAULT) {
		msg->arg.pagefault.address = get(slot->args[0]) & (exact ? ~(uint64_t)0 : ~(get(slot->args[2]) - 1));
		msg->arg.pagefault.flags = get(slot->args[1]);
		msg->arg.pagefault.feat.ptid = get(slot->tid);
	} else {
		msg->arg.reserved.reserved1 = get(slot->args[0]);
		msg->arg.reserved.reserved2 = get(slot->args[1]);
		msg->arg.reserved.reserved3 = get(slot->args[2]);
	}
}

/* The oldest unread message, faults before events; NULL for none. *word: its state when it was looked at. */
static struct user_slot *oldest_unread(struct user_pending *pending, uint32_t *word)
{
	struct user_slot *best = NULL;
	uint64_t best_order = 0;
	bool best_fault = false;

	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t now = atomic_load(&slot->word);
		uint64_t order = get(slot->order);
		bool fault = get(slot->event) == UFFD_EVENT_PAGEFAULT;

		if (!is_to_be_read(pending, slot, now))
			continue;
		if (best && (best_fault > fault || (best_fault == fault && best_order < order)))
			continue;
		best = slot;
		best_order = order;
		best_fault = fault;
		*word = now;
	}
	return best;
}

/* Held by us: makes the descriptor in it the reader's. 0 or -errno. */
static int take_child(struct user_pending *pending, struct uffd_msg *msg)
{
	int child;

	if (msg->event != UFFD_EVENT_FORK)
		return 0;
	child = pending->open_child(pending, msg->arg.fork.ufd);
	if (child < 0)
		return child;
	msg->arg.fork.ufd = (uint32_t)child;
	return 0;
}

/*
 * An event: holds it and, unless it is only to be held, reads it. 1, 0: look again, or -errno. A handler must not leave for good between the
 * two, nor fault.
 */
static int take_event(struct user_pending *pending, struct user_slot *slot, uint32_t word, struct uffd_msg *msg,
                      bool only_hold)
{
	signal_mask before = block_signals();
	int result = 0, err;

	if (hold(pending, slot, word)) {
		err = take_child(pending, msg);
		if (err)
			release(slot, word, reader_of(pending));
		result = err ? err : only_hold || move_slot(slot, word, READ);
		if (!result && msg->event == UFFD_EVENT_FORK)
			raw_close((int)msg->arg.fork.ufd);
		if (result > 0 && !only_hold)
			wake_sleeper(slot);
	}
	restore_signals(before);
	return result;
}

/* Who owns the memory can change it without end. */
#define MOST_TRIES (2 * USER_SLOTS)

static ssize_t take(struct user_pending *pending, struct uffd_msg *msgs, uint64_t *ids, size_t count, bool exact)
{
	size_t taken = 0;
	int err = 0;

	for (unsigned vain = 0; taken < count && vain < MOST_TRIES;) {
		uint32_t word = 0;
		uint64_t order;
		bool fault;
		struct user_slot *slot = oldest_unread(pending, &word);

		if (!slot)
			break;
		fill_message(&msgs[taken], slot, exact);
		order = get(slot->order);
		fault = msgs[taken].event == UFFD_EVENT_PAGEFAULT;
		/* If it moved meanwhile, what was copied may be of another message: look again. */
		err = fault ? move_slot(slot, word, READ) : take_event(pending, slot, word, &msgs[taken], ids);
		if (err < 0)
			break;
		if (!err) {
			vain++;
			continue;
		}
		if (ids)
			ids[taken] = fault ? 0 : order + 1;
		taken++;
	}
	set(pending->shared->reader_cpu, this_cpu());
	/* Of what has come since a look that found nothing its sender tells: this would wake the owner's service thread for it. */
	if (count && !taken && !err)
		silence_bell(pending);
	else
		settle_bell(pending);
	return taken || err > 0 ? (ssize_t)taken : err;
}

ssize_t user_pending_take(struct user_pending *pending, struct uffd_msg *msgs, size_t count, bool exact)
{
	return take(pending, msgs, NULL, count, exact);
}

ssize_t user_pending_peek(struct user_pending *pending, struct uffd_msg *msgs, uint64_t *ids, size_t count, bool exact)
{
	return take(pending, msgs, ids, count, exact);
}

/* Any task of the owner accepts what any other one holds. */
static bool accept_event(struct user_pending *pending, uint64_t id)
{
	uint32_t self = reader_of(pending);

	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word), holder = holder_of(slot, word);

		if (state_of(word) != UNREAD || get(slot->event) == UFFD_EVENT_PAGEFAULT || get(slot->order) + 1 != id)
			continue;
		if (holder != self && !(holder & self & IS_TASK))
			return false;
		if (!move_slot(slot, word, READ))
			return false;
		wake_sleeper(slot);
		return true;
	}
	return false;
}

int user_pending_accept(struct user_pending *pending, const uint64_t *ids, size_t count)
{
	int err = 0;

	for (size_t i = 0; i < count; i++)
		if (ids[i] && !accept_event(pending, ids[i]))
			err = -ENOENT;
	return err;
}

static bool is_among(uint32_t reader, const uint32_t *readers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (readers[i] == reader)
			return true;
	return false;
}

void user_pending_let_go(struct user_pending *pending, const uint32_t *readers, size_t count)
{
	bool released = false;

	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word), holder = holder_of(slot, word);
		bool fault = get(slot->event) == UFFD_EVENT_PAGEFAULT;

		if (state_of(word) == UNREAD && !fault && holder && !(holder & IS_TASK) &&
		    !is_among(holder, readers, count))
			released |= release(slot, word, holder);
		/* Who moved it was killed before he woke its thread. */
		if (state_of(word) == (fault ? DONE : READ))
			wake_sleeper(slot);
	}
	if (released)
		settle_bell(pending);
}

bool user_pending_is_held(const struct user_pending *pending, uint32_t reader)
{
	for_each_claimed (i, pending->shared) {
		const struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word), holder = holder_of(slot, word);

		if (state_of(word) == UNREAD && get(slot->event) != UFFD_EVENT_PAGEFAULT && holder &&
		    !(holder & IS_TASK) && holder != reader)
			return true;
	}
	return false;
}

static bool waits_in(const struct user_slot *slot, uint32_t word, uint64_t start, uint64_t end)
{
	uint64_t address = get(slot->args[0]);

	return state_of(word) != FREE && state_of(word) < CARRIED && get(slot->event) == UFFD_EVENT_PAGEFAULT &&
	       address >= start && address < end;
}

/* Ends its wait, unless it is on an errand: then as soon as that has failed. False: look again. */
static bool wake_slot(struct user_slot *slot, uint32_t *word)
{
	if (state_of(*word) != BUSY) {
		if (!atomic_compare_exchange_strong(&slot->word, word, with_state(*word, DONE)))
			return false;
		wake_sleeper(slot);
		return true;
	}
	/* Sequentially consistent with the end of the errand: either it sees this, or we see the end. */
	atomic_store(&slot->missed, 1);
	return *word == atomic_load(&slot->word) || (*word = atomic_load(&slot->word), false);
}

/*
 * Errands, on the monitor's side.
 */

bool user_pending_uses(const struct user_pending *pending, uint32_t tray)
{
	for_each_claimed (i, pending->shared) {
		const struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);
		uint64_t errand = atomic_load(&slot->errand);

		if ((state_of(word) == ERRAND || state_of(word) == BUSY) &&
		    (uint32_t)(errand >> 8) % USER_TRAYS == tray)
			return true;
	}
	return false;
}

void user_pending_forget_tray(struct user_pending *pending, uint32_t tray)
{
	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);
		uint64_t errand = atomic_load(&slot->errand);

		/* A thread that finds no slot may take it at the same time: see claim(). */
		if (state_of(word) == CARRIED && (uint32_t)(errand >> 8) % USER_TRAYS == tray &&
		    atomic_compare_exchange_strong(&slot->word, &word, next_generation(word)))
			free_slot(pending->shared, slot);
	}
}

/* A fault in the page at `page` that was read; *word: its state. */
static struct user_slot *find_reader(struct user_pending *pending, uint64_t page, uint32_t *word)
{
	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];

		*word = atomic_load(&slot->word);
		if (state_of(*word) == READ && waits_in(slot, *word, page, page + USER_TRAY))
			return slot;
	}
	return NULL;
}

static bool hand_over(struct user_slot *slot, uint32_t word, uint32_t tray, uint64_t mode)
{
	uint64_t errand = atomic_load(&slot->errand);
	/* With a state, so that it differs from none in the first generation as well. */
	uint64_t mine = (uint64_t)with_state(word, ERRAND) << 32 | tray << 8 | mode;

	/* One for each generation: it may be another monitor's. The word is looked at after it: see hold(). */
	if (atomic_load(&slot->word) != word || errand >> 32 == mine >> 32 ||
	    !atomic_compare_exchange_strong(&slot->errand, &errand, mine))
		return false;
	if (!move_slot(slot, word, ERRAND))
		return false;
	/* Fell asleep before we attached: it cannot be woken from here. If it takes the errand now, it was awake. */
	if (atomic_load(&slot->sleeping) == ASLEEP_AMONG_US && move_slot(slot, with_state(word, ERRAND), READ))
		return false;
	wake_sleeper(slot);
	return true;
}

static bool is_under_way(const struct user_slot *slot, uint32_t word, uint32_t *now)
{
	*now = atomic_load(&slot->word);
	return same_generation(*now, word) && (state_of(*now) == ERRAND || state_of(*now) == BUSY);
}

/* Until the errand is over, or for so long that its thread may have died. */
static uint32_t await(struct user_pending_shared *shared, struct user_slot *slot, uint32_t word)
{
	uint64_t start = now_ns(), patience = 50 * 1000 * 1000;
	bool elsewhere = atomic_load(&slot->sleeping) == AWAKE && get(slot->cpu) != this_cpu();
	unsigned steps = may_step_aside(shared, get(slot->cpu)) ? STEPS : 0;
	uint64_t end = elsewhere ? start + SPIN_NS : 0, t;
	uint32_t word_now;

	while (is_under_way(slot, word, &word_now) && end && now_ns() < end)
		relax();
	while (is_under_way(slot, word, &word_now) && steps--)
		step_aside();
	/* By the clock, since who means harm could wake us without end. */
	while (is_under_way(slot, word, &word_now) && (t = now_ns()) < start + patience) {
		struct timespec left = {.tv_nsec = (long)(start + patience - t)};

		atomic_store(&slot->watching, 1);
		if (is_under_way(slot, word, &word_now))
			futex_sleep(&slot->word, word_now, &left, false);
	}
	return word_now;
}

bool user_pending_send(struct user_pending *pending, uint32_t tray, uint64_t page, const void *src, uint64_t mode,
                       struct user_ticket *busy, int *err)
{
	uint32_t word, before;
	struct user_slot *slot;

	if (busy->slot && is_under_way(busy->slot, busy->word, &word))
		return false;
	busy->slot = NULL;
	slot = find_reader(pending, page, &word);
	if (!slot)
		return false;
	/* By the kernel, since the source may be anything. */
	if (raw_pwrite(pending->memfd, src, USER_TRAY,
	               offsetof(struct user_pending_shared, trays) + (uint64_t)tray * USER_TRAY) != USER_TRAY)
		return false;
	if (!hand_over(slot, word, tray, mode))
		return false;
	word = await(pending->shared, slot, before = word);
	if (!same_generation(word, before))
		return false;
	switch (state_of(word)) {
	case CARRIED:
		*err = 0;
		give_back(pending, slot);
		return true;
	case FAILED:
		*err = get(slot->result);
		move_slot(slot, word, READ);
		return true;
	case ERRAND:
		if (!move_slot(slot, word, READ))
			*busy = (struct user_ticket){.slot = slot, .word = word};
		return false;
	case BUSY:
		*busy = (struct user_ticket){.slot = slot, .word = word};
		return false;
	default:
		return false;
	}
}

bool user_pending_has_sent(struct user_pending *pending, struct user_ticket *busy, uint64_t page)
{
	struct user_slot *slot = busy->slot;
	uint32_t word;

	if (!slot || (get(slot->args[0]) & ~(uint64_t)(USER_TRAY - 1)) != page)
		return false;
	word = await(pending->shared, slot, busy->word);
	if (!same_generation(word, busy->word) || state_of(word) != CARRIED)
		return false;
	busy->slot = NULL;
	give_back(pending, slot);
	return true;
}

void user_pending_withdraw(struct user_pending *pending, uint64_t start, uint64_t end)
{
	bool any = false;

	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);

		/* Whoever else moves it has read it, or ended its wait. */
		if (waits_in(slot, word, start, end) && state_of(word) == UNREAD)
			any |= move_slot(slot, word, READ);
	}
	if (any)
		settle_bell(pending);
}

unsigned user_pending_wake(struct user_pending *pending, uint64_t start, uint64_t end)
{
	unsigned woken = 0;
	bool unread = false;

	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);

		while (waits_in(slot, word, start, end)) {
			/* What failed may have been READ, or a new message: look at it again. */
			if (!wake_slot(slot, &word))
				continue;
			unread |= state_of(word) == UNREAD;
			woken++;
			break;
		}
	}
	if (unread)
		settle_bell(pending);
	return woken;
}

void user_pending_end(struct user_pending *pending)
{
	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);

		while (state_of(word) != FREE && state_of(word) < CARRIED && !wake_slot(slot, &word))
			;
	}
}

void user_pending_renew(struct user_pending *pending)
{
	for_each_claimed (i, pending->shared) {
		struct user_slot *slot = &pending->shared->slots[i];
		uint32_t word = atomic_load(&slot->word);

		if ((state_of(word) == READ || state_of(word) == ERRAND || state_of(word) == FAILED) &&
		    get(slot->event) == UFFD_EVENT_PAGEFAULT)
			move_slot(slot, word, UNREAD);
	}
	/* Whatever the flag says: whoever was to ring may be dead. */
	while (unring(pending))
		;
	atomic_store(&pending->shared->rung, 0);
	if (user_pending_unread(pending))
		announce(pending);
}

static bool spin_for_message(struct user_pending *pending)
{
	struct user_pending_shared *shared = pending->shared;
	bool aside = may_step_aside(shared, get(shared->fault_cpu)), found = false;
	uint64_t end;

	if (!aside && !may_spin(shared, get(shared->fault_cpu)))
		return false;
	atomic_fetch_add(&shared->spinning, 1);
	if (aside) {
		step_aside();
		found = user_pending_unread(pending);
	}
	for (end = now_ns() + SPIN_NS; !aside && !found && now_ns() < end; found = user_pending_unread(pending))
		relax();
	atomic_fetch_sub(&shared->spinning, 1);
	if (!aside)
		note_spin(shared, found);
	return found;
}

int user_pending_sleep(struct user_pending *pending, const struct timespec *timeout, bool restart)
{
	struct user_pending_shared *shared = pending->shared;
	_Atomic uint32_t *count;
	uint32_t calls;
	long result = 0;
	bool among_us;

	if (spin_for_message(pending))
		return 0;
	among_us = pending->rope >= 0 && !atomic_load(&shared->attached);
	count = among_us ? &shared->own_sleepers : &shared->sleepers;
	atomic_fetch_add(count, 1);
	calls = atomic_load(&shared->calls);
	/* Whoever attaches after this look calls us. */
	if (!user_pending_unread(pending) && !(among_us && atomic_load(&shared->attached)))
		result = futex_sleep_in(among_us ? FUTEX_PRIVATE_FLAG : 0, &shared->calls, calls, timeout, restart);
	atomic_fetch_sub(count, 1);
	set(shared->habit, result != -ETIMEDOUT);
	return result == -EINTR || result == -ETIMEDOUT ? (int)result : 0;
}

void user_pending_attached(struct user_pending *pending, bool here)
{
	struct user_pending_shared *shared = pending->shared;

	if (!here) {
		atomic_fetch_sub(&shared->attached, 1);
		return;
	}
	atomic_fetch_add(&shared->attached, 1);
	atomic_fetch_add(&shared->calls, 1);
	futex_wake_in(FUTEX_PRIVATE_FLAG, &shared->calls, INT_MAX);
}

void user_pending_leave(struct user_pending *pending)
{
	if (user_pending_unread(pending))
		user_pending_ring(pending);
}

bool user_pending_has_child(const struct user_pending *pending, uint32_t number)
{
	for_each_claimed (i, pending->shared) {
		const struct user_slot *slot = &pending->shared->slots[i];

		if (state_of(atomic_load(&slot->word)) == UNREAD && get(slot->event) == UFFD_EVENT_FORK &&
		    (uint32_t)get(slot->args[0]) == number)
			return true;
	}
	return false;
}

bool user_pending_unread(const struct user_pending *pending)
{
	for_each_claimed (i, pending->shared) {
		const struct user_slot *slot = &pending->shared->slots[i];

		if (is_to_be_read(pending, slot, atomic_load(&slot->word)))
			return true;
	}
	return false;
}
