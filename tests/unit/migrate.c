// SPDX-License-Identifier: MIT
/* What migration is made of: sets of pages, checksums, the wire; and a destination that somebody talks nonsense to. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/crc32c.h"
#include "migrate/channel.h"
#include "migrate/destination.h"
#include "migrate/limit.h"
#include "migrate/source.h"
#include "support/actor.h"
#include "support/memory.h"
#include "support/test.h"

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- sets ---- */

#define BITS 300

static void check_bitmap(const _Atomic uint64_t *map, const bool *model)
{
	for (uint64_t i = 0; i < BITS; i++)
		CHECK_EQ(bitmap_test(map, i), model[i]);
}

static uint64_t set_model(bool *model, uint64_t from, uint64_t end, bool to)
{
	uint64_t changed = 0;

	for (uint64_t i = from; i < end; i++) {
		changed += model[i] != to;
		model[i] = to;
	}
	return changed;
}

static uint64_t find_model(const bool *model, uint64_t from, uint64_t end, bool what)
{
	while (from < end && model[from] != what)
		from++;
	return from;
}

TEST(bitmap_is_a_set, "A bitmap does what a set of numbers does, and counts what it changes.")
{
	_Atomic uint64_t map[(BITS + 63) / 64] = {0};
	uint64_t random = 88172645463325252u;
	bool model[BITS] = {false};

	for (int i = 0; i < 20000; i++) {
		uint64_t a = next_random(&random) % (BITS + 1), b = next_random(&random) % (BITS + 1);
		uint64_t from = a < b ? a : b, end = a < b ? b : a, run;

		switch (next_random(&random) % 4) {
		case 0:
			CHECK_EQ(bitmap_set(map, from, end), set_model(model, from, end, true));
			break;
		case 1:
			CHECK_EQ(bitmap_clear(map, from, end), set_model(model, from, end, false));
			break;
		case 2:
			run = find_model(model, from, end, false) - from;
			CHECK_EQ(bitmap_claim(map, from, end), run);
			set_model(model, from, from + run, false);
			break;
		default:
			CHECK_EQ(bitmap_next(map, from, end), find_model(model, from, end, true));
			CHECK_EQ(bitmap_next_clear(map, from, end), find_model(model, from, end, false));
			run = set_model(memcpy((bool[BITS]){0}, model, BITS), from, end, false);
			CHECK_EQ(bitmap_count(map, from, end), run);
			break;
		}
		check_bitmap(map, model);
	}
}

struct claims {
	_Atomic uint64_t map[64];
	_Atomic unsigned taken[64 * 64];
};

static void *claim_all(void *arg)
{
	struct claims *claims = arg;
	uint64_t at = 0;

	while ((at = bitmap_next(claims->map, at, 64 * 64)) < 64 * 64) {
		uint64_t count = bitmap_claim(claims->map, at, 64 * 64);

		for (uint64_t i = at; i < at + count; i++)
			atomic_fetch_add(&claims->taken[i], 1);
		at += count;
	}
	return NULL;
}

TEST(page_is_claimed_once, "Whatever threads claim at the same time, each member is had by one of them.")
{
	static struct claims claims;
	pthread_t threads[4];

	for (int round = 0; round < 50; round++) {
		bitmap_set(claims.map, 0, 64 * 64);
		for (int i = 0; i < 4; i++)
			CHECK_EQ(pthread_create(&threads[i], NULL, claim_all, &claims), 0);
		for (int i = 0; i < 4; i++)
			CHECK_EQ(pthread_join(threads[i], NULL), 0);
		for (int i = 0; i < 64 * 64; i++)
			CHECK_EQ(atomic_exchange(&claims.taken[i], 0), 1);
	}
}

/* ---- checksums ---- */

TEST(checksum_is_crc32c, "The checksum is CRC-32C, with and without the instruction, in one piece and in several.")
{
	unsigned char bytes[1000];
	uint64_t random = 1;

	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
	CHECK_EQ(crc32c_plain(0, "123456789", 9), 0xe3069283u);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)next_random(&random);
	for (size_t len = 0; len < sizeof(bytes); len += 13) {
		CHECK_EQ(crc32c(0, bytes, len), crc32c_plain(0, bytes, len));
		CHECK_EQ(crc32c(crc32c(0, bytes, len / 3), bytes + len / 3, len - len / 3), crc32c(0, bytes, len));
	}
}

TEST(limit_lets_through_its_rate, "So many bytes a second are let through: each must wait for those before it.")
{
	struct limit limit = {.rate = 1000000}, none = {.rate = 0};
	uint64_t wait = 0;

	CHECK_EQ(limit_pass(&none, UINT64_MAX), 0);
	for (int i = 0; i < 100; i++)
		wait = limit_pass(&limit, 100000);
	/* Ten seconds' worth, but for what went before and the time that this took. */
	CHECK(wait > 8000000000u && wait <= 10000000000u);
}

/* ---- the wire ---- */

static struct region region_list[2] = {
	{.name = "a", .len = 100 * 4096, .pages = 100},
	{.name = "b", .len = 70 * 4096, .first = 128, .pages = 70},
};
static const struct regions two_regions = {
	.count = 2, .at = region_list, .numbers = 256, .pages = 170, .page_size = 4096};

static int read_back(const struct wire_message *message, enum wire_role from)
{
	unsigned char raw[WIRE_HEADER_SIZE], again[WIRE_HEADER_SIZE];
	struct wire_message read;
	int err;

	wire_write_header(raw, message);
	err = wire_read_header(&read, raw, from, &two_regions);
	if (err)
		return err;
	wire_write_header(again, &read);
	CHECK(!memcmp(again, raw, sizeof(raw)));
	return 0;
}

#define ACCEPTED(...) CHECK_EQ(read_back(&(struct wire_message){__VA_ARGS__}, WIRE_SOURCE), 0)
#define REFUSED(...)  CHECK_EQ(read_back(&(struct wire_message){__VA_ARGS__}, WIRE_SOURCE), -EPROTO)

TEST(header_is_checked, "Of a header every field is checked against its type and the regions.")
{
	ACCEPTED(.type = WIRE_PAGES, .region = 1, .at = 69, .count = 1, .length = 4096);
	REFUSED(.type = WIRE_PAGES, .region = 1, .at = 69, .count = 2, .length = 8192);
	REFUSED(.type = WIRE_PAGES, .region = 1, .at = UINT64_MAX, .count = 1, .length = 4096);
	REFUSED(.type = WIRE_PAGES, .region = 2, .at = 0, .count = 1, .length = 4096);
	REFUSED(.type = WIRE_PAGES, .region = 0, .at = 0, .count = 1, .length = 4095);
	REFUSED(.type = WIRE_PAGES, .region = 0, .at = 0, .count = 0, .length = 0);
	ACCEPTED(.type = WIRE_ZEROS, .region = 0, .at = 1, .count = 99);
	REFUSED(.type = WIRE_ZEROS, .region = 0, .at = 1, .count = 100);
	REFUSED(.type = WIRE_ZEROS, .region = 0, .at = 1, .count = 99, .length = 1);
	REFUSED(.type = WIRE_ZEROS, .region = 0, .at = 1, .count = UINT32_MAX);
	ACCEPTED(.type = WIRE_STATE, .at = UF_MIGRATE_STATE_SIZE - 5, .length = 5);
	REFUSED(.type = WIRE_STATE, .at = UF_MIGRATE_STATE_SIZE - 5, .length = 6);
	REFUSED(.type = WIRE_STATE, .at = UINT64_MAX - 2, .length = 6);
	REFUSED(.type = WIRE_STATE, .at = 0, .length = WIRE_RUN + 1);
	ACCEPTED(.type = WIRE_COMMIT);
	REFUSED(.type = WIRE_COMMIT, .at = 1);
	REFUSED(.type = WIRE_COMMIT, .count = 1);
	REFUSED(.type = WIRE_COMMIT, .crc = 1);
	/* The destination's words. */
	REFUSED(.type = WIRE_REQUEST, .region = 0, .at = 0, .count = 1);
	REFUSED(.type = WIRE_DONE);
	REFUSED(.type = 12345);
	CHECK_EQ(read_back(&(struct wire_message){.type = WIRE_REQUEST, .at = 99, .count = 1}, WIRE_DESTINATION), 0);
	CHECK_EQ(read_back(&(struct wire_message){.type = WIRE_BITMAP, .at = 64, .count = 36, .length = 8},
	                   WIRE_DESTINATION),
	         0);
	CHECK_EQ(read_back(&(struct wire_message){.type = WIRE_BITMAP, .at = 63, .count = 36, .length = 8},
	                   WIRE_DESTINATION),
	         -EPROTO);
	CHECK_EQ(read_back(&(struct wire_message){.type = WIRE_PAGES, .count = 1, .length = 4096}, WIRE_DESTINATION),
	         -EPROTO);
}

