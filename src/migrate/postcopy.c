// SPDX-License-Identifier: MIT
/*
 * Everything that is missing over there: round robin, and from behind what was asked for last. Requests are read by a thread of their own.
 * With a second connection it answers them there, past everything that is on its way; with one it hands them to the thread that sends
 * everything, which puts them in front of what it has not sent yet.
 */
#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "migrate/prompt.h"
#include "migrate/source.h"

/* Of what was not asked for, in one message: the more, the longer what is asked for next waits for the processor, or for its turn. */
#define BULK      ((size_t)64 << 10)
#define SHORT_ONE (64u << 10) /* over the one connection: SOURCE_SHORT */
#define URGENT    1024        /* requests that wait for the one connection; more are sent when their turn comes */
#define NOWHERE   UINT64_MAX

struct postcopy {
	struct uf_source *source;
	struct sender sender; /* the requests' thread's */
	pthread_t thread;
	_Atomic uint64_t seek; /* where to go on; NOWHERE: where it is */
	_Atomic bool asked;    /* set after a request was looked at: what is held back may be waited for */

	pthread_mutex_t lock;
	pthread_cond_t ended_cond;
	bool ended; /* no more is read */
	int err;    /* of that thread */
	bool all_sent;
	uint64_t urgent[URGENT]; /* a ring of page numbers */
	unsigned urgent_first, urgent_count;
};

/* ---- the requests' thread ---- */

/* Those that have not been sent yet, and so are still ours to send. */
static int answer(struct postcopy *postcopy, uint64_t from, uint64_t end)
{
	struct uf_source *source = postcopy->source;
	struct channel *channel = source_requests(source);
	uint64_t most = WIRE_RUN / source->regions.page_size;
	int err = 0;

	while (!err && (from = bitmap_next(source->todo, from, end)) < end) {
		uint64_t count = bitmap_claim(source->todo, from, end - from < most ? end : from + most);

		if (!count)
			continue;
		err = send_pages(source, &postcopy->sender, channel, from, from + count, false);
		if (!err)
			err = send_zeros(source, &postcopy->sender, channel);
		tally_add(&source->tally.requested, sender_bytes(&postcopy->sender));
		from += count;
	}
	return err;
}

static void put_urgent(struct postcopy *postcopy, uint64_t from, uint64_t end)
{
	pthread_mutex_lock(&postcopy->lock);
	for (; from < end && postcopy->urgent_count < URGENT; from++)
		postcopy->urgent[(postcopy->urgent_first + postcopy->urgent_count++) % URGENT] = from;
	pthread_mutex_unlock(&postcopy->lock);
}

static bool take_urgent(struct postcopy *postcopy, uint64_t *page)
{
	bool any;

	pthread_mutex_lock(&postcopy->lock);
	any = postcopy->urgent_count > 0;
	if (any) {
		*page = postcopy->urgent[postcopy->urgent_first];
		postcopy->urgent_first = (postcopy->urgent_first + 1) % URGENT;
		postcopy->urgent_count--;
	}
	pthread_mutex_unlock(&postcopy->lock);
	return any;
}

static int take_request(struct postcopy *postcopy, const struct wire_message *message)
{
	struct uf_source *source = postcopy->source;
	const struct region *region = &source->regions.at[message->region];
	uint64_t from = region->first + message->at, end = from + message->count;
	int err = 0;

	tally_add(&source->tally.requests, 1);
	if (source->connections == 1)
		put_urgent(postcopy, from, end);
	else
		err = answer(postcopy, from, end);
	atomic_store(&postcopy->seek, end);
	atomic_store(&postcopy->asked, true);
	return err;
}

static int read_requests(struct postcopy *postcopy)
{
	struct uf_source *source = postcopy->source;
	struct wire_message message;
	bool all_sent;
	int err;

	for (;;) {
		err = channel_receive(source_requests(source), &message);
		if (err)
			return err;
		if (message.type == WIRE_REQUEST) {
			err = take_request(postcopy, &message);
			if (err)
				return err;
			continue;
		}
		pthread_mutex_lock(&postcopy->lock);
		all_sent = postcopy->all_sent;
		pthread_mutex_unlock(&postcopy->lock);
		return message.type == WIRE_DONE && all_sent ? 0 : -EPROTO;
	}
}

static void *serve_requests(void *arg)
{
	struct postcopy *postcopy = arg;
	int err;

	prompt_here();
	err = read_requests(postcopy);
	/* The other thread must not go on alone. */
	if (err)
		for (unsigned i = 0; i < postcopy->source->connections; i++)
			stream_break(&postcopy->source->channels[i].stream);
	pthread_mutex_lock(&postcopy->lock);
	postcopy->err = err;
	postcopy->ended = true;
	pthread_cond_signal(&postcopy->ended_cond);
	pthread_mutex_unlock(&postcopy->lock);
	return NULL;
}

/* ---- the thread of uf_source_run() ---- */

/*
 * What was asked for and is this thread's to send. Zeros that it holds back are nobody else's any more: they may be what was asked for, and
 * have nothing behind them that would drive them out for as long as all memory takes.
 */
static int send_asked(struct postcopy *postcopy)
{
	struct uf_source *source = postcopy->source;
	uint64_t page;
	int err = 0;

	if (atomic_exchange(&postcopy->asked, false))
		err = send_zeros(source, &source->sender, &source->channels[0]);
	while (!err && take_urgent(postcopy, &page))
		err = answer(postcopy, page, page + 1);
	return err;
}

