// SPDX-License-Identifier: MIT
/* A program moves from one process to another; <userfault/migrate.h>. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "support/actor.h"
#include "support/folder.h"
#include "support/memory.h"
#include "support/migrated.h"
#include "support/test.h"

#define PAGES 2048

static void both_close(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

/* Over pairs of sockets. */
static void move_over_pairs(struct migrated *migrated, unsigned count)
{
	int here[2] = {-1, -1}, there[2] = {-1, -1};
	pid_t child;

	for (unsigned i = 0; i < count; i++) {
		int pair[2];

		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		here[i] = pair[0];
		there[i] = pair[1];
	}
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		both_close(here, count);
		destination_here(migrated, NULL);
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, count)), 0);
		destination_check(migrated);
		_exit(0);
	}
	both_close(there, count);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, count)), 0);
	CHECK_EQ(uf_source_owner(migrated->source), UF_OWNER_DESTINATION);
	CHECK_EQ(uf_source_run(migrated->source, "fd:1000"), -EALREADY);
	reap(child);
	source_gone(migrated);
	CHECK_EQ(atomic_load(&migrated->shared->stops), 1);
	CHECK_EQ(atomic_load(&migrated->shared->resumes), 0);
}

/* From an address to an address. */
static void move_over(struct migrated *migrated, const char *address)
{
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child) {
		destination_here(migrated, address);
		CHECK_EQ(uf_destination_run(migrated->destination, NULL), 0);
		destination_check(migrated);
		_exit(0);
	}
	migrated_wait_listening(migrated);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated->shared->address), 0);
	reap(child);
	source_gone(migrated);
}

TEST(moves_without_precopy, "A program moves without any precopy, and every byte of its memory follows.")
{
	move_over_pairs(migrated_new(&(struct migrated_setup){.pages = PAGES, .engine = migrated_engine()}), 2);
}

TEST(moves_over_one_connection, "One connection is enough.")
{
	move_over_pairs(migrated_new(&(struct migrated_setup){.pages = PAGES, .engine = migrated_engine()}), 1);
}

TEST(moves_with_precopy, "What is written while it is sent arrives as it was at the stop.")
{
	move_over_pairs(migrated_new(&(struct migrated_setup){
				.pages = PAGES,
				.passes = 4,
				.writes = true,
				.engine = migrated_engine(),
			}),
	                2);
}

TEST(moves_with_precopy_and_checksums, "So it does with checksums, although the memory changes while they are made.")
{
	move_over_pairs(migrated_new(&(struct migrated_setup){
				.pages = PAGES,
				.passes = 4,
				.writes = true,
				.flags = UF_MIGRATE_CHECKSUM,
				.engine = migrated_engine(),
			}),
	                2);
}

TEST(moves_over_tcp, "Over TCP, at a port that was free.")
{
	move_over(migrated_new(&(struct migrated_setup){
			  .pages = PAGES,
			  .passes = 2,
			  .writes = true,
			  .engine = migrated_engine(),
		  }),
	          "tcp://127.0.0.1:0");
}

TEST(moves_over_unix, "Over a unix socket.")
{
	char address[128];

	snprintf(address, sizeof(address), "unix:%s", in_folder("socket"));
	move_over(migrated_new(&(struct migrated_setup){.pages = PAGES,
	                                                .passes = 2,
	                                                .writes = true,
	                                                .state_len = 3 << 20,
	                                                .engine = migrated_engine()}),
	          address);
}

TEST(moves_shared_memory, "Shared memory moves as well.")
{
	move_over_pairs(migrated_new(&(struct migrated_setup){
				.pages = PAGES,
				.passes = 3,
				.writes = true,
				.shared = true,
				.engine = migrated_engine(),
			}),
	                2);
}

/*
 * From one network to another: two network name spaces, and a pair of virtual interfaces between them.
 */

static void run_ip(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run_ip(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command))
		FAIL("%s", command);
}