TEST(damage_is_noticed, "A header or preface in which one bit is wrong is refused.")
{
	struct wire_preface preface = {
		.lowest = 1, .highest = 1, .role = WIRE_SOURCE, .channels = 2, .page_size = 4096, .timeout_ms = 1};
	unsigned char raw[WIRE_PREFACE_SIZE], header[WIRE_HEADER_SIZE];
	struct wire_message message;

	wire_write_preface(raw, &preface);
	CHECK_EQ(wire_read_preface(&preface, raw), 0);
	for (unsigned bit = 0; bit < sizeof(raw) * 8; bit++) {
		raw[bit / 8] ^= (unsigned char)(1 << bit % 8);
		CHECK_EQ(wire_read_preface(&preface, raw), -EPROTO);
		raw[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	wire_write_header(header, &(struct wire_message){.type = WIRE_ZEROS, .count = 1});
	for (unsigned bit = 0; bit < sizeof(header) * 8; bit++) {
		header[bit / 8] ^= (unsigned char)(1 << bit % 8);
		CHECK_EQ(wire_read_header(&message, header, WIRE_SOURCE, &two_regions), -EBADMSG);
		header[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
}

/* ---- a destination and a hostile peer ---- */

#define PAGES 16

struct target {
	struct uf_destination *destination;
	struct memory memory;
	bool two;                       /* connections */
	bool one_of_two;                /* but the source has one */
	struct channel channel, second; /* the peer's */
	int theirs, theirs_second;
	pthread_t thread;
	int result;
	_Atomic unsigned starts, failures;
	bool cancel_late; /* as soon as a connection is over */
};

static void count_failure(void *arg, const char *cause)
{
	struct target *target = arg;

	(void)cause;
	target->failures++;
}

static void cancel_late(void *arg, const struct uf_migrate_statistics *stats)
{
	struct target *target = arg;

	if (target->cancel_late && stats->phase == UF_MIGRATE_PRECOPY && !stats->connected)
		CHECK_EQ(uf_destination_cancel(target->destination), 0);
}

static void count_start(void *arg, const void *state, size_t len)
{
	struct target *target = arg;

	(void)state;
	(void)len;
	target->starts++;
}

static void *run_target(void *arg)
{
	struct target *target = arg;
	char address[32];

	snprintf(address, sizeof(address), target->two ? "fd:%d,%d" : "fd:%d", target->theirs, target->theirs_second);
	target->result = uf_destination_run(target->destination, address);
	return NULL;
}

static struct regions target_regions(const struct target *target, struct region *region)
{
	*region = (struct region){
		.name = "memory", .addr = (uintptr_t)target->memory.at, .len = target->memory.len, .pages = PAGES};
	return (struct regions){.count = 1, .at = region, .numbers = 64, .pages = PAGES, .page_size = page_size};
}

/* Connected to where it listens, at a port of its own choice. */
static int connect_listening(struct target *target)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char address[64];

	CHECK_EQ(uf_destination_listen(target->destination, "tcp://127.0.0.1:0"), 0);
	CHECK_EQ(uf_destination_address(target->destination, address, sizeof(address)), 0);
	at.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	CHECK_EQ(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* A pair of TCP sockets. */
static void tcp_pair(int pair[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), small = 65536;

	CHECK_EQ(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	CHECK_EQ(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(listen(listener, 1), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	pair[1] = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_EQ(connect(pair[1], (struct sockaddr *)&at, sizeof(at)), 0);
	pair[0] = accept(listener, NULL, NULL);
	CHECK(pair[0] >= 0);
	close(listener);
}

/* Of one end; the descriptor of the other one. */
static int new_channel(struct channel *channel, enum wire_role peer, const struct regions *regions, bool tcp)
{
	int pair[2];

	if (tcp)
		tcp_pair(pair);
	else
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	channel_init(channel, peer, regions);
	stream_open(&channel->stream, pair[0], -1, 10000);
	return pair[1];
}

/* A connection to it, over which it waits for a source. */
static void connect_target(struct target *target)
{
	static struct region list;
	static struct regions regions;

	regions = target_regions(target, &list);
	target->theirs = new_channel(&target->channel, WIRE_DESTINATION, &regions, false);
	target->theirs_second = new_channel(&target->second, WIRE_DESTINATION, &regions, false);
	CHECK_EQ(pthread_create(&target->thread, NULL, run_target, target), 0);
}

static void open_target(struct target *target)
{
	struct uf_destination_options options = {.size = sizeof(options),
	                                         .start = count_start,
	                                         .progress = cancel_late,
	                                         .failed = count_failure,
	                                         .arg = target};
	struct uf_migrate_region region = {.name = "memory"};

	target->memory = memory_map(MEMORY_ANON, PAGES);
	region.addr = target->memory.at;
	region.len = target->memory.len;
	CHECK_EQ(uf_destination_open(&target->destination, &region, 1, &options), 0);
	connect_target(target);
}

static struct wire_preface source_preface(const char *id, enum wire_standing standing)
{
	struct wire_preface preface = {.lowest = 1,
	                               .highest = 1,
	                               .role = WIRE_SOURCE,
	                               .channels = 1,
	                               .standing = standing,
	                               .page_size = (uint32_t)page_size,
	                               .timeout_ms = 10000};

	memcpy(preface.id, id, strlen(id));
	return preface;
}

/* A source of the migration `id` stands there; where the destination says that it does. */
static enum wire_standing present(struct target *target, const char *id, enum wire_standing standing)
{
	struct wire_preface preface = source_preface(id, standing);
	unsigned char raw[WIRE_PREFACE_SIZE];

	preface.channels = target->one_of_two || !target->two ? 1 : 2;
	CHECK_EQ(channel_greet(&target->channel.stream, &preface), 0);
	preface.channel = 1;
	if (preface.channels == 2)
		CHECK_EQ(channel_greet(&target->second.stream, &preface), 0);
	if (preface.channels == 2)
		CHECK_EQ(stream_receive(&target->second.stream, raw, sizeof(raw)), 0);
	CHECK_EQ(stream_receive(&target->channel.stream, raw, sizeof(raw)), 0);
	CHECK_EQ(wire_read_preface(&preface, raw), 0);
	CHECK_EQ(preface.refusal, 0);
	return preface.standing;
}

static void agree_target(struct target *target)
{
	struct wire_message message = {.type = WIRE_REGIONS, .count = 1, .length = WIRE_REGION_SIZE};
	unsigned char region[WIRE_REGION_SIZE];

	wire_write_region(region, target->channel.regions->at);
	CHECK_EQ(channel_send(&target->channel, &message, region), 0);
	CHECK_EQ(channel_receive(&target->channel, &message), 0);
	CHECK_EQ(message.type, WIRE_ACCEPT);
}

/* Up to where memory may be sent. */
static void greet_target(struct target *target)
{
	CHECK_EQ(present(target, "somebody", WIRE_FRESH), WIRE_FRESH);
	agree_target(target);
}

static int part_target(struct target *target)
{
	channel_destroy(&target->channel);
	channel_destroy(&target->second);
	if (!target->two)
		close(target->theirs_second);
	CHECK_EQ(pthread_join(target->thread, NULL), 0);
	return target->result;
}

static int end_target(struct target *target)
{
	part_target(target);
	uf_destination_close(target->destination);
	CHECK_EQ(munmap(target->memory.at, target->memory.len), 0);
	return target->result;
}

static int send_alone(const struct wire_message *message, size_t body)
{
	struct target target = {.starts = 0};
	char *bytes = calloc(1, body + 1);

	open_target(&target);
	greet_target(&target);
	CHECK(bytes);
	memset(bytes, 0xff, body);
	channel_send(&target.channel, message, bytes);
	free(bytes);
	/* Until it hangs up, or for more. */
	shutdown(target.channel.stream.fd, SHUT_WR);
	while (!channel_receive(&target.channel, &(struct wire_message){0}))
		;
	end_target(&target);
	CHECK_EQ(target.starts, 0);
	return target.result;
}

TEST(messages_out_of_turn_are_refused,
     "A source that commits, or asks, before it is its turn is refused, and nothing begins.")
{
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_COMMIT}, 0), -EPROTO);
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_STATE, .length = 10}, 10), -EPROTO);
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_STOPPED}, 0), -EPROTO);
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_ALL_SENT}, 0), -EPROTO);
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_BYE}, 0), -EPROTO);
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_REQUEST, .count = 1}, 0), -EPROTO);
	/* Ranges of all ones. */
	CHECK_EQ(send_alone(&(struct wire_message){.type = WIRE_DISCARD, .count = 2, .length = 32}, 32), -EPROTO);
	CHECK_EQ(send_alone(
			 &(struct wire_message){
				 .type = WIRE_PAGES, .at = PAGES, .count = 1, .length = (uint32_t)page_size},
			 page_size),
	         -EPROTO);
}

