// SPDX-License-Identifier: MIT
/*
 * pager-random STORE - reads numbers from random places of a store, on several threads
 *
 * The places are the same in each run, as a program's often are when it starts. --record writes down which pages were touched, in which
 * order; with --replay they are brought in by few large reads, instead of by a fault each:
 *
 * pager-random --reads 20000 --record set file:/data/table
 * pager-random --reads 20000 --replay set file:/data/table
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <userfault.h>

#define MOST_THREADS 64

struct settings {
	uint64_t budget, threads, reads, seconds, seed;
	enum uf_engine engine;
	const char *record, *replay, *uri;
	int print;
};

struct reader {
	pthread_t thread;
	const uint64_t *numbers;
	uint64_t count, random, most, end_ns, reads;
	int print;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "pager-random: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "usage: pager-random [OPTION...] STORE\n"
	                "Reads 8-byte numbers from random places, and tells how many a second.\n"
	                "STORE is file:PATH, nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH.\n"
	                "  --budget SIZE   memory that pages may take; with K, M or G; 64M\n"
	                "  --engine NAME   auto, kernel or user\n"
	                "  --threads N     at most 64; 1\n"
	                "  --reads N       so many on each thread; 10000\n"
	                "  --seconds N     as many as there are in that time\n"
	                "  --seed N        other places\n"
	                "  --record FILE   write the working set down\n"
	                "  --replay FILE   bring it in\n"
	                "  --print         each number, as `od -A d -t x8 -w8 -v` would\n");
	exit(2);
}

static uint64_t parse_number(const char *text)
{
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (end == text || *text == '-' || errno || *end)
		usage();
	return number;
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
		usage();
	return suffix ? size << (10 * (suffix - suffixes + 1)) : size;
}

static enum uf_engine parse_engine(const char *name)
{
	static const char *const names[] = {"auto", "kernel", "user"};
	int engine = 0;

	while (engine < 3 && strcmp(name, names[engine]))
		engine++;
	if (engine == 3)
		usage();
	return (enum uf_engine)engine;
}

static void take(struct settings *settings, int option)
{
	switch (option) {
	case 'b':
		settings->budget = parse_size(optarg);
		break;
	case 'e':
		settings->engine = parse_engine(optarg);
		break;
	case 't':
		settings->threads = parse_number(optarg);
		break;
	case 'r':
		settings->reads = parse_number(optarg);
		break;
	case 's':
		settings->seconds = parse_number(optarg);
		break;
	case 'n':
		settings->seed = parse_number(optarg);
		break;
	case 'w':
		settings->record = optarg;
		break;
	case 'p':
		settings->replay = optarg;
		break;
	case 'o':
		settings->print = 1;
		break;
	default:
		usage();
	}
}

static struct settings parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"budget", required_argument, NULL, 'b'},  {"engine", required_argument, NULL, 'e'},
		{"threads", required_argument, NULL, 't'}, {"reads", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'n'},
		{"record", required_argument, NULL, 'w'},  {"replay", required_argument, NULL, 'p'},
		{"print", no_argument, NULL, 'o'},         {NULL, 0, NULL, 0}};
	struct settings settings = {.budget = 64 << 20, .threads = 1, .seed = 1};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		take(&settings, option);
	/* What is brought in by a replay is not touched first by the program, so there would be nothing to write down. */
	if (optind + 1 != argc || !settings.threads || settings.threads > MOST_THREADS ||
	    (settings.record && settings.replay) || (settings.reads && settings.seconds))
		usage();
	if (!settings.reads && !settings.seconds)
		settings.reads = 10000;
	settings.uri = argv[optind];
	return settings;
}

static void complain(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "pager-random: %s\n", cause);
}

static struct uf_store *open_store(const char *uri)
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY, .failed = complain};
	struct uf_store *store;
	char cause[256];

	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause))) {
		fprintf(stderr, "pager-random: %s\n", cause);
		exit(1);
	}
	if (uf_store_size(store) < sizeof(uint64_t)) {
		fprintf(stderr, "pager-random: %s: there is no 8-byte number in it\n", uri);
		exit(1);
	}
	return store;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* So many reads, or until then; the clock is looked at now and then. */
