/* SPDX-License-Identifier: MIT */
/*
 * scripted.h - an engine whose answers the test decides, for what is built on top of the object
 *
 * It is one more `struct uf_engine_ops`, needs no privilege, and makes every answer happen at will that a kernel gives
 * once in a thousand runs. Without a script it behaves like a small userfaultfd over plain memory: registrations,
 * missing pages, COPY and its like, write protection, wake, layout events, and EAGAIN while one of them is unread. On
 * top of that
 *
 *   the process served   is played by the test: scripted_touch() is a thread's access and sleeps until it is resolved;
 *                        scripted_remove() and others change the layout
 *   the script           answers single requests differently: errors, partial progress, wrong orders
 *   the record           tells afterwards which requests were made
 *
 *	struct uf *uf = scripted_open(UFFD_FEATURE_EVENT_REMOVE);
 *	char *memory = scripted_memory(uf, 0x7f0000000000, 16);            where the pages of [0x7f.., + 16 pages) are kept
 *	uf_register(uf, (void *)0x7f0000000000, 16 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL);
 *	scripted_answer(uf, &(struct scripted_answer){.request = UFFDIO_COPY, .err = -EAGAIN, .done = page_size});
 *	... start the loop under test on uf ...
 *	CHECK_EQ(scripted_touch(uf, 0x7f0000000000, SCRIPTED_READ), 0);    faults; the loop copies; it returns
 *	CHECK_EQ(scripted_count(uf, UFFDIO_COPY), 2);
 *
 * The descriptor is an eventfd: readable while a message waits, so poll(2) and epoll(7) work. All functions may be
 * called from any number of threads. One test is one process: everything is forgotten when it ends.
 */
#ifndef TESTS_SUPPORT_SCRIPTED_H
#define TESTS_SUPPORT_SCRIPTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uffd/engine.h"

extern const struct uf_engine_ops uf_engine_scripted;

/*
 * How objects are had. By default every way works and offers all features to MOVE.
 *
 * scripted_way()      what a way answers from now on: an error instead of a descriptor (0: works), and its features
 * scripted_deny()     UFFDIO_API that asks for one of these features, although they are offered, gives err (0: granted)
 */
void scripted_way(enum uf_way way, int err, uint64_t features);
void scripted_deny(uint64_t features, int err);

/* uf_engine_open_negotiated() on this engine with these features required; must succeed. */
struct uf *scripted_open(uint64_t features);

/* The object of a descriptor of this engine: what uf_adopt() would be for the one in a UFFD_EVENT_FORK message. */
struct uf *scripted_adopt(int fd);

/* How many descriptors of this engine are open. */
unsigned scripted_descriptors(void);

/*
 * Memory of the process that is served: `pages` pages at `address` of its address space, a multiple of the page size,
 * kept here at the address returned. They are missing wherever they are registered, and any address will do, also one
 * that means something else in this process. With address 0 its address there is its address here.
 */
char *scripted_memory(struct uf *uf, uint64_t address, size_t pages);

/*
 * An access by a thread of the process served. Returns 0 when it is done, which takes a resolution where the page is
 * missing or protected; -EFAULT where nothing is mapped; -EIO where the page is poisoned, or a handler gave up; -ESRCH
 * when the process is gone. If the object is closed meanwhile it sees a page of zeros, as with the kernel, and returns
 * 0. Its thread id in messages is that of the calling thread. With UFFD_FEATURE_SIGBUS the object's handler is called
 * in place of sleeping.
 */
enum scripted_access { SCRIPTED_READ, SCRIPTED_WRITE };
int scripted_touch(struct uf *uf, uint64_t address, enum scripted_access access);

/*
 * The access itself, which never faults, for bytes that others may change at the same time; false where it would fault.
 * After a scripted_touch() it fails only if the page has gone, or was protected, again.
 */
bool scripted_load(struct uf *uf, uint64_t address, unsigned char *value);
bool scripted_store(struct uf *uf, uint64_t address, unsigned char value);

/* How many scripted_touch() are asleep now, and: wait until there are so many. */
unsigned scripted_sleepers(struct uf *uf);
void scripted_wait_sleepers(struct uf *uf, unsigned count);

/* A page's state, as the process served would find it. */
enum scripted_page { SCRIPTED_UNMAPPED, SCRIPTED_MISSING, SCRIPTED_PRESENT, SCRIPTED_PROTECTED, SCRIPTED_POISONED };
enum scripted_page scripted_page(struct uf *uf, uint64_t address);

/*
 * Layout changes by the process served. Each is complete when it returns, and its event, if the feature is enabled and
 * the range is registered, waits to be read; until then requests on the object answer -EAGAIN. As with the kernel, threads that sleep
 * in a fault there are not woken by it. Where the process would
 * wait for its event to be read, call scripted_wait_read(). The child of scripted_fork() has a copy of the memory; its
 * descriptor is in the event: scripted_adopt(). After scripted_exit() requests answer -ESRCH, and so does a touch.
 */
void scripted_remove(struct uf *uf, uint64_t address, size_t len);
void scripted_unmap(struct uf *uf, uint64_t address, size_t len);
void scripted_remap(struct uf *uf, uint64_t from, uint64_t to, size_t len);
void scripted_fork(struct uf *uf);
void scripted_exit(struct uf *uf);

/*
 * A thread has changed the layout, and its event is not there yet: requests answer -EAGAIN until it is not coming any more. With
 * UFFD_FEATURE_EVENT_UNMAP a remap is told twice, as by the kernel: its old place is unmapped.
 */
void scripted_coming(struct uf *uf, bool coming);

/* Waits until there is nothing to read. */
void scripted_wait_read(struct uf *uf);

/* Queues any message at all, in its place: for orders and contents that the above do not produce. */
void scripted_message(struct uf *uf, const struct uffd_msg *msg);

/*
 * The script: the next request that fits is answered like this, once, and the answer is used up. Answers for one kind
 * of request are used in the order given; requests that fit none take their ordinary course.
 */
struct scripted_answer {
	unsigned long request; /* UFFDIO_* */
	uint64_t address;      /* only a request whose range begins here; 0: any */
	int err;               /* its answer: 0 or a negated errno value */
	int64_t done;          /* the result field, bytes or negated errno; bytes > 0 are really delivered */
	bool perform;          /* take the ordinary course, and then answer like this all the same */
	bool ordinary; /* the answer is that of the ordinary course, which goes no further than `done`, if that is not 0 */
	void (*before)(struct uf *uf, void *arg); /* or NULL: called first, without a lock: a race at will */
	void *arg;
};
void scripted_answer(struct uf *uf, const struct scripted_answer *answer);

/* Answers that were not used up. A test that ends with some has not tested what it says. */
size_t scripted_unused(struct uf *uf);

/*
 * The record: requests in the order in which they were answered, UFFDIO_API included; reads are not among them.
 * scripted_calls() stores up to `room` of them and returns how many there were.
 */
struct scripted_call {
	unsigned long request;
	uint64_t address, len, mode;
	uint64_t src; /* of COPY and MOVE */
	int err;
	int64_t done;
};
size_t scripted_calls(struct uf *uf, struct scripted_call *calls, size_t room);
size_t scripted_count(struct uf *uf, unsigned long request);

/* Forgets the record. */
void scripted_forget(struct uf *uf);

#endif
