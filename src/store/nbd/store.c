// SPDX-License-Identifier: MIT
/*
 * nbd://HOST[:PORT]/[EXPORT], nbds://..., nbd+unix:///[EXPORT]?socket=PATH and so on, through libnbd
 *
 * A module of its own, so that the library does without libnbd. Where the server allows it there are several connections, and requests
 * take turns.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "store/module.h"
#include "store/nbd/connection.h"

#define CONNECTIONS 4

/* Answers to what lies where need not say more than this. */
#define MOST_EXTENT ((uint64_t)1 << 30)

struct nbd {
	struct nbd_server server;
	unsigned count;
	_Atomic unsigned turn;
	struct nbd_connection connections[CONNECTIONS];
};

/* Of those whose turn it is one that is there: a further one that the server never takes must not hold anything up. */
static struct nbd_connection *choose(struct nbd *nbd)
{
	unsigned turn = atomic_fetch_add_explicit(&nbd->turn, 1, memory_order_relaxed);

	for (unsigned i = 0; i < nbd->count; i++) {
		struct nbd_connection *connection = &nbd->connections[(turn + i) % nbd->count];

		if (nbd_connection_is_ready(connection))
			return connection;
		nbd_connection_want(connection);
	}
	return &nbd->connections[turn % nbd->count];
}

/*
 * An attempt that the calling thread waits for.
 */

struct wait {
	struct uf_store_io io;
	struct uf_store_cause *cause;
	int64_t result;
	_Atomic uint32_t done; /* futex; release: the result and the cause */
};

static void wake(struct uf_store_io *io, int64_t result, const struct uf_store_cause *cause)
{
	struct wait *wait = (void *)io;

	wait->result = result;
	if (cause && wait->cause)
		*wait->cause = *cause;
	/* It is gone as soon as this is seen: the kernel only compares addresses. */
	atomic_store_explicit(&wait->done, 1, memory_order_release);
	futex_wake_in(FUTEX_PRIVATE_FLAG, &wait->done, 1);
}

static int64_t carry_out(struct nbd_connection *connection, struct wait *wait, struct uf_store_cause *cause)
{
	wait->io.complete = wake;
	wait->cause = cause;
	store_queue_add(&connection->queue, &wait->io);
	while (!atomic_load_explicit(&wait->done, memory_order_acquire))
		futex_sleep_in(FUTEX_PRIVATE_FLAG, &wait->done, 0, NULL, true);
	return wait->result;
}

static int64_t nbd_store_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct nbd *nbd = state;
	struct wait wait = {.io = {.action = UF_STORE_READ, .buf = buf, .offset = offset}};

	wait.io.len = len < nbd->server.most ? len : nbd->server.most;
	return carry_out(choose(nbd), &wait, cause);
}

static int64_t nbd_store_write(void *state, const void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct nbd *nbd = state;
	struct wait wait = {.io = {.action = UF_STORE_WRITE, .buf = (void *)buf, .offset = offset}};

	wait.io.len = len < nbd->server.most ? len : nbd->server.most;
	return carry_out(choose(nbd), &wait, cause);
}

/* A server that cannot flush cannot promise anything, so neither do we. */
static int nbd_store_flush(void *state, struct uf_store_cause *cause)
{
	struct nbd *nbd = state;
	struct wait wait = {.io = {.action = UF_STORE_FLUSH}};

	if (!nbd->server.flushes)
		return store_fail(cause, -EOPNOTSUPP,
		                  "the server cannot flush: what is written is never known to be durable");
	return (int)carry_out(choose(nbd), &wait, cause);
}

static int nbd_store_extent(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	struct nbd *nbd = state;
	struct wait wait = {.io = {.offset = offset, .len = len < MOST_EXTENT ? len : MOST_EXTENT}};
	struct uf_extent found = {0};
	int64_t result;

	if (!nbd->server.knows_zeros)
		return -EOPNOTSUPP;
	NBD_EXTENT(&wait.io) = &found;
	result = carry_out(choose(nbd), &wait, NULL);
	if (result < 0 || !found.len)
		return result < 0 ? (int)result : -EIO;
	/* A server may tell of more than it was asked. */
	*extent = (struct uf_extent){.len = found.len < len ? found.len : len, .zero = found.zero};
	return 0;
}

static int nbd_store_submit(void *state, struct uf_store_io *io)
{
	struct nbd *nbd = state;

	if (io->len > nbd->server.most || (io->action == UF_STORE_FLUSH && !nbd->server.flushes))
		return -EAGAIN;
	store_queue_add(&choose(nbd)->queue, io);
	return 0;
}

static void nbd_store_close(void *state)
{
	struct nbd *nbd = state;

	for (unsigned i = 0; i < nbd->count; i++)
		nbd_connection_end(&nbd->connections[i]);
	pthread_mutex_destroy(&nbd->server.lock);
	free(nbd->server.uri);
	free(nbd);
}

static const struct uf_store_ops read_write = {
	.size = sizeof(read_write),
	.version = UF_STORE_OPS_VERSION,
	.read = nbd_store_read,
	.write = nbd_store_write,
	.flush = nbd_store_flush,
	.extent = nbd_store_extent,
	.close = nbd_store_close,
	.submit = nbd_store_submit,
};

/* Nothing is written, so there is nothing to flush, and the server is not asked. */
static const struct uf_store_ops read_only = {
	.size = sizeof(read_only),
	.version = UF_STORE_OPS_VERSION,
	.read = nbd_store_read,
	.extent = nbd_store_extent,
	.close = nbd_store_close,
	.submit = nbd_store_submit,
};

/*
 * Opening.
 */

static int add_connection(struct nbd *nbd)
{
	int err = nbd_connection_start(&nbd->connections[nbd->count], &nbd->server);

	if (!err)
		nbd->count++;
	return err;
}

/* The first connection tells what there is. The others are made meanwhile; what becomes of them need not be known. */
static int look_around(struct nbd *nbd, struct uf_store_cause *cause)
{
	struct wait wait = {.io = {.action = UF_STORE_FLUSH}};
	int err = add_connection(nbd);

	if (err)
		return err;
	NBD_HELLO(&wait.io) = nbd;
	err = (int)carry_out(&nbd->connections[0], &wait, cause);
	if (err)
		return err;
	if (!nbd->server.size)
		return store_fail(cause, -EINVAL, "it is empty");
	while (nbd->server.multi && nbd->count < CONNECTIONS && !add_connection(nbd))
		nbd_connection_want(&nbd->connections[nbd->count - 1]);
	return 0;
}

__attribute__((visibility("default"))) store_opener uf_store_module_open;
STORE_MODULE;

int uf_store_module_open(struct store_opened *opened, const char *uri, unsigned flags, struct uf_store_cause *cause)
{
	struct nbd *nbd = calloc(1, sizeof(*nbd));
	bool only_read;
	int err;

	if (!nbd)
		return -ENOMEM;
	pthread_mutex_init(&nbd->server.lock, NULL);
	nbd->server.uri = strdup(uri);
	err = nbd->server.uri ? look_around(nbd, cause) : -ENOMEM;
	if (err) {
		nbd_store_close(nbd);
		return err;
	}
	only_read = nbd->server.read_only || (flags & UF_STORE_READ_ONLY);
	*opened = (struct store_opened){
		.ops = only_read ? &read_only : &read_write,
		.state = nbd,
		.size = nbd->server.size,
	};
	return 0;
}