static void *read_numbers(void *arg)
{
	struct reader *reader = arg;

	while (reader->most ? reader->reads < reader->most : reader->reads % 64 || now_ns() < reader->end_ns) {
		uint64_t at, number;

		reader->random = reader->random * 6364136223846793005u + 1442695040888963407u;
		at = (reader->random >> 16) % reader->count;
		number = ((const volatile uint64_t *)reader->numbers)[at];
		reader->reads++;
		if (reader->print)
			printf("%07llu %016llx\n", (unsigned long long)at * 8, (unsigned long long)number);
	}
	return NULL;
}

/* How many reads there were. */
static uint64_t run(const struct settings *settings, const uint64_t *numbers, uint64_t count, uint64_t start_ns)
{
	struct reader readers[MOST_THREADS];
	uint64_t reads = 0;

	for (uint64_t i = 0; i < settings->threads; i++) {
		int err;

		readers[i] = (struct reader){.numbers = numbers,
		                             .count = count,
		                             .random = (settings->seed * MOST_THREADS + i) * 0x9e3779b97f4a7c15u,
		                             .most = settings->reads,
		                             .end_ns = start_ns + settings->seconds * 1000000000u,
		                             .print = settings->print};
		err = pthread_create(&readers[i].thread, NULL, read_numbers, &readers[i]);
		if (err)
			die("no thread", -err);
	}
	for (uint64_t i = 0; i < settings->threads; i++) {
		pthread_join(readers[i].thread, NULL);
		reads += readers[i].reads;
	}
	return reads;
}

/* At random nothing is gained by reading more than was touched. */
static void *map(struct uf_pager *pager, struct uf_store *store, const struct settings *settings)
{
	uint64_t len = uf_store_size(store);
	void *memory;
	int err = uf_pager_map(pager, &memory, store, 0, len, UF_PAGER_READ_ONLY, 0);

	if (!err)
		err = uf_pager_advise(pager, memory, len, UF_PAGER_RANDOM);
	if (err)
		die("cannot map", err);
	if (settings->record && (err = uf_pager_record(pager, memory, 1)))
		die("cannot record", err);
	return memory;
}

static void print_stats(struct uf_pager *pager)
{
	struct uf_pager_statistics stats = {.size = sizeof(stats)};

	uf_pager_stats(pager, &stats);
	printf("%s engine, %s: %llu faults, %.1f MiB read, %.1f written, %.1f evicted; p50 %.1f us, p99 %.1f us\n",
	       uf_pager_engine(pager) == UF_ENGINE_USER ? "user" : "kernel",
	       uf_pager_way(pager) == UF_PAGER_THREAD ? "on a thread" : "inline", (unsigned long long)stats.faults,
	       (double)stats.read / 1048576, (double)stats.written / 1048576, (double)stats.evicted / 1048576,
	       (double)stats.latency_p50 / 1e3, (double)stats.latency_p99 / 1e3);
}

/* The time of the replay counts: it is a part of the start. */
static void read_and_tell(struct uf_pager *pager, void *memory, uint64_t count, const struct settings *settings)
{
	uint64_t start = now_ns(), reads, ns;
	int err = settings->replay ? uf_pager_replay(pager, memory, settings->replay, 1) : 0;

	if (err)
		die(settings->replay, err);
	reads = run(settings, memory, count, start);
	ns = now_ns() - start;
	err = settings->record ? uf_pager_save(pager, memory, settings->record) : 0;
	if (err)
		die(settings->record, err);
	printf("%llu reads in %.3f s, %.0f a second\n", (unsigned long long)reads, (double)ns / 1e9,
	       (double)reads * 1e9 / (double)ns);
}

int main(int argc, char **argv)
{
	struct settings settings = parse(argc, argv);
	struct uf_pager_options opts = {
		.size = sizeof(opts), .budget = settings.budget, .engine = settings.engine, .failed = complain};
	struct uf_store *store = open_store(settings.uri);
	struct uf_pager *pager;
	int err = uf_pager_open(&pager, &opts);

	if (err)
		die(err == -EINVAL ? "a budget is at least 8 pages" : "no userfaultfd ('userfault probe' tells why)",
		    err);
	read_and_tell(pager, map(pager, store, &settings), uf_store_size(store) / sizeof(uint64_t), &settings);
	print_stats(pager);
	uf_pager_close(pager);
	uf_store_close(store);
	return 0;
}
