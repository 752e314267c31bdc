// SPDX-License-Identifier: MIT
/*
 * traffic SOURCE DESTINATION TEXT CONNECTIONS FOLDER - clients of a key-value server that moves, which measure each request and check each answer
 *
 * Fills the server at SOURCE with the paragraphs of TEXT, and prints "filled DIGEST KEYS". Then it is told on its standard input what happens:
 *
 *	go     clients begin: of ten requests nine read a paragraph and one replaces it by another. Each has one request on its way
 *	move   a migration to DESTINATION begins. It is watched from here on until it is complete, and then "moved" is printed
 *	end    clients end. All keys are read once more, and "checked DIGEST REQUESTS" is printed: what the server must hold now
 *
 * Each answer is compared with what it must be, byte for byte: the first that is another, or that does not come, is told and ends it with status 1.
 *
 * In FOLDER it leaves `requests`, with a line for each: when it was answered, in nanoseconds since the first, and how long that took; and adds to
 * `facts` the moments of the move on the same clock, and what the destination says about it. Once a second it tells on
 * the standard error how it goes.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "kv/address.h"
#include "kv/buffer.h"
#include "kv/call.h"
#include "kv/resp.h"
#include "model.h"

enum {
	PARAGRAPH = 600, /* bytes */
	BATCH = 65536,   /* bytes of requests that are sent before answers are taken, while the server is filled */
	SECONDS = 60,    /* without an answer */
	MOST = 1 << 22,  /* requests of a connection */
};

struct sample {
	uint64_t answered, took; /* ns */
};

struct connection {
	struct traffic *traffic;
	pthread_t thread;
	unsigned number;
	int fd;
	uint64_t random;
	struct buffer request, expected;
	struct sample *samples;
	size_t count;
};

struct traffic {
	struct address source, destination;
	struct model model;
	const char *folder;
	struct connection *connections;
	unsigned count;
	uint64_t started;
	atomic_bool ending;

	/* Told once a second; nothing hangs on them. */
	atomic_ullong answered, slowest;

