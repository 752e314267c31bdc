// SPDX-License-Identifier: MIT
/*
 * How a server moves to another process while it is used
 *
 * What a program that shall migrate must have, and where it is here:
 *
 *   memory of known place     One region that holds all that must move: the heap (heap.h). It has no pointers, only offsets, so it
 *                             may lie at another address over there. (Where there are pointers: UF_MIGRATE_FIXED.)
 *   a small state             What is not in the region: `struct state`, copied while the program stands still.
 *   a way to stop             server_stop(): when it returns nobody writes to the region any more, and server_resume() undoes it.
 *   a way to begin            server_begin(): the heap is found in memory that has not arrived yet. The program need not know: a touch of
 *                             what is missing takes longer, that is all. Clients that come before that wait for it.
 *   no system calls with      A buffer that a system call uses must not lie in the region, where the engine does not serve the touches
 *   the region's memory       of the kernel. The server receives and sends from buffers of its own (buffer.h).
 *
 * The order of things
 *
 *	source                                      destination
 *	                                            migration_arrive(): open, listen, run in a thread
 *	migration_depart(): open, run in a thread
 *	  ... passes of precopy, clients are served ...
 *	  stop(): server_stop(), gives the state --> prepare(): does it fit?
 *	                                            start(): server_begin()
 *	  progress(): it has begun there, so
 *	  server_forward()                          serves; pages follow, touched ones first
 *	uf_source_run() returns 0                   uf_destination_run() returns 0
 *
 * Whoever can connect to where a server waits can give it a heap of his making, and is trusted as that. On a network that is not one's own,
 * both sides are given keys: struct uf_migrate_tls.
 *
 * Here each client keeps its connection: the source becomes a proxy for them. Programs that have no connections, or whose clients connect anew,
 * just end.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "address.h"
#include "call.h"
#include "heap.h"
#include "migrate.h"
#include "server.h"

enum { PROBE_SECONDS = 10 };

enum role {
	STAYS,
	DEPARTS,
	ARRIVES,
	HAS_LEFT, /* there is no heap here any more */
};

/* What the heap does not hold. Little-endian on both sides, as the heap itself is. */
struct state {
	char magic[8];
	uint64_t size; /* of the heap */
	uint64_t commands;
};

static const char state_magic[8] = "kv-move1";

struct migration {
	struct uf_migrate_region region;
	enum uf_engine engine;
	struct server *server;
	struct state state;
	char uri[256];
	struct address forward;
	unsigned passes;
	uint64_t bandwidth; /* 0: no limit */
	bool forwarded;     /* of the migration's thread */
	atomic_bool ending;

	pthread_t thread;
	bool started; /* there is a thread to be joined */

	/* Over what follows: the server's thread asks for statistics, the migration's opens and closes. */
	pthread_mutex_t lock;
	enum role role;
	enum role next_role; /* when the client that asked for it is answered */
	struct uf_source *source;
	struct uf_destination *destination;
	struct uf_migrate_statistics last; /* of the migration that has ended */
	const char *served_by;             /* the engine, at the destination */
};

static void say_failed(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "kv: migration: %s\n", cause);
}

/* The source */

/* Called by the library when little is left to be sent, or the passes are at their end. From here on time counts. */
static int stop(void *arg, const void **state, size_t *len)
{
	struct migration *m = arg;
	int err;

	memcpy(m->state.magic, state_magic, sizeof(state_magic));
	m->state.size = m->region.len;
	err = server_stop(m->server, &m->state.commands);
	*state = &m->state;
	*len = sizeof(m->state);
	return err;
}

/* Something went wrong before the heap was given away: the server goes on as if nothing had been. */
static void resume(void *arg)
{
	struct migration *m = arg;

	server_resume(m->server);
}

/* The server runs over there. It stood still here since stop(), and executes nothing here any more. */
static void go_over(struct migration *m)
{
	if (!m->forwarded)
		server_forward(m->server, &m->forward);
	m->forwarded = true;
}

