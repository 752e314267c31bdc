// SPDX-License-Identifier: MIT
/*
 * kv - a key-value server that speaks the Redis protocol, and moves to another process while it is used
 *
 *	kv --listen tcp://127.0.0.1:7000 --heap 1G                                        the server
 *	kv --listen tcp://127.0.0.1:7001 --heap 1G --incoming unix:/tmp/move              one that waits for its memory
 *	kv migrate --server tcp://127.0.0.1:7000 --to unix:/tmp/move --forward tcp://127.0.0.1:7001
 *
 * The first then hands its clients on to the second, without an interruption but for the milliseconds of the stop. It is written to be read:
 *
 *	migrate.c   what makes it migrate: begin here
 *	heap.c      an allocator that lies in the memory that it manages, and so can move
 *	table.c     the hash table in it
 *	commands.c  GET, SET and so on
 *	resp.c      the protocol
 *	server.c    clients, one thread; forward.c is the proxy that the source becomes
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <userfault.h>

#include "address.h"
#include "call.h"
#include "migrate.h"
#include "server.h"

#define DEFAULT_HEAP (256ULL << 20)

enum { WRONG_USE = 2, CALL_SECONDS = 60 };

struct settings {
	const char *listen, *incoming;
	const char *server, *to, *forward, *passes;
	uint64_t heap;
	uint64_t bandwidth;
	enum uf_engine engine;
};

static const char help[] =
	"usage: kv --listen ADDRESS [--heap SIZE] [--incoming URI] [--engine NAME]\n"
	"       kv migrate --server ADDRESS --to URI --forward ADDRESS [--passes N] [--bandwidth SIZE]\n"
	"       kv digest --server ADDRESS\n"
	"A key-value server that speaks the Redis protocol, and moves to another process while it is used.\n"
	"  --listen ADDRESS   where clients connect: tcp://HOST:PORT or unix:PATH\n"
	"  --heap SIZE        memory for keys and values; with K, M or G; 256M. The same on both sides of a migration\n"
	"  --incoming URI     wait there for the memory of another server: tcp://HOST:PORT or unix:PATH\n"
	"  --engine NAME      auto, kernel or user\n"
	"When it is ready it prints \"incoming URI\" if it waits for one, and \"serving ADDRESS\"; a port 0 has become "
	"one that is free.\n"
	"migrate moves the memory of a server:\n"
	"  --server ADDRESS   which one: where it listens\n"
	"  --to URI           where another one waits for it: its --incoming\n"
	"  --forward ADDRESS  where clients are handed on to: its --listen\n"
	"  --passes N         times that memory is sent while it is still used, at most; 8. With 0 all of it follows\n"
	"  --bandwidth SIZE   bytes a second for what is not touched, at most; 64K or more; no limit\n"
	"digest prints a hash of all keys and values, which does not depend on their order.\n";

static _Noreturn __attribute__((format(printf, 2, 3))) void die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("kv: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

static uint64_t parse_size(const char *text)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	char *end;
	uint64_t size;

	errno = 0;
	size = strtoull(text, &end, 10);
	suffix = *end ? strchr(suffixes, *end) : NULL;
	if (end == text || *text == '-' || errno || (*end && (!suffix || end[1])))
		die(WRONG_USE, "%s is not a size", text);
	if (suffix && size >> (64 - 10 * (suffix - suffixes + 1)))
		return UINT64_MAX;
	return suffix ? size << (10 * (suffix - suffixes + 1)) : size;
}

static uint64_t parse_heap(const char *text)
{
	uint64_t size = parse_size(text);

	if (size < HEAP_MIN_SIZE || size > HEAP_MAX_SIZE)
		die(WRONG_USE, "a heap has 1M to 8192G");
	/* Pages of the system, of whatever size, on both sides. */
	return size & ~65535ULL;
}

static enum uf_engine parse_engine(const char *name)
{
	static const char *const names[] = {"auto", "kernel", "user"};
	int engine = 0;

	while (engine < 3 && strcmp(name, names[engine]))
		engine++;
	if (engine == 3)
		die(WRONG_USE, "there is no engine %s: auto, kernel or user", name);
	return (enum uf_engine)engine;
}

static struct settings parse(int argc, char **argv)
{
	enum { LISTEN = 1, HEAP, INCOMING, ENGINE, SERVER, TO, FORWARD, PASSES, BANDWIDTH, HELP };
	static const struct option options[] = {
		{"listen", 1, NULL, LISTEN},   {"heap", 1, NULL, HEAP},     {"incoming", 1, NULL, INCOMING},
		{"engine", 1, NULL, ENGINE},   {"server", 1, NULL, SERVER}, {"to", 1, NULL, TO},
		{"forward", 1, NULL, FORWARD}, {"passes", 1, NULL, PASSES}, {"bandwidth", 1, NULL, BANDWIDTH},
		{"help", 0, NULL, HELP},       {NULL, 0, NULL, 0}};
	struct settings settings = {.heap = DEFAULT_HEAP};
	const char **const texts[] = {
		[LISTEN] = &settings.listen, [INCOMING] = &settings.incoming, [SERVER] = &settings.server,
		[TO] = &settings.to,         [FORWARD] = &settings.forward,   [PASSES] = &settings.passes};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == HELP) {
			fputs(help, stdout);
			exit(0);
		} else if (option == HEAP) {
			settings.heap = parse_heap(optarg);
		} else if (option == BANDWIDTH) {
			settings.bandwidth = parse_size(optarg);
		} else if (option == ENGINE) {
			settings.engine = parse_engine(optarg);
		} else if (option > 0 && option < HELP) {
			*texts[option] = optarg;
		} else {
			exit(WRONG_USE);
		}
	}
	if (optind != argc)
		die(WRONG_USE, "%s: nothing is expected there; see --help", argv[optind]);
	return settings;
}