static void new_network(void)
{
	if (unshare(CLONE_NEWNET))
		SKIP("no network name space of one's own: %s", strerror(errno));
	run_ip("ip link set lo up");
}

TEST(moves_between_networks,
     "From one network name space to another, through interfaces that delay nothing and know nothing of us.")
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){
		.pages = PAGES,
		.passes = 3,
		.writes = true,
		.engine = migrated_engine(),
	});
	int ready[2];
	pid_t child;
	char byte;

	CHECK_EQ(pipe(ready), 0);
	new_network();
	child = fork();
	if (!child) {
		new_network();
		CHECK_EQ(write(ready[1], "", 1), 1);
		/* Until the interface is here and up: it is what shared->flag is for. */
		while (!atomic_load(&migrated->shared->flag))
			sched_yield();
		run_ip("ip addr add 10.77.0.2/24 dev there && ip link set there up");
		destination_here(migrated, "tcp://10.77.0.2:0");
		CHECK_EQ(uf_destination_run(migrated->destination, NULL), 0);
		destination_check(migrated);
		_exit(0);
	}
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	run_ip("ip link add here type veth peer name there netns %d", (int)child);
	run_ip("ip addr add 10.77.0.1/24 dev here && ip link set here up");
	atomic_store(&migrated->shared->flag, 1);
	migrated_wait_listening(migrated);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated->shared->address), 0);
	reap(child);
	source_gone(migrated);
}

/*
 * Ends that are not the ordinary one.
 */

/* Two pairs of sockets: `here` for the source, `there` for the destination. */
static void make_pairs(int here[2], int there[2])
{
	for (int i = 0; i < 2; i++) {
		int pair[2];

		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		here[i] = pair[0];
		there[i] = pair[1];
	}
}

static void cancel_in_precopy(void *arg, const struct uf_migrate_statistics *stats)
{
	struct migrated *migrated = arg;

	if (stats->phase == UF_MIGRATE_PRECOPY)
		uf_source_cancel(migrated->source);
}

TEST(source_cancels, "A migration that the source cancels ends on both sides; the program stays, and may move later.")
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){
		.pages = PAGES,
		.passes = 3,
		.writes = true,
		.engine = migrated_engine(),
		.progress = cancel_in_precopy,
	});
	int here[2], there[2], later_here[2], later_there[2];
	pid_t child;

	make_pairs(here, there);
	make_pairs(later_here, later_there);
	child = fork();
	if (!child) {
		both_close(here, 2);
		both_close(later_here, 2);
		destination_here(migrated, NULL);
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, 2)), -ECANCELED);
		CHECK_EQ(uf_destination_owner(migrated->destination), UF_OWNER_SOURCE);
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(later_there, 2)), 0);
		destination_check(migrated);
		_exit(0);
	}
	both_close(there, 2);
	both_close(later_there, 2);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, 2)), -ECANCELED);
	CHECK_EQ(uf_source_owner(migrated->source), UF_OWNER_SOURCE);
	CHECK_EQ(atomic_load(&migrated->shared->starts), 0);
	CHECK_EQ(atomic_load(&migrated->shared->stops), atomic_load(&migrated->shared->resumes));
	/* It does so each time, so another one. */
	uf_source_close(migrated->source);
	migrated->setup.progress = NULL;
	atomic_store(&migrated->end, true);
	CHECK_EQ(pthread_join(migrated->writer, NULL), 0);
	atomic_store(&migrated->end, false);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(later_here, 2)), 0);
	CHECK_EQ(uf_source_cancel(migrated->source), -EALREADY);
	reap(child);
	source_gone(migrated);
}

/* The state is looked at: the last moment at which the destination can cancel. */
static int cancel_there(void *arg, const void *state, size_t len)
{
	struct migrated *migrated = arg;

	(void)state;
	(void)len;
	CHECK_EQ(uf_destination_cancel(migrated->destination), 0);
	return 0;
}

static int die_there(void *arg, const void *state, size_t len)
{
	(void)arg;
	(void)state;
	(void)len;
	_exit(0);
}