static void depart_progress(void *arg, const struct uf_migrate_statistics *stats)
{
	if (stats->phase == UF_MIGRATE_POSTCOPY || stats->phase == UF_MIGRATE_COMPLETE)
		go_over(arg);
}

/*
 * A connection that breaks before the heap was given away ends the attempt: the server goes on here. Afterwards there is only one way, forwards: the
 * other side needs what is here, or it is in doubt whether it has begun, and only it can tell.
 */
static int send_heap(struct migration *m)
{
	int err = uf_source_run(m->source, m->uri);

	while (err && uf_source_owner(m->source) != UF_OWNER_SOURCE) {
		sleep(1);
		err = uf_source_run(m->source, m->uri);
	}
	return err;
}

static void close_source(struct migration *m, bool left)
{
	pthread_mutex_lock(&m->lock);
	uf_source_stats(m->source, &m->last);
	uf_source_close(m->source);
	m->source = NULL;
	m->next_role = left ? HAS_LEFT : STAYS;
	pthread_mutex_unlock(&m->lock);
	if (left)
		munmap(m->region.addr, m->region.len);
}

/* Clients are to be forwarded to a server that waits for a heap. One that has a heap, or is this very server, answers otherwise. */
static int check_forward(const struct address *forward, char *cause, size_t size)
{
	struct buffer reply = {0};
	int result = call(forward, PROBE_SECONDS, 1, (const char *const[]){"WAITS"}, &reply);
	bool waits = !result && !strcmp(buffer_bytes(&reply), "1");

	buffer_free(&reply);
	if (result < 0)
		snprintf(cause, size, "clients cannot be forwarded: %s", strerror(-result));
	else if (!waits)
		snprintf(cause, size, "clients cannot be forwarded: that server does not wait for a heap");
	return waits ? 0 : -ENOTCONN;
}

/* Not earlier: the next attempt waits for the end of this thread, and this thread for the server to give the answer. */
static void settle(void *arg)
{
	struct migration *m = arg;

	pthread_mutex_lock(&m->lock);
	m->role = m->next_role;
	pthread_mutex_unlock(&m->lock);
}

/* To the client that asked for it. */
static void tell(struct migration *m, int err, const char *cause)
{
	char text[400];

	if (!err)
		snprintf(text, sizeof(text), "moved: %.1f MiB before the stop and %.1f after it, stopped for %.1f ms",
		         (double)m->last.precopy / 1048576, (double)m->last.postcopy / 1048576,
		         (double)m->last.stopped_ns / 1e6);
	else if (*cause)
		snprintf(text, sizeof(text), "ERR %s", cause);
	else
		snprintf(text, sizeof(text), "ERR the heap stays here: %s",
		         *m->last.last_error ? m->last.last_error
		         : err == -ENOTCONN  ? "no connection"
		                             : strerror(-err));
	server_answer(m->server, err, text, settle, m);
}

static void *depart(void *arg)
{
	struct migration *m = arg;
	char cause[256] = "";
	int err = check_forward(&m->forward, cause, sizeof(cause));

	if (!err)
		err = m->ending ? -ECANCELED : send_heap(m);
	if (!err)
		go_over(m);
	close_source(m, !err);
	tell(m, err, cause);
	return NULL;
}

static bool copy_text(struct slice text, char *copy, size_t size)
{
	if (text.len >= size || memchr(text.data, 0, text.len))
		return false;
	memcpy(copy, text.data, text.len);
	copy[text.len] = 0;
	return true;
}

static bool to_number(struct slice text, uint64_t *number)
{
	char copy[20], *end;

	if (!copy_text(text, copy, sizeof(copy)) || *copy < '0' || *copy > '9')
		return false;
	*number = strtoull(copy, &end, 10);
	return !*end;
}

static int open_source(struct migration *m)
{
	struct uf_source_options opts = {
		.size = sizeof(opts),
		.flags = UF_MIGRATE_CHECKSUM,
		.passes = m->passes,
		.bandwidth = m->bandwidth,
		.engine = m->engine,
		.stop = stop,
		.resume = resume,
		.progress = depart_progress,
		.failed = say_failed,
		.arg = m,
	};

	return uf_source_open(&m->source, &m->region, 1, &opts);
}

