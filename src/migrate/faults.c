// SPDX-License-Identifier: MIT
/* Contracts: migrate/destination.h. */
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "base/thread.h"
#include "migrate/destination.h"
#include "migrate/prompt.h"

#define MESSAGES 64
/* How often it looks at the clock, if nothing happens, ms. */
#define LOOK 100

static void kick(struct uf_destination *destination)
{
	uint64_t one = 1;

	raw_syscall3(SYS_write, destination->kick, (long)&one, sizeof(one));
}

static void link_failed(struct uf_destination *destination)
{
	for (unsigned i = 0; i < destination->connections; i++)
		stream_break(&destination->channels[i].stream);
	pthread_mutex_lock(&destination->lock);
	destination->link_failed = true;
	pthread_cond_broadcast(&destination->changed);
	pthread_mutex_unlock(&destination->lock);
}

static int ask(struct uf_destination *destination, uint64_t page)
{
	const struct region *region = regions_of_page(&destination->regions, page);

	tally_add(&destination->tally.requests, 1);
	return channel_send(destination_requests(destination),
	                    &(struct wire_message){
				    .type = WIRE_REQUEST,
				    .region = (uint32_t)(region - destination->regions.at),
				    .at = page - region->first,
				    .count = 1,
			    },
	                    NULL);
}

/* What is still waited for, after a new connection. */
static int ask_again(struct uf_destination *destination)
{
	uint64_t end = destination->regions.numbers;
	int err = 0;

	for (uint64_t page = 0; !err && (page = bitmap_next(destination->asked, page, end)) < end; page++)
		err = ask(destination, page);
	return err;
}

/* `linked`: it may be asked for. Otherwise it will be, when there is a connection. */
static int fault(struct uf_destination *destination, uint64_t addr, bool linked)
{
	const struct region *region = regions_of_address(&destination->regions, addr);
	uint64_t page;

	/* Of a mapping that took the place of ours. */
	if (!region)
		return 0;
	page = region->first + (addr - region->addr) / destination->regions.page_size;
	tally_add(&destination->tally.faults, 1);
	if (bitmap_test(destination->have, page)) {
		place_zeros(destination, page, page + 1);
		return 0;
	}
	if (destination_standing(destination) == DESTINATION_LOST) {
		place_poison(destination, page, page + 1);
		return 0;
	}
	if (bitmap_test(destination->asked, page))
		return 0;
	destination->asked_ns[page] = now_ns();
	bitmap_set(destination->asked, page, page + 1);
	/* It may have come just then; arrived() looks after it has set the other bit. */
	if (bitmap_test(destination->have, page)) {
		bitmap_clear(destination->asked, page, page + 1);
		uf_wake(destination->uf, region_page(&destination->regions, region, page),
		        destination->regions.page_size);
		return 0;
	}
	return linked ? ask(destination, page) : 0;
}

static int read_faults(struct uf_destination *destination, bool linked)
{
	struct uffd_msg msgs[MESSAGES];
	int err = 0;

	for (;;) {
		ssize_t count = uf_read(destination->uf, msgs, MESSAGES);

		if (count <= 0)
			return err;
		for (ssize_t i = 0; i < count; i++)
			if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
				int sent = fault(destination, msgs[i].arg.pagefault.address, linked && !err);

				err = err ? err : sent;
			}
		if (count < MESSAGES)
			return err;
	}
}

/* A message on the connection of our own. */
static int take_answer(struct uf_destination *destination)
{
	struct channel *channel = destination_requests(destination);
	struct wire_message message;
	int err = channel_next(channel, &message);

	if (err || message.type == WIRE_ALIVE)
		return err;
	err = destination_take_pages(destination, channel, &message, destination->faults_buffer);
	if (!err && place_is_complete(destination)) {
		pthread_mutex_lock(&destination->lock);
		pthread_cond_broadcast(&destination->changed);
		pthread_mutex_unlock(&destination->lock);
	}
	return err;
}

static void hear_kick(struct uf_destination *destination)
{
	uint64_t count;

	raw_read(destination->kick, &count, sizeof(count));
}

