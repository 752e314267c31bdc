// SPDX-License-Identifier: MIT
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "manager/ahead.h"
#include "manager/client.h"
#include "manager/collect.h"
#include "manager/log.h"
#include "manager/record.h"
#include "manager/worker.h"

#define EVENTS 64
/* ns between two looks whether a client lives; while more than half of the records are taken: children of forks end without a word. */
#define CHECKED 1000000000u
#define CROWDED 20000000u

/*
 * Ringing.
 */

void worker_ring(struct client *client)
{
	struct thread *thread = client->thread;
	struct client *first;

	if (atomic_exchange(&client->rung, true))
		return;
	first = atomic_load(&thread->rung);
	do
		client->next_rung = first;
	while (!atomic_compare_exchange_weak(&thread->rung, &first, client));
	/* Sequentially consistent: either this sees that it sleeps, or it sees the client before it does. */
	if (atomic_load(&thread->asleep))
		journal_ring(thread->worker->journal, thread->number);
}

static void serve_rung(struct thread *thread)
{
	struct client *client = NULL;

	/* One that is missed here is seen before the thread sleeps. */
	if (atomic_load_explicit(&thread->rung, memory_order_relaxed))
		client = atomic_exchange(&thread->rung, NULL);
	while (client) {
		struct client *next = client->next_rung;

		/* Before it is looked at: what comes later rings again. One that is over rings no more once it is buried. */
		atomic_store(&client->rung, false);
		client_turn(client, 0);
		client = next;
	}
}

/*
 * The end of clients.
 */

void worker_bury(struct client *client)
{
	struct thread *thread = client->thread;

	pthread_mutex_lock(&thread->lock);
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	thread->count--;
	client->next = thread->over;
	thread->over = client;
	pthread_mutex_unlock(&thread->lock);
}

/*
 * Those that ended in this round, now that nothing of the round speaks of them any more. One that is on the stack of the rung waits for the next
 * round; one that is not is marked as if it were, so that it never gets there.
 */
static void hand_over_dead(struct thread *thread)
{
	struct worker *worker = thread->worker;
	struct client *client, **link = &thread->over;

	while ((client = *link)) {
		if (atomic_exchange(&client->rung, true)) {
			link = &client->next;
			continue;
		}
		*link = client->next;
		client_unwatch(client);
		atomic_fetch_add(&worker->dying, 1);
		pthread_mutex_lock(&worker->dead_lock);
		client->next = worker->dead;
		worker->dead = client;
		pthread_cond_signal(&worker->dead_more);
		pthread_mutex_unlock(&worker->dead_lock);
	}
}

static void *free_client(void *arg)
{
	struct client *client = arg;
	struct worker *worker = client->thread->worker;

	client_free(client);
	atomic_fetch_sub(&worker->dying, 1);
	return NULL;
}

/* One of the user engine may have a thread that waits for its owner to answer: others need not wait for that. */
static void free_soon(struct client *client)
{
	pthread_t id;

	if (client->user && !pthread_create(&id, NULL, free_client, client))
		pthread_detach(id);
	else
		free_client(client);
}

static void *reap(void *arg)
{
	struct worker *worker = arg;

	pthread_mutex_lock(&worker->dead_lock);
	for (;;) {
		struct client *client = worker->dead;

		if (!client) {
			pthread_cond_wait(&worker->dead_more, &worker->dead_lock);
			continue;
		}
		worker->dead = client->next;
		pthread_mutex_unlock(&worker->dead_lock);
		free_soon(client);
		pthread_mutex_lock(&worker->dead_lock);
	}
	return NULL;
}

/*
 * The round.
 */

/* Records of this thread's that nobody serves yet. */
static void meet(struct thread *thread)
{
	struct journal *journal = thread->worker->journal;

	thread->again = false;
	for (unsigned i = thread->number; i < journal->capacity; i += journal->threads) {
		struct journal_client *record = &journal->client[i];
		/* Acquire: what the record says is true then. */
		uint32_t state = atomic_load_explicit(&record->state, memory_order_acquire);
		int err;

		if ((state != JOURNAL_MET && state != JOURNAL_SERVED) || !atomic_load(&record->born) ||
		    thread->known[i / journal->threads] == record->id)
			continue;
		thread->known[i / journal->threads] = record->id;
		err = client_open(thread, i);
		if (!err)
			continue;
		say_sparingly(LOG_ERROR, "client %llu cannot be served yet: %s", (unsigned long long)record->id,
		              strerror(-err));
		thread->known[i / journal->threads] = 0;
		thread->again = true;
	}
}