	pthread_t watcher;
	bool watched;
	uint64_t move, begun, complete; /* ns; of the watcher, until it is joined */
	struct buffer said;             /* the destination's INFO, when all was there */
};

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("traffic: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Requests.
 */

static void add_command(struct connection *c, size_t count, const struct slice *args)
{
	reply_array(&c->request, count);
	for (size_t i = 0; i < count; i++)
		reply_bulk(&c->request, args[i]);
}

static void add_set(struct connection *c, size_t key)
{
	char name[MODEL_KEY];

	add_command(c, 3, (struct slice[]){{"SET", 3}, model_key(key, name), model_value(&c->traffic->model, key)});
	reply_status(&c->expected, "OK");
}

static void add_get(struct connection *c, size_t key)
{
	char name[MODEL_KEY];

	add_command(c, 2, (struct slice[]){{"GET", 3}, model_key(key, name)});
	reply_bulk(&c->expected, model_value(&c->traffic->model, key));
}

static void send_all(struct connection *c)
{
	if (c->request.failed || c->expected.failed)
		die("no memory");
	while (buffer_length(&c->request)) {
		ssize_t sent = send(c->fd, buffer_bytes(&c->request), buffer_length(&c->request), MSG_NOSIGNAL);

		if (sent < 0)
			die("connection %u: a request cannot be sent: %s", c->number, strerror(errno));
		buffer_consume(&c->request, (size_t)sent);
	}
}

static void receive_all(struct connection *c)
{
	static __thread char got[BATCH];

	while (buffer_length(&c->expected)) {
		size_t most = buffer_length(&c->expected) < BATCH ? buffer_length(&c->expected) : BATCH;
		ssize_t len = recv(c->fd, got, most, 0);

		if (len <= 0)
			die("connection %u: no answer: %s", c->number, len ? strerror(errno) : "it was closed");
		if (memcmp(got, buffer_bytes(&c->expected), (size_t)len) != 0)
			die("connection %u: a wrong answer: '%.*s' and not '%.40s'", c->number,
			    len < 40 ? (int)len : 40, got, buffer_bytes(&c->expected));
		buffer_consume(&c->expected, (size_t)len);
	}
}

static void exchange(struct connection *c)
{
	send_all(c);
	receive_all(c);
}

static void connect_to_source(struct connection *c)
{
	c->fd = address_connect(&c->traffic->source, true, SECONDS);
	if (c->fd < 0)
		die("no connection: %s", strerror(-c->fd));
}

static void disconnect(struct connection *c)
{
	close(c->fd);
	buffer_free(&c->request);
	buffer_free(&c->expected);
}

static void fill(struct traffic *traffic)
{
	struct connection c = {.traffic = traffic};

	connect_to_source(&c);
	for (size_t key = 0; key < traffic->model.count; key++) {
		add_set(&c, key);
		if (buffer_length(&c.request) > BATCH)
			exchange(&c);
	}
	exchange(&c);
	disconnect(&c);
}

/*
 * Clients.
 */

/* Keys are divided among the clients, so that each knows what its own hold. */
static size_t choose_key(struct connection *c)
{
	size_t own = (c->traffic->model.count - c->number + c->traffic->count - 1) / c->traffic->count;

	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random % own * c->traffic->count + c->number;
}

static void add_random(struct connection *c)
{
	struct model *model = &c->traffic->model;
	size_t key = choose_key(c);

	if ((c->random >> 40) % 10) {
		add_get(c, key);
		return;
	}
	model->which[key] = (uint32_t)((c->random >> 20) % model->count);
	add_set(c, key);
}

static void measure(struct connection *c)
{
	uint64_t sent, answered, took;
	unsigned long long slowest = atomic_load(&c->traffic->slowest);

	if (c->count == MOST)
		die("connection %u: more than %d requests", c->number, MOST);
	add_random(c);
	sent = now_ns();
	exchange(c);
	answered = now_ns();
	took = answered - sent;
	c->samples[c->count++] = (struct sample){answered - c->traffic->started, took};
	atomic_fetch_add(&c->traffic->answered, 1);
	while (took > slowest && !atomic_compare_exchange_weak(&c->traffic->slowest, &slowest, took))
		;
}

static void *run_client(void *arg)
{
	struct connection *c = arg;

	connect_to_source(c);
	while (!atomic_load(&c->traffic->ending))
		measure(c);
	for (size_t key = c->number; key < c->traffic->model.count; key += c->traffic->count) {
		add_get(c, key);
		exchange(c);
	}
	disconnect(c);
	return NULL;
}

static void go(struct traffic *traffic)
{
	traffic->started = now_ns();
	for (unsigned i = 0; i < traffic->count; i++) {
		struct connection *c = &traffic->connections[i];

		/* Memory that is not touched until it is needed. */
		*c = (struct connection){.traffic = traffic,
		                         .number = i,
		                         .random = 88172645463325252u + i,
		                         .samples = calloc(MOST, sizeof(*c->samples))};
		if (!c->samples || pthread_create(&c->thread, NULL, run_client, c))
			die("no memory, or no thread");
	}
}

/*
 * The move.
 */

static void ask(struct traffic *traffic)
{
	int result;

	buffer_free(&traffic->said);
	traffic->said = (struct buffer){0};
	result = call(&traffic->destination, SECONDS, 1, (const char *const[]){"INFO"}, &traffic->said);
	if (result)
		die("the destination does not answer: %s",
		    result < 0 ? strerror(-result) : buffer_bytes(&traffic->said));
}

/* What is asked of the destination before it has the heap waits: the first answer comes when it begins to serve. */
static void *watch(void *arg)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct traffic *traffic = arg;

	ask(traffic);
	traffic->begun = now_ns();
	while (!strstr(buffer_bytes(&traffic->said), "migration_phase:complete")) {
		nanosleep(&pause, NULL);
		ask(traffic);
	}
	traffic->complete = now_ns();
	puts("moved");
	fflush(stdout);
	return NULL;
}

static void move(struct traffic *traffic)
{
	traffic->move = now_ns();
	traffic->watched = true;
	if (pthread_create(&traffic->watcher, NULL, watch, traffic))
		die("no thread");
}

/*
 * What is left behind.
 */

static FILE *open_file(const struct traffic *traffic, const char *name, const char *mode)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", traffic->folder, name);
	file = fopen(path, mode);
	if (!file)
		die("%s: %s", path, strerror(errno));
	return file;
}

static void close_file(FILE *file)
{
	bool failed = ferror(file);

	if (fclose(file) || failed)
		die("a file cannot be written");
}

