/* SPDX-License-Identifier: MIT */
/*
 * book.h - what one client has said, and what became of its memory: a file in memory that outlives the worker
 *
 * Two parts. The *inbox*: text from the connection that has not been understood yet, and descriptors that came with it, put there by
 * recvmsg(2) itself. The *log*: regions and layout events in their order. From the log alone follows what each page holds that the client
 * has not got yet: a place in a store, or zeros.
 *
 * A worker may be killed anywhere in here. Each function's last step is one store that makes it true; until then it is as if it had not been
 * called. One thread at a time uses the inbox, and one the log.
 */
#ifndef MANAGER_BOOK_H
#define MANAGER_BOOK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <userfault/uffd.h>

#define BOOK_TEXT     \
	((2u << 20) + \
	 65536) /* bytes of text not understood yet: twice the longest message, and what is received at once */
#define BOOK_DESCRIPTORS 16 /* taken with one recvmsg(2); the kernel closes more */

enum book_kind {
	BOOK_REGION = 1, /* a: address, b: bytes, c: offset in the store */
	BOOK_ZEROS,      /* a: address, b: bytes: never the store's content again */
	BOOK_EVENT,      /* a message of the object's */
	BOOK_FORK,       /* a: the descriptor of the child, which nobody serves yet */
	BOOK_FORKED,     /* it is served, or has been refused */
	BOOK_STAYS,      /* a: address, b: bytes: session_stay() */
	BOOK_TOLD,       /* session_all_told() */
};

struct book_entry {
	uint8_t kind;   /* enum book_kind */
	uint8_t flags;  /* BOOK_REMOVED_IS_STORE, ... */
	uint16_t store; /* number of a store */
	uint32_t unit;  /* bytes to a page of the region */
	uint64_t id;    /* events: rises from one to the next */
	union {
		struct {
			uint64_t a, b, c;
		};
		struct uffd_msg msg;
	};
};

#define BOOK_REMOVED_IS_STORE (1u << 0)
#define BOOK_PREFETCH         (1u << 1)
#define BOOK_INHERITED        (1u << 2) /* a child has it from its parent */

/* Beginning of the file. */
struct book_head {
	_Atomic uint64_t log;  /* offset of the log in the file: struct book_log */
	_Atomic uint64_t text; /* bytes understood, shifted by 32, and bytes received; the highest bit: book_mark() */
	/* For recvmsg(2). */
	struct msghdr message;
	struct iovec piece;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(BOOK_DESCRIPTORS * sizeof(int))];
	} control;
};

struct book_log {
	_Atomic uint64_t count;
	uint64_t short_count; /* entries that it had when it was written anew */
	uint64_t last;        /* the highest id of an event before that */
	struct book_entry entries[];
};

/* A worker's view of it. */
struct book {
	int fd;
	char *base;     /* stays where it is: neither part may move under the other's thread */
	size_t reached; /* bytes of the file */
	uint64_t last;  /* the highest id of an event in the log */
};

/* A new file for a book, closed on exec; -errno. */
int book_create(void);

/* Maps it, and takes note of what the last worker was about to. `fd` stays the caller's. 0 or -errno. */
int book_open(struct book *book, int fd);
void book_close(struct book *book);

/*
 * The inbox.
 *
 * receive   as recvmsg(2), at most `room` bytes: how many came; 0: the end; or -errno; -ENOBUFS: there is no room
 * text      what has come and was not taken
 * take      the first `len` bytes of it have been understood
 * mark      the first message of it has been acted upon, and not been answered; taken, the next one is not marked
 * fd        a descriptor that came and was not taken: book_take_fd() moves it to *slot; more than that are closed
 */
ssize_t book_receive(struct book *book, int connection);
const char *book_text(const struct book *book, size_t *len);
void book_take(struct book *book, size_t len);
void book_mark(struct book *book);
bool book_is_marked(const struct book *book);
unsigned book_take_fd(struct book *book, _Atomic int *slot);

/* Calls `what` for each descriptor that is in the inbox or in the log. Also on a book that nobody has open: by its mapping alone. */
void book_descriptors(const struct book *book, void (*what)(void *arg, int fd), void *arg);

/*
 * The log.
 *
 * append    0 or -ENOMEM; of a message of the object's, the entry that tells of it
 * forked    an entry that was a FORK has been seen to
 * is_long   it has grown so much that it should be written anew
 * rewrite   begins a shorter log of `count` entries; they are given to book_rewrite_add(), and it counts from book_rewrite_end() on
 */
int book_append(struct book *book, const struct book_entry *entry);
int book_append_message(struct book *book, const struct uffd_msg *msg, uint64_t id);
uint64_t book_count(const struct book *book);
const struct book_entry *book_entry(const struct book *book, uint64_t index);
void book_forked(struct book *book, uint64_t index);
bool book_is_long(const struct book *book);

struct book_rewrite {
	struct book *book;
	uint64_t at; /* offset of the new log */
	uint64_t count;
	int err;
};

void book_rewrite_begin(struct book_rewrite *rewrite, struct book *book, uint64_t count);
void book_rewrite_add(struct book_rewrite *rewrite, const struct book_entry *entry);
int book_rewrite_end(struct book_rewrite *rewrite);

#endif