/* A message of a kind that fits, or nearly. */
static size_t make_message(uint64_t *random, unsigned char *raw)
{
	static const enum wire_type types[] = {WIRE_PAGES,    WIRE_ZEROS, WIRE_DISCARD, WIRE_BARRIER,
	                                       WIRE_ARM,      WIRE_STATE, WIRE_STOPPED, WIRE_COMMIT,
	                                       WIRE_ALL_SENT, WIRE_ALIVE, WIRE_CANCEL};
	struct wire_message message = {
		.type = types[next_random(random) %
	                      (sizeof(types) / sizeof(types[0]) - (next_random(random) % 8 != 0))],
		.at = next_random(random) % (PAGES + 1),
		.count = (uint32_t)(next_random(random) % 4),
	};

	if (message.type == WIRE_PAGES)
		message.length = message.count * (uint32_t)page_size;
	if (message.type == WIRE_DISCARD) {
		message.at = 0;
		message.length = message.count * WIRE_RANGE_SIZE;
	}
	if (message.type == WIRE_STATE)
		message.length = 16;
	if (message.type == WIRE_STATE || message.type == WIRE_STOPPED || message.type == WIRE_BARRIER)
		message.count = 0;
	if (message.type == WIRE_STATE || message.type == WIRE_STOPPED)
		message.at = next_random(random) % 3 * 16;
	if (message.type >= WIRE_COMMIT || message.type == WIRE_ARM)
		message.at = message.count = 0;
	wire_write_header(raw, &message);
	for (size_t i = 0; i < message.length; i++)
		raw[WIRE_HEADER_SIZE + i] = (unsigned char)next_random(random);
	if (message.type == WIRE_DISCARD)
		for (uint32_t i = 0; i < message.count; i++)
			wire_write_range(raw + WIRE_HEADER_SIZE + i * WIRE_RANGE_SIZE, next_random(random) % PAGES,
			                 PAGES - next_random(random) % 3);
	return WIRE_HEADER_SIZE + message.length;
}

TEST(nonsense_does_no_harm,
     "Whatever a peer sends, in whatever order, the destination ends with an error and writes nowhere else.")
{
	static unsigned char raw[WIRE_HEADER_SIZE + 4 * 65536];
	uint64_t random = 4711;

	for (int round = 0; round < 150; round++) {
		struct target target = {.starts = 0};

		open_target(&target);
		greet_target(&target);
		for (int i = 0; i < 60; i++) {
			size_t len = make_message(&random, raw);

			if (next_random(&random) % 32 == 0)
				raw[next_random(&random) % len] ^= 1;
			if (send(target.channel.stream.fd, raw, len, MSG_NOSIGNAL) < 0)
				break;
		}
		/* Whatever it says: its answers must not fill the connection. */
		shutdown(target.channel.stream.fd, SHUT_WR);
		while (recv(target.channel.stream.fd, raw, sizeof(raw), MSG_WAITALL) > 0)
			;
		/* The memory lies between pages that cannot be touched, and nobody else's has been written to. */
		CHECK(end_target(&target) < 0);
	}
}

/* ---- a destination that is asked by a source which is not the one that it has ---- */

static void tell_target(struct target *target, enum wire_type type, enum wire_type answer)
{
	struct wire_message message;

	CHECK_EQ(channel_tell(&target->channel, type, 0), 0);
	CHECK_EQ(channel_receive(&target->channel, &message), 0);
	CHECK_EQ(message.type, answer);
}

static void take_bitmap(struct target *target)
{
	struct wire_message message;
	unsigned char bitmap[8];

	CHECK_EQ(channel_receive(&target->channel, &message), 0);
	CHECK_EQ(message.type, WIRE_BITMAP);
	CHECK_EQ(channel_receive_body(&target->channel, &message, bitmap), 0);
}

/* From its beginning until the source may commit. */
static void make_ready(struct target *target, const char *id)
{
	CHECK_EQ(present(target, id, WIRE_FRESH), WIRE_FRESH);
	agree_target(target);
	tell_target(target, WIRE_ARM, WIRE_ARMED);
	tell_target(target, WIRE_STOPPED, WIRE_PREPARED);
}

/* A migration that the destination cancels when it has said that it is ready. */
static void cancel_when_ready(struct target *target, const char *id)
{
	make_ready(target, id);
	CHECK_EQ(uf_destination_cancel(target->destination), 0);
	CHECK_EQ(part_target(target), -ECANCELED);
}

TEST(each_source_in_doubt_is_told, "Of several migrations that were cancelled each source hears so, if it asks.")
{
	static const char *const sources[] = {"first", "second", "third"};
	struct target target = {.starts = 0};

	open_target(&target);
	for (int i = 0; i < 3; i++) {
		cancel_when_ready(&target, sources[i]);
		connect_target(&target);
	}
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(present(&target, sources[i], WIRE_COMMITTED), WIRE_CANCELED);
		CHECK_EQ(part_target(&target), -ECANCELED);
		connect_target(&target);
	}
	end_target(&target);
}

TEST(cancellation_between_runs_is_one, "A destination that cancels while it waits for nobody lets go of what has come, "
                                       "tells its source, and may have another.")
{
	struct target target = {.starts = 0};

	open_target(&target);
	make_ready(&target, "source");
	CHECK_EQ(part_target(&target), -ENOTCONN);
	CHECK_EQ(uf_destination_cancel(target.destination), 0);
	connect_target(&target);
	CHECK_EQ(part_target(&target), -ECANCELED);

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_CANCELED);
	CHECK_EQ(part_target(&target), -ECANCELED);
	connect_target(&target);
	CHECK_EQ(present(&target, "another", WIRE_FRESH), WIRE_FRESH);
	end_target(&target);
}

