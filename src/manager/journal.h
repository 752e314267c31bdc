/* SPDX-License-Identifier: MIT */
/*
 * journal.h - what outlives a worker
 *
 * The supervisor and its worker share one descriptor table, and this memory. Whatever a worker takes out of the kernel, a connection, a
 * descriptor, a layout event, goes into this memory by the system call that takes it, or can be taken again; so a worker may be killed
 * between any two instructions, and the next one finds all it needs: here the clients and the mailboxes, and in each client's book
 * (book.h) what it has said and what became of its memory.
 *
 * Who changes what. A record is changed by the thread of the worker that serves the client; the supervisor turns FREE into MET when it accepts
 * a connection, and cleans up while there is no worker. Both claim a free record by FREE -> MAKING.
 *
 * Descriptors. One that is in a record, a mailbox or a book belongs to its client. journal_sweep() closes all others that the supervisor
 * does not know: what a killed worker had open for itself.
 */
#ifndef MANAGER_JOURNAL_H
#define MANAGER_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <userfault/handover.h>
#include <userfault/uffd.h>

#define JOURNAL_MESSAGES 64 /* taken in one read */
#define JOURNAL_THREADS  64 /* at most */

enum journal_state {
	JOURNAL_FREE,
	JOURNAL_MAKING, /* for the child of a fork; when its maker dies it is free again, and the fork is in a log still */
	JOURNAL_MET,    /* it has a connection, and perhaps an object */
	JOURNAL_SERVED, /* it has an object, and its book knows its memory; perhaps a connection */
};

/* A client. Descriptors are -1 where there is none; they are taken out of the record before they are closed. */
struct journal_client {
	_Atomic uint32_t state; /* release: what is below is true */
	_Atomic bool
		born; /* nobody else's log speaks of it as of something still to be done: it may be served, and may end */
	_Atomic int connection; /* the handover's */
	_Atomic int object;     /* the userfaultfd */
	_Atomic int book;       /* memfd: book.h */
	uint64_t id;            /* never used again; not 0 */
	uint64_t parent, fork;  /* of a forked child: its parent's id, and the id of the entry that told of it */
	uint64_t features;      /* of the object: which events its log may have */
	uint64_t since;         /* CLOCK_MONOTONIC, ns */
	pid_t pid;              /* of whoever connected; 0: not known */
	_Atomic uid_t uid;      /* of the same, or of its parent */
	char name[UF_HANDOVER_NAME_MAX + 1];
};

/* Messages between the kernel and a book. All zero beyond what was read: how a successor sees how many there are. */
struct journal_mailbox {
	_Atomic uint32_t
		owner;   /* index of the client that they are of, plus 1; 0: whatever is there has been seen to */
	uint64_t number; /* of this reading: a later one has a greater */
	struct uffd_msg messages[JOURNAL_MESSAGES];
};

struct journal {
	unsigned capacity; /* clients */
	unsigned share;    /* of them, that one user may have */
	unsigned threads;
	size_t bytes;
	_Atomic uint64_t clients;           /* the last id that was given */
	_Atomic uint64_t accepted, refused; /* connections */
	_Atomic uint64_t restarts;
	uint64_t started, started_at; /* CLOCK_MONOTONIC and CLOCK_REALTIME, ns */
	pid_t supervisor;
	_Atomic pid_t worker;
	_Atomic bool ending;        /* the supervisor has been told to stop */
	int bells[JOURNAL_THREADS]; /* eventfds, one for each thread of the worker: a record has changed */
	struct journal_mailbox mailboxes[JOURNAL_THREADS];
	struct journal_client client[]; /* `capacity` of them */
};

/* Shared memory for so many clients, `share` of them of one user, with bells for `threads`. 0 or -errno. */
int journal_open(struct journal **out, unsigned capacity, unsigned share, unsigned threads);
void journal_close(struct journal *journal);

/* The thread that serves a client, and its bell. */
static inline unsigned journal_thread(const struct journal *journal, unsigned index)
{
	return index % journal->threads;
}
void journal_ring(struct journal *journal, unsigned thread);

/*
 * journal_claim - a free record, MAKING, for a client of this user, with its descriptors -1 and an id of its own; what it is to become is
 * stored when the rest is true. -EAGAIN: there is none; -EDQUOT: the user has his share, or others who claim for him just now may fill it.
 *
 * journal_release closes a record's descriptors and makes it free.
 */
int journal_claim(struct journal *journal, uid_t uid);

/* For people: why there was none. */
const char *journal_refusal(int err);

void journal_release(struct journal_client *client);

/* Takes a descriptor out and closes it. */
void journal_close_fd(_Atomic int *slot);

/*
 * The supervisor, while there is no worker: puts what is in mailboxes into books, strikes out the forks whose children are there, frees
 * what was being made, and closes every descriptor but those of the journal and the `count` ones in `keep`. 0 or -errno: then nothing was
 * closed, and all can be tried again.
 */
int journal_settle(struct journal *journal, const int *keep, size_t count);

#endif
