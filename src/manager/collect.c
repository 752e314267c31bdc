// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "manager/client.h"
#include "manager/collect.h"
#include "manager/control.h"
#include "manager/http.h"
#include "manager/worker.h"

static int collect_clients(struct thread *thread, struct status *status)
{
	int err = 0;

	pthread_mutex_lock(&thread->lock);
	for (struct client *client = thread->clients; client && !err; client = client->next) {
		struct status_client *out = status_add_client(status);

		if (out)
			client_show(client, out);
		else
			err = -ENOMEM;
	}
	pthread_mutex_unlock(&thread->lock);
	return err;
}

static int by_id(const void *a, const void *b)
{
	const struct status_client *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static int collect(void *arg, struct status *status)
{
	struct worker *worker = arg;
	struct journal *journal = worker->journal;
	int err = 0;

	snprintf(status->version, sizeof(status->version), "%s", UF_VERSION);
	status->started_at = journal->started_at;
	status->started = journal->started;
	status->now = now_ns();
	status->supervisor = journal->supervisor;
	status->worker = atomic_load(&journal->worker);
	status->worker_restarts = atomic_load(&journal->restarts);
	status->workers = journal->threads;
	status->accepted = atomic_load(&journal->accepted);
	status->refused = atomic_load(&journal->refused);
	if (worker->stores.pool) {
		struct store_cache_stats stats;

		store_cache_stats(worker->stores.pool, &stats);
		status->cache.budget = stats.budget;
		status->cache.bytes = stats.used;
		status->cache.hits = stats.hits;
		status->cache.misses = stats.misses;
	}
	for (size_t i = 0; i < worker->stores.count && !err; i++) {
		struct named_store *store = &worker->stores.list[i];
		struct status_store *out = status_add_store(status);

		if (!out) {
			err = -ENOMEM;
			break;
		}
		status_set_name(out->name, store->name);
		out->size = store->size;
		out->reads = atomic_load_explicit(&store->reads, memory_order_relaxed);
		out->read_bytes = atomic_load_explicit(&store->read_bytes, memory_order_relaxed);
		out->failures = atomic_load_explicit(&store->failures, memory_order_relaxed);
	}
	for (unsigned i = 0; i < journal->threads && !err; i++)
		err = collect_clients(&worker->threads[i], status);
	if (!err && status->client_count)
		qsort(status->clients, status->client_count, sizeof(*status->clients), by_id);
	return err;
}

int collect_start(struct worker *worker, int control, int metrics)
{
	int err = 0;

	if (control >= 0)
		err = control_start(&worker->control, control, collect, worker);
	if (!err && metrics >= 0)
		err = http_start(&worker->http, metrics, collect, worker);
	return err;
}

void collect_stop(struct worker *worker)
{
	control_stop(worker->control);
	http_stop(worker->http);
	worker->control = NULL;
	worker->http = NULL;
}
