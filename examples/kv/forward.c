// SPDX-License-Identifier: MIT
/*
 * What a client gets when the heap has moved: the bytes that it sends, from the first command on that was not executed here, go to
 * where the heap is, and the bytes that come from there go to the client. Replies to what was executed here are sent before them.
 */
#include <sys/epoll.h>

#include "client.h"

enum { CONNECT_SECONDS = 10, PIECE = 65536 };

/* From one end to the other. What the one side ends is ended on the other one too, behind all that came before. */
static bool pass(struct end *from, struct buffer *buffer, struct end *to)
{
	if (from->connecting)
		return true;
	if (buffer_length(buffer) < CLIENT_ENOUGH && !end_receive(from, buffer, PIECE))
		return false;
	if (to->connecting)
		return true;
	if (!end_send(to, buffer))
		return false;
	if (from->finished && !buffer_length(buffer) && !to->shut) {
		to->shut = true;
		return !shutdown(to->fd, SHUT_WR);
	}
	return true;
}

static uint32_t wanted(const struct end *end, const struct buffer *received, const struct buffer *to_send)
{
	uint32_t events = buffer_length(to_send) || end->connecting ? EPOLLOUT : 0;

	return events | (!end->finished && buffer_length(received) < CLIENT_ENOUGH ? EPOLLIN : 0);
}

bool forward_event(struct client *client, int epoll, struct end *end)
{
	struct end *here = &client->here, *there = &client->there;

	/* It is connected, or has failed, which the first use will tell. */
	if (end == there)
		there->connecting = false;
	if (client->held)
		return end_arm(here, epoll, 0) && end_arm(there, epoll, 0);
	if (!pass(here, &client->in, there) || !pass(there, &client->out, here))
		return false;
	/* The server's end is the end, as it would be without us between. */
	if (there->finished && !buffer_length(&client->out))
		return false;
	return end_arm(here, epoll, wanted(here, &client->in, &client->out)) &&
	       end_arm(there, epoll, wanted(there, &client->out, &client->in));
}

bool forward_begin(struct client *client, int epoll, const struct address *to)
{
	int fd = address_connect(to, false, CONNECT_SECONDS);

	if (fd < 0)
		return false;
	client->there = (struct end){.client = client, .fd = fd, .connecting = true};
	resp_free(&client->parser);
	return forward_event(client, epoll, &client->here);
}
