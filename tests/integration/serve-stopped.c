// SPDX-License-Identifier: MIT
/*
 * Clients of the user engine do a part of the work themselves, and may be stopped. Then they hold up nobody else: a good client, on the kernel's
 * engine or the same, runs beside them, with one thread of the manager for all.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "manager.h"
#include "support/passing.h"
#include "support/test.h"

#define OWN 64u /* pages of the good client */

static struct manager manager;
static struct peer good, stopped;

static void start(const char *const options[])
{
	const char *all[16] = {"--workers", "1", "--store"};
	char store[128];
	int n = 4;

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, 1024));
	all[3] = store;
	while (*options && n < 15)
		all[n++] = *options++;
	manager_start(&manager, all);
	peer_start(&good);
	peer_give_again(&good, &manager, OWN);
	peer_start(&stopped);
}

#define START(...) start((const char *const[]){__VA_ARGS__, NULL})

static void good_is_served(void)
{
	EXPECT(&good, "done", "drop 0 0 %u", OWN);
	for (unsigned i = 0; i < OWN; i += 5)
		EXPECT(&good, "yes", "is 0 %u 1 %u", i, i);
}

static void stop(const struct peer *peer)
{
	stop_process(peer->pid);
}

/* One of its descriptors, as ours. */
static int take_from(const struct peer *peer, int number)
{
	int pidfd = (int)syscall(SYS_pidfd_open, peer->pid, 0), fd;

	CHECK(pidfd >= 0);
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
	CHECK(fd >= 0);
	close(pidfd);
	return fd;
}

TEST(regions_of_a_stopped_client_hold_up_nobody,
     "A stopped client whose faults are being served, and that asks for more regions, is answered once it goes on; "
     "others meanwhile are served.")
{
	char region[160], line[64] = {0};
	int object, connection, fd;

	START(NULL);
	peer_give(&stopped, &manager, 256, 0);
	EXPECT(&stopped, "1", "map private 8");
	CHECK_EQ(sscanf(peer_say(&stopped, "numbers"), "%d %d", &object, &connection), 2);
	EXPECT(&stopped, "done", "flood 0 256");
	fd = take_from(&stopped, connection);
	stop(&stopped);
	snprintf(region, sizeof(region),
	         "{\"regions\":[{\"base_host_virt_addr\":%lu,\"size\":4096,\"offset\":4096}],\"number\":5}", 1ul << 40);
	CHECK_EQ(send(fd, region, strlen(region), 0), strlen(region));
	for (unsigned i = 0; i < 20; i++) {
		good_is_served();
		CHECK_EQ(manager_number(&manager, "clients"), 2);
	}
	CHECK_EQ(kill(stopped.pid, SIGCONT), 0);
	CHECK(recv(fd, line, sizeof(line) - 1, 0) > 0);
	CHECK(!strcmp(line, "ok #5\n"));
}

TEST(one_that_does_not_answer_the_handshake_is_refused, "An object whose owner is stopped when it is handed over is "
                                                        "refused when the time for it has passed, and holds up nobody.")
{
	const char *text = "{\"regions\":[{\"base_host_virt_addr\":1048576,\"size\":4096,\"offset\":0}]}";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int object, connection, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[256] = {0};

	START("--handover-timeout", "2");
	EXPECT(&stopped, "0", "map private 8");
	CHECK_EQ(sscanf(peer_say(&stopped, "numbers"), "%d %d", &object, &connection), 2);
	object = take_from(&stopped, object);
	stop(&stopped);
	strcpy(address.sun_path, manager.socket);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	send_with_fd(fd, text, strlen(text), object);
	good_is_served();
	good_is_served();
	/* Nothing is said before. */
	CHECK(recv(fd, line, sizeof(line) - 1, 0) > 0);
	CHECK(!strncmp(line, "error it took too long", strlen("error it took too long")));
	good_is_served();
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 0);
}

TEST(a_stopped_client_is_taken_over, "When the worker is replaced while a client is stopped, others are served at "
                                     "once, and the client once it goes on.")
{
	pid_t worker;

	START(NULL);
	peer_give(&stopped, &manager, 256, 0);
	EXPECT(&stopped, "yes", "is 0 1 1 1");
	stop(&stopped);
	worker = manager_worker(&manager);
	CHECK_EQ(kill(worker, SIGKILL), 0);
	UNTIL(manager_worker(&manager) != worker);
	for (unsigned i = 0; i < 5; i++)
		good_is_served();
	CHECK_EQ(kill(stopped.pid, SIGCONT), 0);
	EXPECT(&stopped, "yes", "is 0 200 1 200");
	EXPECT(&stopped, "done", "send {\"size\":\"default\"}");
	EXPECT(&stopped, "ok 4194304", "answer");
}

TEST(stopped_clients_do_not_keep_the_manager,
     "After SIGTERM the manager ends although clients are stopped, and the others find SIGBUS.")
{
	START(NULL);
	peer_give(&stopped, &manager, 256, 0);
	stop(&stopped);
	CHECK_EQ(manager_stop(&manager), 0);
	EXPECT(&good, "bus", "is 0 63 1 63");
	CHECK_EQ(kill(stopped.pid, SIGCONT), 0);
}

TEST(the_end_of_a_stopped_client_frees_everything, "One that is killed while it is stopped leaves nothing behind.")
{
	unsigned before;

	START(NULL);
	before = manager_descriptors(&manager);
	peer_give(&stopped, &manager, 256, 0);
	EXPECT(&stopped, "done", "flood 0 256");
	stop(&stopped);
	good_is_served();
	peer_kill(&stopped);
	manager_settled(&manager, before, 1);
	good_is_served();
}
