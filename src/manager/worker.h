/* SPDX-License-Identifier: MIT */
/*
 * worker.h - the process that serves: its threads, and the clients of each
 *
 * A client belongs to one thread, which alone changes it, hears what it says, and takes its messages; so its events are in order. A thread goes
 * round its clients, and takes at most one read's worth of messages of each in turn. A client of the user engine has a thread of its own for
 * its faults, since requests to it are answered by its own process, and one that is stopped must hold up nobody else; its thread here
 * does the rest.
 *
 * What others do: a store's threads put pages in place (session.h), and ring when the client has to be looked at; the control
 * thread reads, with the thread's lock; the reaper waits for what is still on its way to a client that has ended.
 */
#ifndef MANAGER_WORKER_H
#define MANAGER_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "manager/journal.h"
#include "manager/serve.h"
#include "manager/sockets.h"
#include "manager/stores.h"
#include "session/buffers.h"

struct client;
struct control;
struct http;

struct thread {
	struct worker *worker;
	unsigned number;
	int epoll;
	pthread_t id;
	pthread_mutex_t lock; /* the list, and that a client in it stays; the thread itself reads without. Innermost */
	struct client *clients;
	unsigned count;                /* of them */
	unsigned crowd;                /* more than so many take more than half of its records */
	struct client *over;           /* those that have ended in this round */
	uint64_t *known;               /* for each of its records: the id of the client that it has met there last */
	bool again;                    /* a record could not be met, and is to be looked at again */
	uint64_t checked;              /* ns: when it was seen last that they live */
	_Atomic(struct client *) rung; /* a stack: pushed by anybody, taken as a whole by the thread */
	_Atomic bool asleep;           /* a ring must be heard: it is about to sleep, or sleeps */
	uint64_t due;                  /* ns: when the first of its clients wants to be looked at; 0: none does */
};

struct worker {
	const struct serve_options *options;
	struct journal *journal;
	struct stores stores;
	struct session_buffers buffers; /* shared by all clients that have no thread of their own */
	struct thread *threads;
	struct ahead *ahead;
	/* Clients that have ended, for the reaper. */
	pthread_mutex_t dead_lock;
	pthread_cond_t dead_more;
	struct client *dead;
	_Atomic unsigned dying;          /* of them all, until they are free */
	_Atomic bool stopping, finished; /* the end has begun; what was recorded is written */
	struct control *control;         /* who answers for people; NULL: nobody */
	struct http *http;
};

/*
 * The process; returns its exit status. It answers on two of the sockets, and closes all when the supervisor is gone. `told` (an eventfd) is
 * written to once it serves; `supervisor`: a pidfd.
 */
int worker_run(const struct serve_options *options, struct journal *journal, const struct sockets *sockets, int told,
               int supervisor);

/* How long programs of the user engine may take to do what is owed to them at the end, ns. What was not done by then waits for ever. */
#define WORKER_PATIENCE 5000000000u

/* How long it may take at the end to write what was recorded, ns. */
#define WORKER_WRITING 10000000000u

/* Exit status of a worker that cannot be helped by another attempt. */
#define WORKER_HOPELESS 78

/* [signal] The client is to be looked at soon, by its thread. Once, until that has happened. */
void worker_ring(struct client *client);

/* The client is over: off the lists, to the reaper. By its thread. */
void worker_bury(struct client *client);

#endif
