/* SPDX-License-Identifier: MIT */
/*
 * pending.h - the faults and layout events that wait, in memory shared by every process that has the descriptor
 *
 * The object's descriptor is one end of a pair of sockets (the *bell*). It carries no messages, only the fact that there are
 * some: it is readable while something is unread, so poll(2) and epoll(7) work on it, and ringing it never blocks. The
 * messages themselves lie here, one *slot* for each waiting thread: any number can wait (a socket holds 278), a process that
 * attaches later finds them all, and a reader that dies takes none of them along.
 *
 * A slot goes FREE -> UNREAD -> READ -> DONE -> FREE. The waiting thread takes it and gives it back; readers and wakers move
 * it on by compare-and-swap. The state word carries a generation, so that nobody moves a slot that has been given back and
 * taken again meanwhile.
 *
 * A layout event is *held* by the reader to whom it was handed out, and stays UNREAD until he accepts it. What a reader holds who has gone
 * is let go of, and handed out to another.
 *
 * A monitor in another process may send the waiting thread on an *errand*: to put the page that it waits for in place itself, since
 * it has to be woken anyway. The bytes lie in the monitor's *tray*, a page here that is its own. READ -> ERRAND -> BUSY, and then
 * CARRIED, when the thread has gone on and leaves the slot, with the result, to the monitor; or FAILED, which is as good as READ.
 *
 * A thread has one slot. While it waits, its signal handlers may run, fault themselves, and never return: such a fault takes
 * the slot over. A wait that a handler has interrupted ends as if it had been woken: the access is repeated and its message comes
 * again, as with the kernel, whose waits end with any signal.
 *
 * Everything here but making and attaching is async-signal-safe. What is in the shared memory is trusted only so far: a
 * hostile process that has the descriptor can make threads wait or go on, as the descriptor allows it anyway, no more.
 */
#ifndef UFFD_USER_PENDING_H
#define UFFD_USER_PENDING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include <userfault/uffd.h>

#include "base/lock.h"

#define USER_SLOTS 4096 /* threads that wait at the same time */
#define USER_TRAYS 64   /* monitors in other processes */
#define USER_TRAY  4096 /* bytes: a page, or there are no errands */

#define CHILD_INHERIT (1u << 31)

struct user_pending_shared;

/* One process's view. */
struct user_pending {
	struct user_pending_shared *shared;
	int memfd; /* to hand on */
	int bell;  /* the descriptor: readable while something is unread */
	int rope;  /* the other end, which rings it: in the owner only, else -1 */
	uint32_t
		reader; /* who holds what is read by this view: a number that the owner has given, not 0; in the owner 0 */
	/*
	 * UFFD_EVENT_FORK carries the owner's number of the new descriptor, and CHILD_INHERIT unless it is to be close-on-exec. This makes
	 * a descriptor of the reader's own of it, before the message counts as read: the owner closes its own then. -errno: the message
	 * stays unread.
	 */
	int (*open_child)(struct user_pending *pending, uint32_t number);
	/* In the owner: what UFFDIO_COPY of a tray does, and wakes. Called in the trap, with signals blocked. */
	int (*carry_out)(struct user_pending *pending, uint64_t page, const void *tray, uint64_t mode);
};

/* Makes the shared memory and the bell. open_flags: O_NONBLOCK | O_CLOEXEC for the bell. 0 or -errno. */
int user_pending_create(struct user_pending *pending, int open_flags);

/* Maps the shared memory of an owner; the descriptors become the view's on success. -EINVAL: it is not what it should be. */
int user_pending_attach(struct user_pending *pending, int memfd, int bell);

/* Closes everything but the bell, which is the descriptor of the object and closed with it. */
void user_pending_dispose(struct user_pending *pending);

/* Of whom it is known that he will look soon, and so needs not be told: whoever waits sees to it that he is, if he does not come. */
enum user_expected {
	USER_EXPECTS_NOBODY,
	USER_EXPECTS_POLLER,  /* on another processor, asking without end */
	USER_EXPECTS_SLEEPER, /* fetched the last message, and has slept here before */
};

/* A message put in: what its thread waits with. */
struct user_ticket {
	struct user_slot *slot; /* NULL: every slot is taken */
	uint32_t word;          /* as it was UNREAD: carries the generation */
	enum user_expected expected;
};

/*
 * Waiting side: a thread of the owner, with signals blocked. Put the message in (that of a fault with its own thread id, or 0, and with the
 * size of its page) and tell the readers. A reader that is told may run at once, so whoever holds what it needs lets go of that before. Then
 * wait: a fault until it is woken, with signals as in `open` as soon as it sleeps; an event until it is read. When every slot is taken nothing
 * was put in: wait, with signals as the program has them, until one has been given back, and look anew at why there was a message at all.
 * Each wait may last.
 */
