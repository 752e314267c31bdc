// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>

#include "support/numbers.h"

#define SECOND UINT64_C(1000000000)
#define MIB    UINT64_C(1048576)

static void fill_latency(struct hist *hist, uint64_t faults, uint64_t i)
{
	/* Spread over three decades; the bulk of them added at once, for the sake of time. */
	for (uint64_t k = 0; k < 64; k++) {
		uint64_t ns = 6000 * i + (k * k * k * 37) % (5000 + k * 4000), count = faults / 64 + (k < faults % 64);

		hist->count += count;
		hist->sum += count * ns;
		hist->bucket[hist_bucket(ns)] += count;
		if (count && ns > hist->max)
			hist->max = ns;
	}
}

static void fill_client(struct status_client *client, uint64_t i, uint64_t step)
{
	static const char *const names[] = {"web-frontend", "billing \"eu\"", "batch", "caf\xc3\xa9"};
	uint64_t faults = 1000 * i * step;

	*client = (struct status_client){
		.id = i,
		.parent = i % 4 == 3 ? i - 1 : 0,
		.pid = i % 4 == 3 ? 0 : (pid_t)(4000 + i),
		.uid = (uid_t)(1000 + i),
		.engine = i % 3 == 2 ? STATUS_ENGINE_USER : STATUS_ENGINE_KERNEL,
		.age = step * SECOND - i * SECOND / 100,
		.regions = (unsigned)(i + 1),
		.managed = i * 512 * MIB,
		.resident = i * 512 * MIB * (step % 50 + 1) / 64,
		.prefetched = step * i * 3 * MIB,
		.poisoned = 4096 * (i - 1),
		.faults = faults + i % 5,
		.outstanding = i % 5,
		.resolved = {faults / 8, faults / 2, faults / 16, faults - faults / 8 - faults / 2 - faults / 16},
		.refaults = faults / 100,
		.waits = faults / 500,
		.events = {step / 10, step / 5 + i, 40 * step * i, step},
	};
	snprintf(client->name, sizeof(client->name), "%s-%d", names[i % 4], (int)i);
	status_set_name(client->store, i % 2 ? "base-image" : "table");
	fill_latency(&client->latency, faults, i);
}

void numbers_fill(struct status *status, unsigned clients, uint64_t step)
{
	struct status_store *store;

	*status = (struct status){
		.version = UF_VERSION,
		.started_at = 1790000000 * SECOND + 123456789,
		.started = 77 * SECOND,
		.now = (77 + step) * SECOND,
		.supervisor = 321,
		.worker = 322,
		.worker_restarts = 2,
		.workers = 4,
		.accepted = clients + 5,
		.refused = 3,
		.cache = {.budget = 2048 * MIB,
	                  .bytes = 1500 * MIB + step * 4096,
	                  .hits = step * 700,
	                  .misses = step * 300},
	};
	for (unsigned i = 0; i < 2; i++) {
		store = status_add_store(status);
		if (!store)
			abort();
		status_set_name(store->name, i ? "table" : "base-image");
		store->size = (i + 4) * 1024 * MIB;
		store->reads = step * 250 + i;
		store->read_bytes = step * 16 * MIB + i;
		store->failures = i + 1;
	}
	for (unsigned i = 1; i <= clients; i++) {
		struct status_client *client = status_add_client(status);

		if (!client)
			abort();
		fill_client(client, i, step);
	}
}