TEST(cancellation_is_not_lost, "A cancellation that comes when the connection has just broken is not lost with it.")
{
	struct target target = {.cancel_late = true};

	open_target(&target);
	greet_target(&target);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	connect_target(&target);
	CHECK_EQ(end_target(&target), -ECANCELED);
}

TEST(what_was_canceled_may_come_again,
     "A migration that was cancelled, and came again before its source heard of it, is "
     "what it is now: the source of a program that has begun is not told that it never will.")
{
	struct target target = {.starts = 0};

	open_target(&target);
	cancel_when_ready(&target, "source");

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_PRECOPY), WIRE_FRESH);
	agree_target(&target);
	tell_target(&target, WIRE_ARM, WIRE_ARMED);
	tell_target(&target, WIRE_STOPPED, WIRE_PREPARED);
	CHECK_EQ(part_target(&target), -ENOTCONN);

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_READY);
	agree_target(&target);
	take_bitmap(&target);
	tell_target(&target, WIRE_COMMIT, WIRE_STARTED);
	CHECK_EQ(part_target(&target), -ENOTCONN);

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_COMMITTED);
	end_target(&target);
	CHECK_EQ(target.starts, 1);
}

TEST(what_became_of_another_is_no_concern, "A source that asks for a migration which was cancelled is told so, and the "
                                           "program that has come since is left alone.")
{
	static const char page[65536] = {0x11, 0x11};
	struct target target = {.starts = 0};

	open_target(&target);
	cancel_when_ready(&target, "first");
	/* Also not one that is about to. */
	connect_target(&target);
	make_ready(&target, "second");
	CHECK_EQ(part_target(&target), -ENOTCONN);
	connect_target(&target);
	CHECK_EQ(present(&target, "first", WIRE_COMMITTED), WIRE_CANCELED);
	CHECK_EQ(part_target(&target), -ENOTCONN);

	connect_target(&target);
	CHECK_EQ(present(&target, "second", WIRE_PRECOPY), WIRE_PRECOPY);
	agree_target(&target);
	take_bitmap(&target);
	CHECK_EQ(channel_send(&target.channel,
	                      &(struct wire_message){.type = WIRE_PAGES, .count = 1, .length = (uint32_t)page_size},
	                      page),
	         0);
	tell_target(&target, WIRE_ARM, WIRE_ARMED);
	tell_target(&target, WIRE_STOPPED, WIRE_PREPARED);
	tell_target(&target, WIRE_COMMIT, WIRE_STARTED);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	target.memory.at[1] = 0x22;

	connect_target(&target);
	CHECK_EQ(present(&target, "first", WIRE_COMMITTED), WIRE_CANCELED);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	CHECK_EQ(uf_destination_owner(target.destination), UF_OWNER_DESTINATION);
	CHECK_EQ(target.memory.at[1], 0x22);
	CHECK_EQ(target.starts, 1);
	uf_destination_close(target.destination);
}

TEST(late_connection_changes_nothing,
     "A connection that its source has given up, and that comes when the source has committed, takes nothing back.")
{
	struct target target = {.starts = 0};

	open_target(&target);
	make_ready(&target, "source");
	CHECK_EQ(part_target(&target), -ENOTCONN);

	/* All that can be read of it is what it said first. */
	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_PRECOPY), WIRE_PRECOPY);
	CHECK_EQ(part_target(&target), -ENOTCONN);

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_READY);
	agree_target(&target);
	take_bitmap(&target);
	tell_target(&target, WIRE_COMMIT, WIRE_STARTED);
	end_target(&target);
	CHECK_EQ(target.starts, 1);
}

TEST(memory_that_cannot_be_written_ends_it,
     "Where the memory cannot be written to the destination says so, and does not wait for another connection.")
{
	static const char page[65536];
	struct target target = {.starts = 0};
	struct wire_message message;
	char reason[REASON_SIZE];

	open_target(&target);
	greet_target(&target);
	CHECK_EQ(mprotect(target.memory.at, target.memory.len, PROT_READ), 0);
	CHECK_EQ(channel_send(&target.channel,
	                      &(struct wire_message){.type = WIRE_PAGES, .count = 1, .length = (uint32_t)page_size},
	                      page),
	         0);
	CHECK_EQ(channel_receive(&target.channel, &message), 0);
	CHECK_EQ(message.type, WIRE_REFUSE);
	CHECK_EQ(message.count, WIRE_FAILED);
	CHECK_EQ(channel_receive_reason(&target.channel, &message, reason), 0);
	CHECK_EQ(end_target(&target), -EFAULT);
}

/* ---- what a source says when the program has begun ---- */

static void begin_target(struct target *target)
{
	open_target(target);
	make_ready(target, "source");
	tell_target(target, WIRE_COMMIT, WIRE_STARTED);
}

/* It is asked for page 3, and has it; what else is missing is zeros. Until it says that it has all. */
static void serve_target(struct target *target, struct channel *requests)
{
	static const char page[65536] = {0x33};
	struct actor *reader = act_read(target->memory.at + 3 * page_size);
	struct wire_message message;

	CHECK_EQ(channel_receive(requests, &message), 0);
	CHECK_EQ(message.type, WIRE_REQUEST);
	CHECK_EQ(message.at, 3);
	CHECK_EQ(channel_send(
			 requests,
			 &(struct wire_message){.type = WIRE_PAGES, .at = 3, .count = 1, .length = (uint32_t)page_size},
			 page),
	         0);
	CHECK_EQ(actor_end(reader).value, 0x33);
	CHECK_EQ(channel_send(&target->channel, &(struct wire_message){.type = WIRE_ZEROS, .count = 3}, NULL), 0);
	CHECK_EQ(channel_send(&target->channel, &(struct wire_message){.type = WIRE_ZEROS, .at = 4, .count = PAGES - 4},
	                      NULL),
	         0);
	CHECK_EQ(channel_tell(&target->channel, WIRE_ALL_SENT, 0), 0);
	CHECK_EQ(channel_receive(requests, &message), 0);
	CHECK_EQ(message.type, WIRE_DONE);
}

static void end_served_target(struct target *target, struct channel *requests)
{
	serve_target(target, requests);
	CHECK_EQ(channel_tell(&target->channel, WIRE_BYE, 0), 0);
}

TEST(who_comes_back_hears_that_all_is_there,
     "Where it listens, the source of a destination that has all hears so even if its "
     "connection breaks at the end, whatever that one was.")
{
	struct wire_preface preface = source_preface("source", WIRE_COMMITTED);
	unsigned char raw[WIRE_PREFACE_SIZE];
	struct target target = {.starts = 0};
	struct channel late;

	begin_target(&target);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	channel_init(&late, WIRE_DESTINATION, target.channel.regions);
	stream_open(&late.stream, connect_listening(&target), -1, 10000);
	CHECK_EQ(channel_greet(&late.stream, &preface), 0);

	connect_target(&target);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_COMMITTED);
	agree_target(&target);
	take_bitmap(&target);
	serve_target(&target, &target.channel);
	stream_close(&target.channel.stream);

	CHECK_EQ(stream_receive(&late.stream, raw, sizeof(raw)), 0);
	CHECK_EQ(wire_read_preface(&preface, raw), 0);
	CHECK_EQ(preface.standing, WIRE_COMPLETE);
	CHECK_EQ(channel_tell(&late, WIRE_BYE, 0), 0);
	CHECK_EQ(end_target(&target), 0);
	channel_destroy(&late);
}

/* From now on this thread's attempts to poison fail. */
static void refuse_poison(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)UFFDIO_POISON, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		SKIP("seccomp is not to be had here");
}