TEST(moves_elsewhere, "A program whose destination has died at the stop goes on, and moves to another one with every "
                      "byte of its memory.")
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){
		.pages = PAGES,
		.passes = 2,
		.writes = true,
		.engine = migrated_engine(),
		.prepare = die_there,
	});
	int here[2], there[2];
	pid_t first, second;

	make_pairs(here, there);
	first = fork();
	if (!first) {
		both_close(here, 2);
		destination_here(migrated, NULL);
		uf_destination_run(migrated->destination, migrated_fds(there, 2));
		_exit(1);
	}
	both_close(there, 2);
	second = fork();
	if (!second) {
		both_close(here, 2);
		migrated->setup.prepare = NULL;
		destination_here(migrated, "tcp://127.0.0.1:0");
		CHECK_EQ(uf_destination_run(migrated->destination, NULL), 0);
		destination_check(migrated);
		_exit(0);
	}
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, 2)), -ENOTCONN);
	reap(first);
	CHECK_EQ(uf_source_owner(migrated->source), UF_OWNER_SOURCE);
	CHECK_EQ(atomic_load(&migrated->shared->resumes), 1);
	migrated_wait_listening(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated->shared->address), -ENOTCONN);
	CHECK_EQ(uf_source_run(migrated->source, migrated->shared->address), 0);
	reap(second);
	source_gone(migrated);
}

static int refuse_state(void *arg, const void *state, size_t len)
{
	(void)arg;
	(void)state;
	(void)len;
	return -EINVAL;
}

static void end_at_the_stop(int (*prepare)(void *arg, const void *state, size_t len))
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){
		.pages = PAGES,
		.passes = 1,
		.writes = true,
		.engine = migrated_engine(),
		.prepare = prepare,
	});
	int here[2], there[2];
	pid_t child;

	make_pairs(here, there);
	child = fork();
	if (!child) {
		both_close(here, 2);
		destination_here(migrated, NULL);
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, 2)), -ECANCELED);
		CHECK_EQ(atomic_load(&migrated->shared->starts), 0);
		/* Nothing is left of it. */
		for (size_t at = 0; at < migrated->len; at++)
			CHECK(!migrated->memory[0][at]);
		uf_destination_close(migrated->destination);
		_exit(0);
	}
	both_close(there, 2);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, 2)), -ECANCELED);
	CHECK_EQ(uf_source_owner(migrated->source), UF_OWNER_SOURCE);
	CHECK_EQ(atomic_load(&migrated->shared->stops), 1);
	CHECK_EQ(atomic_load(&migrated->shared->resumes), 1);
	reap(child);
	source_gone(migrated);
}

TEST(destination_cancels,
     "A destination that cancels at the last moment never begins, and the program goes on at the source.")
{
	end_at_the_stop(cancel_there);
}

TEST(state_is_refused, "So it does when the destination's program refuses the state.")
{
	end_at_the_stop(refuse_state);
}

TEST(regions_must_agree, "Other regions are refused, on both sides, and nothing is sent.")
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){.pages = PAGES, .engine = migrated_engine()});
	int here[2], there[2];
	pid_t child;

	make_pairs(here, there);
	child = fork();
	if (!child) {
		both_close(here, 2);
		migrated->len -= page_size;
		destination_here(migrated, NULL);
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, 2)), -EPROTONOSUPPORT);
		_exit(0);
	}
	both_close(there, 2);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, 2)), -EPROTONOSUPPORT);
	CHECK_EQ(atomic_load(&migrated->shared->stops), 0);
	reap(child);
}

/* The source dies in the middle of postcopy: it sends slowly. */
static void source_that_dies(struct migrated *migrated, const int here[2])
{
	source_here(migrated);
	uf_source_run(migrated->source, migrated_fds(here, 2));
	_exit(0);
}