static bool has_been_lost(const struct uf_destination *destination)
{
	uint64_t since = atomic_load(&destination->unlinked_ns);

	return destination->options.abandon_ms && since &&
	       now_ns() - since >= destination->options.abandon_ms * 1000000ull &&
	       destination_standing(destination) == DESTINATION_BEGUN;
}

/* What the thread knows of the connections. */
struct link {
	bool linked;   /* there are some, as far as it was told */
	bool usable;   /* and none of them has failed here */
	uint64_t beat; /* when the source last heard something for nothing else's sake, ns */
};

/* Takes over what the receiver has changed. False: the thread shall end. */
static bool look_at_link(struct uf_destination *destination, struct link *link, int *err)
{
	bool before = link->linked, quit;

	pthread_mutex_lock(&destination->lock);
	link->linked = destination->link_in_use = destination->linked;
	quit = destination->quit;
	pthread_cond_broadcast(&destination->changed);
	pthread_mutex_unlock(&destination->lock);
	if (link->linked && !before) {
		link->usable = true;
		link->beat = now_ns();
		if (!quit)
			*err = ask_again(destination);
	}
	link->usable = link->usable && link->linked && !*err;
	return !quit;
}

/* Waits for something to do, and does it. */
static int serve_once(struct uf_destination *destination, struct link *link)
{
	bool own = link->usable && destination->connections == 2;
	const struct stream *answers = &destination->channels[1].stream;
	struct pollfd fds[3] = {{.fd = destination->kick, .events = POLLIN},
	                        {.fd = uf_fd(destination->uf), .events = POLLIN},
	                        {.fd = own ? answers->fd : -1, .events = POLLIN}};
	int err = 0;

	if (!own || !stream_holds(answers))
		poll(fds, 3, LOOK);
	if (fds[0].revents)
		hear_kick(destination);
	if (fds[1].revents || !fds[2].revents)
		err = read_faults(destination, link->usable);
	if (!err && own && stream_has(answers))
		err = take_answer(destination);
	if (!err && link->usable && now_ns() - link->beat > destination->beat_ms * 1000000ull) {
		err = channel_tell(destination_requests(destination), WIRE_ALIVE, 0);
		link->beat = now_ns();
	}
	return err;
}

static void *serve(void *arg)
{
	struct uf_destination *destination = arg;
	struct link link = {.linked = false};
	int err = 0;

	prompt_here();
	while (look_at_link(destination, &link, &err)) {
		if (!err)
			err = serve_once(destination, &link);
		if (err && link.linked)
			link_failed(destination);
		if (err)
			link.usable = false;
		err = 0;
		if (has_been_lost(destination))
			uf_destination_abandon(destination);
	}
	return NULL;
}

int faults_start(struct uf_destination *destination)
{
	int err;

	if (destination->has_faults_thread)
		return 0;
	destination->quit = false;
	destination->link_in_use = false;
	err = thread_start(&destination->faults_thread, serve, destination);
	destination->has_faults_thread = !err;
	return err;
}

void faults_end(struct uf_destination *destination)
{
	if (!destination->has_faults_thread)
		return;
	pthread_mutex_lock(&destination->lock);
	destination->quit = true;
	pthread_mutex_unlock(&destination->lock);
	kick(destination);
	pthread_join(destination->faults_thread, NULL);
	destination->has_faults_thread = false;
	destination->link_in_use = false;
}

void faults_link(struct uf_destination *destination)
{
	pthread_mutex_lock(&destination->lock);
	destination->linked = true;
	destination->link_failed = false;
	pthread_mutex_unlock(&destination->lock);
	atomic_store(&destination->unlinked_ns, 0);
	kick(destination);
}

void faults_unlink(struct uf_destination *destination)
{
	for (unsigned i = 0; i < destination->connections; i++)
		stream_break(&destination->channels[i].stream);
	pthread_mutex_lock(&destination->lock);
	if (destination->linked)
		atomic_store(&destination->unlinked_ns, now_ns());
	destination->linked = false;
	while (destination->has_faults_thread && destination->link_in_use) {
		kick(destination);
		pthread_cond_wait(&destination->changed, &destination->lock);
	}
	pthread_mutex_unlock(&destination->lock);
}
