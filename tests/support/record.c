// SPDX-License-Identifier: MIT
/*
 * record SCENE FILE [COUNT] - recordings as programs make them, always the same for the same words
 *
 *	empty      a client that did nothing
 *	one        one fault
 *	service    a service that starts from a snapshot: a burst at the start, a hot and a cold set, runs brought ahead, memory given back, a fork;
 *	           COUNT faults (100,000)
 *	strange    names, addresses, times and kinds that nobody should make
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/recording.h"

#define PAGE 4096u
#define MIB  (UINT64_C(1) << 20)

static struct recording *recording;
static uint64_t seed = 1;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t below(uint64_t limit)
{
	return next_random() % limit;
}

static struct recording_region regions[] = {
	{0x5580c0000000, 96 * MIB, 0},
	{0x7f3a40000000, 1024 * MIB, 128 * MIB},
	{0x7f3a90000000, 256 * MIB, 1280 * MIB},
};

static const struct recording_about about = {
	.page_size = PAGE,
	.pid = 4711,
	.client = 3,
	.started = UINT64_C(1790000000123456789),
	.store_size = 2048 * MIB,
	.name = "web-frontend",
	.store = "base-image",
	.regions = regions,
	.region_count = 3,
};

static void add(struct recording_event event)
{
	recording_add(recording, &event);
}

/* Most take what a store takes that has the page in memory; some wait for a disk, few for a long time. */
static uint64_t latency_of(enum recording_source source)
{
	uint64_t base = source == RECORDING_ZERO         ? 4200
	                : source == RECORDING_CACHE      ? 6800
	                : source == RECORDING_PREFETCHED ? 5200
	                                                 : 21000;
	uint64_t ns = base + below(base / 2) + below(base / 2);

	if (source == RECORDING_STORE && !below(4))
		ns += 70000 + below(160000);
	if (!below(60))
		ns *= 2 + below(6);
	if (!below(6000))
		ns += 3000000 + below(20000000);
	return ns;
}

static enum recording_source source_of(double warm)
{
	uint64_t dice = below(1000);

	if (dice < 60)
		return RECORDING_ZERO;
	if (dice < 60 + (uint64_t)(warm * 500))
		return RECORDING_CACHE;
	return dice < 900 ? RECORDING_STORE : RECORDING_PREFETCHED;
}

static void fault(uint64_t time, const struct recording_region *region, uint64_t page, double warm)
{
	enum recording_source source = source_of(warm);

	add((struct recording_event){
		.time = time,
		.address = region->address + page * PAGE,
		.offset = source == RECORDING_ZERO ? RECORDING_NOWHERE : region->offset + page * PAGE,
		.length = source == RECORDING_STORE && !below(3) ? 4 * PAGE : PAGE,
		.latency = latency_of(source),
		.kind = below(5) ? RECORDING_READ : RECORDING_WRITE,
		.source = (uint8_t)source,
		.thread = 4711 + (uint32_t)below(8),
	});
}

/* A walk through a region, ahead of which pages are brought. */
static void bring(uint64_t time, const struct recording_region *region, uint64_t page)
{
	add((struct recording_event){
		.time = time,
		.address = region->address + page * PAGE,
		.offset = region->offset + page * PAGE,
		.length = MIB / 2,
		.latency = 150000 + below(400000),
		.kind = RECORDING_PREFETCH,
		.source = RECORDING_STORE,
	});
}

/* The place of the fault that comes `part` (0 to 1) of the way through the recording. */
static void service_fault(uint64_t time, double part, uint64_t i)
{
	const struct recording_region *heap = &regions[1], *table = &regions[2];
	uint64_t pages = heap->length / PAGE;

	if (part < 0.12 && below(10) < 7)
		/* Text and data of the program, front to back, with jumps. */
		fault(time, &regions[0], (uint64_t)(part / 0.12 * 20000) + below(4000), part);
	else if (i % 10 < 5)
		/* The hot set: few places, around which touches gather. */
		fault(time, heap, (below(24) * (pages / 24) + below(60) * below(60)) % pages, part);
	else if (i % 10 < 7)
		/* A scan that goes round. */
		fault(time, heap, ((uint64_t)(part * 3 * (double)pages) + below(64)) % pages, part);
	else if (part > 0.35 && i % 10 < 9)
		fault(time, table, (uint64_t)((part - 0.35) / 0.65 * (double)(table->length / PAGE - 600)) + below(512),
		      part);
	else
		fault(time, heap, below(pages), part);
}