/* Of each page whether it is what the source had, or SIGBUS: in a child of nobody's, as both happen. */
static void count_lost(struct migrated *migrated, size_t *whole, size_t *lost)
{
	*whole = *lost = 0;
	for (size_t page = 0; page < migrated->setup.pages; page++) {
		const char *at = migrated->memory[0] + page * page_size;
		struct outcome outcome = try_read(at + 8);

		if (outcome.signal) {
			CHECK_EQ(outcome.signal, SIGBUS);
			++*lost;
			continue;
		}
		CHECK(!memcmp(at, migrated->model + page * page_size, page_size));
		++*whole;
	}
}

static void lose_source(unsigned abandon_ms)
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){
		.pages = PAGES,
		.engine = migrated_engine(),
		/* Whoever kills it may take his time. */
		.bandwidth = 256 << 10,
		.no_touch = true,
		.abandon_ms = abandon_ms,
	});
	struct uf_migrate_statistics stats = {.size = sizeof(stats)};
	int here[2], there[2];
	size_t whole, lost;
	pid_t child;

	make_pairs(here, there);
	child = fork();
	if (!child) {
		both_close(there, 2);
		source_that_dies(migrated, here);
	}
	both_close(here, 2);
	catch_signals();
	destination_here(migrated, NULL);
	if (fork() == 0) {
		while (!atomic_load(&migrated->shared->starts))
			sched_yield();
		kill(child, SIGKILL);
		_exit(0);
	}
	CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, 2)), -ENOTCONN);
	CHECK_EQ(uf_destination_owner(migrated->destination), UF_OWNER_DESTINATION);
	if (abandon_ms) {
		struct actor *waiting = act_read(migrated->memory[0] + (PAGES / 2 - 2) * page_size);

		CHECK_EQ(actor_end(waiting).signal, SIGBUS);
	} else {
		CHECK_EQ(uf_destination_abandon(migrated->destination), 0);
	}
	CHECK_EQ(uf_destination_run(migrated->destination, "fd:1000"), -EALREADY);
	count_lost(migrated, &whole, &lost);
	CHECK(lost > 0);
	CHECK_EQ(uf_destination_stats(migrated->destination, &stats), 0);
	CHECK(stats.poisoned >= lost * page_size);
	uf_destination_close(migrated->destination);
	/* It outlives the object. */
	count_lost(migrated, &whole, &lost);
	CHECK(lost > 0);
}

TEST(lost_source_poisons,
     "When the source is given up, what is missing is SIGBUS, never zeros, and what is here stays.")
{
	lose_source(0);
}

TEST(lost_source_poisons_by_itself,
     "So it is after the time that the options say, also for a thread that waits already.")
{
	lose_source(200);
}

TEST(bad_arguments_are_refused, "What makes no sense is -EINVAL, and leaves nothing behind.")
{
	struct migrated *migrated = migrated_new(&(struct migrated_setup){.pages = 4, .engine = migrated_engine()});
	struct uf_source_options options = {.size = sizeof(options)};
	struct uf_migrate_region regions[2];
	struct uf_source *source;

	source_here(migrated);
	memcpy(regions, migrated->regions, sizeof(regions));
	CHECK_EQ(uf_source_open(&source, regions, 0, &options), -EINVAL);
	CHECK_EQ(uf_source_open(&source, regions, UF_MIGRATE_REGIONS + 1, &options), -EINVAL);
	CHECK_EQ(uf_source_open(&source, regions, 2, NULL), -EINVAL);
	options.flags = 1u << 31;
	CHECK_EQ(uf_source_open(&source, regions, 2, &options), -EINVAL);
	options.flags = 0;
	regions[1].name = regions[0].name;
	CHECK_EQ(uf_source_open(&source, regions, 2, &options), -EINVAL);
	regions[1] = regions[0];
	regions[1].name = "another";
	CHECK_EQ(uf_source_open(&source, regions, 2, &options), -EINVAL);
	regions[0].len--;
	CHECK_EQ(uf_source_open(&source, regions, 1, &options), -EINVAL);
	for (const char *const *address =
	             (const char *const[]){"", "tcp://", "tcp://host", "tcp://::1:7", "unix:", "fd:", "fd:x",
	                                   "fd:1,2,3", "tcp://127.0.0.1:99999", NULL};
	     *address; address++)
		CHECK_EQ(uf_source_run(migrated->source, *address), -EINVAL);
	CHECK_EQ(uf_source_run(migrated->source, "tcp://127.0.0.1:1"), -ENOTCONN);
	CHECK_EQ(uf_source_reclaim(migrated->source), -EALREADY);
	source_gone(migrated);
}

