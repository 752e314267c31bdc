// SPDX-License-Identifier: MIT
/* The control socket's thread: one poll loop over the listening descriptor and its few peers. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/thread.h"
#include "manager/control.h"

/* How long no one is accepted when descriptors have run out: poll would return at once. */
#define PAUSE_MS 100

struct peer {
	int fd;            /* -1: there is none */
	uint64_t deadline; /* now_ns(): for the whole of the request, or of the answer that is being taken */
	char *answer;      /* malloc()ed; NULL: a request is being read */
	size_t len, sent;
	bool last; /* the connection ends after this answer */
	size_t filled;
	char line[CONTROL_LINE];
};

struct control {
	int listen_fd, stop_fd;
	status_collect *collect;
	void *arg;
	pthread_t thread;
	uint64_t pause_until;
	struct peer peers[CONTROL_PEERS];
};

static uint64_t patience_from(uint64_t now)
{
	return now + CONTROL_PATIENCE * (uint64_t)1000000;
}

static void drop(struct peer *peer)
{
	close(peer->fd);
	free(peer->answer);
	peer->fd = -1;
	peer->answer = NULL;
}

/*
 * Answers.
 */

/* Of an answer that could not be made nothing can be said either. */
static void answer_with(struct peer *peer, char *line)
{
	char *ended = line ? realloc(line, strlen(line) + 2) : NULL;

	if (!ended) {
		free(line);
		drop(peer);
		return;
	}
	peer->len = strlen(ended) + 1;
	memcpy(ended + peer->len - 1, "\n", 2);
	peer->answer = ended;
	peer->sent = 0;
	peer->deadline = patience_from(now_ns());
}

static void answer_error(struct peer *peer, const char *why)
{
	json_t *object = json_pack("{ss}", "error", why);

	answer_with(peer, json_dumps(object, JSON_COMPACT));
	json_decref(object);
}

static void answer_status(struct control *control, struct peer *peer)
{
	struct status status = {0};
	int err = control->collect(control->arg, &status);

	if (err)
		answer_error(peer, strerrorname_np(-err) ? strerrorname_np(-err) : "the status cannot be had");
	else
		answer_with(peer, status_json(&status));
	status_free(&status);
}

static const struct {
	const char *name;
	void (*answer)(struct control *control, struct peer *peer);
} commands[] = {{"status", answer_status}};

static void answer(struct control *control, struct peer *peer, size_t len)
{
	json_t *request = json_loadb(peer->line, len, 0, NULL), *name = json_object_get(request, "command");
	size_t i;

	if (!json_is_object(request)) {
		answer_error(peer, "the request is not a JSON object on one line");
		peer->last = true;
	} else if (!json_is_string(name)) {
		answer_error(peer, "the request has no \"command\" that is a string");
	} else {
		for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
			if (!strcmp(json_string_value(name), commands[i].name))
				break;
		if (i < sizeof(commands) / sizeof(commands[0]))
			commands[i].answer(control, peer);
		else
			answer_error(peer, "unknown command");
	}
	json_decref(request);
}

/*
 * Peers.
 */

/* The next request, if there is a whole line. What follows is kept for later. */
static void look_for_request(struct control *control, struct peer *peer)
{
	char *end = memchr(peer->line, '\n', peer->filled);
	size_t len;

	if (end) {
		len = (size_t)(end - peer->line);
		answer(control, peer, len);
		peer->filled -= len + 1;
		memmove(peer->line, end + 1, peer->filled);
	} else if (peer->filled == sizeof(peer->line)) {
		answer_error(peer, "the request is too long");
		peer->last = true;
	}
}

static void read_request(struct control *control, struct peer *peer)
{
	ssize_t n = recv(peer->fd, peer->line + peer->filled, sizeof(peer->line) - peer->filled, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(peer);
		return;
	}
	peer->filled += (size_t)n;
	look_for_request(control, peer);
}

static void write_answer(struct control *control, struct peer *peer)
{
	ssize_t n = send(peer->fd, peer->answer + peer->sent, peer->len - peer->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		drop(peer);
		return;
	}
	peer->sent += (size_t)n;
	if (peer->sent < peer->len)
		return;
	free(peer->answer);
	peer->answer = NULL;
	if (peer->last) {
		drop(peer);
		return;
	}
	peer->deadline = patience_from(now_ns());
	look_for_request(control, peer);
}

