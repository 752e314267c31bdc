// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/client.h"
#include "manager/log.h"
#include "manager/record.h"
#include "manager/worker.h"
#include "report/recording.h"
#include "workingset/workingset.h"

/* Pages of a working set. */
#define UNIT 4096u

struct record {
	struct client *client;
	int folder;
	uint64_t started;                /* ns */
	pthread_mutex_t lock;            /* pages are put in place by several threads; innermost */
	struct recording *recording;     /* NULL: it is finished */
	struct workingset_order *orders; /* one for each store; all zero: not recorded */
};

static struct named_store *store_of(const struct record *record, size_t number)
{
	return &record->client->thread->worker->stores.list[number];
}

static void say_why(const struct record *record, const char *what, int err)
{
	say(LOG_WARNING, "client %llu: %s: %s", (unsigned long long)record->client->record->id, what, strerror(-err));
}

static void name_recording(const struct client *client, char *name, size_t size)
{
	const struct journal_client *record = client->record;
	uint64_t restarts = atomic_load(&client->thread->worker->journal->restarts);
	int len = snprintf(name, size, "%s-%ld-%llu", workingset_is_name(record->name) ? record->name : "client",
	                   (long)record->pid, (unsigned long long)record->id);

	if (restarts)
		len += snprintf(name + len, size - (size_t)len, "-%llu", (unsigned long long)restarts);
	snprintf(name + len, size - (size_t)len, ".recording");
}

/* The ranges that there are. How many, at most `most`. */
static size_t list_regions(const struct client *client, struct recording_region *regions, size_t most)
{
	struct space_range range;
	size_t count = 0;

	for (uint64_t at = 0; count < most && session_next(client->space, at, &range); at = range.start + range.len)
		regions[count++] = (struct recording_region){
			.address = range.start, .length = range.len, .offset = range.offset};
	return count;
}

static int begin_recording(struct record *record)
{
	const struct client *client = record->client;
	struct recording_about about = {.page_size = UNIT, .pid = client->record->pid, .client = client->record->id};
	size_t ranges = space_ranges(client->space);
	char name[192];
	int err;

	about.started = wall_ns();
	snprintf(about.name, sizeof(about.name), "%.*s", RECORDING_NAME - 1, client->record->name);
	if (client->sources) {
		const struct named_store *store = store_of(record, client->sources->store);

		about.store_size = store->size;
		snprintf(about.store, sizeof(about.store), "%s", store->name);
	}
	about.regions = calloc(ranges ? ranges : 1, sizeof(*about.regions));
	if (!about.regions)
		return -ENOMEM;
	about.region_count = list_regions(client, about.regions,
	                                  ranges < RECORDING_REGIONS ? ranges : RECORDING_REGIONS);
	name_recording(client, name, sizeof(name));
	err = recording_open(&record->recording, record->folder, name, &about);
	free(about.regions);
	return err;
}

struct record *record_begin(struct client *client)
{
	const struct worker *worker = client->thread->worker;
	struct record *record;
	int err = 0;

	if (!worker->options->record)
		return NULL;
	record = calloc(1, sizeof(*record));
	if (!record)
		return NULL;
	*record = (struct record){.client = client, .folder = -1, .started = now_ns()};
	pthread_mutex_init(&record->lock, NULL);
	record->orders = calloc(worker->stores.count, sizeof(*record->orders));
	record->folder = open(worker->options->record, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!record->orders)
		err = -ENOMEM;
	else if (record->folder < 0)
		err = -errno;
	else
		err = begin_recording(record);
	if (!err)
		return record;
	say_why(record, worker->options->record, err);
	record_end(record);
	return NULL;
}

void record_source(struct record *record, struct client_source *source)
{
	const struct named_store *store = store_of(record, source->store);
	struct workingset_order *order = &record->orders[source->store];
	int err = 0;

	if (!order->pages)
		err = workingset_order_init(order, (store->size + UNIT - 1) / UNIT, WORKINGSET_MOST);
	if (err)
		say_why(record, "its touches cannot be recorded", err);
	else
		atomic_store(&source->source.recording, true);
}

void record_touched(struct record *record, const struct client_source *source, uint64_t offset)
{
	workingset_order_add(&record->orders[source->store], offset / UNIT);
}

