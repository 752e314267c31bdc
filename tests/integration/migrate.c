// SPDX-License-Identifier: MIT
/* A program moves from one process to another; <userfault/migrate.h>. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/folder.h"
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
	CHECK_EQ(uf_source_run(migrated->source, "fd:0"), -EALREADY);
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