/* The next run to be sent, claimed: its length; 0: there is none. */
static uint64_t claim_next(struct postcopy *postcopy, uint64_t *cursor, uint64_t most)
{
	struct uf_source *source = postcopy->source;
	uint64_t all = source->regions.numbers, seek = atomic_exchange(&postcopy->seek, NOWHERE);

	if (seek != NOWHERE)
		*cursor = seek;
	for (int round = 0; round < 2; round++, *cursor = 0) {
		while ((*cursor = bitmap_next(source->todo, *cursor, all)) < all) {
			const struct region *region = regions_of_page(&source->regions, *cursor);
			uint64_t end = region->first + region->pages, count;

			count = bitmap_claim(source->todo, *cursor, end - *cursor < most ? end : *cursor + most);
			/* Otherwise it was asked for just now. */
			if (count)
				return count;
		}
	}
	return 0;
}

static void pause_for(struct postcopy *postcopy, uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ns / 1000000000);
	until.tv_nsec += (long)(ns % 1000000000);
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&postcopy->lock);
	if (!postcopy->ended)
		pthread_cond_timedwait(&postcopy->ended_cond, &postcopy->lock, &until);
	pthread_mutex_unlock(&postcopy->lock);
}

/* For the bandwidth; what is asked for does not wait for it. */
static int wait_turn(struct postcopy *postcopy)
{
	struct uf_source *source = postcopy->source;
	uint64_t ns = limit_pass(&source->limit, sender_bytes(&source->sender));
	uint64_t until = now_ns() + ns, now;
	int err = 0;

	while (ns && !err && (now = now_ns()) < until) {
		pause_for(postcopy, until - now < 2000000 ? until - now : 2000000);
		err = send_asked(postcopy);
	}
	return err;
}

static int send_all(struct postcopy *postcopy)
{
	struct uf_source *source = postcopy->source;
	uint64_t most = BULK / source->regions.page_size, cursor = 0, count;
	struct channel *channel = &source->channels[0];
	int err = 0;

	if (!most)
		most = 1;
	while (!err && (count = claim_next(postcopy, &cursor, most))) {
		err = send_pages(source, &source->sender, channel, cursor, cursor + count, false);
		cursor += count;
		if (!err)
			err = send_asked(postcopy);
		if (!err)
			err = wait_turn(postcopy);
		tally_tick(&source->tally);
	}
	return err ? err : send_zeros(source, &source->sender, channel);
}

/* Until the destination says that it has all, which it may still be asking for. */
static int wait_done(struct postcopy *postcopy)
{
	struct uf_source *source = postcopy->source;
	uint64_t heard = now_ns();
	bool ended = false;
	int err;

	pthread_mutex_lock(&postcopy->lock);
	postcopy->all_sent = true;
	pthread_mutex_unlock(&postcopy->lock);
	err = channel_tell(&source->channels[0], WIRE_ALL_SENT, 0);
	while (!err && !ended) {
		pause_for(postcopy, 10000000);
		pthread_mutex_lock(&postcopy->lock);
		ended = postcopy->ended;
		pthread_mutex_unlock(&postcopy->lock);
		if (now_ns() - heard > source->beat_ms * 1000000ull) {
			err = channel_tell(&source->channels[0], WIRE_ALIVE, 0);
			heard = now_ns();
		}
		tally_tick(&source->tally);
	}
	return err;
}

static int begin(struct postcopy *postcopy)
{
	pthread_condattr_t attr;
	int err = sender_open(&postcopy->sender);

	if (err)
		return err;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&postcopy->lock, NULL);
	pthread_cond_init(&postcopy->ended_cond, &attr);
	pthread_condattr_destroy(&attr);
	err = thread_start(&postcopy->thread, serve_requests, postcopy);
	if (err) {
		pthread_cond_destroy(&postcopy->ended_cond);
		pthread_mutex_destroy(&postcopy->lock);
		sender_close(&postcopy->sender);
	}
	return err;
}

static void end(struct postcopy *postcopy)
{
	pthread_join(postcopy->thread, NULL);
	pthread_cond_destroy(&postcopy->ended_cond);
	pthread_mutex_destroy(&postcopy->lock);
	sender_close(&postcopy->sender);
}

int source_postcopy(struct uf_source *source)
{
	struct postcopy postcopy = {.source = source, .seek = NOWHERE};
	int err = begin(&postcopy), sending;

	if (err)
		return err;
	tally_phase(&source->tally, UF_MIGRATE_POSTCOPY);
	if (source->connections == 1)
		stream_keep_short(&source->channels[0].stream, SHORT_ONE);
	sending = send_all(&postcopy);
	if (!sending)
		sending = wait_done(&postcopy);
	if (sending)
		for (unsigned i = 0; i < source->connections; i++)
			stream_break(&source->channels[i].stream);
	end(&postcopy);
	/* What one thread has found makes the other's connection break. */
	err = postcopy.err == -ENOTCONN && sending ? sending : postcopy.err;
	if (err)
		return err;
	/* If this is lost the destination finds out by itself that nobody comes back. */
	channel_tell(&source->channels[0], WIRE_BYE, 0);
	atomic_store(&source->standing, SOURCE_DONE);
	tally_phase(&source->tally, UF_MIGRATE_COMPLETE);
	return 0;
}
