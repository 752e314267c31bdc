// SPDX-License-Identifier: MIT
/*
 * pager-words STORE - counts words, as `wc -w` does, in a store that need not be a file
 *
 * The store is mapped for reading, and counted as if it were an array of characters. It is read from one end to the other, which the pager
 * is told: so it reads far ahead, and few touches wait.
 *
 * pager-words 'nbd+unix:///texts?socket=/run/nbd.socket'
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <userfault.h>

struct settings {
	uint64_t budget;
	enum uf_engine engine;
	const char *uri;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "pager-words: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "usage: pager-words [OPTION...] STORE\n"
	                "Counts the words of a store: what stands between white space.\n"
	                "STORE is file:PATH, nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH.\n"
	                "  --budget SIZE   memory that pages may take; with K, M or G; 64M\n"
	                "  --engine NAME   auto, kernel or user\n");
	exit(2);
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

static struct settings parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"budget", required_argument, NULL, 'b'}, {"engine", required_argument, NULL, 'e'}, {NULL, 0, NULL, 0}};
	struct settings settings = {.budget = 64 << 20};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'b':
			settings.budget = parse_size(optarg);
			break;
		case 'e':
			settings.engine = parse_engine(optarg);
			break;
		default:
			usage();
		}
	}
	if (optind + 1 != argc)
		usage();
	settings.uri = argv[optind];
	return settings;
}

static void complain(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "pager-words: %s\n", cause);
}

static struct uf_store *open_store(const char *uri)
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY, .failed = complain};
	struct uf_store *store;
	char cause[256];

	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause))) {
		fprintf(stderr, "pager-words: %s\n", cause);
		exit(1);
	}
	return store;
}

static uint64_t count_words(const char *text, uint64_t len)
{
	uint64_t words = 0;
	int inside = 0;

	for (uint64_t i = 0; i < len; i++) {
		int space = isspace((unsigned char)text[i]);

		words += !space && !inside;
		inside = !space;
	}
	return words;
}

static uint64_t count_store(struct uf_pager *pager, struct uf_store *store)
{
	uint64_t len = uf_store_size(store);
	void *text;
	int err;

	err = uf_pager_map(pager, &text, store, 0, len, UF_PAGER_READ_ONLY, 0);
	if (!err)
		err = uf_pager_advise(pager, text, len, UF_PAGER_SEQUENTIAL);
	if (err)
		die("cannot map", err);
	return count_words(text, len);
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
	printf("%llu\n", (unsigned long long)count_store(pager, store));
	print_stats(pager);
	uf_pager_close(pager);
	uf_store_close(store);
	return 0;
}
