// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/tally.h"

#define TICK_NS 100000000u

void tally_init(struct tally *tally)
{
	pthread_mutex_init(&tally->lock, NULL);
}

void tally_destroy(struct tally *tally)
{
	pthread_mutex_destroy(&tally->lock);
}

void tally_latency(struct tally *tally, uint64_t ns)
{
	pthread_mutex_lock(&tally->lock);
	hist_add(&tally->latency, ns);
	pthread_mutex_unlock(&tally->lock);
}

void tally_fail(struct tally *tally, const char *format, ...)
{
	char text[sizeof(tally->last_error)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pthread_mutex_lock(&tally->lock);
	strcpy(tally->last_error, text);
	pthread_mutex_unlock(&tally->lock);
	if (tally->failed)
		tally->failed(tally->arg, text);
}

const char *tally_word(int err)
{
	switch (err) {
	case -ENOTCONN:
		return "the connection is broken";
	case -EPROTO:
		return "the peer said what it may not say here";
	case -EBADMSG:
		return "a checksum is wrong";
	case -ECANCELED:
		return "cancelled";
	default:
		return strerrordesc_np(-err) ? strerrordesc_np(-err) : "unknown error";
	}
}

static void tell(struct tally *tally)
{
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};

	tally->told_ns = now_ns();
	if (!tally->progress)
		return;
	tally_read(tally, &stats);
	tally->told_phase = (int)stats.phase;
	tally->told_connected = stats.connected;
	tally->progress(tally->arg, &stats);
}

void tally_phase(struct tally *tally, enum uf_migrate_phase phase)
{
	if (phase == UF_MIGRATE_COMPLETE || phase == UF_MIGRATE_LOST)
		atomic_store(&tally->ended_ns, now_ns());
	if (atomic_exchange(&tally->phase, phase) != (int)phase)
		tell(tally);
}

void tally_connected(struct tally *tally, int connected)
{
	uint64_t none = 0;

	if (connected) {
		atomic_fetch_add(&tally->connections, 1);
		atomic_compare_exchange_strong(&tally->begun_ns, &none, now_ns());
	}
	atomic_store(&tally->connected, connected);
}

void tally_tick(struct tally *tally)
{
	bool changed = atomic_load(&tally->phase) != tally->told_phase ||
	               atomic_load(&tally->connected) != tally->told_connected;

	if (tally->progress && (changed || now_ns() - tally->told_ns >= TICK_NS))
		tell(tally);
}

static unsigned doublings(uint64_t ns)
{
	return ns ? 64u - (unsigned)__builtin_clzll(ns) : 0;
}

static void read_latency(struct tally *tally, struct uf_migrate_statistics *stats)
{
	const struct hist *latency = &tally->latency;
	unsigned last = sizeof(stats->latency) / sizeof(stats->latency[0]) - 1;

	stats->latency_p50 = hist_quantile(latency, 0.5);
	stats->latency_p99 = hist_quantile(latency, 0.99);
	stats->latency_max = latency->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		/* The buckets of one doubling lie together: see hist_bucket(). */
		unsigned at = i < HIST_SUB ? doublings(i) : i / HIST_SUB + 4;

		stats->latency[at < last ? at : last] += latency->bucket[i];
	}
}

int tally_read(struct tally *tally, struct uf_migrate_statistics *stats)
{
	struct uf_migrate_statistics all = {.size = sizeof(all)};
	uint64_t begun = atomic_load(&tally->begun_ns), ended = atomic_load(&tally->ended_ns);

	if (!stats || stats->size < sizeof(size_t))
		return -EINVAL;
	all.phase = atomic_load(&tally->phase);
	all.connected = atomic_load(&tally->connected);
	all.passes = atomic_load(&tally->passes);
	all.connections = atomic_load(&tally->connections);
	all.precopy = atomic_load(&tally->precopy);
	all.postcopy = atomic_load(&tally->postcopy);
	all.zero = atomic_load(&tally->zero);
	all.requested = atomic_load(&tally->requested);
	all.repeated = atomic_load(&tally->repeated);
	all.discarded = atomic_load(&tally->discarded);
	all.wire = atomic_load(&tally->wire);
	all.faults = atomic_load(&tally->faults);
	all.requests = atomic_load(&tally->requests);
	all.poisoned = atomic_load(&tally->poisoned);
	all.stopped_ns = atomic_load(&tally->stopped_ns);
	all.total_ns = begun ? (ended ? ended : now_ns()) - begun : 0;
	tally->complete(tally->side, &all);
	pthread_mutex_lock(&tally->lock);
	read_latency(tally, &all);
	strcpy(all.last_error, tally->last_error);
	pthread_mutex_unlock(&tally->lock);
	all.size = stats->size;
	memcpy(stats, &all, stats->size < sizeof(all) ? stats->size : sizeof(all));
	return 0;
}
