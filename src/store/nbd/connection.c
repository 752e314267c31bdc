// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/thread.h"
#include "store/nbd/connection.h"

/* What every server takes, says the protocol. */
#define MOST ((uint64_t)32 << 20)

/* A peer that is gone without a word is found out in about this time. */
#define SILENCE_SECONDS 30

/* One that nothing depends on is not made again sooner. */
#define PAUSE_NS 1000000000u

static enum nbd_state state_of(struct nbd_connection *connection)
{
	return atomic_load_explicit(&connection->state, memory_order_relaxed);
}

static void set_state(struct nbd_connection *connection, enum nbd_state state)
{
	atomic_store_explicit(&connection->state, state, memory_order_relaxed);
}

static bool is_over(struct nbd_handle *nbd)
{
	return nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd);
}

/*
 * What ends.
 */

/* With an errno value, or 0. */
static void end_later(struct nbd_connection *connection, struct uf_store_io *io, int err)
{
	io->own[0] = (void *)(intptr_t)err;
	store_list_add(&connection->ended, io);
}

/* Called by libnbd, which has locked the handle: so it is only noted. */
static int note_end(void *arg, int *error)
{
	struct uf_store_io *io = arg;
	struct nbd_connection *connection = io->own[1];

	io->own[1] = NULL;
	end_later(connection, io, *error);
	return 1;
}

/* Of a flush that succeeded. `before`: what had been acknowledged when it was sent. */
static int note_flush(struct nbd_server *server, uint64_t before, struct uf_store_cause *cause)
{
	bool lost;

	pthread_mutex_lock(&server->lock);
	lost = server->lost;
	if (!lost && before > server->flushed)
		server->flushed = before;
	pthread_mutex_unlock(&server->lock);
	return lost ? store_fail(cause, -EIO,
	                         "a connection broke, or a flush failed, before writes were flushed: they may be lost")
	            : 0;
}

static void note_write(struct nbd_server *server)
{
	pthread_mutex_lock(&server->lock);
	server->written++;
	pthread_mutex_unlock(&server->lock);
}

static void note_loss(struct nbd_server *server)
{
	pthread_mutex_lock(&server->lock);
	if (server->written > server->flushed)
		server->lost = true;
	pthread_mutex_unlock(&server->lock);
}

/* `why`: the connection broke. */
static void end(struct nbd_connection *connection, struct uf_store_io *io, const char *why)
{
	int64_t result = -(intptr_t)io->own[0];
	struct uf_store_cause cause = {""};

	/* The server's system may tell only once of what it could not write, and drop it, as a file's does here. */
	if (result && io->action == UF_STORE_FLUSH)
		note_loss(connection->server);
	if (result && why)
		store_fail(&cause, 0, "no connection: %s", why);
	else if (result)
		store_fail(&cause, 0, "the server refuses it");
	else if (io->action == UF_STORE_FLUSH)
		result = note_flush(connection->server, io->offset, &cause);
	else
		result = (int64_t)io->len;
	if (result > 0 && io->action == UF_STORE_WRITE)
		note_write(connection->server);
	io->complete(io, result, &cause);
}

static void end_all(struct nbd_connection *connection, const char *why)
{
	struct uf_store_io *io;

	while ((io = store_list_take(&connection->ended)))
		end(connection, io, why);
}

static void fail_waiting(struct nbd_connection *connection, int err)
{
	struct uf_store_io *io;

	while ((io = store_list_take(&connection->waiting)))
		end_later(connection, io, err);
}

/*
 * What is sent.
 */