static void join(struct migration *m)
{
	if (m->started)
		pthread_join(m->thread, NULL);
	m->started = false;
}

/* With the lock held. */
static int begin_departure(struct migration *m)
{
	int err;

	/* One that has failed before. */
	join(m);
	err = open_source(m);
	if (err)
		return err;
	m->role = DEPARTS;
	m->forwarded = false;
	err = -pthread_create(&m->thread, NULL, depart, m);
	m->started = !err;
	if (err) {
		uf_source_close(m->source);
		m->source = NULL;
		m->role = STAYS;
	}
	return err;
}

/* What is wrong with what MIGRATETO was given, or NULL. */
static const char *take_args(struct migration *m, const struct slice args[4])
{
	char forward[256];
	uint64_t passes;

	if (!copy_text(args[0], m->uri, sizeof(m->uri)))
		return "a destination is tcp://HOST:PORT or unix:PATH";
	if (!copy_text(args[1], forward, sizeof(forward)) || address_parse(&m->forward, forward))
		return "clients are forwarded to tcp://HOST:PORT or unix:PATH";
	if (!to_number(args[2], &passes) || passes > 1000)
		return "passes are 0 to 1000";
	if (!to_number(args[3], &m->bandwidth) || (m->bandwidth && m->bandwidth < 65536))
		return "the bandwidth is 0, or at least 65536 bytes a second";
	m->passes = (unsigned)passes;
	return NULL;
}

int migration_depart(void *arg, const struct slice args[4], char *cause, size_t size)
{
	struct migration *m = arg;
	const char *wrong;
	int err = -EINVAL;

	pthread_mutex_lock(&m->lock);
	wrong = m->role == STAYS ? take_args(m, args) : "the heap is already on its way";
	if (!wrong)
		err = begin_departure(m);
	pthread_mutex_unlock(&m->lock);
	if (wrong)
		snprintf(cause, size, "%s", wrong);
	else if (err)
		snprintf(cause, size, "cannot move the heap: %s", strerror(-err));
	return err;
}

/* The destination */

/* The source is stopped and may still be refused: what does not fit must be found here, and not in start(). */
static int prepare(void *arg, const void *state, size_t len)
{
	const struct migration *m = arg;
	struct state got;

	if (len != sizeof(got))
		return -EPROTO;
	memcpy(&got, state, sizeof(got));
	return memcmp(got.magic, state_magic, sizeof(state_magic)) || got.size != m->region.len ? -EPROTO : 0;
}

/* From now on the heap is ours; this first look at it is the first fault. */
static void start(void *arg, const void *state, size_t len)
{
	struct migration *m = arg;
	struct heap *heap = heap_attach(m->region.addr, m->region.len);

	(void)len;
	memcpy(&m->state, state, sizeof(m->state));
	if (!heap) {
		fprintf(stderr, "kv: what has arrived is not a heap\n");
		abort();
	}
	server_begin(m->server, heap, m->state.commands);
}

static void close_destination(struct migration *m)
{
	pthread_mutex_lock(&m->lock);
	uf_destination_stats(m->destination, &m->last);
	uf_destination_close(m->destination);
	m->destination = NULL;
	m->role = STAYS;
	pthread_mutex_unlock(&m->lock);
}