static void begin_nothing(void *arg, const void *state, size_t len)
{
	(void)arg;
	(void)state;
	(void)len;
}

/* What is answered when a migration of this memory is to be received, or sent. */
static int open_both(enum memory_source source, unsigned flags, int sent)
{
	struct memory memory = memory_map(source, 2);
	struct uf_migrate_region region = {.name = "memory", .addr = memory.at, .len = memory.len, .flags = flags};
	struct uf_destination_options there = {
		.size = sizeof(there), .engine = migrated_engine(), .start = begin_nothing};
	struct uf_source_options here = {.size = sizeof(here)};
	struct uf_destination *destination = NULL;
	struct uf_source *giver = NULL;
	int err;

	CHECK_EQ(uf_source_open(&giver, &region, 1, &here), sent);
	uf_source_close(giver);
	err = uf_destination_open(&destination, &region, 1, &there);
	uf_destination_close(destination);
	return err;
}

TEST(memory_is_what_it_is_said_to_be, "Memory that is not of the kind that its flags say is refused: what was never "
                                      "touched of it would be taken for zeros.")
{
	CHECK_EQ(open_both(MEMORY_ANON, 0, 0), 0);
	CHECK_EQ(open_both(MEMORY_DEV_ZERO_PRIVATE, 0, 0), 0);
	for (int source = MEMORY_SHARED_ANON; source <= MEMORY_TMPFS; source++) {
		if (source == MEMORY_MEMFD_PRIVATE)
			continue;
		CHECK_EQ(open_both(source, UF_MIGRATE_SHARED, 0), 0);
		CHECK_EQ(open_both(source, 0, -EINVAL), -EINVAL);
	}
	CHECK_EQ(open_both(MEMORY_MEMFD_PRIVATE, 0, -EINVAL), -EINVAL);
	CHECK_EQ(open_both(MEMORY_SYSV, 0, -EINVAL), -EINVAL);
}

TEST(huge_pages_are_refused, "Huge pages of hugetlbfs are refused when the destination is opened, and not when the "
                             "program has been given away.")
{
	CHECK_EQ(open_both(MEMORY_HUGE_ANON, 0, -EINVAL), -EINVAL);
	CHECK_EQ(open_both(MEMORY_HUGE_SHARED, UF_MIGRATE_SHARED, 0), -EINVAL);
	CHECK_EQ(open_both(MEMORY_HUGE_MEMFD, UF_MIGRATE_SHARED, 0), -EINVAL);
}

/*
 * TLS. The module is found as the environment says; certificates are made by openssl(1).
 */

static const char *write_line(const char *name, const char *line)
{
	const char *path = in_folder(name);
	FILE *file = fopen(path, "we");

	CHECK(file);
	CHECK(fputs(line, file) >= 0);
	CHECK_EQ(fclose(file), 0);
	return path;
}

TEST(moves_over_tls_with_a_key, "Over TLS, with a key that both know; also over one connection.")
{
	const char *key = write_line("psk", "mover:000102030405060708090a0b0c0d0e0f1011121314151617\n");
	struct uf_migrate_tls tls = {.size = sizeof(tls), .psk = key};
	struct migrated_setup setup = {.pages = PAGES,
	                               .passes = 3,
	                               .writes = true,
	                               .engine = migrated_engine(),
	                               .tls_source = &tls,
	                               .tls_destination = &tls};

	move_over_pairs(migrated_new(&setup), 2);
	setup.flags = UF_MIGRATE_CHECKSUM;
	move_over_pairs(migrated_new(&setup), 1);
}