static struct address parse_address(const char *text)
{
	struct address address;
	int err = address_parse(&address, text);

	if (err == -EINVAL)
		die(WRONG_USE, "%s is not an address: tcp://HOST:PORT or unix:PATH", text);
	if (err)
		die(1, "%s: there is no such host", text);
	return address;
}

static void *map_heap(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die(1, "no memory for the heap: %s", strerror(errno));
	return memory;
}

static struct heap *new_heap(void *memory, uint64_t size)
{
	struct heap *heap = heap_init(memory, size);
	uint64_t seed[2];

	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		die(1, "no random numbers: %s", strerror(errno));
	if (table_init(heap, seed))
		die(1, "the heap is too small");
	return heap;
}

/* In all threads, for the server takes them from a descriptor; and as many clients as there may be. */
static void prepare_process(bool serving)
{
	struct rlimit files;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(serving ? SIG_BLOCK : SIG_UNBLOCK, &signals, NULL);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int run_server(const struct settings *settings)
{
	struct server_options opts = {.migrate = migration_depart, .describe = migration_describe};
	void *memory = map_heap(settings->heap);
	struct migration *migration;
	struct server *server;
	struct address address;
	char cause[256];
	int err;

	if (!settings->listen || settings->server || settings->to || settings->forward || settings->passes)
		die(WRONG_USE, "a server is told where to --listen, and nothing of migrate; see --help");
	address = parse_address(settings->listen);
	prepare_process(true);
	opts.listener = address_listen(&address);
	if (opts.listener < 0)
		die(1, "cannot listen at %s: %s", settings->listen, strerror(-opts.listener));
	err = migration_open(&migration, memory, settings->heap, settings->engine);
	if (!settings->incoming)
		opts.heap = new_heap(memory, settings->heap);
	opts.arg = migration;
	if (!err)
		err = server_open(&server, &opts);
	if (err)
		die(1, "cannot serve: %s", strerror(-err));
	migration_serve(migration, server);
	if (settings->incoming && migration_arrive(migration, settings->incoming, cause, sizeof(cause)))
		die(1, "%s", cause);
	address_name(opts.listener, cause, sizeof(cause));
	printf("serving %s\n", cause);
	fflush(stdout);
	err = server_run(server);
	/* A second signal ends it at once. */
	prepare_process(false);
	migration_close(migration);
	server_close(server);
	close(opts.listener);
	address_remove(&address);
	return err ? 1 : 0;
}

static int run_call(const char *where, int seconds, size_t count, const char *const *args)
{
	struct address address = parse_address(where);
	struct buffer reply = {0};
	int result = call(&address, seconds, count, args, &reply);

	if (result < 0)
		die(1, "%s: %s", where, strerror(-result));
	if (result)
		die(1, "%s: %s", where, buffer_bytes(&reply));
	puts(buffer_bytes(&reply));
	buffer_free(&reply);
	return 0;
}

static int run_migrate(const struct settings *settings)
{
	char bandwidth[24];
	const char *const args[] = {"MIGRATETO", settings->to, settings->forward,
	                            settings->passes ? settings->passes : "8", bandwidth};

	if (!settings->server || !settings->to || !settings->forward || settings->listen || settings->incoming)
		die(WRONG_USE, "migrate needs --server, --to and --forward; see --help");
	snprintf(bandwidth, sizeof(bandwidth), "%llu", (unsigned long long)settings->bandwidth);
	return run_call(settings->server, 0, 5, args);
}

static int run_digest(const struct settings *settings)
{
	if (!settings->server || settings->to || settings->forward || settings->passes || settings->listen ||
	    settings->incoming)
		die(WRONG_USE, "digest needs --server, and nothing else; see --help");
	return run_call(settings->server, CALL_SECONDS, 1, (const char *const[]){"DIGEST"});
}

int main(int argc, char **argv)
{
	int (*run)(const struct settings *settings) = run_server;
	struct settings settings;

	if (argc > 1 && !strcmp(argv[1], "migrate"))
		run = run_migrate;
	else if (argc > 1 && !strcmp(argv[1], "digest"))
		run = run_digest;
	if (run != run_server) {
		argc--;
		argv++;
	}
	settings = parse(argc, argv);
	return run(&settings);
}
