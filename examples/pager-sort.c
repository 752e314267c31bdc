// SPDX-License-Identifier: MIT
/*
 * pager-sort STORE - sorts a store of 64-bit numbers in place, in less memory than it has
 *
 * The store is mapped, and sorted as if it were an array in memory: the pager reads what is touched, and writes back what has to make
 * room. Quicksort walks through its array from both ends, which the pager finds out and reads ahead.
 *
 * pager-sort --budget 256M --unit 64K --verify file:/data/keys
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <userfault.h>

struct settings {
	uint64_t budget, unit;
	enum uf_engine engine;
	int verify;
	const char *uri;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "pager-sort: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "usage: pager-sort [OPTION...] STORE\n"
	                "Sorts a store of 64-bit numbers, in the machine's byte order, in place.\n"
	                "STORE is file:PATH, nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH.\n"
	                "  --budget SIZE   memory that pages may take; with K, M or G; 64M\n"
	                "  --unit SIZE     read and evicted together, from the system's page to 2M; 64K\n"
	                "  --engine NAME   auto, kernel or user\n"
	                "  --verify        see that the order is right, and that no number was lost or changed\n");
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
	static const struct option options[] = {{"budget", required_argument, NULL, 'b'},
	                                        {"unit", required_argument, NULL, 'u'},
	                                        {"engine", required_argument, NULL, 'e'},
	                                        {"verify", no_argument, NULL, 'v'},
	                                        {NULL, 0, NULL, 0}};
	struct settings settings = {.budget = 64 << 20, .unit = 64 << 10};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'b':
			settings.budget = parse_size(optarg);
			break;
		case 'u':
			settings.unit = parse_size(optarg);
			break;
		case 'e':
			settings.engine = parse_engine(optarg);
			break;
		case 'v':
			settings.verify = 1;
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

/*
 * Sorting: an array of numbers like any other.
 */

static inline void swap(uint64_t *a, uint64_t *b)
{
	uint64_t value = *a;

	*a = *b;
	*b = value;
}

static void sort_few(uint64_t *keys, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		uint64_t key = keys[i];
		size_t at = i;

		for (; at && keys[at - 1] > key; at--)
			keys[at] = keys[at - 1];
		keys[at] = key;
	}
}

/* The middle one of three from anywhere: no order of the input makes it a bad one again and again. */
static uint64_t pivot_of(const uint64_t *keys, size_t count)
{
	static uint64_t random = 1;
	uint64_t key[3];

	for (int i = 0; i < 3; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		key[i] = keys[(random >> 16) % count];
	}
	sort_few(key, 3);
	return key[1];
}

/* The lower part's length: none in it is greater than any behind it. Neither part is empty. */
static size_t divide(uint64_t *keys, size_t count)
{
	uint64_t pivot = pivot_of(keys, count), *low = keys - 1, *high = keys + count;

	for (;;) {
		do
			low++;
		while (*low < pivot);
		do
			high--;
		while (*high > pivot);
		if (low >= high)
			break;
		swap(low, high);
	}
	/* The pivot is the greatest: it stands at the end, alone. */
	return high + 1 == keys + count ? count - 1 : (size_t)(high + 1 - keys);
}

static void sort(uint64_t *keys, size_t count)
{
	while (count > 32) {
		size_t low = divide(keys, count);

		if (low < count - low) {
			sort(keys, low);
			keys += low;
			count -= low;
		} else {
			sort(keys + low, count - low);
			count = low;
		}
	}
	sort_few(keys, count);
}

/*
 * Verifying.
 */

/* Sums that do not depend on the order. */
struct sums {
	uint64_t sum, parity;
};

static struct sums sum_up(const uint64_t *keys, size_t count)
{
	struct sums sums = {0};

	for (size_t i = 0; i < count; i++) {
		uint64_t mixed = (keys[i] ^ keys[i] >> 32) * 0x9e3779b97f4a7c15u;

		sums.sum += mixed;
		sums.parity ^= mixed ^ mixed >> 29;
	}
	return sums;
}

static int verify(const uint64_t *keys, size_t count, struct sums before)
{
	struct sums after = sum_up(keys, count);
	size_t at = 1;

	while (at < count && keys[at - 1] <= keys[at])
		at++;
	if (at < count)
		fprintf(stderr, "pager-sort: number %zu is smaller than the one before it\n", at);
	else if (memcmp(&before, &after, sizeof(before)))
		fprintf(stderr, "pager-sort: these are not the numbers that there were\n");
	else
		printf("%zu numbers in order, and the same as before\n", count);
	return at < count || memcmp(&before, &after, sizeof(before));
}

/*
 * The pager.
 */

static void complain(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "pager-sort: %s\n", cause);
}

static struct uf_store *open_store(const char *uri)
{
	struct uf_store_options opts = {.size = sizeof(opts), .failed = complain};
	struct uf_store *store;
	char cause[256];

	if (uf_store_open(&store, uri, &opts, cause, sizeof(cause))) {
		fprintf(stderr, "pager-sort: %s\n", cause);
		exit(1);
	}
	if (!uf_store_size(store) || uf_store_size(store) % sizeof(uint64_t)) {
		fprintf(stderr, "pager-sort: %s: %llu bytes are not a number of 8-byte numbers\n", uri,
		        (unsigned long long)uf_store_size(store));
		exit(1);
	}
	return store;
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
	size_t count = uf_store_size(store) / sizeof(uint64_t);
	struct sums before = {0};
	struct uf_pager *pager;
	void *memory;
	int status = 0, err = uf_pager_open(&pager, &opts);

	if (err)
		die(err == -EINVAL ? "a budget is at least 8 pages" : "no userfaultfd ('userfault probe' tells why)",
		    err);
	err = uf_pager_map(pager, &memory, store, 0, uf_store_size(store), UF_PAGER_SHARED, settings.unit);
	if (err)
		die(err == -EINVAL ? "a unit is a power of two, and at most an eighth of the budget" : "cannot map",
		    err);
	if (settings.verify)
		before = sum_up(memory, count);
	sort(memory, count);
	err = uf_pager_flush(pager, NULL, 0);
	if (err)
		die("what was sorted cannot be written", err);
	if (settings.verify)
		status = verify(memory, count, before);
	print_stats(pager);
	uf_pager_close(pager);
	uf_store_close(store);
	return status;
}
