// SPDX-License-Identifier: MIT
#define _GNU_SOURCE 1
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "commands.h"
#include "server.h"

enum { EVENTS = 64, PIECE = 65536 };

enum mode {
	SERVING,
	STOPPED,
	FORWARDING,
};

/* What another thread wants done between two commands. */
struct errand {
	int (*function)(struct server *server, void *arg);
	void *arg;
	int result;
	bool done;
};

struct server {
	struct server_options opts;
	struct kv kv;
	enum mode mode;
	struct address forward;
	struct client *clients;
	struct client *dead;
	struct slice *args; /* of the command that is executed */
	size_t room;
	int epoll, signals;
	bool full;  /* no more descriptors: it does not accept until a client leaves */
	bool ended; /* as `errand`, under the lock */

	/* One errand at a time; `bell` tells the server of it, `done` the others of the end of one. */
	pthread_mutex_t lock;
	pthread_cond_t done;
	struct errand *errand;
	int bell;
};

static bool listen_on(struct server *server, bool on)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &server->opts.listener};

	return !epoll_ctl(server->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server->opts.listener, &event);
}

static void close_client(struct server *server, struct client *client)
{
	if (client->dead)
		return;
	client->dead = true;
	end_close(&client->here);
	end_close(&client->there);
	buffer_free(&client->in);
	buffer_free(&client->out);
	resp_free(&client->parser);
	if (client->next)
		client->next->prev = client->prev;
	if (client->prev)
		client->prev->next = client->next;
	else
		server->clients = client->next;
	client->next = server->dead;
	server->dead = client;
	server->kv.clients--;
	if (server->full)
		server->full = !listen_on(server, true);
}

static void free_dead(struct server *server)
{
	while (server->dead) {
		struct client *client = server->dead;

		server->dead = client->next;
		free(client);
	}
}

static bool begin_migration(struct server *server, struct client *client, const struct slice *args)
{
	char cause[256] = "", error[300];

	if (server->opts.migrate(server->opts.arg, args + 1, cause, sizeof(cause)) >= 0)
		return true;
	snprintf(error, sizeof(error), "ERR %s", cause);
	reply_error(&client->out, error);
	return false;
}

/* The arguments where they lie in the buffer now; false: no memory. */
static bool find_args(struct server *server, const struct client *client)
{
	const char *data = buffer_bytes(&client->in);
	size_t count = client->parser.count;

	if (count > server->room) {
		struct slice *args = realloc(server->args, count * sizeof(*args));

		if (!args)
			return false;
		server->args = args;
		server->room = count;
	}
	for (size_t i = 0; i < count; i++)
		server->args[i] = resp_arg(&client->parser, data, i);
	return true;
}

/* The request of the parser, which is done with then, unless it must wait. */
static void execute(struct server *server, struct client *client)
{
	if (!find_args(server, client)) {
		client->out.failed = true;
		return;
	}
	switch (command_execute(&server->kv, server->args, client->parser.count, &client->out)) {
	case COMMAND_DONE:
		break;
	case COMMAND_CLOSE:
		client->closing = true;
		break;
	case COMMAND_EARLY:
		client->early = true;
		break;
	case COMMAND_MIGRATE:
		client->held = begin_migration(server, client, server->args);
		break;
	}
}

/* One command of what has been received; false if there is none, or none is to be executed now. */
static bool execute_next(struct server *server, struct client *client)
{
	struct buffer *in = &client->in;
	enum resp_result result;

	if (client->closing || client->held || client->early || client->out.failed ||
	    buffer_length(&client->out) >= CLIENT_ENOUGH)
		return false;
	result = resp_parse(&client->parser, in->data ? buffer_bytes(in) : "", buffer_length(in));
	if (result == RESP_MORE)
		return false;
	if (result == RESP_WRONG) {
		reply_error(&client->out, client->parser.error);
		client->closing = true;
		return false;
	}
	if (client->parser.count)
		execute(server, client);
	if (!client->early)
		buffer_consume(in, client->parser.at);
	resp_next(&client->parser);
	return true;
}

