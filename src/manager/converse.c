// SPDX-License-Identifier: MIT
/* What a client says on its connection: userfault-handover(5). */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "manager/client.h"
#include "manager/log.h"
#include "manager/worker.h"

/* Received in one turn, so that whoever talks without end holds up nobody else. */
#define RECEIVES 4

/* One line to a message, NULL being what is none. A client that does not read it has no more to say to us. */
static void answer(struct client *client, const struct handover_message *message, const char *what, const char *rest)
{
	int connection = atomic_load(&client->record->connection), len;
	char line[320], number[32] = "";

	if (message && message->numbered)
		snprintf(number, sizeof(number), " #%llu", (unsigned long long)message->number);
	len = snprintf(line, sizeof(line) - 1, "%s%s%s%s", what, number, *rest ? " " : "", rest);
	if (len < 0 || connection < 0)
		return;
	len = len < (int)sizeof(line) - 1 ? len : (int)sizeof(line) - 2;
	line[len++] = '\n';
	if (send(connection, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) != len)
		shutdown(connection, SHUT_RDWR);
}

/* It goes on being served: as long as it lives, its pages are owed to it. */
static void close_connection(struct client *client)
{
	journal_close_fd(&client->record->connection);
	if (client->stage == CLIENT_MEETING)
		client_end(client, client->asked ? NULL : "it hung up before it had handed over");
}

void client_refuse(struct client *client, const struct handover_message *message, const char *cause)
{
	/* Firecracker's form has no answers, also where it is not understood. */
	if (!client->scan.array)
		answer(client, message, "error", cause);
	if (client->stage == CLIENT_MEETING || client->stage == CLIENT_ATTACHING)
		client_end(client, cause);
	else
		say_sparingly(LOG_WARNING, "client %llu: refused: %s", (unsigned long long)client->record->id, cause);
}

/* A region as it is written down. 0; or -EINVAL, and why it cannot be served. */
static int translate(const struct client *client, const struct handover_region *region, struct book_entry *entry,
                     char *cause, size_t cause_size)
{
	const struct stores *stores = &client->thread->worker->stores;
	int store = stores_find(stores, region->store);
	uint64_t end = region->offset + region->size, most;

	if (store < 0) {
		snprintf(cause, cause_size, "there is no store %s", region->store);
		return -EINVAL;
	}
	most = (stores->list[store].size + region->page_size - 1) & ~((uint64_t)region->page_size - 1);
	if (end > most) {
		snprintf(cause, cause_size, "offset %llu and size %llu reach beyond the %llu bytes of store %s",
		         (unsigned long long)region->offset, (unsigned long long)region->size,
		         (unsigned long long)stores->list[store].size, region->store);
		return -EINVAL;
	}
	*entry = (struct book_entry){
		.kind = BOOK_REGION,
		.flags = (uint8_t)((region->removed_is_store ? BOOK_REMOVED_IS_STORE : 0) |
	                           (region->prefetch ? BOOK_PREFETCH : 0)),
		.store = (uint16_t)store,
		.unit = region->page_size,
		.a = region->addr,
		.b = region->size,
		.c = region->offset,
	};
	return 0;
}

static int add_regions(struct client *client, const struct handover_message *message, char *cause, size_t cause_size)
{
	struct book_entry *entries = calloc(message->count, sizeof(*entries));
	size_t index = 0;
	int err = entries ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < message->count; i++) {
		err = translate(client, &message->regions[i], &entries[i], cause, cause_size);
		if (err)
			goto out;
	}
	if (!err)
		err = client_add(client, entries, message->count, &index);
	if (err)
		snprintf(cause, cause_size, "region %#llx, %llu bytes: %s",
		         (unsigned long long)message->regions[index].addr,
		         (unsigned long long)message->regions[index].size,
		         err == -EEXIST  ? "it overlaps one that was given before"
		         : err == -E2BIG ? "there are too many regions"
		                         : strerror(-err));
out:
	free(entries);
	return err;
}

/* Where the program would have to be waited for. */
static void *add_aside(void *arg)
{
	struct client *client = arg;
	int err = add_regions(client, &client->add, client->cause, sizeof(client->cause));

	atomic_store(&client->attached, err);
	worker_ring(client);
	return NULL;
}

static int begin_to_add(struct client *client, struct handover_message *message, char *cause, size_t cause_size)
{
	int err;

	client->add = *message;
	atomic_store(&client->attached, 1);
	err = -pthread_create(&client->attacher, NULL, add_aside, client);
	if (err) {
		client->add = (struct handover_message){0};
		snprintf(cause, cause_size, "no thread for it: %s", strerror(-err));
		return err;
	}
	message->regions = NULL;
	client->adding = true;
	return 0;
}