/* A source that went away before it had given its heap; or no connection can be had as long as clients have all descriptors. */
static bool may_wait(int err)
{
	return err == -ECANCELED || err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

/* It waits again for the next source. What breaks when the heap has been given the library mends. */
static void *arrive(void *arg)
{
	struct migration *m = arg;
	int err = uf_destination_run(m->destination, NULL);

	while (may_wait(err) && !m->ending) {
		if (err != -ECANCELED)
			sleep(1);
		err = uf_destination_run(m->destination, NULL);
	}
	if (!err)
		close_destination(m);
	else if (!m->ending)
		fprintf(stderr, "kv: the heap cannot arrive: %s\n", strerror(-err));
	return NULL;
}

int migration_arrive(struct migration *m, const char *uri, char *cause, size_t size)
{
	struct uf_destination_options opts = {
		.size = sizeof(opts),
		.flags = UF_MIGRATE_CHECKSUM,
		.engine = m->engine,
		.prepare = prepare,
		.start = start,
		.failed = say_failed,
		.arg = m,
	};
	int err = uf_destination_open(&m->destination, &m->region, 1, &opts);

	if (err) {
		snprintf(cause, size, "no userfaultfd: %s ('userfault probe' tells why)", strerror(-err));
		return err;
	}
	m->role = ARRIVES;
	m->served_by = uf_destination_engine(m->destination) == UF_ENGINE_USER ? "user" : "kernel";
	err = uf_destination_listen(m->destination, uri);
	if (!err)
		err = uf_destination_address(m->destination, m->uri, sizeof(m->uri));
	if (!err)
		err = -pthread_create(&m->thread, NULL, arrive, m);
	m->started = !err;
	if (err)
		snprintf(cause, size, "cannot wait at %s: %s", uri, strerror(-err));
	else
		printf("incoming %s\n", m->uri);
	return err;
}

/* Both */

static const char *phase_name(enum uf_migrate_phase phase)
{
	static const char *const names[] = {"waiting",  "precopy",  "stopped", "postcopy",
	                                    "complete", "canceled", "lost"};

	return (unsigned)phase < sizeof(names) / sizeof(*names) ? names[phase] : "unknown";
}

void migration_describe(void *arg, struct buffer *text)
{
	static const char *const roles[] = {"none", "source", "destination", "none"};
	struct migration *m = arg;
	struct uf_migrate_statistics stats;

	pthread_mutex_lock(&m->lock);
	stats = m->last;
	stats.size = sizeof(stats);
	if (m->source)
		uf_source_stats(m->source, &stats);
	else if (m->destination)
		uf_destination_stats(m->destination, &stats);
	buffer_print(text, "migration_role:%s\r\n", roles[m->role]);
	if (m->served_by)
		buffer_print(text, "migration_engine:%s\r\n", m->served_by);
	pthread_mutex_unlock(&m->lock);
	buffer_print(text, "migration_phase:%s\r\n", stats.connections ? phase_name(stats.phase) : "none");
	buffer_print(text,
	             "migration_passes:%u\r\nmigration_connections:%u\r\nmigration_remaining:%" PRIu64
	             "\r\nmigration_precopy:%" PRIu64 "\r\nmigration_postcopy:%" PRIu64 "\r\n",
	             stats.passes, stats.connections, stats.remaining, stats.precopy, stats.postcopy);
	buffer_print(text,
	             "migration_zero:%" PRIu64 "\r\nmigration_requested:%" PRIu64 "\r\nmigration_faults:%" PRIu64
	             "\r\nmigration_fault_p50_ns:%" PRIu64 "\r\nmigration_fault_p99_ns:%" PRIu64
	             "\r\nmigration_fault_max_ns:%" PRIu64 "\r\n",
	             stats.zero, stats.requested, stats.faults, stats.latency_p50, stats.latency_p99,
	             stats.latency_max);
}

int migration_open(struct migration **out, void *memory, uint64_t size, enum uf_engine engine)
{
	struct migration *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->region = (struct uf_migrate_region){.name = "heap", .addr = memory, .len = size};
	m->engine = engine;
	m->last.size = sizeof(m->last);
	pthread_mutex_init(&m->lock, NULL);
	*out = m;
	return 0;
}

void migration_serve(struct migration *m, struct server *server)
{
	m->server = server;
}

void migration_close(struct migration *m)
{
	if (!m)
		return;
	m->ending = true;
	pthread_mutex_lock(&m->lock);
	if (m->source && uf_source_cancel(m->source) == -EALREADY)
		fprintf(stderr, "kv: the heap has been given away and is still on its way; ends when it has arrived\n");
	if (m->destination && uf_destination_cancel(m->destination) == -EALREADY)
		uf_destination_abandon(m->destination);
	pthread_mutex_unlock(&m->lock);
	join(m);
	uf_destination_close(m->destination);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