/* Executes and sends, until there is nothing to execute, or nobody takes the replies. False: the client is to be closed. */
static bool serve(struct server *server, struct client *client)
{
	struct buffer *out = &client->out;
	uint32_t events = 0;
	bool more;

	do {
		while (execute_next(server, client))
			;
		more = buffer_length(out) >= CLIENT_ENOUGH;
		if (!end_send(&client->here, out) || out->failed)
			return false;
	} while (more && buffer_length(out) < CLIENT_ENOUGH);
	if ((client->closing || client->here.finished) && !client->held && !client->early && !buffer_length(out))
		return false;
	if (buffer_length(out))
		events |= EPOLLOUT;
	else if (!client->held && !client->early)
		events |= EPOLLIN;
	return end_arm(&client->here, server->epoll, events);
}

static void client_event(struct server *server, struct end *end, uint32_t events)
{
	struct client *client = end->client;
	bool good = true;

	if (client->dead)
		return;
	if (server->mode == FORWARDING && client->there.fd >= 0) {
		good = forward_event(client, server->epoll, end);
	} else {
		if (events & EPOLLIN && !client->closing)
			good = end_receive(end, &client->in, PIECE);
		good = good && serve(server, client);
	}
	if (!good)
		close_client(server, client);
}

static void add_client(struct server *server, int fd)
{
	struct client *client = calloc(1, sizeof(*client));
	bool good;

	if (!client) {
		close(fd);
		return;
	}
	client->here = (struct end){.client = client, .fd = fd};
	client->there = (struct end){.client = client, .fd = -1};
	/* What one request may take, and what was read with its end. */
	client->in.limit = RESP_MAX_REQUEST + 2 * PIECE;
	client->out.limit = CLIENT_REPLIES;
	client->next = server->clients;
	if (client->next)
		client->next->prev = client;
	server->clients = client;
	server->kv.clients++;
	server->kv.accepted++;
	if (server->mode == FORWARDING)
		good = forward_begin(client, server->epoll, &server->forward);
	else
		good = end_arm(&client->here, server->epoll, EPOLLIN);
	if (!good)
		close_client(server, client);
}