static void write_facts(struct traffic *traffic)
{
	FILE *file = open_file(traffic, "facts", "ae");
	char *rest, *line;

	fprintf(file, "move_ns\t%" PRIu64 "\nbegun_ns\t%" PRIu64 "\ncomplete_ns\t%" PRIu64 "\n",
	        traffic->move - traffic->started, traffic->begun - traffic->started,
	        traffic->complete - traffic->started);
	for (line = strtok_r(buffer_bytes(&traffic->said), "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
		char *value = strchr(line, ':');

		if (value && !strncmp(line, "migration_", 10))
			fprintf(file, "%.*s\t%s\n", (int)(value - line), line, value + 1);
	}
	close_file(file);
}

static uint64_t write_requests(const struct traffic *traffic)
{
	FILE *file = open_file(traffic, "requests", "we");
	uint64_t count = 0;

	for (unsigned i = 0; i < traffic->count; i++) {
		const struct connection *c = &traffic->connections[i];

		for (size_t j = 0; j < c->count; j++)
			fprintf(file, "%" PRIu64 " %" PRIu64 "\n", c->samples[j].answered, c->samples[j].took);
		count += c->count;
	}
	close_file(file);
	return count;
}

static void finish(struct traffic *traffic)
{
	char digest[33];

	atomic_store(&traffic->ending, true);
	for (unsigned i = 0; i < traffic->count; i++)
		pthread_join(traffic->connections[i].thread, NULL);
	if (traffic->watched) {
		pthread_join(traffic->watcher, NULL);
		write_facts(traffic);
	}
	model_digest(&traffic->model, digest);
	printf("checked %s %" PRIu64 "\n", digest, write_requests(traffic));
}

static void tell(struct traffic *traffic)
{
	static uint64_t last;
	uint64_t now = now_ns(), since = now - (last ? last : traffic->started);
	unsigned long long answered = atomic_exchange(&traffic->answered, 0);

	if (!traffic->started)
		return;
	fprintf(stderr, "  %5.1f s  %8.0f requests/s  slowest %8.2f ms\n", (double)(now - traffic->started) / 1e9,
	        (double)answered / (double)since * 1e9, (double)atomic_exchange(&traffic->slowest, 0) / 1e6);
	last = now;
}

/* The next word on the standard input; 0: there is none for a second. */
static int next_word(char *word, size_t size)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	if (poll(&input, 1, 1000) <= 0)
		return 0;
	if (!fgets(word, (int)size, stdin))
		die("nobody tells what to do any more");
	word[strcspn(word, "\n")] = '\0';
	return 1;
}

static void obey(struct traffic *traffic)
{
	char word[16] = "";

	while (strcmp(word, "end") != 0) {
		if (!next_word(word, sizeof(word)))
			tell(traffic);
		else if (!strcmp(word, "go"))
			go(traffic);
		else if (!strcmp(word, "move"))
			move(traffic);
	}
}

int main(int argc, char **argv)
{
	static struct traffic traffic;
	char digest[33];
	int err;

	if (argc != 6 || atoi(argv[4]) < 1 || address_parse(&traffic.source, argv[1]) ||
	    address_parse(&traffic.destination, argv[2]))
		die("usage: traffic SOURCE DESTINATION TEXT CONNECTIONS FOLDER");
	traffic.count = (unsigned)atoi(argv[4]);
	traffic.folder = argv[5];
	traffic.connections = calloc(traffic.count, sizeof(*traffic.connections));
	err = model_open(&traffic.model, argv[3], PARAGRAPH);
	if (err || !traffic.connections || traffic.model.count < traffic.count)
		die("%s: %s", argv[3], err ? strerror(-err) : "too little text");
	/* One line is read at a time, and then waited for with poll(2). */
	setvbuf(stdin, NULL, _IONBF, 0);
	fill(&traffic);
	model_digest(&traffic.model, digest);
	printf("filled %s %zu\n", digest, traffic.model.count);
	fflush(stdout);
	obey(&traffic);
	finish(&traffic);
	for (unsigned i = 0; i < traffic.count; i++)
		free(traffic.connections[i].samples);
	free(traffic.connections);
	buffer_free(&traffic.said);
	model_close(&traffic.model);
	return fflush(stdout) ? 1 : 0;
}