/* `reads`: how often messages may be read before it is another's turn. */
static void serve_event(struct thread *thread, const struct epoll_event *event, unsigned reads)
{
	struct client *client = (struct client *)(uintptr_t)(event->data.u64 & ~(uint64_t)1);
	uint64_t count;

	if (!client) {
		(void)!read(thread->worker->journal->bells[thread->number], &count, sizeof(count));
		meet(thread);
	} else if (client->stage == CLIENT_OVER) {
		return;
	} else if (event->data.u64 & 1) {
		client_converse(client);
	} else {
		if (event->events & EPOLLERR)
			client_unblock(client);
		client_turn(client, reads);
	}
}

/* All that want to be looked at by now. */
static void serve_due(struct thread *thread, uint64_t now)
{
	struct client *next;

	thread->due = 0;
	for (struct client *client = thread->clients; client; client = next) {
		next = client->next;
		if (client->due && client->due <= now)
			client_turn(client, 0);
		else if (client->due && (!thread->due || client->due < thread->due))
			thread->due = client->due;
	}
}

static void check_all(struct thread *thread, uint64_t now)
{
	struct client *next;

	for (struct client *client = thread->clients; client; client = next) {
		next = client->next;
		client_check(client, now);
	}
	thread->checked = now;
	if (thread->again)
		meet(thread);
}

static uint64_t next_check(const struct thread *thread)
{
	return thread->checked + (thread->count > thread->crowd ? CROWDED : CHECKED);
}

/* ms until something has to be done in any case. */
static int sleep_for(const struct thread *thread, uint64_t now)
{
	uint64_t until = next_check(thread);

	if (thread->due && thread->due < until)
		until = thread->due;
	return until <= now ? 0 : (int)((until - now + 999999) / 1000000);
}

static void *serve(void *arg)
{
	struct thread *thread = arg;
	struct epoll_event events[EVENTS];
	uint64_t now = now_ns();

	meet(thread);
	while (!atomic_load(&thread->worker->stopping)) {
		int n, ms = sleep_for(thread, now);

		atomic_store(&thread->asleep, true);
		if (atomic_load(&thread->rung) || thread->over)
			ms = 0;
		n = epoll_wait(thread->epoll, events, EVENTS, ms);
		/* Whoever still sees it asleep rings once too often. */
		atomic_store_explicit(&thread->asleep, false, memory_order_relaxed);
		for (int i = 0; i < n; i++)
			serve_event(thread, &events[i], n == 1 ? SESSION_READS : 1);
		serve_rung(thread);
		now = now_ns();
		if (thread->due && thread->due <= now)
			serve_due(thread, now);
		if (now >= next_check(thread))
			check_all(thread, now);
		hand_over_dead(thread);
	}
	return NULL;
}

/*
 * The process.
 */

static int start_thread(struct worker *worker, unsigned number)
{
	struct thread *thread = &worker->threads[number];
	struct epoll_event bell = {.events = EPOLLIN};
	struct journal *journal = worker->journal;

	thread->worker = worker;
	thread->number = number;
	thread->crowd = journal->capacity / journal->threads / 2;
	pthread_mutex_init(&thread->lock, NULL);
	thread->known = calloc(journal->capacity / journal->threads + 1, sizeof(*thread->known));
	thread->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!thread->known || thread->epoll < 0)
		return -ENOMEM;
	if (epoll_ctl(thread->epoll, EPOLL_CTL_ADD, journal->bells[number], &bell))
		return -errno;
	return -pthread_create(&thread->id, NULL, serve, thread);
}

static int start(struct worker *worker)
{
	unsigned count = worker->journal->threads;
	pthread_t reaper;
	int err;

	worker->threads = calloc(count, sizeof(*worker->threads));
	if (!worker->threads)
		return -ENOMEM;
	pthread_mutex_init(&worker->dead_lock, NULL);
	pthread_cond_init(&worker->dead_more, NULL);
	err = -pthread_create(&reaper, NULL, reap, worker);
	for (unsigned i = 0; !err && i < count; i++)
		err = start_thread(worker, i);
	return err;
}

static unsigned count_clients(struct worker *worker)
{
	unsigned count = 0;

	for (unsigned i = 0; i < worker->journal->capacity; i++)
		count += atomic_load(&worker->journal->client[i].state) != JOURNAL_FREE;
	return count;
}