static enum recording_kind kind_of(const struct session_done *done)
{
	if (done->lost)
		return RECORDING_POISON;
	if (!done->start_ns)
		return RECORDING_PREFETCH;
	return done->write ? RECORDING_WRITE : RECORDING_READ;
}

void record_done(struct record *record, const struct session_done *done)
{
	static const uint8_t sources[ORIGINS] = {
		[ORIGIN_AT_HAND] = RECORDING_CACHE,
		[ORIGIN_STORE] = RECORDING_STORE,
		[ORIGIN_ZEROS] = RECORDING_ZERO,
		[ORIGIN_THERE] = RECORDING_PREFETCHED,
	};
	uint64_t now, since;

	if (!record)
		return;
	pthread_mutex_lock(&record->lock);
	now = now_ns();
	since = done->start_ns ? done->start_ns : now;
	recording_add(record->recording,
	              &(struct recording_event){
			      .time = since > record->started ? since - record->started : 0,
			      .address = done->addr,
			      .offset = done->origin == ORIGIN_ZEROS ? RECORDING_NOWHERE : done->offset,
			      .length = done->len,
			      .latency = now - since,
			      .kind = (uint8_t)kind_of(done),
			      .source = sources[done->origin],
		      });
	pthread_mutex_unlock(&record->lock);
}

static void add_now(struct record *record, struct recording_event *event)
{
	pthread_mutex_lock(&record->lock);
	event->time = now_ns() - record->started;
	recording_add(record->recording, event);
	pthread_mutex_unlock(&record->lock);
}

void record_event(struct record *record, const struct uffd_msg *msg, uint64_t child)
{
	struct recording_event event = {.offset = RECORDING_NOWHERE};

	if (!record)
		return;
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		event.kind = msg->event == UFFD_EVENT_REMOVE ? RECORDING_REMOVE : RECORDING_UNMAP;
		event.address = msg->arg.remove.start;
		event.length = msg->arg.remove.end - msg->arg.remove.start;
		break;
	case UFFD_EVENT_REMAP:
		event.kind = RECORDING_REMAP;
		event.address = msg->arg.remap.from;
		event.offset = msg->arg.remap.to;
		event.length = msg->arg.remap.len;
		break;
	default:
		event.kind = RECORDING_FORK;
		event.offset = child ? child : RECORDING_NOWHERE;
		break;
	}
	add_now(record, &event);
}

void record_region(struct record *record, const struct book_entry *region)
{
	if (record)
		add_now(record,
		        &(struct recording_event){
				.kind = RECORDING_MAP, .address = region->a, .length = region->b, .offset = region->c});
}

/* The touches of one store, in place of what an earlier client has left. */
static int write_order(struct record *record, size_t number)
{
	const struct named_store *store = store_of(record, number);
	struct workingset *set;
	char path[160];
	int err = workingset_from_order(&set, &record->orders[number], UNIT, 0);

	/* It touched nothing: what is there is better. */
	if (err)
		return err == -ENODATA ? 0 : err;
	set->size = store->size;
	err = workingset_print(store->store, &set->print);
	snprintf(path, sizeof(path), "%s.workingset", store->name);
	if (!err)
		err = workingset_is_name(path) ? workingset_write(set, record->folder, path) : -EINVAL;
	free(set);
	return err;
}

void record_finish(struct record *record)
{
	struct recording *recording;
	int err;

	if (!record)
		return;
	for (size_t i = 0; record->orders && i < record->client->thread->worker->stores.count; i++) {
		err = record->orders[i].pages ? write_order(record, i) : 0;
		if (err)
			say_why(record, "its working set cannot be written", err);
	}
	pthread_mutex_lock(&record->lock);
	recording = record->recording;
	record->recording = NULL;
	pthread_mutex_unlock(&record->lock);
	err = recording_close(recording);
	if (err)
		say_why(record, "its recording is not complete", err);
}

void record_end(struct record *record)
{
	if (!record)
		return;
	record_finish(record);
	for (size_t i = 0; record->orders && i < record->client->thread->worker->stores.count; i++)
		workingset_order_end(&record->orders[i]);
	if (record->folder >= 0)
		close(record->folder);
	pthread_mutex_destroy(&record->lock);
	free(record->orders);
	free(record);
}