TEST(moves_over_tls_with_certificates, "Over TLS, with certificates of the same authority.")
{
	char command[1024], cert[256], key[256];
	struct uf_migrate_tls tls = {.size = sizeof(tls), .ca = cert, .cert = cert, .key = key, .name = "mover"};

	snprintf(cert, sizeof(cert), "%s", in_folder("cert"));
	snprintf(key, sizeof(key), "%s", in_folder("key"));
	snprintf(command, sizeof(command),
	         "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s -out %s -days 2 "
	         "-subj /CN=mover -addext subjectAltName=DNS:mover 2>/dev/null",
	         key, cert);
	CHECK_EQ(system(command), 0);
	move_over_pairs(migrated_new(&(struct migrated_setup){
				.pages = PAGES,
				.passes = 1,
				.engine = migrated_engine(),
				.tls_source = &tls,
				.tls_destination = &tls,
			}),
	                2);
}

/* Two of `setup`, of which the destination cannot write to all of its memory, if so. What the source gets, and what the destination does. */
static void refused(const struct migrated_setup *setup, bool is_writable, int here_err, int there_err)
{
	struct migrated *migrated = migrated_new(setup);
	int here[2], there[2];
	pid_t child;

	make_pairs(here, there);
	child = fork();
	if (!child) {
		both_close(here, 2);
		destination_here(migrated, NULL);
		CHECK(is_writable || !mprotect(migrated->memory[1], migrated->len / 2, PROT_READ));
		CHECK_EQ(uf_destination_run(migrated->destination, migrated_fds(there, 2)), there_err);
		_exit(0);
	}
	both_close(there, 2);
	source_here(migrated);
	CHECK_EQ(uf_source_run(migrated->source, migrated_fds(here, 2)), here_err);
	CHECK_EQ(uf_source_owner(migrated->source), UF_OWNER_SOURCE);
	CHECK_EQ(atomic_load(&migrated->shared->stops), 0);
	reap(child);
}

static void refused_by_tls(const struct uf_migrate_tls *ours, const struct uf_migrate_tls *theirs, int here_err,
                           int there_err)
{
	refused(
		&(struct migrated_setup){
			.pages = PAGES, .engine = migrated_engine(), .tls_source = ours, .tls_destination = theirs},
		true, here_err, there_err);
}

TEST(wrong_key_is_refused, "Who has another key, or speaks no TLS at all, gets nothing.")
{
	struct uf_migrate_tls right = {.size = sizeof(right),
	                               .psk = write_line("right", "mover:000102030405060708090a0b0c0d0e0f\n")};
	struct uf_migrate_tls wrong = {.size = sizeof(wrong),
	                               .psk = write_line("wrong", "mover:ff0102030405060708090a0b0c0d0e0f\n")};

	refused_by_tls(&right, &wrong, -ENOTCONN, -EACCES);
	refused_by_tls(NULL, &right, -ENOTCONN, -EACCES);
}

/*
 * Authorities `ca` and `other`, and what they have signed: `mover` and `stranger` of the first, `false` of the second, which has the name of
 * `mover`. A certificate that has signed itself is `lonely`.
 */
static void make_certificates(void)
{
	static const char script[] =
		"cd %s && "
		"own() { new=$1; shift; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
		"-days 2 "
		"-keyout $new-key.pem -out $new.pem \"$@\"; } && "
		"signed() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1-key.pem "
		"-out $1.csr "
		"-subj /CN=$3 && echo subjectAltName=DNS:$3 >$1.ext && openssl x509 -req -days 2 -in $1.csr -CA $2.pem "
		"-CAkey $2-key.pem -set_serial 1 -extfile $1.ext -out $1.pem; } && "
		"own ca -subj /CN=ca -addext basicConstraints=critical,CA:TRUE && "
		"own other -subj /CN=other -addext basicConstraints=critical,CA:TRUE && "
		"own lonely -subj /CN=mover -addext subjectAltName=DNS:mover && "
		"signed mover ca mover && signed stranger ca stranger && signed false other mover";
	char command[2048];
	const struct result *result;

	snprintf(command, sizeof(command), script, test_folder());
	result = RUN("/bin/sh", "-c", command);
	if (result->status)
		FAIL("openssl: %s", result->err);
}