/* The first message with regions: from here on it is served. */
static int begin(struct client *client, const struct handover_message *message, char *cause, size_t cause_size)
{
	struct journal *journal = client->thread->worker->journal;
	int err;

	if (atomic_load(&client->record->object) < 0) {
		snprintf(cause, cause_size, "no descriptor came with it");
		return -EINVAL;
	}
	snprintf(client->record->name, sizeof(client->record->name), "%.*s", (int)sizeof(client->record->name) - 1,
	         message->name);
	err = client_serve(client, cause, cause_size);
	if (err)
		return err;
	/* Release: the book has all of it. */
	atomic_store_explicit(&client->record->state, JOURNAL_SERVED, memory_order_release);
	atomic_fetch_add(&journal->accepted, 1);
	return 0;
}

static void tell_size(struct client *client, const struct handover_message *message)
{
	const struct stores *stores = &client->thread->worker->stores;
	int store = stores_find(stores, message->store);
	char rest[128];

	if (store < 0)
		snprintf(rest, sizeof(rest), "there is no store %s", message->store);
	else
		snprintf(rest, sizeof(rest), "%llu", (unsigned long long)stores->list[store].size);
	answer(client, message, store < 0 ? "error" : "ok", rest);
	client->asked = true;
}

/* The regions of a message are, or begin to be, in the book. 0 or -errno. */
static int take_regions(struct client *client, struct handover_message *message, char *cause, size_t cause_size)
{
	int err;

	/* Acted upon, by this worker or by one before it: what has happened to the regions since is known, and must not be forgotten. */
	if (book_is_marked(&client->book))
		return 0;
	if (client->added) {
		client->added = false;
		err = atomic_load(&client->attached);
		snprintf(cause, cause_size, "%s", client->cause);
	} else if (client->open && client->user) {
		return begin_to_add(client, message, cause, cause_size);
	} else {
		err = add_regions(client, message, cause, cause_size);
	}
	if (!err)
		book_mark(&client->book);
	return err;
}

/* False: there is something to be waited for, and then it is to be handled once more. */
static bool handle(struct client *client, struct handover_message *message)
{
	char cause[256];
	int err;

	if (message->kind == HANDOVER_SIZE) {
		tell_size(client, message);
		return true;
	}
	err = take_regions(client, message, cause, sizeof(cause));
	if (!err && client->stage == CLIENT_MEETING)
		err = begin(client, message, cause, sizeof(cause));
	if (err)
		client_refuse(client, message, cause);
	else if (client->stage == CLIENT_ATTACHING || client->adding)
		return false;
	else if (message->kind != HANDOVER_ARRAY)
		answer(client, message, "ok", "");
	return true;
}

/* What has been received, message by message, until one is not complete. */
static void understand(struct client *client)
{
	while ((client->stage == CLIENT_MEETING || client->stage == CLIENT_SERVED) && !client->adding) {
		struct handover_message message;
		char cause[256];
		size_t len;
		const char *text = book_text(&client->book, &len);
		ssize_t n = handover_next(&client->scan, &message, text, len, cause, sizeof(cause));
		bool handled;

		if (!n)
			return;
		if (n < 0) {
			client_refuse(client, &message, cause);
			if (client->stage != CLIENT_OVER)
				close_connection(client);
			return;
		}
		handled = handle(client, &message);
		handover_free(&message);
		if (client->stage == CLIENT_OVER || !handled)
			return;
		/* If it was answered and is read again, by a successor, nothing changes by that. */
		book_take(&client->book, (size_t)n);
	}
}

static void take_descriptor(struct client *client)
{
	unsigned count = book_take_fd(&client->book, &client->record->object);

	if (count > 1)
		say_sparingly(LOG_WARNING, "client %llu sent %u descriptors at once: one is of use",
		              (unsigned long long)client->record->id, count);
}

void client_converse(struct client *client)
{
	/* What a worker before this one has received. */
	take_descriptor(client);
	understand(client);
	for (int i = 0; i < RECEIVES && client->stage != CLIENT_OVER; i++) {
		/* What was understood may have ended it, and its number may be another's by now. */
		int connection = atomic_load(&client->record->connection);
		ssize_t n = connection < 0 ? -EAGAIN : book_receive(&client->book, connection);

		if (n == -EAGAIN || n == -EINTR)
			return;
		take_descriptor(client);
		understand(client);
		/* Whoever has said all waits for the answer all the same: it is read once more after that. Until then it does not wake anybody. */
		if (n == 0 && (client->stage == CLIENT_ATTACHING || client->adding)) {
			epoll_ctl(client->thread->epoll, EPOLL_CTL_DEL, connection, NULL);
			return;
		}
		if (n == -ENOBUFS) {
			client_refuse(client, NULL, "the message is too long");
			n = 0;
		}
		if (n <= 0 && client->stage != CLIENT_OVER) {
			close_connection(client);
			return;
		}
	}
}