static void accept_clients(struct server *server)
{
	int fd;

	while ((fd = accept4(server->opts.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		add_client(server, fd);
	if ((errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) && server->clients)
		server->full = listen_on(server, false);
}

static void ring(int fd)
{
	uint64_t one = 1;
	ssize_t written = write(fd, &one, sizeof(one));

	(void)written;
}

static void run_errand(struct server *server)
{
	struct errand *errand;
	uint64_t rings;
	ssize_t got = read(server->bell, &rings, sizeof(rings));

	(void)got;
	pthread_mutex_lock(&server->lock);
	errand = server->errand;
	if (errand && !errand->done) {
		errand->result = errand->function(server, errand->arg);
		errand->done = true;
		pthread_cond_broadcast(&server->done);
	}
	pthread_mutex_unlock(&server->lock);
}

static int send_errand(struct server *server, int (*function)(struct server *server, void *arg), void *arg)
{
	struct errand errand = {.function = function, .arg = arg, .result = -ECANCELED};

	pthread_mutex_lock(&server->lock);
	while (server->errand && !server->ended)
		pthread_cond_wait(&server->done, &server->lock);
	if (!server->ended) {
		server->errand = &errand;
		ring(server->bell);
		while (!errand.done && !server->ended)
			pthread_cond_wait(&server->done, &server->lock);
		server->errand = NULL;
		pthread_cond_broadcast(&server->done);
	}
	pthread_mutex_unlock(&server->lock);
	return errand.result;
}

/* Taken, and not left pending: it shall not end the process when it is no longer blocked. */
static bool take_signal(struct server *server)
{
	struct signalfd_siginfo info;

	return read(server->signals, &info, sizeof(info)) > 0;
}

/* True: a signal has come, and it ends. */
static bool dispatch(struct server *server, const struct epoll_event *events, int count)
{
	bool end = false;

	for (int i = 0; i < count; i++) {
		void *what = events[i].data.ptr;

		if (what == &server->signals)
			end = take_signal(server);
		else if (what == &server->opts.listener)
			accept_clients(server);
		else if (what != &server->bell)
			client_event(server, what, events[i].events);
	}
	free_dead(server);
	/* Only now: it may close clients, or stop the server, and nothing of this round is left to be done. */
	for (int i = 0; i < count; i++)
		if (events[i].data.ptr == &server->bell)
			run_errand(server);
	free_dead(server);
	return end;
}

/* True: a signal has come. */
static bool stand_still(struct server *server)
{
	struct pollfd ready[] = {{.fd = server->signals, .events = POLLIN}, {.fd = server->bell, .events = POLLIN}};

	if (poll(ready, 2, -1) > 0 && ready[1].revents)
		run_errand(server);
	return ready[0].revents && take_signal(server);
}

static bool watch(struct server *server, int fd, void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

	return !epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
}

int server_open(struct server **out, const struct server_options *opts)
{
	struct server *server = calloc(1, sizeof(*server));
	sigset_t signals;
	int err = 0;

	if (!server)
		return -ENOMEM;
	server->opts = *opts;
	server->kv = (struct kv){.heap = opts->heap, .describe = opts->describe, .arg = opts->arg};
	server->kv.started = time(NULL);
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->done, NULL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	server->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	server->epoll = epoll_create1(EPOLL_CLOEXEC);
	server->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->signals < 0 || server->epoll < 0 || server->bell < 0)
		err = -errno;
	if (!err && (!watch(server, server->signals, &server->signals) || !watch(server, server->bell, &server->bell) ||
	             !listen_on(server, true)))
		err = -errno;
	if (err)
		server_close(server);
	else
		*out = server;
	return err;
}

int server_run(struct server *server)
{
	struct epoll_event events[EVENTS];
	bool end = false;
	int err = 0;

	while (!end && !err) {
		int count;

		if (server->mode == STOPPED) {
			end = stand_still(server);
			continue;
		}
		count = epoll_wait(server->epoll, events, EVENTS, -1);
		if (count < 0 && errno != EINTR)
			err = -errno;
		else
			end = dispatch(server, events, count);
	}
	pthread_mutex_lock(&server->lock);
	server->ended = true;
	pthread_cond_broadcast(&server->done);
	pthread_mutex_unlock(&server->lock);
	return err;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void server_close(struct server *server)
{
	if (!server)
		return;
	server->full = false;
	while (server->clients)
		close_client(server, server->clients);
	free_dead(server);
	free(server->args);
	close_fd(server->signals);
	close_fd(server->epoll);
	close_fd(server->bell);
	pthread_cond_destroy(&server->done);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

struct beginning {
	struct heap *heap;
	uint64_t commands;
};

static int begin(struct server *server, void *arg)
{
	const struct beginning *beginning = arg;

	server->kv.heap = beginning->heap;
	server->kv.commands = beginning->commands;
	for (struct client *client = server->clients, *next; client; client = next) {
		next = client->next;
		client->early = false;
		client_event(server, &client->here, 0);
	}
	return 0;
}

int server_begin(struct server *server, struct heap *heap, uint64_t commands)
{
	return send_errand(server, begin, &(struct beginning){heap, commands});
}

static int stop(struct server *server, void *arg)
{
	server->mode = STOPPED;
	*(uint64_t *)arg = server->kv.commands;
	return 0;
}

int server_stop(struct server *server, uint64_t *commands)
{
	return send_errand(server, stop, commands);
}

static int resume(struct server *server, void *arg)
{
	(void)arg;
	server->mode = SERVING;
	return 0;
}

int server_resume(struct server *server)
{
	return send_errand(server, resume, NULL);
}

static int forward(struct server *server, void *arg)
{
	server->mode = FORWARDING;
	server->forward = *(const struct address *)arg;
	server->kv.heap = NULL;
	for (struct client *client = server->clients, *next; client; client = next) {
		next = client->next;
		if (!client->closing && !forward_begin(client, server->epoll, &server->forward))
			close_client(server, client);
	}
	return 0;
}

int server_forward(struct server *server, const struct address *to)
{
	struct address copy = *to;

	return send_errand(server, forward, &copy);
}

struct answer {
	bool failed;
	const char *text;
	void (*settled)(void *arg);
	void *arg;
};

static int answer(struct server *server, void *arg)
{
	const struct answer *answer = arg;

	answer->settled(answer->arg);
	for (struct client *client = server->clients, *next; client; client = next) {
		next = client->next;
		if (!client->held)
			continue;
		client->held = false;
		if (answer->failed)
			reply_error(&client->out, answer->text);
		else
			reply_text(&client->out, answer->text);
		client_event(server, &client->here, 0);
	}
	return 0;
}

int server_answer(struct server *server, bool failed, const char *text, void (*settled)(void *arg), void *arg)
{
	return send_errand(server, answer, &(struct answer){failed, text, settled, arg});
}
