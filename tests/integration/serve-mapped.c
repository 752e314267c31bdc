// SPDX-License-Identifier: MIT
/* Programs under `userfault run --map` when their manager has ended: outlive.c does what it is told, and must get to its end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "manager.h"
#include "support/folder.h"
#include "support/test.h"

#define PAGES 512u

static struct manager manager;
static struct peer peer;

static _Noreturn void be_program(int in, int out)
{
	const char *path = in_folder("mapped");
	char map[128];

	snprintf(map, sizeof(map), "%s=default", path);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK_EQ(dup2(in, STDIN_FILENO), STDIN_FILENO);
	CHECK_EQ(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
	execl(from_env("USERFAULT"), "userfault", "run", "--engine", strcmp(test_engine, "user") ? "auto" : "user",
	      "--manager", manager.socket, "--map", map, "--", from_env("OUTLIVE"), path, NULL);
	FAIL("%s: %s", from_env("USERFAULT"), strerror(errno));
}

static void start_program(void)
{
	int in[2], out[2];

	CHECK_EQ(pipe2(in, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
	peer.started = fork();
	CHECK(peer.started >= 0);
	if (!peer.started)
		be_program(in[0], out[1]);
	close(in[0]);
	close(out[1]);
	peer.to = fdopen(in[1], "w");
	peer.from = fdopen(out[0], "r");
	peer.pid = (pid_t)atol(peer_say(&peer, "pid"));
	CHECK_EQ(peer.pid, peer.started);
}

static void start(void)
{
	char store[128];

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, PAGES));
	MANAGER(&manager, "--store", store, "--workers", "1");
	start_program();
}

static void start_and_map(void)
{
	start();
	EXPECT(&peer, "done", "map");
	EXPECT(&peer, "yes", "is 7 1");
	EXPECT(&peer, "yes", "is 107 1");
}

/* Without a word to anybody. */
static void kill_manager(void)
{
	pid_t worker = manager_worker(&manager);

	/* Both are waited for here. */
	CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	CHECK_EQ(kill(manager.pid, SIGKILL), 0);
	CHECK_EQ(waitpid(manager.pid, NULL, 0), manager.pid);
	CHECK_EQ(kill(worker, SIGKILL), 0);
	CHECK_EQ(waitpid(worker, NULL, 0), worker);
}

/* The program has touched pages 7 and 107, and what may have come with them. */
static void goes_on(const char *missing)
{
	EXPECT(&peer, "yes", "is 7 1");
	EXPECT(&peer, missing, "is 500 1");
	EXPECT(&peer, "done", "unmap 200 10");
	EXPECT(&peer, "done", "move 100 50");
	EXPECT(&peer, "yes", "is 107 1");
	EXPECT(&peer, missing, "is 149 1");
	EXPECT(&peer, "done", "drop 107 1");
	EXPECT(&peer, missing, "is 107 1");
	EXPECT(&peer, "done", "write 7");
	EXPECT(&peer, "other", "is 7 1");
	EXPECT(&peer, "EIO", "map");
	EXPECT(&peer, "child", "fork");
	EXPECT(&peer, "bus", "is 400 1");
	EXPECT(&peer, "done", "unmap 390 20");
	EXPECT(&peer, "done", "%s", "");
	EXPECT(&peer, missing, "is 400 1");
	EXPECT(&peer, "done", "unmap 300 200");
}

static void ends(void)
{
	int status;

	fclose(peer.to);
	CHECK_EQ(waitpid(peer.started, &status, 0), peer.started);
	CHECK_EQ(status, 0);
}

TEST(a_program_outlives_the_end_of_its_manager, "After SIGTERM a program with mapped files unmaps, moves, gives back "
                                                "and forks; what was brought stays, all else is SIGBUS.")
{
	start_and_map();
	CHECK_EQ(manager_stop(&manager), 0);
	goes_on("bus");
	ends();
}

TEST(a_program_outlives_a_manager_that_is_killed,
     "The same when all of the manager was killed, and nothing was poisoned.")
{
	start_and_map();
	kill_manager();
	goes_on("bus");
	ends();
}

TEST(threads_outlive_the_end_of_their_manager,
     "Threads that map and unmap, give back and touch while the manager ends, or is killed, hang nowhere.")
{
	for (int i = 0; i < 6; i++) {
		memset(&manager, 0, sizeof(manager));
		start_and_map();
		EXPECT(&peer, "done", "busy");
		EXPECT(&peer, "done", "unmaps");
		EXPECT(&peer, "yes", "is 300 1");
		if (i & 1)
			CHECK_EQ(manager_stop(&manager), 0);
		else
			kill_manager();
		goes_on("bus");
		ends();
	}
}

TEST(children_outlive_the_end_of_the_manager,
     "A child that was made before the manager was killed goes on as its parent does.")
{
	start_and_map();
	EXPECT(&peer, "child", "fork");
	EXPECT(&peer, "yes", "is 7 1");
	EXPECT(&peer, "yes", "is 107 1");
	kill_manager();
	goes_on("bus");
	EXPECT(&peer, "done", "%s", "");
	goes_on("bus");
	ends();
}

TEST(a_touch_that_waits_ends_with_the_manager, "A touch that a manager has not answered is SIGBUS once that is killed.")
{
	start_and_map();
	stop_process(manager_worker(&manager));
	peer_tell(&peer, "is 500 1");
	kill_manager();
	if (strcmp(peer_hear(&peer), "bus") != 0)
		FAIL("the page is %s", peer.answer);
	goes_on("bus");
	ends();
}

TEST(before_there_was_poison_a_page_is_made_inaccessible,
     "Where UFFDIO_POISON is not known a page that the dead manager has not brought is SIGSEGV, and nothing waits.")
{
	if (!strcmp(test_engine, "user"))
		return;
	start();
	EXPECT(&peer, "done", "unpoisoned");
	EXPECT(&peer, "done", "map");
	EXPECT(&peer, "yes", "is 7 1");
	EXPECT(&peer, "yes", "is 107 1");
	kill_manager();
	goes_on("segv");
	ends();
}
