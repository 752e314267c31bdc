// SPDX-License-Identifier: MIT
/*
 * kv-load ADDRESS CONNECTIONS - clients of a key-value server that know what each answer must be
 *
 * Each connection has keys of its own, and a model of them: numbers that are counted up and down, and values that are set, appended to and
 * deleted. It sends commands in batches, in pieces that end anywhere, and compares all that comes back byte for byte with what the model says. So a
 * command that is lost, executed twice, or out of order shows at the next answer for its key.
 *
 * Prints "ready" when all keys have been there once. Goes on until its standard input ends and each connection has sent some more; then
 * each asks for all its keys, and it prints how many commands there were. The first difference is told and ends it with status 1.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kv/address.h"
#include "kv/buffer.h"
#include "kv/resp.h"

enum {
	KEYS = 300,
	BATCH = 24,
	LONGEST = 20000, /* bytes of a value, before what is appended */
	MORE_ROUNDS = 50,
	PIECE = 65536,
	SECONDS = 300, /* without an answer */
};

struct key {
	bool there;
	bool number;
	int64_t count;
	struct buffer value;
};

struct connection {
	struct address address;
	pthread_t thread;
	unsigned number;
	uint64_t random;
	int fd;
	struct key keys[KEYS];
	struct buffer request, expected;
	uint64_t commands;
};

static atomic_bool ending;
static pthread_barrier_t filled;

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "kv-load: ");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(1);
}

static uint64_t below(struct connection *c, uint64_t limit)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random % limit;
}

static void add_command(struct connection *c, size_t count, const struct slice *args)
{
	reply_array(&c->request, count);
	for (size_t i = 0; i < count; i++)
		reply_bulk(&c->request, args[i]);
	c->commands++;
}

static struct slice key_name(const struct connection *c, unsigned key, char text[32])
{
	return (struct slice){text, (size_t)snprintf(text, 32, "load:%u:%u", c->number, key)};
}

static void send_name(struct connection *c, const char *name, unsigned key)
{
	char text[32];

	add_command(c, 2, (struct slice[]){{name, strlen(name)}, key_name(c, key, text)});
}

static void send_value(struct connection *c, const char *name, unsigned key, struct slice value)
{
	char text[32];

	add_command(c, 3, (struct slice[]){{name, strlen(name)}, key_name(c, key, text), value});
}

static struct slice random_value(struct connection *c, char *bytes, size_t longest)
{
	/* Mostly short, now and then of several pages. */
	size_t len = below(c, below(c, 8) ? 200 : longest);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)below(c, 256);
	return (struct slice){bytes, len};
}

static void forget(struct key *key)
{
	buffer_free(&key->value);
	*key = (struct key){0};
}

static void send_set(struct connection *c, unsigned at)
{
	char bytes[LONGEST];
	struct slice value = random_value(c, bytes, LONGEST);
	struct key *key = &c->keys[at];

	send_value(c, "SET", at, value);
	reply_status(&c->expected, "OK");
	forget(key);
	key->there = true;
	buffer_add(&key->value, value.data, value.len);
}

static void send_append(struct connection *c, unsigned at)
{
	char bytes[500];
	struct slice value = random_value(c, bytes, sizeof(bytes));
	struct key *key = &c->keys[at];

	send_value(c, "APPEND", at, value);
	key->there = true;
	buffer_add(&key->value, value.data, value.len);
	reply_integer(&c->expected, (int64_t)buffer_length(&key->value));
}

static void send_count(struct connection *c, unsigned at)
{
	struct key *key = &c->keys[at];
	bool up = below(c, 3);

	send_name(c, up ? "INCR" : "DECR", at);
	if (!key->there)
		*key = (struct key){.there = true, .number = true};
	key->count += up ? 1 : -1;
	reply_integer(&c->expected, key->count);
}

static void send_delete(struct connection *c, unsigned at)
{
	send_name(c, "DEL", at);
	reply_integer(&c->expected, c->keys[at].there);
	forget(&c->keys[at]);
}

static void send_get(struct connection *c, unsigned at)
{
	struct key *key = &c->keys[at];
	char text[24];

	send_name(c, "GET", at);
	if (!key->there) {
		reply_null(&c->expected);
	} else if (key->number) {
		snprintf(text, sizeof(text), "%lld", (long long)key->count);
		reply_text(&c->expected, text);
	} else {
		reply_bulk(&c->expected, (struct slice){key->value.data ? buffer_bytes(&key->value) : "",
		                                        buffer_length(&key->value)});
	}
}

