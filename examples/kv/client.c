// SPDX-License-Identifier: MIT
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

bool end_receive(struct end *end, struct buffer *buffer, size_t most)
{
	ssize_t got;

	if (end->finished)
		return true;
	if (!buffer_reserve(buffer, most))
		return false;
	got = recv(end->fd, buffer->data + buffer->end, most, MSG_DONTWAIT);
	if (got > 0)
		buffer->end += (size_t)got;
	else if (!got)
		end->finished = true;
	return got >= 0 || errno == EAGAIN || errno == EINTR;
}

bool end_send(struct end *end, struct buffer *buffer)
{
	while (buffer_length(buffer)) {
		ssize_t sent = send(end->fd, buffer_bytes(buffer), buffer_length(buffer), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		buffer_consume(buffer, (size_t)sent);
	}
	return true;
}

bool end_arm(struct end *end, int epoll, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = end};
	/* Without events it must go: a connection that hangs up is told of whether one wants it or not. */
	int how = !events ? EPOLL_CTL_DEL : end->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (events == end->armed)
		return true;
	end->armed = events;
	return !epoll_ctl(epoll, how, end->fd, &event);
}

void end_close(struct end *end)
{
	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
	end->armed = 0;
}
