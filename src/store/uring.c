// SPDX-License-Identifier: MIT
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"
#include "store/module.h"
#include "store/queue.h"
#include "store/uring.h"

/* In flight; what is more waits. The ring for answers has twice as many places, so none is ever lost. */
#define ENTRIES 128

/* A request's length is a number of 32 bits. */
#define MOST ((size_t)1 << 30)

struct ring {
	struct io_uring uring;
	int fd;
	struct store_queue queue;
	pthread_t thread;
	_Atomic bool ending;  /* release, before the bell is rung */
	_Atomic bool refused; /* relaxed: advice; who does not see it is told by -ECANCELED */
	/* The thread's own. */
	struct uf_store_io bell; /* stands for the request that waits for the bell */
	bool rung;
	struct store_list waiting;  /* for a place */
	struct store_list prepared; /* in order, what the kernel has not taken yet */
	unsigned in_flight;         /* what it has, without the bell */
};

static void prepare(struct ring *ring, struct uf_store_io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	if (io == &ring->bell)
		io_uring_prep_poll_add(sqe, ring->queue.bell, POLLIN);
	else if (io->action == UF_STORE_READ)
		io_uring_prep_read(sqe, ring->fd, io->buf, (unsigned)io->len, io->offset);
	else
		io_uring_prep_write(sqe, ring->fd, io->buf, (unsigned)io->len, io->offset);
	io_uring_sqe_set_data(sqe, io);
	store_list_add(&ring->prepared, io);
}

/* One place is always the bell's. */
static void prepare_waiting(struct ring *ring)
{
	struct uf_store_io *io;

	if (ring->rung) {
		ring->rung = false;
		store_queue_take(&ring->queue, &ring->waiting);
		prepare(ring, &ring->bell);
	}
	while (ring->in_flight < ENTRIES - 1 && (io = store_list_take(&ring->waiting))) {
		prepare(ring, io);
		ring->in_flight++;
	}
}

/* Of what was prepared, the kernel has taken so many. */
static void note_taken(struct ring *ring, int count)
{
	while (count-- > 0)
		store_list_take(&ring->prepared);
}

static void complete_all(struct ring *ring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		struct uf_store_io *io = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&ring->uring, cqe);
		if (io == &ring->bell) {
			ring->rung = true;
		} else {
			ring->in_flight--;
			io->complete(io, result, NULL);
		}
	}
}

static bool is_ending(struct ring *ring)
{
	return atomic_load_explicit(&ring->ending, memory_order_acquire);
}

static void cancel(struct ring *ring, struct store_list *list)
{
	struct uf_store_io *io;

	while ((io = store_list_take(list)))
		if (io != &ring->bell)
			io->complete(io, -ECANCELED, NULL);
}

/* The kernel refuses to be entered, as when a filter was loaded after the ring was made: what it has, it still carries out. */
static void give_up(struct ring *ring)
{
	struct pollfd bell = {.fd = ring->queue.bell, .events = POLLIN};

	atomic_store_explicit(&ring->refused, true, memory_order_relaxed);
	for (struct uf_store_io *io = ring->prepared.first; io; io = io->next)
		ring->in_flight -= io != &ring->bell;
	cancel(ring, &ring->prepared);
	while (ring->in_flight) {
		complete_all(ring);
		pause_us(1000);
	}
	while (!is_ending(ring)) {
		store_queue_take(&ring->queue, &ring->waiting);
		cancel(ring, &ring->waiting);
		poll(&bell, 1, -1);
	}
}

static void *run(void *arg)
{
	struct ring *ring = arg;
	int taken;

	ring->rung = true;
	while (!is_ending(ring)) {
		prepare_waiting(ring);
		taken = io_uring_submit_and_wait(&ring->uring, 1);
		note_taken(ring, taken);
		/* Else it is full for a while, or a debugger was there. */
		if (taken < 0 && taken != -EINTR && taken != -EAGAIN && taken != -EBUSY) {
			give_up(ring);
			break;
		}
		complete_all(ring);
	}
	return NULL;
}

static bool knows_all(struct io_uring *uring)
{
	static const int needed[] = {IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_WRITE};
	struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
	bool all = probe;

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		all = all && io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return all;
}

static int begin(struct ring *ring)
{
	int err = store_queue_init(&ring->queue);

	if (err)
		return err;
	err = thread_start(&ring->thread, run, ring);
	if (err)
		store_queue_destroy(&ring->queue);
	return err;
}

static int ring_open(void **out, int fd)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	int err;

	if (!ring)
		return -ENOMEM;
	ring->fd = fd;
	store_list_init(&ring->waiting);
	store_list_init(&ring->prepared);
	err = io_uring_queue_init(ENTRIES, &ring->uring, 0);
	if (!err) {
		err = knows_all(&ring->uring) ? begin(ring) : -EOPNOTSUPP;
		if (err)
			io_uring_queue_exit(&ring->uring);
	}
	if (err)
		free(ring);
	else
		*out = ring;
	return err;
}

static int ring_submit(void *arg, struct uf_store_io *io)
{
	struct ring *ring = arg;

	if (io->len > MOST || atomic_load_explicit(&ring->refused, memory_order_relaxed))
		return -EAGAIN;
	store_queue_add(&ring->queue, io);
	return 0;
}

static void ring_close(void *arg)
{
	struct ring *ring = arg;

	atomic_store_explicit(&ring->ending, true, memory_order_release);
	store_queue_ring(&ring->queue);
	pthread_join(ring->thread, NULL);
	io_uring_queue_exit(&ring->uring);
	store_queue_destroy(&ring->queue);
	free(ring);
}

__attribute__((visibility("default"))) const struct store_uring_ops uf_store_module_uring = {
	.open = ring_open,
	.submit = ring_submit,
	.close = ring_close,
};
STORE_MODULE;
