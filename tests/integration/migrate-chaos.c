// SPDX-License-Identifier: MIT
/* Migrations over a network that breaks at random moments. UF_CHAOS_CUTS: how often at least, in all tests together; 100. */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/migrated.h"
#include "support/proxy.h"
#include "support/test.h"

#define PAGES 384
/* In one migration, so that it gets somewhere. */
#define MOST_CUTS 12

static unsigned wanted_cuts(void)
{
	const char *text = getenv("UF_CHAOS_CUTS");

	return (text ? (unsigned)atoi(text) : 100) / 4;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* The state is looked at: the last moment at which the destination can cancel, and now and then it does. */
static int cancel_there(void *arg, const void *state, size_t len)
{
	static unsigned calls;
	struct migrated *migrated = arg;

	(void)state;
	(void)len;
	if (calls++ % 3 != 2)
		CHECK_EQ(uf_destination_cancel(migrated->destination), 0);
	return 0;
}

static void run_destination(struct migrated *migrated)
{
	int err;

	destination_here(migrated, "tcp://127.0.0.1:0");
	do
		err = uf_destination_run(migrated->destination, NULL);
	while (err == -ECANCELED && migrated->setup.prepare);
	CHECK_EQ(err, 0);
	destination_check(migrated);
	_exit(0);
}

static bool has_ended(pid_t child)
{
	siginfo_t info = {.si_pid = 0};

	CHECK_EQ(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	return info.si_pid == child;
}

/* As often as need be. */
static void run_source(struct migrated *migrated, struct proxy *proxy, pid_t destination)
{
	enum uf_migrate_owner owner = UF_OWNER_SOURCE;
	int err;

	while ((err = uf_source_run(migrated->source, proxy->address))) {
		enum uf_migrate_owner now = uf_source_owner(migrated->source);

		/* What a cut leaves is never taken for something else. */
		CHECK(err == -ENOTCONN || (err == -ECANCELED && migrated->setup.prepare));
		/* Once given away it does not come back by itself. */
		CHECK(now == owner || owner == UF_OWNER_SOURCE ||
		      (owner == UF_OWNER_IN_DOUBT && (now == UF_OWNER_DESTINATION || err == -ECANCELED)));
		/* Stopped and not resumed if, and only if, it is no more ours. */
		CHECK_EQ(atomic_load(&migrated->shared->stops) - atomic_load(&migrated->shared->resumes),
		         now == UF_OWNER_SOURCE ? 0 : 1);
		/* It has not begun there while it is ours. */
		if (now == UF_OWNER_SOURCE)
			CHECK_EQ(atomic_load(&migrated->shared->starts), 0);
		/* Its end, if it has failed, and so is not there to come back to. */
		if (has_ended(destination)) {
			reap(destination);
			FAIL("the destination has ended before the source");
		}
		owner = now;
		if (atomic_load(&proxy->cuts) >= MOST_CUTS)
			atomic_store(&proxy->calm, 1);
		nap();
	}
}

/* Returns how often it was cut. */
static unsigned move_through(const struct migrated_setup *setup, uint64_t seed)
{
	struct migrated *migrated = migrated_new(setup);
	struct proxy *proxy;
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child)
		run_destination(migrated);
	migrated_wait_listening(migrated);
	proxy = proxy_start(migrated->shared->address, seed);
	/* Hardly more than the two agree with each other in: it is there that most cuts come. */
	if (setup->pages < PAGES)
		atomic_store(&proxy->most, 1536);
	source_here(migrated);
	run_source(migrated, proxy, child);
	reap(child);
	source_gone(migrated);
	CHECK_EQ(atomic_load(&migrated->shared->starts), 1);
	CHECK_EQ(atomic_load(&migrated->shared->stops), atomic_load(&migrated->shared->resumes) + 1);
	return atomic_load(&proxy->cuts);
}

static void until_cut_enough(struct migrated_setup setup, uint64_t seed)
{
	unsigned cuts = 0, tries = 0;

	setup.pages = setup.pages ? setup.pages : PAGES;
	setup.engine = migrated_engine();
	setup.timeout_ms = 5000;
	while (cuts < wanted_cuts()) {
		pid_t child = fork();
		int status;

		CHECK(child >= 0);
		/* In a process of its own: its memory goes with it. */
		if (!child)
			_exit(100 + (int)move_through(&setup, seed + tries));
		tries++;
		CHECK_EQ(waitpid(child, &status, 0), child);
		if (WIFSIGNALED(status))
			FAIL("a migration was killed by signal %d", WTERMSIG(status));
		/* It has said why. */
		if (WEXITSTATUS(status) < 100)
			_exit(WEXITSTATUS(status));
		cuts += (unsigned)WEXITSTATUS(status) - 100;
	}
}

TEST(postcopy_survives_cuts,
     "Whatever cuts the connections of a migration without precopy, the program arrives whole, once.")
{
	until_cut_enough((struct migrated_setup){.passes = 0}, 1);
}

TEST(precopy_survives_cuts, "So it does with precopy, and a program that writes all the time.")
{
	until_cut_enough((struct migrated_setup){.passes = 3, .writes = true}, 1000);
}

TEST(one_connection_survives_cuts, "So it does over one connection, with checksums.")
{
	until_cut_enough((struct migrated_setup){.passes = 2,
	                                         .writes = true,
	                                         .flags = UF_MIGRATE_ONE_CONNECTION | UF_MIGRATE_CHECKSUM},
	                 2000);
}

TEST(cancellations_survive_cuts, "So it does to a destination that cancels again and again when it is ready.")
{
	until_cut_enough((struct migrated_setup){.pages = 1, .passes = 1, .prepare = cancel_there}, 3000);
}