TEST(what_cannot_be_poisoned_is_no_zeros, "Missing memory that cannot be poisoned is not let go with the destination: "
                                          "a touch of it waits, and never finds zeros.")
{
	struct target target = {.starts = 0};

	begin_target(&target);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	refuse_poison();
	CHECK_EQ(uf_destination_abandon(target.destination), -ENOMEM);
	uf_destination_close(target.destination);
	CHECK(actor_waits(act_read(target.memory.at)));
}

TEST(what_is_not_poisoned_yet_is_no_zeros,
     "Missing memory is not let go as zeros by a destination that is closed when its own thread "
     "has given the source up, and poisoned nothing yet.")
{
	struct target target = {.starts = 0};

	begin_target(&target);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	atomic_store(&target.destination->standing, DESTINATION_LOST);
	uf_destination_close(target.destination);
	CHECK(actor_waits(act_read(target.memory.at)));
}

TEST(source_that_was_given_up_is_told_the_truth,
     "A destination whose program has begun never says that it is ready for that, also when it has just given the "
     "source up.")
{
	struct target target = {.starts = 0};
	bool running = false;

	begin_target(&target);
	CHECK_EQ(part_target(&target), -ENOTCONN);
	connect_target(&target);
	while (!running) {
		sched_yield();
		pthread_mutex_lock(&target.destination->lock);
		running = target.destination->running;
		pthread_mutex_unlock(&target.destination->lock);
	}
	/* What wakes it comes a moment later. */
	atomic_store(&target.destination->standing, DESTINATION_LOST);
	CHECK_EQ(present(&target, "source", WIRE_COMMITTED), WIRE_COMMITTED);
	CHECK_EQ(end_target(&target), -EHOSTDOWN);
}

TEST(what_is_wrong_later_is_told, "What a source may not say is told of also when the program has begun.")
{
	struct target target = {.starts = 0};

	begin_target(&target);
	CHECK_EQ(channel_tell(&target.channel, WIRE_COMMIT, 0), 0);
	CHECK_EQ(channel_receive(&target.channel, &(struct wire_message){0}), -ENOTCONN);
	CHECK_EQ(part_target(&target), -EPROTO);
	CHECK_EQ(target.failures, 1);
	uf_destination_close(target.destination);
}

TEST(faults_do_not_wait_for_a_sign_of_life,
     "A sign of life on the connection for requests does not keep the destination from looking after faults.")
{
	struct target target = {.two = true};

	begin_target(&target);
	CHECK_EQ(channel_tell(&target.second, WIRE_ALIVE, 0), 0);
	end_served_target(&target, &target.second);
	CHECK_EQ(end_target(&target), 0);
}

TEST(requested_is_counted, "What was asked for is counted at the destination, over one connection as over two.")
{
	for (int two = 0; two < 2; two++) {
		struct target target = {.two = two};
		struct uf_migrate_statistics stats = {.size = sizeof(stats)};

		begin_target(&target);
		end_served_target(&target, two ? &target.second : &target.channel);
		CHECK_EQ(part_target(&target), 0);
		CHECK_EQ(uf_destination_stats(target.destination, &stats), 0);
		CHECK_EQ(stats.requested, page_size);
		CHECK_EQ(stats.postcopy, page_size);
		CHECK_EQ(stats.requests, 1);
		CHECK_EQ(stats.zero, (PAGES - 1) * page_size);
		uf_destination_close(target.destination);
	}
}

/* ---- a source whose destination is played by the test: the moment of the commit ---- */

struct giver {
	size_t pages; /* 0: PAGES */
	unsigned passes, timeout_ms;
	uint64_t bandwidth;
	bool fill; /* half of them, from the second quarter on, is not zero */
	bool tcp;

	struct uf_source *source;
	struct memory memory;
	struct channel channel; /* the destination's */
	int theirs;
	pthread_t thread;
	int result;
	_Atomic unsigned stops, resumes;
	int connected; /* as it was told last */
	unsigned connections;
};

static int giver_stop(void *arg, const void **state, size_t *len)
{
	struct giver *giver = arg;

	(void)state;
	(void)len;
	giver->stops++;
	return 0;
}

static void giver_resume(void *arg)
{
	struct giver *giver = arg;

	giver->resumes++;
}

static void giver_progress(void *arg, const struct uf_migrate_statistics *stats)
{
	struct giver *giver = arg;

	giver->connections += stats->connected && !giver->connected;
	giver->connected = stats->connected;
}

static void open_giver(struct giver *giver)
{
	struct uf_source_options options = {
		.size = sizeof(options),
		.passes = giver->passes,
		.bandwidth = giver->bandwidth,
		.timeout_ms = giver->timeout_ms,
		.stop = giver_stop,
		.resume = giver_resume,
		.progress = giver_progress,
		.arg = giver,
	};
	struct uf_migrate_region region = {.name = "memory"};

	giver->pages = giver->pages ? giver->pages : PAGES;
	giver->memory = memory_map(MEMORY_ANON, giver->pages);
	if (giver->fill)
		memset(giver->memory.at + giver->memory.len / 4, 0x5a, giver->memory.len / 2);
	region.addr = giver->memory.at;
	region.len = giver->memory.len;
	CHECK_EQ(uf_source_open(&giver->source, &region, 1, &options), 0);
}

static void *run_giver(void *arg)
{
	struct giver *giver = arg;
	char address[32];

	snprintf(address, sizeof(address), "fd:%d", giver->theirs);
	giver->result = uf_source_run(giver->source, address);
	return NULL;
}

static void expect_message(struct giver *giver, enum wire_type type, struct wire_message *message)
{
	CHECK_EQ(channel_receive(&giver->channel, message), 0);
	CHECK_EQ(message->type, type);
}

/* A new connection; what the source says on it, as the answer to it, but for the standing. */
static struct wire_preface connect_giver(struct giver *giver)
{
	static struct region region = {.name = "memory"};
	static struct regions regions = {.count = 1, .at = &region};
	unsigned char raw[WIRE_PREFACE_SIZE];
	struct wire_preface preface;

	region.len = giver->memory.len;
	region.pages = regions.pages = giver->pages;
	regions.numbers = (giver->pages + 63) / 64 * 64;
	regions.page_size = page_size;
	giver->theirs = new_channel(&giver->channel, WIRE_SOURCE, &regions, giver->tcp);
	CHECK_EQ(pthread_create(&giver->thread, NULL, run_giver, giver), 0);
	CHECK_EQ(stream_receive(&giver->channel.stream, raw, sizeof(raw)), 0);
	CHECK_EQ(wire_read_preface(&preface, raw), 0);
	preface.role = WIRE_DESTINATION;
	return preface;
}

static void send_empty_bitmap(struct giver *giver)
{
	uint32_t words = (uint32_t)(giver->pages + 63) / 64;
	void *bitmap = calloc(words, 8);

	CHECK(bitmap);
	CHECK_EQ(channel_send(&giver->channel,
	                      &(struct wire_message){
				      .type = WIRE_BITMAP, .count = (uint32_t)giver->pages, .length = words * 8},
	                      bitmap),
	         0);
	free(bitmap);
}

/* The destination stands there, and has nothing. */
static void agree_giver(struct giver *giver, struct wire_preface preface, enum wire_standing standing)
{
	unsigned char list[WIRE_REGION_SIZE];
	struct wire_message message;

	preface.standing = standing;
	CHECK_EQ(channel_greet(&giver->channel.stream, &preface), 0);
	if (standing == WIRE_CANCELED || standing == WIRE_COMPLETE)
		return;
	expect_message(giver, WIRE_REGIONS, &message);
	CHECK_EQ(channel_receive_body(&giver->channel, &message, list), 0);
	CHECK_EQ(channel_tell(&giver->channel, WIRE_ACCEPT, 0), 0);
	if (standing != WIRE_FRESH)
		send_empty_bitmap(giver);
}

