// SPDX-License-Identifier: MIT
/*
 * store-stripes FILE FILE... - a store of one's own: files striped, 64 KiB from each in turn
 *
 * Writes the bytes to standard output. Each file is a store itself, so the table has little to do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <userfault/store.h>

#define STRIPE 65536

struct stripes {
	struct uf_store **parts;
	unsigned count;
};

/* As far as the stripe goes; whoever asked for more asks again. */
static int64_t stripes_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	const struct stripes *stripes = state;
	uint64_t stripe = offset / STRIPE, within = offset % STRIPE;
	unsigned part = (unsigned)(stripe % stripes->count);
	int err;

	if (len > STRIPE - within)
		len = STRIPE - within;
	err = uf_store_read(stripes->parts[part], buf, len, stripe / stripes->count * STRIPE + within);
	if (err)
		snprintf(cause->text, sizeof(cause->text), "part %u of %u failed", part + 1, stripes->count);
	return err ? err : (int64_t)len;
}

static void stripes_close(void *state)
{
	struct stripes *stripes = state;

	for (unsigned i = 0; i < stripes->count; i++)
		uf_store_close(stripes->parts[i]);
	free(stripes->parts);
}

static const struct uf_store_ops stripes_ops = {
	.size = sizeof(stripes_ops),
	.version = UF_STORE_OPS_VERSION,
	.read = stripes_read,
	.close = stripes_close,
};

static void complain(void *arg, const char *cause)
{
	(void)arg;
	fprintf(stderr, "%s\n", cause);
}

/* Whole stripes of the shortest file count, of each. */
static int open_parts(struct stripes *stripes, char **paths, uint64_t *size)
{
	struct uf_store_options opts = {.size = sizeof(opts), .flags = UF_STORE_READ_ONLY, .failed = complain};
	uint64_t shortest = UINT64_MAX;
	char uri[4096], cause[256];

	for (; *paths; paths++) {
		struct uf_store *part;

		snprintf(uri, sizeof(uri), "file:%s", *paths);
		if (uf_store_open(&part, uri, &opts, cause, sizeof(cause))) {
			fprintf(stderr, "%s\n", cause);
			return -1;
		}
		stripes->parts[stripes->count++] = part;
		if (uf_store_size(part) < shortest)
			shortest = uf_store_size(part);
	}
	*size = shortest / STRIPE * STRIPE * stripes->count;
	return *size ? 0 : -1;
}

int main(int argc, char **argv)
{
	static char buf[1 << 20];
	struct stripes stripes = {.parts = calloc((size_t)argc, sizeof(*stripes.parts))};
	struct uf_store *store;
	uint64_t size;
	int err;

	if (argc < 2 || !stripes.parts || open_parts(&stripes, argv + 1, &size)) {
		fprintf(stderr, "usage: store-stripes FILE... (of 64 KiB at least)\n");
		return 2;
	}
	err = uf_store_create(&store, &stripes_ops, &stripes, size, 0, "stripes", NULL);
	for (uint64_t at = 0; !err && at < size; at += sizeof(buf)) {
		size_t len = size - at < sizeof(buf) ? (size_t)(size - at) : sizeof(buf);

		err = uf_store_read(store, buf, len, at);
		if (!err && fwrite(buf, 1, len, stdout) != len)
			err = -EIO;
	}
	if (err)
		fprintf(stderr, "store-stripes: %s\n", strerror(-err));
	uf_store_close(store);
	return err ? 1 : 0;
}