/* Nobody accepts connections any more: whoever comes is to learn that, and another manager may have the names. */
static void be_orphan(struct worker *worker, const struct sockets *sockets)
{
	/* One that the supervisor was told to stop had closed before: the number may be another's. */
	const int fds[] = {atomic_load(&worker->journal->ending) ? -1 : sockets->handover, sockets->control,
	                   sockets->metrics};

	say(LOG_ERROR, "the supervisor is gone: the clients that there are, are served on");
	collect_stop(worker);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* Until it is told to end, by the supervisor or, once that is gone, by a signal; or nobody will come any more, and the last client has gone. */
static void wait_for_end(struct worker *worker, const struct sockets *sockets, int supervisor)
{
	const struct timespec step = {.tv_nsec = 100000000};
	struct journal *journal = worker->journal;
	uint64_t ending = 0;
	bool orphan = false;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	for (;;) {
		struct pollfd fd = {.fd = orphan ? -1 : supervisor, .events = POLLIN};

		if (orphan && sigtimedwait(&signals, NULL, &step) > 0)
			atomic_store(&journal->ending, true);
		else if (!orphan && poll(&fd, 1, 100) > 0) {
			orphan = true;
			be_orphan(worker, sockets);
		}
		if (orphan && !count_clients(worker))
			return;
		if (!atomic_load(&journal->ending))
			continue;
		if (!ending)
			ending = now_ns();
		if (!count_clients(worker) || now_ns() - ending >= worker->options->grace_ms * 1000000ull)
			return;
	}
}

/* One round of client_leave(): whether nothing is left to be done. */
static bool leave_all(struct worker *worker)
{
	bool done = true;

	for (unsigned i = 0; i < worker->journal->threads; i++) {
		struct thread *thread = &worker->threads[i];
		struct client *next;

		/* Children of forks that nobody has met yet, and clients that have been attached. */
		meet(thread);
		serve_rung(thread);
		for (struct client *client = thread->clients; client; client = next) {
			next = client->next;
			done &= client_leave(client);
		}
	}
	return done;
}

/* Of those that live still, and of those that are being freed. */
static void *finish_records(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < worker->journal->threads; i++)
		for (struct client *client = worker->threads[i].clients; client; client = client->next)
			record_finish(client->recorder);
	while (atomic_load(&worker->dying))
		poll(NULL, 0, 1);
	atomic_store(&worker->finished, true);
	return NULL;
}

/* By a thread that need not get to its end: a store, or a disk, may not answer. */
static void write_records(struct worker *worker)
{
	uint64_t until = now_ns() + WORKER_WRITING;
	pthread_t id;

	for (unsigned i = 0; i < worker->journal->threads; i++)
		hand_over_dead(&worker->threads[i]);
	if (pthread_create(&id, NULL, finish_records, worker))
		return;
	while (!atomic_load(&worker->finished) && now_ns() < until)
		poll(NULL, 0, 1);
	if (!atomic_load(&worker->finished))
		say(LOG_WARNING, "what was recorded could not be written in time, and is lost in part");
}

/* Nobody will bring what is missing: whoever touches it learns that. */
static void leave(struct worker *worker)
{
	uint64_t until;

	atomic_store(&worker->stopping, true);
	for (unsigned i = 0; i < worker->journal->threads; i++) {
		journal_ring(worker->journal, i);
		pthread_join(worker->threads[i].id, NULL);
	}
	until = now_ns() + WORKER_PATIENCE;
	while (!leave_all(worker) && now_ns() < until)
		poll(NULL, 0, 1);
	for (unsigned i = 0; i < worker->journal->threads; i++)
		for (struct client *client = worker->threads[i].clients; client; client = client->next)
			client_give_up(client);
	if (worker->options->record)
		write_records(worker);
}

int worker_run(const struct serve_options *options, struct journal *journal, const struct sockets *sockets, int told,
               int supervisor)
{
	struct worker worker = {.options = options, .journal = journal};
	uint64_t one = 1;
	int err = stores_open(&worker.stores, options);

	if (err)
		return WORKER_HOPELESS;
	err = buffers_init(&worker.buffers);
	if (!err)
		err = ahead_start(&worker.ahead, &worker);
	if (!err)
		err = start(&worker);
	if (!err)
		err = collect_start(&worker, sockets->control, sockets->metrics);
	if (err) {
		say(LOG_ERROR, "the worker cannot start: %s", strerror(-err));
		return 1;
	}
	(void)!write(told, &one, sizeof(one));
	wait_for_end(&worker, sockets, supervisor);
	leave(&worker);
	/* The rest ends with the process. */
	return 0;
}