/* A new connection, on which it does. */
static void meet_giver(struct giver *giver, enum wire_standing standing)
{
	struct wire_preface preface = connect_giver(giver);

	CHECK_EQ(preface.standing, standing == WIRE_FRESH || standing == WIRE_PRECOPY ? standing : WIRE_COMMITTED);
	agree_giver(giver, preface, standing);
}

static void part_giver(struct giver *giver)
{
	channel_destroy(&giver->channel);
	CHECK_EQ(pthread_join(giver->thread, NULL), 0);
}

/* From the end of precopy until the source has given the program away. */
static void take_commit(struct giver *giver)
{
	struct wire_message message;

	expect_message(giver, WIRE_ARM, &message);
	CHECK_EQ(uf_source_owner(giver->source), UF_OWNER_SOURCE);
	CHECK_EQ(channel_tell(&giver->channel, WIRE_ARMED, 0), 0);
	expect_message(giver, WIRE_BARRIER, &message);
	CHECK_EQ(channel_tell(&giver->channel, WIRE_REACHED, message.at), 0);
	expect_message(giver, WIRE_STOPPED, &message);
	CHECK_EQ(channel_tell(&giver->channel, WIRE_PREPARED, 0), 0);
	expect_message(giver, WIRE_COMMIT, &message);
}

/* The connection breaks when the commit has been sent, and nothing has come back. */
static void leave_in_doubt(struct giver *giver)
{
	open_giver(giver);
	meet_giver(giver, WIRE_FRESH);
	take_commit(giver);
	part_giver(giver);
	CHECK_EQ(giver->result, -ENOTCONN);
	CHECK_EQ(uf_source_owner(giver->source), UF_OWNER_IN_DOUBT);
	CHECK_EQ(uf_source_cancel(giver->source), -EALREADY);
	CHECK_EQ(giver->resumes, 0);
}

TEST(doubt_ends_with_a_cancellation, "A source in doubt goes on only when the destination says that it never began.")
{
	struct giver giver = {.stops = 0};

	leave_in_doubt(&giver);
	meet_giver(&giver, WIRE_CANCELED);
	part_giver(&giver);
	CHECK_EQ(giver.result, -ECANCELED);
	CHECK_EQ(uf_source_owner(giver.source), UF_OWNER_SOURCE);
	CHECK_EQ(giver.resumes, 1);
	uf_source_close(giver.source);
}

TEST(doubt_ends_with_another_commit, "A destination that is ready, and has not heard of the commit, hears of it again.")
{
	struct giver giver = {.stops = 0};
	struct wire_message message;

	leave_in_doubt(&giver);
	meet_giver(&giver, WIRE_READY);
	expect_message(&giver, WIRE_COMMIT, &message);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_STARTED, 0), 0);
	expect_message(&giver, WIRE_ZEROS, &message);
	CHECK_EQ(message.count, PAGES);
	expect_message(&giver, WIRE_ALL_SENT, &message);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_DONE, 0), 0);
	expect_message(&giver, WIRE_BYE, &message);
	part_giver(&giver);
	CHECK_EQ(giver.result, 0);
	CHECK_EQ(uf_source_owner(giver.source), UF_OWNER_DESTINATION);
	CHECK_EQ(giver.stops, 1);
	CHECK_EQ(giver.resumes, 0);
	uf_source_close(giver.source);
}

TEST(doubt_ends_when_it_has_begun, "A destination that has begun is the owner, whatever the source has heard.")
{
	struct giver giver = {.stops = 0};
	struct wire_message message;

	leave_in_doubt(&giver);
	meet_giver(&giver, WIRE_COMMITTED);
	expect_message(&giver, WIRE_ZEROS, &message);
	CHECK_EQ(uf_source_owner(giver.source), UF_OWNER_DESTINATION);
	part_giver(&giver);
	CHECK_EQ(giver.result, -ENOTCONN);
	CHECK_EQ(giver.resumes, 0);
	/* Too late for that. */
	CHECK_EQ(uf_source_reclaim(giver.source), -EALREADY);
	meet_giver(&giver, WIRE_COMPLETE);
	expect_message(&giver, WIRE_BYE, &message);
	part_giver(&giver);
	CHECK_EQ(giver.result, 0);
	uf_source_close(giver.source);
}

TEST(doubt_ends_with_a_reclaim, "Who knows that the destination never began can have the program back.")
{
	struct giver giver = {.stops = 0};

	leave_in_doubt(&giver);
	CHECK_EQ(uf_source_reclaim(giver.source), 0);
	CHECK_EQ(giver.resumes, 1);
	CHECK_EQ(uf_source_owner(giver.source), UF_OWNER_SOURCE);
	uf_source_close(giver.source);
}

/* The next message; what follows it is passed over. */
static enum wire_type pass_over(struct giver *giver, struct wire_message *message)
{
	static char body[WIRE_RUN];

	CHECK_EQ(channel_receive(&giver->channel, message), 0);
	CHECK_EQ(channel_receive_body(&giver->channel, message, body), 0);
	return message->type;
}

static void finish_giver(struct giver *giver)
{
	struct wire_message message;

	CHECK_EQ(channel_tell(&giver->channel, WIRE_DONE, 0), 0);
	expect_message(giver, WIRE_BYE, &message);
	part_giver(giver);
	CHECK_EQ(giver->result, 0);
}

TEST(nothing_ends_doubt_but_the_destination, "What wakes a source that has given the program away is not taken for the "
                                             "destination's word that it has not begun.")
{
	struct giver giver = {.stops = 0};
	struct wire_message message;
	uint64_t one = 1;

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	take_commit(&giver);
	/* As of a cancellation that came before, and is noticed late; and longer than a wait that was woken goes on. */
	CHECK_EQ(write(giver.source->wake, &one, sizeof(one)), sizeof(one));
	usleep((STREAM_GRACE_MS + 500) * 1000);
	CHECK_EQ(giver.resumes, 0);
	CHECK_EQ(uf_source_owner(giver.source), UF_OWNER_IN_DOUBT);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_STARTED, 0), 0);
	while (pass_over(&giver, &message) != WIRE_ALL_SENT)
		;
	finish_giver(&giver);
	CHECK_EQ(giver.resumes, 0);
	uf_source_close(giver.source);
}

TEST(source_is_met_where_it_stands,
     "A source takes no answer for one that contradicts itself, or that asks for what it does not know.")
{
	struct giver giver = {.stops = 0};
	struct wire_preface preface;

	open_giver(&giver);
	preface = connect_giver(&giver);
	preface.required = 1u << 31;
	CHECK_EQ(channel_greet(&giver.channel.stream, &preface), 0);
	part_giver(&giver);
	CHECK_EQ(giver.result, -EPROTONOSUPPORT);
	for (int standing = WIRE_PRECOPY; standing <= WIRE_CANCELED; standing++) {
		preface = connect_giver(&giver);
		CHECK_EQ(preface.standing, WIRE_FRESH);
		preface.standing = standing;
		CHECK_EQ(channel_greet(&giver.channel.stream, &preface), 0);
		part_giver(&giver);
		CHECK_EQ(giver.result, -EPROTO);
	}
	uf_source_close(giver.source);
}

/* All memory, and then what is to be thrown away of it before the stop. */
static void take_pass(struct giver *giver)
{
	struct wire_message message;
	uint64_t came = 0;

	while (pass_over(giver, &message) != WIRE_BARRIER)
		came += message.count;
	CHECK_EQ(came, giver->pages);
	CHECK_EQ(channel_tell(&giver->channel, WIRE_REACHED, message.at), 0);
}

