// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrate/stream.h"

/* Beyond what one call can send or receive there is nothing to be gained. */
#define MOST_PIECES 8

void stream_open(struct stream *stream, int fd, int wake, unsigned timeout_ms)
{
	int on = 1;

	stream->fd = fd;
	stream->wake = wake;
	stream->timeout_ms = timeout_ms;
	stream->deadline = 0;
	stream->tls = NULL;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	/* Of a socket that is not TCP's they fail, as well they may. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

void stream_keep_short(struct stream *stream, unsigned bytes)
{
	setsockopt(stream->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

/* When a wait of so long ends. */
static uint64_t end_of_wait(const struct stream *stream, unsigned ms)
{
	uint64_t until = deadline_in(ms);

	return stream->deadline && stream->deadline < until ? stream->deadline : until;
}

static int wait_for(const struct stream *stream, short events, unsigned ms)
{
	struct pollfd fds[2] = {{.fd = stream->fd, .events = events}, {.fd = stream->wake, .events = POLLIN}};
	uint64_t until = end_of_wait(stream, ms);
	bool woken = false;

	for (;;) {
		int count = poll(fds, woken ? 1 : 2, deadline_left(until));

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count < 0)
			continue;
		if (fds[0].revents)
			return 0;
		if (!count)
			return woken ? -ECANCELED : -EAGAIN;
		woken = true;
		until = end_of_wait(stream, STREAM_GRACE_MS);
	}
}

/* What a call that could not go on at once comes to: 0: try again. */
static int after(const struct stream *stream, ssize_t result, short events)
{
	int err;

	if (result == -EINTR)
		return 0;
	if (result == -EFAULT)
		return -EFAULT;
	if (result != -EAGAIN)
		return -ENOTCONN;
	err = wait_for(stream, events, stream->timeout_ms);
	return err == -EAGAIN ? -ENOTCONN : err;
}

static ssize_t send_some(struct stream *stream, struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
	ssize_t sent;

	if (stream->tls)
		return stream->tls->send(stream->tls, iov->iov_base, iov->iov_len);
	sent = sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent < 0 ? -errno : sent;
}

int stream_send(struct stream *stream, struct iovec *iov, int count)
{
	int err = 0;

	while (count && !err) {
		ssize_t sent;

		if (!iov->iov_len) {
			iov++;
			count--;
			continue;
		}
		sent = send_some(stream, iov, count < MOST_PIECES ? count : MOST_PIECES);
		if (sent <= 0) {
			err = after(stream, sent ? sent : -EPIPE, POLLOUT);
			continue;
		}
		atomic_fetch_add_explicit(&stream->bytes, (uint64_t)sent, memory_order_relaxed);
		for (size_t left = (size_t)sent; left;) {
			size_t part = left < iov->iov_len ? left : iov->iov_len;

			iov->iov_base = (char *)iov->iov_base + part;
			iov->iov_len -= part;
			left -= part;
			if (!iov->iov_len) {
				iov++;
				count--;
			}
		}
	}
	return err;
}

static ssize_t receive_some(struct stream *stream, void *bytes, size_t len)
{
	ssize_t received;

	if (stream->tls)
		return stream->tls->receive(stream->tls, bytes, len);
	received = recv(stream->fd, bytes, len, MSG_DONTWAIT);
	return received < 0 ? -errno : received;
}

int stream_receive(struct stream *stream, void *bytes, size_t len)
{
	int err = 0;

	for (size_t at = 0; at < len && !err;) {
		ssize_t received = receive_some(stream, (char *)bytes + at, len - at);

		if (received <= 0) {
			err = after(stream, received ? received : -EPIPE, POLLIN);
			continue;
		}
		at += (size_t)received;
		atomic_fetch_add_explicit(&stream->bytes, (uint64_t)received, memory_order_relaxed);
	}
	return err;
}

bool stream_has(const struct stream *stream)
{
	struct pollfd in = {.fd = stream->fd, .events = POLLIN};

	return stream_holds(stream) || poll(&in, 1, 0) > 0;
}

bool stream_is_woken(const struct stream *stream)
{
	struct pollfd wake = {.fd = stream->wake, .events = POLLIN};

	return poll(&wake, 1, 0) > 0;
}

int stream_wait(const struct stream *stream, unsigned ms)
{
	if (stream_holds(stream))
		return 0;
	return wait_for(stream, POLLIN, ms);
}

int stream_wait_any(const struct stream *const streams[2], unsigned ms)
{
	struct pollfd fds[3] = {
		{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	uint64_t until = deadline_in(ms);
	int count;

	for (int i = 0; i < 2; i++) {
		if (!streams[i])
			continue;
		if (stream_holds(streams[i]))
			return i;
		fds[i].fd = streams[i]->fd;
		fds[2].fd = streams[i]->wake;
	}
	do
		count = poll(fds, 3, deadline_left(until));
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		return count ? -errno : -EAGAIN;
	if (fds[2].revents)
		return -ECANCELED;
	return fds[0].revents ? 0 : 1;
}

void stream_break(const struct stream *stream)
{
	if (stream->fd >= 0)
		shutdown(stream->fd, SHUT_RDWR);
}

void stream_close(struct stream *stream)
{
	if (stream->fd < 0)
		return;
	if (stream->tls)
		stream->tls->close(stream->tls);
	stream->tls = NULL;
	close(stream->fd);
	stream->fd = -1;
}

void stream_finish(struct stream *stream, unsigned ms)
{
	uint64_t deadline = deadline_in(ms);
	struct pollfd in = {.fd = stream->fd, .events = POLLIN};
	char rest[4096];

	if (stream->fd < 0)
		return;
	shutdown(stream->fd, SHUT_WR);
	while (now_ns() < deadline) {
		ssize_t received;

		if (poll(&in, 1, deadline_left(deadline)) < 0 && errno != EINTR)
			break;
		received = recv(stream->fd, rest, sizeof(rest), MSG_DONTWAIT);
		if (!received || (received < 0 && errno != EAGAIN && errno != EINTR))
			break;
	}
}