struct user_ticket user_pending_add(struct user_pending *pending, const struct uffd_msg *msg, size_t page_size);
void user_pending_tell(struct user_pending *pending, struct user_ticket *ticket);
void user_pending_wait_slot(struct user_pending *pending, struct user_ticket ticket);
void user_pending_wait_done(struct user_pending *pending, struct user_ticket ticket, signal_mask open);
void user_pending_wait_read(struct user_pending *pending, struct user_ticket ticket);

/* Whether whoever reads messages did so on another processor the last time, so that the caller has time to spare until it is answered. */
bool user_pending_is_read_elsewhere(const struct user_pending *pending);

/*
 * Reading side: any process. Takes up to `count` unread messages, faults before events and each kind oldest first, as the
 * kernel does. Returns how many; 0 for none; -errno when there is one that cannot be taken, and no other was.
 * `exact`: addresses as they are, else those of their pages.
 */
ssize_t user_pending_take(struct user_pending *pending, struct uffd_msg *msgs, size_t count, bool exact);

/* The same, but layout events are held and not read; ids as those of uf_peek() and uf_accept() (durable.h), whose result the second has. */
ssize_t user_pending_peek(struct user_pending *pending, struct uffd_msg *msgs, uint64_t *ids, size_t count, bool exact);
int user_pending_accept(struct user_pending *pending, const uint64_t *ids, size_t count);

/*
 * In the owner: of the readers in other processes there are these alone. Lets go of what others held, and ends what they have left half done.
 * Numbers of readers are below USER_READERS and never used again.
 */
#define USER_READERS (1u << 31)
void user_pending_let_go(struct user_pending *pending, const uint32_t *readers, size_t count);

/* In the owner: whether readers in other processes hold something, but for this one. */
bool user_pending_is_held(const struct user_pending *pending, uint32_t reader);

/*
 * Sends the thread that waits for `page`, a fault that was read, on an errand with USER_TRAY bytes at src. One at a time for each tray.
 * True: it was carried out, with this result (0 or -errno). False: nobody waits there, or it does so no more: another way has to be
 * taken. `busy` is where an errand that was given up is remembered: its tray must not be used before it is over.
 */
bool user_pending_send(struct user_pending *pending, uint32_t tray, uint64_t page, const void *src, uint64_t mode,
                       struct user_ticket *busy, int *err);

/*
 * Whether the errand that was given up has put `page` in place after all, for whoever found it there then. While it is under way still,
 * waits for its end as long as before.
 */
bool user_pending_has_sent(struct user_pending *pending, struct user_ticket *busy, uint64_t page);

/* In the owner: a monitor in another process has attached, before it is told so; or it has gone. */
void user_pending_attached(struct user_pending *pending, bool here);

/* In the owner: whose tray this was has gone. Gives back what he did not fetch. */
void user_pending_forget_tray(struct user_pending *pending, uint32_t tray);

/* Whether any errand with this tray is still to be carried out. */
bool user_pending_uses(const struct user_pending *pending, uint32_t tray);

/* Whoever reads from now on is not told of faults in [start, end) that were not read: they are about to be woken. */
void user_pending_withdraw(struct user_pending *pending, uint64_t start, uint64_t end);

/* Wakes the faults in [start, end), read or not. Returns how many. */
unsigned user_pending_wake(struct user_pending *pending, uint64_t start, uint64_t end);

/* Nobody will read or answer any more: ends every wait, of faults and of events. In the owner. */
void user_pending_end(struct user_pending *pending);

/* Makes every fault that was read and not answered unread again, for a reader that attaches. In the owner, which can ring. */
void user_pending_renew(struct user_pending *pending);

bool user_pending_unread(const struct user_pending *pending);

/*
 * Sleeps until something may be unread, or for `timeout` (NULL: no limit). 0: look; -ETIMEDOUT; -EINTR: a signal handler has run. With
 * `restart` (and no timeout) handlers that asked for it let the sleep go on, as read(2) does; without, none does, as with poll(2).
 * A thread that is ended in it, or after it and before it has looked, must be followed by user_pending_leave().
 */
int user_pending_sleep(struct user_pending *pending, const struct timespec *timeout, bool restart);
void user_pending_leave(struct user_pending *pending);

/* Whether an unread UFFD_EVENT_FORK carries this number: what a reader may ask the owner for. */
bool user_pending_has_child(const struct user_pending *pending, uint32_t number);

/* Makes the bell readable: in the owner; elsewhere asks the owner to, with a byte that comes out of the rope. */
void user_pending_ring(struct user_pending *pending);

#endif