TEST(each_destination_has_an_identity_of_its_own,
     "A destination that has nothing is not taken for the one that was there before: what that one knows is never told "
     "of a program which this one was given.")
{
	struct giver giver = {.passes = 1};
	struct wire_preface first, second;

	open_giver(&giver);
	first = connect_giver(&giver);
	agree_giver(&giver, first, WIRE_FRESH);
	take_pass(&giver);
	part_giver(&giver);
	CHECK_EQ(giver.result, -ENOTCONN);

	second = connect_giver(&giver);
	CHECK_EQ(second.standing, WIRE_PRECOPY);
	CHECK(!memcmp(second.id, first.id, sizeof(first.id)));
	second.standing = WIRE_FRESH;
	CHECK_EQ(channel_greet(&giver.channel.stream, &second), 0);
	part_giver(&giver);
	CHECK_EQ(giver.result, -ENOTCONN);

	second = connect_giver(&giver);
	CHECK_EQ(second.standing, WIRE_FRESH);
	CHECK(memcmp(second.id, first.id, sizeof(first.id)));
	agree_giver(&giver, second, WIRE_FRESH);
	take_pass(&giver);
	take_commit(&giver);
	part_giver(&giver);
	uf_source_close(giver.source);
}

TEST(connections_are_told_of, "The program at the source is told of each connection, and of its end.")
{
	struct giver giver = {.stops = 0};

	leave_in_doubt(&giver);
	CHECK_EQ(giver.connections, 1);
	CHECK(!giver.connected);
	meet_giver(&giver, WIRE_COMPLETE);
	part_giver(&giver);
	CHECK_EQ(giver.result, 0);
	CHECK_EQ(giver.connections, 2);
	CHECK(!giver.connected);
	uf_source_close(giver.source);
}

TEST(descriptors_do_not_stay, "Descriptors that are given away are closed, whatever comes of them.")
{
	struct giver giver = {.stops = 0};
	struct target target = {.two = true, .one_of_two = true};
	char address[32], byte;
	int pair[2];

	open_giver(&giver);
	CHECK_EQ(uf_source_cancel(giver.source), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(address, sizeof(address), "fd:%d", pair[0]);
	CHECK_EQ(uf_source_run(giver.source, address), -ECANCELED);
	CHECK_EQ(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
	snprintf(address, sizeof(address), "fd:%d,%d", pair[1], pair[1]);
	CHECK_EQ(uf_source_run(giver.source, address), -EINVAL);
	close(pair[1]);
	uf_source_close(giver.source);
	/* A source that has one connection where the destination was given two. */
	open_target(&target);
	greet_target(&target);
	CHECK_EQ(recv(target.second.stream.fd, &byte, 1, MSG_DONTWAIT), 0);
	end_target(&target);
}

/* ---- peers that say nothing, or hardly anything ---- */

static void nothing(int number)
{
	(void)number;
}

/* Signals, as of a profiler, far more often than the source's patience lasts. */
static void *send_signals(void *arg)
{
	pthread_t *to = arg;

	for (;;) {
		usleep(10000);
		pthread_kill(*to, SIGUSR1);
	}
	return NULL;
}

TEST(silence_is_noticed_among_signals,
     "A peer that says nothing is given up in time, however many signals come meanwhile.")
{
	struct giver giver = {.timeout_ms = 300};
	struct sigaction action = {.sa_handler = nothing};
	struct stream stream = {.fd = -1};
	pthread_t self = pthread_self(), signals;
	char address[32], byte;
	int pair[2];

	open_giver(&giver);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(address, sizeof(address), "fd:%d", pair[1]);
	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	CHECK_EQ(pthread_create(&signals, NULL, send_signals, &self), 0);
	CHECK_EQ(uf_source_run(giver.source, address), -ENOTCONN);
	/* So it is where it has said something: then there is one connection to wait for. */
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	stream_open(&stream, pair[0], -1, 300);
	CHECK_EQ(stream_receive(&stream, &byte, 1), -ENOTCONN);
	stream_close(&stream);
	CHECK_EQ(pthread_cancel(signals), 0);
	CHECK_EQ(pthread_join(signals, NULL), 0);
	uf_source_close(giver.source);
}

static void *run_listening(void *arg)
{
	struct target *target = arg;

	target->result = uf_destination_run(target->destination, NULL);
	return NULL;
}

TEST(who_says_it_slowly_is_not_waited_for,
     "Who connects and says who he is byte by byte, each just in time, does not keep the others waiting.")
{
	struct uf_destination_options options = {.size = sizeof(options), .start = count_start, .timeout_ms = 300};
	struct uf_migrate_region region = {.name = "memory"};
	struct target target = {.starts = 0};
	unsigned char preface[WIRE_PREFACE_SIZE] = "UFMIGRAT";
	int fd, sent = 0;

	options.arg = &target;
	target.memory = memory_map(MEMORY_ANON, PAGES);
	region.addr = target.memory.at;
	region.len = target.memory.len;
	CHECK_EQ(uf_destination_open(&target.destination, &region, 1, &options), 0);
	fd = connect_listening(&target);
	CHECK_EQ(pthread_create(&target.thread, NULL, run_listening, &target), 0);
	for (; sent < WIRE_PREFACE_SIZE; sent++) {
		struct pollfd end = {.fd = fd, .events = POLLIN};

		CHECK(send(fd, preface + sent, 1, MSG_NOSIGNAL) == 1 || sent);
		if (poll(&end, 1, 50))
			break;
	}
	CHECK(sent < WIRE_PREFACE_SIZE - 1);
	close(fd);
	CHECK_EQ(uf_destination_cancel(target.destination), 0);
	CHECK_EQ(pthread_join(target.thread, NULL), 0);
	CHECK_EQ(target.result, -ECANCELED);
	uf_destination_close(target.destination);
}

/* What the source waits for behind this message; 0: nothing. */
static enum wire_type answer_to(enum wire_type type)
{
	switch (type) {
	case WIRE_BARRIER:
		return WIRE_REACHED;
	case WIRE_ARM:
		return WIRE_ARMED;
	case WIRE_STOPPED:
		return WIRE_PREPARED;
	case WIRE_COMMIT:
		return WIRE_STARTED;
	case WIRE_ALL_SENT:
		return WIRE_DONE;
	default:
		return 0;
	}
}

/* The answer to a message, or now and then anything that a destination may say somewhere. */
static size_t make_answer(uint64_t *random, unsigned char *raw, const struct wire_message *to, enum wire_type *type)
{
	static const enum wire_type types[] = {WIRE_ACCEPT,  WIRE_REFUSE,   WIRE_BITMAP,  WIRE_REACHED,
	                                       WIRE_ARMED,   WIRE_PREPARED, WIRE_STARTED, WIRE_REQUEST,
	                                       WIRE_REQUEST, WIRE_DONE,     WIRE_CANCEL,  WIRE_ALIVE};
	struct wire_message message = {.type = types[next_random(random) % (sizeof(types) / sizeof(types[0]))]};

	if (next_random(random) % 8)
		message.type = answer_to(to->type);
	*type = message.type;
	if (message.type == WIRE_REACHED)
		message.at = to->at + (next_random(random) % 16 == 0);
	if (message.type == WIRE_REQUEST)
		message.at = next_random(random) % PAGES;
	if (message.type == WIRE_BITMAP || message.type == WIRE_REQUEST)
		message.count = (uint32_t)(1 + next_random(random) % PAGES);
	if (message.type == WIRE_BITMAP)
		message.length = 8;
	if (message.type == WIRE_REFUSE || message.type == WIRE_CANCEL) {
		message.count = (uint32_t)(next_random(random) % WIRE_REFUSALS);
		message.length = (uint32_t)(next_random(random) % WIRE_TEXT);
	}
	wire_write_header(raw, &message);
	for (size_t i = 0; i < message.length; i++)
		raw[WIRE_HEADER_SIZE + i] = (unsigned char)next_random(random);
	if (next_random(random) % 64 == 0)
		raw[next_random(random) % (WIRE_HEADER_SIZE + message.length)] ^= 1;
	return WIRE_HEADER_SIZE + message.length;
}

/* Until the source has had enough. */
static void talk_nonsense(struct giver *giver, uint64_t *random)
{
	static unsigned char raw[WIRE_HEADER_SIZE + WIRE_RUN];
	struct wire_message message;

	while (!channel_receive(&giver->channel, &message) && !channel_receive_body(&giver->channel, &message, raw)) {
		enum wire_type type = WIRE_ALIVE;

		if (!answer_to(message.type))
			continue;
		/* Behind these the source still waits, or ends by itself. */
		while (type == WIRE_ALIVE || type == WIRE_REQUEST) {
			size_t len = make_answer(random, raw, &message, &type);

			if (send(giver->channel.stream.fd, raw, len, MSG_NOSIGNAL) < 0)
				return;
		}
		if (next_random(random) % 32 == 0)
			return;
	}
}

TEST(nonsense_does_the_source_no_harm,
     "Whatever a destination says, in whatever order, the source ends, and its program runs unless it was given away.")
{
	uint64_t random = 815;
	unsigned owners[3] = {0}, whole = 0;

	for (int round = 0; round < 300; round++) {
		struct giver giver = {.passes = round % 2, .fill = true};
		enum uf_migrate_owner owner;

		open_giver(&giver);
		meet_giver(&giver, WIRE_FRESH);
		talk_nonsense(&giver, &random);
		part_giver(&giver);
		owner = uf_source_owner(giver.source);
		owners[owner]++;
		whole += !giver.result;
		CHECK_EQ(giver.stops - giver.resumes, owner != UF_OWNER_SOURCE);
		CHECK(giver.result || owner == UF_OWNER_DESTINATION);
		uf_source_close(giver.source);
		CHECK_EQ(munmap(giver.memory.at, giver.memory.len), 0);
	}
	/* It got everywhere. */
	CHECK(owners[UF_OWNER_SOURCE] && owners[UF_OWNER_DESTINATION] && owners[UF_OWNER_IN_DOUBT] && whole);
}

/* ---- what it sends, and when ---- */

/*
 * Far more than a connection holds comes behind the zeros, slowly. So the source waits for the bandwidth when the request comes, or for us
 * to read what it has sent, and still has most of it to send.
 */
TEST(zeros_that_are_asked_for_come_at_once,
     "Zeros that are held back, to make one range of many, are sent as soon as one of them is asked for.")
{
	struct giver giver = {.pages = 1024, .bandwidth = 2 << 20, .fill = true};
	struct wire_message message;
	bool have = false;
	unsigned behind = 0;

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	take_commit(&giver);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_STARTED, 0), 0);
	while (pass_over(&giver, &message) != WIRE_PAGES)
		;
	CHECK_EQ(channel_send(&giver.channel, &(struct wire_message){.type = WIRE_REQUEST, .at = 5, .count = 1}, NULL),
	         0);
	while (pass_over(&giver, &message) != WIRE_ALL_SENT) {
		have = have || (message.type == WIRE_ZEROS && message.at <= 5 && message.at + message.count > 5);
		behind += have && message.type == WIRE_PAGES;
	}
	CHECK(have);
	CHECK(behind > 0);
	finish_giver(&giver);
	uf_source_close(giver.source);
}

