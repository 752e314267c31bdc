// SPDX-License-Identifier: MIT
/* fill.*: how fast pages are delivered that nobody waits for. */
#include <string.h>

#include <userfault/uffd.h>

#include "base/clock.h"
#include "bench.h"

#define LEN ((size_t)FILL_MIB << 20)

static char *missing_memory(struct uf **uf, const struct uf_options *opts)
{
	char *memory = bench_memory(LEN);

	must(uf_open(uf, opts), "uf_open");
	must(uf_register(*uf, memory, LEN, UFFDIO_REGISTER_MODE_MISSING, NULL), "uf_register");
	return memory;
}

static void sample_since(struct bench *bench, uint64_t start)
{
	bench_sample(bench, (double)LEN / (double)(now_ns() - start));
}

void filling_copy(struct bench *bench)
{
	struct uf *uf;
	char *memory = missing_memory(&uf, NULL), *source = bench_memory(CHUNK);
	uint64_t start;

	memset(source, CONTENT, CHUNK);
	start = now_ns();
	for (size_t at = 0; at < LEN; at += CHUNK)
		must(uf_copy(uf, memory + at, source, CHUNK, 0), "uf_copy");
	sample_since(bench, start);
}

/* Each chunk is filled where nobody looks, and moved into place. */
void filling_move(struct bench *bench)
{
	struct uf_options opts = {.size = sizeof(opts), .required = UFFD_FEATURE_MOVE};
	struct uf *uf;
	char *memory = missing_memory(&uf, &opts), *source = bench_memory(CHUNK), *staging = bench_memory(CHUNK);
	uint64_t start;

	memset(source, CONTENT, CHUNK);
	start = now_ns();
	for (size_t at = 0; at < LEN; at += CHUNK) {
		memcpy(staging, source, CHUNK);
		must(uf_move(uf, memory + at, staging, CHUNK, 0), "uf_move");
	}
	sample_since(bench, start);
}

void filling_zero(struct bench *bench)
{
	struct uf *uf;
	char *memory = missing_memory(&uf, NULL);
	uint64_t start = now_ns();

	must(uf_zeropage(uf, memory, LEN, 0), "uf_zeropage");
	sample_since(bench, start);
}