static struct peer *free_peer(struct control *control)
{
	for (unsigned i = 0; i < CONTROL_PEERS; i++)
		if (control->peers[i].fd < 0)
			return &control->peers[i];
	return NULL;
}

static void accept_peer(struct control *control, struct peer *peer)
{
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			control->pause_until = now_ns() + PAUSE_MS * (uint64_t)1000000;
		return;
	}
	*peer = (struct peer){.fd = fd, .deadline = patience_from(now_ns())};
}

/*
 * The loop.
 */

enum { LISTEN, STOP, PEERS };

static int until(uint64_t deadline, uint64_t now, int before)
{
	int ms = deadline <= now ? 0 : (int)((deadline - now) / 1000000 + 1);

	return before < 0 || ms < before ? ms : before;
}

/* What to wait for, and how long, in ms; -1: for ever. */
static int prepare(struct control *control, struct pollfd polls[PEERS + CONTROL_PEERS])
{
	uint64_t now = now_ns();
	bool paused = control->pause_until > now;
	int timeout = paused ? until(control->pause_until, now, -1) : -1;

	polls[LISTEN] = (struct pollfd){.fd = free_peer(control) && !paused ? control->listen_fd : -1,
	                                .events = POLLIN};
	polls[STOP] = (struct pollfd){.fd = control->stop_fd, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_PEERS; i++) {
		const struct peer *peer = &control->peers[i];

		polls[PEERS + i] = (struct pollfd){.fd = peer->fd, .events = peer->answer ? POLLOUT : POLLIN};
		if (peer->fd >= 0)
			timeout = until(peer->deadline, now, timeout);
	}
	return timeout;
}

static void serve_peers(struct control *control, const struct pollfd polls[PEERS + CONTROL_PEERS])
{
	for (unsigned i = 0; i < CONTROL_PEERS; i++) {
		struct peer *peer = &control->peers[i];

		if (peer->fd < 0)
			continue;
		if (polls[PEERS + i].revents && peer->answer)
			write_answer(control, peer);
		else if (polls[PEERS + i].revents)
			read_request(control, peer);
		if (peer->fd >= 0 && peer->deadline <= now_ns())
			drop(peer);
	}
}

static void *control_thread(void *arg)
{
	struct control *control = arg;
	struct pollfd polls[PEERS + CONTROL_PEERS];

	for (;;) {
		int timeout = prepare(control, polls);

		if (poll(polls, PEERS + CONTROL_PEERS, timeout) < 0)
			continue;
		if (polls[STOP].revents)
			return NULL;
		serve_peers(control, polls);
		if (polls[LISTEN].revents && free_peer(control))
			accept_peer(control, free_peer(control));
	}
}

int control_start(struct control **out, int listen_fd, status_collect *collect, void *arg)
{
	struct control *control = calloc(1, sizeof(*control));
	int err = 0, flags;

	if (!control)
		return -ENOMEM;
	control->listen_fd = listen_fd;
	control->collect = collect;
	control->arg = arg;
	for (unsigned i = 0; i < CONTROL_PEERS; i++)
		control->peers[i].fd = -1;
	/* Who has connected may be gone when he is accepted. */
	flags = fcntl(listen_fd, F_GETFL);
	control->stop_fd = flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) ? -1 : eventfd(0, EFD_CLOEXEC);
	if (control->stop_fd < 0)
		err = -errno;
	if (!err)
		err = thread_start(&control->thread, control_thread, control);
	if (!err) {
		*out = control;
		return 0;
	}
	if (control->stop_fd >= 0)
		close(control->stop_fd);
	free(control);
	return err;
}

void control_stop(struct control *control)
{
	if (!control)
		return;
	eventfd_write(control->stop_fd, 1);
	pthread_join(control->thread, NULL);
	for (unsigned i = 0; i < CONTROL_PEERS; i++)
		if (control->peers[i].fd >= 0)
			drop(&control->peers[i]);
	close(control->stop_fd);
	free(control);
}