static void give_zeros(unsigned passes)
{
	struct giver giver = {.pages = 65536, .passes = passes, .bandwidth = 65536};
	struct wire_message message;

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	if (passes) {
		while (pass_over(&giver, &message) != WIRE_BARRIER)
			;
		CHECK_EQ(channel_tell(&giver.channel, WIRE_REACHED, message.at), 0);
	}
	take_commit(&giver);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_STARTED, 0), 0);
	while (pass_over(&giver, &message) != WIRE_ALL_SENT)
		;
	finish_giver(&giver);
	uf_source_close(giver.source);
}

TEST(zeros_cost_no_bandwidth,
     "Zeros are no bytes, and do not wait for a limit of the bandwidth: otherwise these take an hour.")
{
	give_zeros(0);
	give_zeros(1);
}

TEST(precopy_does_not_wait_behind_a_sign_of_life,
     "A sign of life while memory is sent is none of the messages that the source waits for.")
{
	struct giver giver = {.pages = 1024, .passes = 1, .fill = true};
	struct wire_message message;

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	/* It is far from the end of its pass: it waits for us to read. */
	CHECK_EQ(channel_tell(&giver.channel, WIRE_ALIVE, 0), 0);
	while (pass_over(&giver, &message) != WIRE_BARRIER)
		;
	part_giver(&giver);
	uf_source_close(giver.source);
}

TEST(little_waits_to_be_sent,
     "In precopy no more waits in the system than a slow line sends before the source takes the destination for lost.")
{
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	struct giver giver = {.pages = 4096, .passes = 1, .fill = true, .tcp = true};

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	/* We read none of it. It is told as sent when it is handed to the system, a run of 128 KiB at a time. */
	for (int i = 0; i<50; i += stats.precopy> 0) {
		usleep(10000);
		CHECK_EQ(uf_source_stats(giver.source, &stats), 0);
		CHECK(stats.precopy <= 1 << 20);
	}
	part_giver(&giver);
	uf_source_close(giver.source);
}

TEST(interrupted_pass_is_gone_on_with, "A pass that a broken connection interrupts is gone on with: the rest of it is "
                                       "not left to the time after the stop.")
{
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	struct giver giver = {.pages = 1024, .passes = 1, .fill = true};
	struct wire_message message;
	uint64_t came = 0;

	open_giver(&giver);
	meet_giver(&giver, WIRE_FRESH);
	CHECK_EQ(pass_over(&giver, &message), WIRE_PAGES);
	part_giver(&giver);
	CHECK_EQ(giver.result, -ENOTCONN);
	meet_giver(&giver, WIRE_PRECOPY);
	while (pass_over(&giver, &message) != WIRE_BARRIER)
		came += message.count;
	CHECK_EQ(came, giver.pages);
	CHECK_EQ(uf_source_stats(giver.source, &stats), 0);
	CHECK_EQ(stats.passes, 1);
	part_giver(&giver);
	uf_source_close(giver.source);
}

TEST(zeros_are_not_counted_as_requested,
     "Zeros that are asked for are no bytes of pages that are: they count as zeros.")
{
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	struct giver giver = {.pages = 1024, .bandwidth = 1 << 20, .fill = true};
	struct wire_message message;
	unsigned asked = 0;

	open_giver(&giver);
	CHECK_EQ(uf_source_stats(giver.source, &stats), 0);
	CHECK_EQ(stats.remaining, stats.total);
	meet_giver(&giver, WIRE_FRESH);
	take_commit(&giver);
	CHECK_EQ(channel_tell(&giver.channel, WIRE_STARTED, 0), 0);
	/* The last ones, to which it comes last. */
	CHECK_EQ(channel_send(&giver.channel, &(struct wire_message){.type = WIRE_REQUEST, .at = 1000, .count = 24},
	                      NULL),
	         0);
	while (pass_over(&giver, &message) != WIRE_ALL_SENT)
		asked += message.type == WIRE_ZEROS && message.at >= 1000;
	CHECK(asked);
	finish_giver(&giver);
	uf_source_stats(giver.source, &stats);
	CHECK_EQ(stats.requested, 0);
	CHECK_EQ(stats.postcopy + stats.zero, stats.total);
	uf_source_close(giver.source);
}
