/* SPDX-License-Identifier: MIT */
/*
 * durable.h - messages for a reader that may be killed at any moment, and must not take a layout event along
 *
 * Reading has two phases: uf_peek() hands a message out, uf_accept() says that whatever is to be known of it is safe, in shared memory or in a
 * log. Who dies between the two has not read it: it is handed out again, with the same id, to whoever attaches next.
 *
 * What blocks. With the kernel's engine nothing does. Of the user engine, requests are made by the owner's service thread, so a call
 * lasts as long as the owner takes to answer:
 *
 *	uf_adopt()                       a handshake: -ETIMEDOUT after 30 s, when the owner is stopped or never answers. An owner that
 *	                                 has gone is known as such; but where another process has adopted the descriptor before, and
 *	                                 keeps it open, not to a caller in another pid namespace that does not see the owner
 *	uf_ioctl(), uf_copy() and its    until the owner answers; no limit while it is stopped. It ends when the owner is killed, or
 *	like, uf_register(), ...         with uf_hang_up(). A UFFDIO_COPY of one page may look for 50 ms first whether the thread that
 *	                                 waits for it does it
 *	uf_peek(), uf_read()             nothing on a descriptor with O_NONBLOCK; but for UFFD_EVENT_FORK, which asks the owner for the
 *	                                 child's descriptor: as a request
 *	uf_accept(), uf_hang_up()        never
 *
 * Requests of one object are made one at a time: others wait for the one that blocks. "The owner is killed" means that all its copies
 * of the connection are closed, which are close-on-exec; a child that it forked without the library's knowledge keeps one until its
 * first fault.
 *
 * A process that is killed leaves its descriptors behind where it shared its table with another (CLONE_FILES): those of an adopted
 * object are its own number, three more that the object has opened, and those that UFFD_EVENT_FORK brought. The survivor closes what no
 * log of his names. The owner does not need that: it knows by the memory that a monitor had mapped that the monitor has gone.
 */
#ifndef UFFD_DURABLE_H
#define UFFD_DURABLE_H

#include <stdbool.h>

#include <userfault/uffd.h>

/*
 * uf_peek - uf_read(), but layout events do not count as read before they are accepted
 *
 * ids[i] is 0 for what has been read for good: faults, and everything with the kernel's engine. Otherwise it names a layout event for as
 * long as the object lives, rises with the order in which events came, and is the same whenever the event is handed out. Its thread waits
 * and what delivers pages answers -EAGAIN, as for an event that is unread. Until then nobody else is handed the event, as
 * long as this process has the object open. With UFFD_EVENT_FORK there is a descriptor of the caller's own in arg.fork.ufd, each time.
 *
 * Faults come again as with uf_read(): a process that attaches is told of all that wait.
 *
 * Results as uf_read(). An owner that means harm can give any ids at all.
 */
ssize_t uf_peek(struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count);

/*
 * uf_accept - these have been read; their threads go on. An id of 0 is passed over
 *
 * 0, or -ENOENT: at least one is the caller's no more, for its thread has been killed, or the object has ended, or the owner has given the
 * caller up. The others are accepted all the same.
 */
int uf_accept(struct uf *uf, const uint64_t *ids, size_t count);

/*
 * uf_hang_up - ends all waits for the owner, in whatever thread, now and from now on
 *
 * For an adopted object of the user engine, which is from then on as one whose process has ended: what delivers pages is -ESRCH. Others
 * have nothing that waits; nothing happens. Called by any thread while others use the object; only uf_close() comes after that.
 */
void uf_hang_up(struct uf *uf);

/*
 * Whether there is an address space still that the object is of. Nothing waits, and nothing is changed. That of a process which has called
 * execve(2) is gone.
 */
bool uf_lives(struct uf *uf);

/*
 * Whether, at some moment of this call, no layout event was unread or on its way: all that has happened to the memory before that has been told. Of
 * the kernel's before Linux 5.15 it is not certain; see uf_counts_events(). Nothing is changed; waits as a request.
 */
bool uf_all_told(struct uf *uf);

/* Whether the engine counts events that are untold, each by itself. Before Linux 5.15 the kernel only knows of one or none. */
bool uf_counts_events(const struct uf *uf);

/* Whether a descriptor is one of the user engine, to which uf_adopt() has to talk first. Nothing waits. */
bool uf_is_user_engine(int fd);

#endif