/* As far as the bytes are alike. */
static int note_extent(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
	struct uf_extent *extent = arg;
	bool zero = count >= 2 && (entries[1] & LIBNBD_STATE_ZERO);

	(void)offset;
	if (*error || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	*extent = (struct uf_extent){.zero = zero};
	for (size_t i = 0; i + 1 < count && !(entries[i + 1] & LIBNBD_STATE_ZERO) == !zero; i += 2)
		extent->len += entries[i];
	return 0;
}

static int64_t issue(struct nbd_connection *connection, struct uf_store_io *io)
{
	nbd_completion_callback done = {.callback = note_end, .user_data = io};
	nbd_extent_callback note = {.callback = note_extent, .user_data = NBD_EXTENT(io)};
	struct nbd_server *server = connection->server;

	io->own[1] = connection;
	if (NBD_EXTENT(io))
		return nbd_aio_block_status(connection->handle, io->len, io->offset, note, done, 0);
	switch (io->action) {
	case UF_STORE_READ:
		return nbd_aio_pread(connection->handle, io->buf, io->len, io->offset, done, 0);
	case UF_STORE_WRITE:
		return nbd_aio_pwrite(connection->handle, io->buf, io->len, io->offset, done, 0);
	default:
		pthread_mutex_lock(&server->lock);
		io->offset = server->written;
		pthread_mutex_unlock(&server->lock);
		return nbd_aio_flush(connection->handle, done, 0);
	}
}

/*
 * What libnbd does not take has not been sent. The connection may be as good as before, or sending has found that it is broken; then this one may
 * have ended with all the others already.
 */
static void refuse(struct nbd_connection *connection, struct uf_store_io *io)
{
	int err = nbd_get_errno();
	struct uf_store_cause cause;

	if (!io->own[1])
		return;
	if (is_over(connection->handle)) {
		end_later(connection, io, ENOTCONN);
		return;
	}
	err = store_fail(&cause, err ? -err : -EIO, "%s", nbd_get_error());
	io->complete(io, err, &cause);
}

/* Until it is broken: whatever is left then has to fail for that reason. */
static void send_waiting(struct nbd_connection *connection)
{
	struct uf_store_io *io;

	while (!is_over(connection->handle) && (io = store_list_take(&connection->waiting))) {
		if (NBD_HELLO(io))
			io->complete(io, (int64_t)io->len, NULL);
		else if (issue(connection, io) < 0)
			refuse(connection, io);
	}
}

/*
 * The connection.
 */

/* All that is in flight has ended: libnbd sees to that before a handle is dead, or closed. */
static void break_down(struct nbd_connection *connection, int err, const char *why)
{
	if (state_of(connection) == NBD_READY)
		note_loss(connection->server);
	atomic_store_explicit(&connection->broke_at, now_ns(), memory_order_relaxed);
	set_state(connection, NBD_DOWN);
	nbd_close(connection->handle);
	connection->handle = NULL;
	fail_waiting(connection, err);
	end_all(connection, why);
}

/* `failed`: the call that was made last, and of which libnbd knows why. */
static void break_down_as_told(struct nbd_connection *connection, bool failed)
{
	const char *told = failed ? nbd_get_error() : NULL;
	int err = failed ? nbd_get_errno() : 0;
	char why[200];

	snprintf(why, sizeof(why), "%s", told ? told : "the server closed it");
	/* It was possible once, so it may be again: no error that would keep it from being tried. */
	if (connection->server->known && (err == EINVAL || err == EOPNOTSUPP))
		err = ENOTCONN;
	break_down(connection, err ? err : ENOTCONN, why);
}

static void begin(struct nbd_connection *connection)
{
	struct nbd_handle *nbd = nbd_create();
	bool failed;

	connection->handle = nbd;
	set_state(connection, NBD_CONNECTING);
	/* Not to be cleared before each read: what is in the buffer of one that fails is nobody's. */
	failed = !nbd || nbd_set_pread_initialize(nbd, false) < 0 ||
	         nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	         nbd_set_uri_allow_local_file(nbd, true) < 0 || nbd_aio_connect_uri(nbd, connection->server->uri) < 0;
	if (failed)
		break_down_as_told(connection, true);
}

/* These do nothing on other sockets than TCP's. */
static void watch_for_silence(int fd)
{
	int on = 1, idle = SILENCE_SECONDS / 2, interval = 5, count = SILENCE_SECONDS / 2 / 5,
	    ms = SILENCE_SECONDS * 1000;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static void learn(struct nbd_server *server, struct nbd_handle *nbd, uint64_t size)
{
	int64_t most = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

	server->size = size;
	server->most = most > 0 && (uint64_t)most < MOST ? (uint64_t)most : MOST;
	server->read_only = nbd_is_read_only(nbd) == 1;
	server->flushes = nbd_can_flush(nbd) == 1;
	server->knows_zeros = nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	server->multi = nbd_can_multi_conn(nbd) == 1;
	server->known = true;
}

/* An export that has another size is not the one that was opened. */
static void settle(struct nbd_connection *connection)
{
	struct nbd_server *server = connection->server;
	int64_t size = nbd_get_size(connection->handle);
	char why[100];

	if (size < 0) {
		break_down_as_told(connection, true);
		return;
	}
	if (!server->known)
		learn(server, connection->handle, (uint64_t)size);
	if ((uint64_t)size != server->size) {
		snprintf(why, sizeof(why), "the export has another size now: %lld bytes instead of %llu",
		         (long long)size, (unsigned long long)server->size);
		break_down(connection, EIO, why);
		return;
	}
	watch_for_silence(nbd_aio_get_fd(connection->handle));
	set_state(connection, NBD_READY);
}

/* Waits until there is something to do, and does what the socket is ready for. Returns what libnbd returned. */
static int move_along(struct nbd_connection *connection)
{
	struct pollfd fds[] = {{.fd = connection->queue.bell, .events = POLLIN}, {.fd = -1}};
	struct nbd_handle *nbd = connection->handle;
	unsigned direction = nbd ? nbd_aio_get_direction(nbd) : 0;

	/* Nothing would ever end the wait for one that sending has found to be broken. */
	if (nbd && is_over(nbd))
		return 0;
	if (nbd) {
		fds[1].fd = nbd_aio_get_fd(nbd);
		fds[1].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
		                        (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
	}
	if (poll(fds, 2, -1) < 0)
		return 0;
	if ((fds[1].revents & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		return nbd_aio_notify_read(nbd);
	if ((fds[1].revents & (POLLOUT | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		return nbd_aio_notify_write(nbd);
	return 0;
}

/* What the last calls brought. */
static void look(struct nbd_connection *connection, bool failed)
{
	struct nbd_handle *nbd = connection->handle;

	if (nbd && is_over(nbd))
		break_down_as_told(connection, failed);
	else if (nbd && state_of(connection) == NBD_CONNECTING && !nbd_aio_is_connecting(nbd))
		settle(connection);
	else
		end_all(connection, NULL);
}

static void *run(void *arg)
{
	struct nbd_connection *connection = arg;
	bool failed;

	while (!atomic_load_explicit(&connection->ending, memory_order_acquire)) {
		store_queue_take(&connection->queue, &connection->waiting);
		if (!connection->handle && (atomic_exchange(&connection->wanted, false) || connection->waiting.first))
			begin(connection);
		look(connection, false);
		if (state_of(connection) == NBD_READY)
			send_waiting(connection);
		failed = move_along(connection) < 0;
		look(connection, failed);
	}
	/* So that the server need not wonder. It is not waited for. */
	if (state_of(connection) == NBD_READY)
		nbd_aio_disconnect(connection->handle, 0);
	nbd_close(connection->handle);
	return NULL;
}

int nbd_connection_start(struct nbd_connection *connection, struct nbd_server *server)
{
	int err;

	*connection = (struct nbd_connection){.server = server};
	store_list_init(&connection->waiting);
	store_list_init(&connection->ended);
	err = store_queue_init(&connection->queue);
	if (err)
		return err;
	err = thread_start(&connection->thread, run, connection);
	if (err)
		store_queue_destroy(&connection->queue);
	return err;
}

void nbd_connection_end(struct nbd_connection *connection)
{
	atomic_store_explicit(&connection->ending, true, memory_order_release);
	store_queue_ring(&connection->queue);
	pthread_join(connection->thread, NULL);
	store_queue_destroy(&connection->queue);
}

bool nbd_connection_is_ready(struct nbd_connection *connection)
{
	return state_of(connection) == NBD_READY;
}

void nbd_connection_want(struct nbd_connection *connection)
{
	uint64_t broke_at = atomic_load_explicit(&connection->broke_at, memory_order_relaxed);

	if (state_of(connection) != NBD_DOWN || (broke_at && now_ns() - broke_at < PAUSE_NS))
		return;
	if (!atomic_exchange(&connection->wanted, true))
		store_queue_ring(&connection->queue);
}