static void send_random(struct connection *c)
{
	unsigned at = (unsigned)below(c, KEYS), what = (unsigned)below(c, 10);
	/* One half of the keys are numbers. */
	bool number = at % 2;

	if (what < 3)
		send_get(c, at);
	else if (what == 3)
		send_delete(c, at);
	else if (number)
		send_count(c, at);
	else if (what == 4)
		send_append(c, at);
	else
		send_set(c, at);
}

static void send_some(struct connection *c, size_t most)
{
	while (most && buffer_length(&c->request)) {
		size_t len = buffer_length(&c->request) < most ? buffer_length(&c->request) : most;
		ssize_t sent = send(c->fd, buffer_bytes(&c->request), len, MSG_NOSIGNAL);

		if (sent < 0)
			die("connection %u: send: %s", c->number, strerror(errno));
		buffer_consume(&c->request, (size_t)sent);
		most -= (size_t)sent;
	}
}

static void receive_all(struct connection *c)
{
	static __thread char got[PIECE];

	while (buffer_length(&c->expected)) {
		size_t most = buffer_length(&c->expected) < PIECE ? buffer_length(&c->expected) : PIECE;
		ssize_t len = recv(c->fd, got, most, 0);

		if (len <= 0)
			die("connection %u after %llu commands: %s", c->number, (unsigned long long)c->commands,
			    len ? strerror(errno) : "closed");
		if (memcmp(got, buffer_bytes(&c->expected), (size_t)len) != 0)
			die("connection %u, batch up to command %llu: expected '%.80s', got '%.*s'", c->number,
			    (unsigned long long)c->commands, buffer_bytes(&c->expected), len < 80 ? (int)len : 80, got);
		buffer_consume(&c->expected, (size_t)len);
	}
}

/* Once in two pieces, of which the first ends anywhere: the other end may have to do with half a command when it moves. */
static void exchange(struct connection *c)
{
	if (c->request.failed || c->expected.failed)
		die("no memory");
	send_some(c, below(c, buffer_length(&c->request) + 1));
	sched_yield();
	send_some(c, SIZE_MAX);
	receive_all(c);
}

static void send_batch(struct connection *c)
{
	uint64_t left = 1 + below(c, BATCH);

	/* Nothing is received while it is sent, so neither may be more than the sockets hold. */
	for (; left && buffer_length(&c->request) < PIECE && buffer_length(&c->expected) < PIECE; left--)
		send_random(c);
	exchange(c);
}

static void *run(void *arg)
{
	struct connection *c = arg;

	c->fd = address_connect(&c->address, true, SECONDS);
	if (c->fd < 0)
		die("cannot connect: %s", strerror(-c->fd));
	for (unsigned at = 0; at < KEYS; at++) {
		if (at % 2)
			send_count(c, at);
		else
			send_set(c, at);
	}
	exchange(c);
	pthread_barrier_wait(&filled);
	while (!ending)
		send_batch(c);
	for (unsigned i = 0; i < MORE_ROUNDS; i++)
		send_batch(c);
	for (unsigned at = 0; at < KEYS; at++)
		send_get(c, at);
	exchange(c);
	for (unsigned at = 0; at < KEYS; at++)
		forget(&c->keys[at]);
	buffer_free(&c->request);
	buffer_free(&c->expected);
	close(c->fd);
	return NULL;
}

static void wait_for_end(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	ending = true;
}

int main(int argc, char **argv)
{
	unsigned count = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
	struct connection *connections = calloc(count ? count : 1, sizeof(*connections));
	unsigned long long commands = 0;
	struct address address;

	if (!count || !connections || address_parse(&address, argv[1]))
		die("usage: kv-load ADDRESS CONNECTIONS");
	pthread_barrier_init(&filled, NULL, count + 1);
	for (unsigned i = 0; i < count; i++) {
		struct connection *c = &connections[i];

		c->address = address;
		c->number = i;
		c->random = 88172645463325252ULL + i;
		if (pthread_create(&c->thread, NULL, run, c))
			die("no thread");
	}
	pthread_barrier_wait(&filled);
	puts("ready");
	fflush(stdout);
	wait_for_end();
	for (unsigned i = 0; i < count; i++) {
		pthread_join(connections[i].thread, NULL);
		commands += connections[i].commands;
	}
	printf("%llu commands\n", commands);
	free(connections);
	return 0;
}