static void layout_events(uint64_t time, uint64_t i, uint64_t count)
{
	if (i == count / 4)
		add((struct recording_event){.time = time, .kind = RECORDING_FORK, .offset = 9});
	if (i == count / 3)
		add((struct recording_event){.time = time,
		                             .kind = RECORDING_MAP,
		                             .address = 0x7f3ab0000000,
		                             .length = 64 * MIB,
		                             .offset = 1536 * MIB});
	if (i == count / 3 * 2)
		add((struct recording_event){.time = time,
		                             .kind = RECORDING_REMAP,
		                             .address = 0x7f3ab0000000,
		                             .length = 16 * MIB,
		                             .offset = 0x7f3ac8000000});
	if (i > count / 2 && i % (count / 40 + 1) == 0)
		add((struct recording_event){.time = time,
		                             .kind = RECORDING_REMOVE,
		                             .address = regions[1].address + below(960) * MIB,
		                             .length = 8 * MIB});
	if (i == count / 10 * 9)
		add((struct recording_event){.time = time,
		                             .kind = RECORDING_POISON,
		                             .address = regions[2].address + 77 * PAGE,
		                             .length = PAGE,
		                             .offset = regions[2].offset + 77 * PAGE,
		                             .latency = 31000000});
}

/* Many at the start, and then in waves. */
static void service(uint64_t count)
{
	uint64_t time = 2000000, step = UINT64_C(24000000000) / count;

	for (uint64_t i = 0; i < count; i++) {
		double part = (double)i / (double)count;

		time += part < 0.3 ? below(step / 2 + 1) : below(2 * step + step * (i / (count / 12 + 1) % 3 * 2) + 1);
		service_fault(time, part, i);
		if (i % 40 == 0)
			bring(time, &regions[1], (uint64_t)(part * 3 * 262144) % (262144 - 128));
		layout_events(time, i, count);
	}
}

static void strange(void)
{
	static const uint64_t values[] = {
		0, 1, 4095, 4096, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};

	for (int i = 0; i < 20000; i++)
		add((struct recording_event){
			.time = below(3) ? below(1000000000) : values[below(8)],
			.address = below(2) ? next_random() : values[below(8)],
			.offset = values[below(8)],
			.length = below(3) ? PAGE : values[below(8)],
			.latency = below(3) ? below(100000) : values[below(8)],
			.kind = (uint8_t)below(14),
			.source = (uint8_t)below(8),
			.thread = (uint32_t)next_random(),
		});
}

int main(int argc, char **argv)
{
	const char *scene = argc > 2 ? argv[1] : "";
	struct recording_about mine = about;
	int err;

	if (!strcmp(scene, "strange")) {
		strcpy(mine.name, "</script><script>alert(1)</script>&lt;\xff\xc3\"'\\");
		strcpy(mine.store, "<img src=x onerror=alert(2)>");
		regions[2].length = UINT64_MAX;
		regions[1].address = 0x5580c0001000;
	}
	err = argc > 2 ? recording_open(&recording, AT_FDCWD, argv[2], &mine) : -EINVAL;
	if (err)
		goto failed;
	if (!strcmp(scene, "one"))
		fault(1500000, &regions[1], 1000, 0);
	else if (!strcmp(scene, "service"))
		service(argc > 3 ? strtoull(argv[3], NULL, 10) : 100000);
	else if (!strcmp(scene, "strange"))
		strange();
	err = recording_close(recording);
failed:
	if (err)
		fprintf(stderr, "record: %s\n", strerror(-err));
	return err != 0;
}