/* Settings of one who trusts `ca`, expects the name `mover`, and shows this certificate. */
static const struct uf_migrate_tls *shows(const char *name)
{
	static struct {
		struct uf_migrate_tls tls;
		char ca[128], cert[128], key[128];
	} all[4];
	static unsigned next;
	unsigned i = next++ % 4;

	snprintf(all[i].ca, sizeof(all[i].ca), "%s/ca.pem", test_folder());
	snprintf(all[i].cert, sizeof(all[i].cert), "%s/%s.pem", test_folder(), name);
	snprintf(all[i].key, sizeof(all[i].key), "%s/%s-key.pem", test_folder(), name);
	all[i].tls = (struct uf_migrate_tls){
		.size = sizeof(all[i].tls), .ca = all[i].ca, .cert = all[i].cert, .key = all[i].key, .name = "mover"};
	return &all[i].tls;
}

TEST(wrong_certificate_is_refused, "A peer whose certificate another authority has signed, or itself, or that has "
                                   "another name, gets nothing, as source or destination.")
{
	static const char *const wrong[] = {"false", "lonely", "stranger"};

	make_certificates();
	/* What is right is taken, so it is not for another reason that the others are not. */
	move_over_pairs(migrated_new(&(struct migrated_setup){
				.pages = 16,
				.engine = migrated_engine(),
				.tls_source = shows("mover"),
				.tls_destination = shows("mover"),
			}),
	                2);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		refused_by_tls(shows("mover"), shows(wrong[i]), -EACCES, -ENOTCONN);
		refused_by_tls(shows(wrong[i]), shows("mover"), -ENOTCONN, -EACCES);
	}
}

TEST(keys_and_certificates_do_not_mix,
     "Who has a key takes nobody with a certificate for one who knows it, and the other way round.")
{
	struct uf_migrate_tls key = {.size = sizeof(key),
	                             .psk = write_line("psk", "mover:000102030405060708090a0b0c0d0e0f\n")};

	make_certificates();
	refused_by_tls(&key, shows("mover"), -EACCES, -ENOTCONN);
	refused_by_tls(shows("mover"), &key, -ENOTCONN, -EACCES);
}

TEST(memory_that_cannot_be_written_is_refused, "A page of the destination that cannot be written to ends it in a clear "
                                               "error, over TLS too, and the program stays.")
{
	struct uf_migrate_tls tls = {
		.size = sizeof(tls),
		.psk = write_line("psk", "mover:000102030405060708090a0b0c0d0e0f1011121314151617\n")};
	struct migrated_setup setup = {.pages = PAGES, .passes = 1, .engine = migrated_engine()};

	refused(&setup, false, -ECANCELED, -EFAULT);
	setup.tls_source = setup.tls_destination = &tls;
	refused(&setup, false, -ECANCELED, -EFAULT);
}

TEST(bad_tls_settings_are_refused, "Settings of which nothing can be made are told of when the object is opened.")
{
	struct uf_migrate_tls bad = {.size = sizeof(bad), .psk = write_line("bad", "no key at all\n")},
			      none = {.size = sizeof(none)};
	struct migrated *migrated = migrated_new(&(struct migrated_setup){.pages = 4, .engine = migrated_engine()});
	struct uf_source_options options = {.size = sizeof(options), .tls = &bad};
	struct uf_source *source;

	source_here(migrated);
	CHECK_EQ(uf_source_open(&source, migrated->regions, 2, &options), -EINVAL);
	options.tls = &none;
	CHECK_EQ(uf_source_open(&source, migrated->regions, 2, &options), -EINVAL);
	source_gone(migrated);
}
