// SPDX-License-Identifier: MIT
/* What clients of `userfault serve` are promised, on either engine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault/handover.h>

#include "command.h"
#include "manager.h"
#include "report/recording.h"
#include "support/folder.h"
#include "support/test.h"
#include "workingset/workingset.h"

#define PAGES 4096u /* of a store */

static struct manager manager;
static struct peer peer, other;

/* A manager with a store of seed 1, and what else it is told. */
static void start(const char *const options[])
{
	const char *all[16] = {"--store", NULL};
	char store[128];
	int n = 2;

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, PAGES));
	all[1] = store;
	while (*options && n < 15)
		all[n++] = *options++;
	manager_start(&manager, all);
}

#define START(...) start((const char *const[]){__VA_ARGS__, NULL})

TEST(one_message_and_then_silence,
     "Firecracker's form, one sendmsg with the descriptor and nothing more, is served and never answered.")
{
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 64");
	EXPECT(&peer, "1", "map private 16");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give "
	       "[{\"base_host_virt_addr\":@0,\"size\":262144,\"offset\":0,\"page_size\":4096,\"page_size_kib\":4096},"
	       "{\"base_host_virt_addr\":@1,\"size\":65536,\"offset\":1048576,\"page_size\":4096,\"page_size_kib\":"
	       "4096}]");
	for (unsigned i = 0; i < 64; i += 7)
		EXPECT(&peer, "yes", "is 0 %u 1 %u", i, i);
	for (unsigned i = 16; i > 0; i--)
		EXPECT(&peer, "yes", "is 1 %u 1 %u", i - 1, 256 + i - 1);
	CHECK_EQ(manager_stop(&manager), 0);
	/* Not a byte has come. */
	EXPECT(&peer, "end", "answer");
}

TEST(regions_have_stores_of_their_own,
     "Each region is filled from the store it names, at its offset, and sizes are told.")
{
	char second[128];

	snprintf(second, sizeof(second), "second=file:%s", write_store("second", 2, 100));
	START("--store", second);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 16");
	EXPECT(&peer, "1", "map private 16");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done", "send {\"size\":\"second\"}");
	EXPECT(&peer, "ok 409600", "answer");
	EXPECT(&peer, "done", "send {\"size\":\"third\",\"number\":12}");
	EXPECT(&peer, "error #12 there is no store third", "answer");
	EXPECT(&peer, "done",
	       "give {\"number\":13,\"regions\":[{\"base_host_virt_addr\":@0,\"size\":65536,\"offset\":4096},"
	       "{\"base_host_virt_addr\":@1,\"size\":65536,\"offset\":8192,\"store\":\"second\"}]}");
	EXPECT(&peer, "ok #13", "answer");
	EXPECT(&peer, "yes", "is 0 3 1 4");
	EXPECT(&peer, "yes", "is 1 3 2 5");
}

TEST(what_is_given_back_is_zeros_unless_it_is_the_store,
     "Pages given back read as zeros; of a region with \"removed\":\"store\" they come from the store again.")
{
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 8");
	EXPECT(&peer, "1", "map private 8");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":32768,\"offset\":0,\"removed\":\"zeros\"},"
	       "{\"base_host_virt_addr\":@1,\"size\":32768,\"offset\":0,\"removed\":\"store\"}]}");
	EXPECT(&peer, "ok", "answer");
	for (unsigned region = 0; region < 2; region++) {
		EXPECT(&peer, "yes", "is %u 2 1 2", region);
		/* One that was touched, and one that was not. */
		EXPECT(&peer, "done", "drop %u 2 2", region);
		EXPECT(&peer, region ? "yes" : "zeros", "is %u 2 1 2", region);
		EXPECT(&peer, region ? "yes" : "zeros", "is %u 3 1 3", region);
		EXPECT(&peer, "yes", "is %u 4 1 4", region);
	}
}

TEST(regions_are_added_later,
     "Further regions on the same connection need no descriptor, and are served when they are answered.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "1", "map private 8");
	EXPECT(&peer, "2", "map private 8");
	EXPECT(&peer, "done", "send {\"regions\":[{\"base_host_virt_addr\":@1,\"size\":32768,\"offset\":32768}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 1 7 1 15");
	EXPECT(&peer, "done", "send {\"regions\":[{\"base_host_virt_addr\":@2,\"size\":32768,\"offset\":65536}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 2 0 1 16");
	EXPECT(&peer, "yes", "is 0 0 1 0");
}

TEST(shared_memory_is_served,
     "Regions of shared and of memfd memory hold the store's bytes, and zeros where it has none.")
{
	static const char *const kinds[] = {"shared", "memfd"};

	/* The store ends within the second page behind it. */
	START(NULL);
	for (unsigned i = 0; i < 2; i++) {
		peer_start(&peer);
		EXPECT(&peer, "0", "map %s 8", kinds[i]);
		EXPECT(&peer, "done", "connect %s", manager.socket);
		EXPECT(&peer, "done", "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":32768,\"offset\":%lu}]}",
		       (PAGES - 8) * 4096ul);
		EXPECT(&peer, "ok", "answer");
		for (unsigned k = 0; k < 8; k++)
			EXPECT(&peer, "yes", "is 0 %u 1 %u", k, PAGES - 8 + k);
		peer_kill(&peer);
	}
}

TEST(units_of_64_kib_are_filled_at_once,
     "With a page_size of 64 KiB over pages of 4 KiB one touch brings all of a unit.")
{
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 64");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give "
	       "{\"regions\":[{\"base_host_virt_addr\":@0,\"size\":262144,\"offset\":65536,\"page_size\":65536}]}");
	EXPECT(&peer, "ok", "answer");
	for (unsigned i = 0; i < 64; i++)
		EXPECT(&peer, "yes", "is 0 %u 1 %u", i, 16 + i);
	/* A part of one. */
	EXPECT(&peer, "done", "drop 0 18 2");
	EXPECT(&peer, "yes", "is 0 17 1 33");
	EXPECT(&peer, "zeros", "is 0 18 1 34");
	EXPECT(&peer, "zeros", "is 0 19 1 35");
	EXPECT(&peer, "yes", "is 0 20 1 36");
}

TEST(who_has_said_all_is_answered, "Also whoever will say no more has its answer, to a handover and to a later region.")
{
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 16");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	peer_tell(&peer, "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":65536,\"offset\":0}]}");
	peer_tell(&peer, "finish");
	CHECK(!strcmp(peer_hear(&peer), "done"));
	CHECK(!strcmp(peer_hear(&peer), "done"));
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 0 5 1 5");
	EXPECT(&peer, "end", "answer");
	peer_start(&other);
	peer_give(&other, &manager, 16, 0);
	EXPECT(&other, "1", "map private 16");
	peer_tell(&other, "send {\"regions\":[{\"base_host_virt_addr\":@1,\"size\":65536,\"offset\":65536}]}");
	peer_tell(&other, "finish");
	CHECK(!strcmp(peer_hear(&other), "done"));
	CHECK(!strcmp(peer_hear(&other), "done"));
	EXPECT(&other, "ok", "answer");
	EXPECT(&other, "yes", "is 1 5 1 21");
}

TEST(a_client_that_hangs_up_is_served_on, "The end of the connection is not the end of a client that lives.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "done", "hangup");
	EXPECT(&peer, "done", "close");
	for (unsigned i = 0; i < 8; i++)
		EXPECT(&peer, "yes", "is 0 %u 1 %u", i, i);
	CHECK_EQ(manager_number(&manager, "clients"), 1);
}

TEST(the_end_of_a_client_frees_everything,
     "After clients have ended the manager has as many descriptors as before, and their records serve others.")
{
	unsigned before;

	START("--max-clients", "2");
	before = manager_descriptors(&manager);
	for (unsigned i = 0; i < 5; i++) {
		peer_start(&peer);
		peer_start(&other);
		peer_give(&peer, &manager, 8, 0);
		peer_give(&other, &manager, 8, 8);
		EXPECT(&peer, "yes", "is 0 1 1 1");
		EXPECT(&other, "yes", "is 0 1 1 9");
		CHECK_EQ(manager_number(&manager, "clients"), 2);
		peer_kill(&peer);
		peer_kill(&other);
		manager_settled(&manager, before, 0);
	}
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 0);
}

TEST(another_program_in_its_place_ends_a_client, "After execve(2) the memory is gone, and so is the client.")
{
	unsigned before;

	START(NULL);
	before = manager_descriptors(&manager);
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "done", "exec");
	manager_settled(&manager, before, 0);
	CHECK_EQ(kill(peer.pid, 0), 0);
	peer_kill(&peer);
}

TEST(a_forked_child_is_served,
     "A child sees what its parent would have seen, also after the parent's end; its own end frees all.")
{
	unsigned before;

	START(NULL);
	before = manager_descriptors(&manager);
	peer_start(&peer);
	peer_give(&peer, &manager, 16, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "done", "drop 0 2 1");
	CHECK(atol(peer_say(&peer, "fork")) > 0);
	EXPECT(&peer, "yes", "0 1 1 1");
	EXPECT(&peer, "zeros", "0 2 1 2");
	EXPECT(&peer, "yes", "0 3 1 3");
	UNTIL(manager_number(&manager, "clients") == 2);
	EXPECT(&peer, "done", "%s", "");
	UNTIL(manager_number(&manager, "clients") == 1);
	EXPECT(&peer, "yes", "is 0 4 1 4");
	peer_kill(&peer);
	manager_settled(&manager, before, 0);
}

static void child_without_room(const char *option, const char *reason)
{
	START(option, "1");
	peer_start(&peer);
	peer_give(&peer, &manager, 16, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	CHECK(atol(peer_say(&peer, "fork")) > 0);
	EXPECT(&peer, "yes", "0 1 1 1");
	EXPECT(&peer, "bus", "0 3 1 3");
	EXPECT(&peer, "done", "%s", "");
	EXPECT(&peer, "yes", "is 0 3 1 3");
	manager_wait(&manager, reason, 1);
}

TEST(a_child_for_which_there_is_no_room_finds_sigbus,
     "Without a record for it a child's pages that were not delivered are SIGBUS, and its parent is served on.")
{
	child_without_room("--max-clients", "its child is not served: there are too many clients");
}

TEST(a_child_beyond_its_users_share_finds_sigbus, "Children count for their parent's user.")
{
	child_without_room("--max-clients-of-user", "its child is not served: this user has too many clients");
}

/* The recording of the client whose id this is. */
static struct recording_data recording_of(const char *folder, unsigned client)
{
	struct recording_data data = {.count = 0};
	const struct dirent *entry;
	char end[32], path[512];
	DIR *dir = opendir(folder);

	CHECK(dir);
	snprintf(end, sizeof(end), "-%u.recording", client);
	do {
		entry = readdir(dir);
		CHECK(entry);
	} while (strlen(entry->d_name) < strlen(end) ||
	         strcmp(entry->d_name + strlen(entry->d_name) - strlen(end), end) != 0);
	snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
	closedir(dir);
	CHECK_EQ(recording_read(&data, path), 0);
	return data;
}

/* The n-th of a kind. */
static const struct recording_event *event_of(const struct recording_data *data, enum recording_kind kind, unsigned n)
{
	for (size_t i = 0; i < data->count; i++)
		if (data->events[i].kind == kind && !n--)
			return &data->events[i];
	FAIL("too few events of kind %d were recorded", kind);
}

TEST(what_clients_do_is_recorded,
     "With --record the recording of a client tells its faults, what it removed, regions that came later, and its "
     "children, also one that could not be served.")
{
	const struct recording_event *event;
	struct recording_data data;
	char folder[128];
	unsigned before;

	snprintf(folder, sizeof(folder), "%s", in_folder("recordings"));
	CHECK_EQ(mkdir(folder, 0700), 0);
	START("--record", folder, "--max-clients", "2");
	peer_start(&peer);
	peer_give(&peer, &manager, 16, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "done", "drop 0 2 1");
	EXPECT(&peer, "1", "map private 16");
	EXPECT(&peer, "done",
	       "send "
	       "{\"regions\":[{\"base_host_virt_addr\":@1,\"size\":65536,\"offset\":1048576,\"store\":\"default\"}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 1 3 1 259");
	before = manager_descriptors(&manager);
	CHECK(atol(peer_say(&peer, "fork")) > 0);
	EXPECT(&peer, "yes", "0 3 1 3");
	EXPECT(&peer, "done", "%s", "");
	/* Its record is free again only then. */
	manager_settled(&manager, before, 1);
	peer_start(&other);
	peer_give(&other, &manager, 16, 0);
	CHECK(atol(peer_say(&peer, "fork")) > 0);
	EXPECT(&peer, "bus", "0 9 1 9");
	EXPECT(&peer, "done", "%s", "");
	peer_kill(&peer);
	CHECK_EQ(manager_stop(&manager), 0);
	data = recording_of(folder, 1);
	CHECK(data.complete);
	CHECK_EQ(data.about.region_count, 1u);
	CHECK_EQ(event_of(&data, RECORDING_READ, 0)->offset, 4096u);
	event = event_of(&data, RECORDING_REMOVE, 0);
	CHECK_EQ(event->address, data.about.regions[0].address + 2 * 4096);
	CHECK_EQ(event->length, 4096u);
	event = event_of(&data, RECORDING_MAP, 0);
	CHECK_EQ(event->length, 65536u);
	CHECK_EQ(event->offset, 1048576u);
	CHECK_EQ(event_of(&data, RECORDING_FORK, 0)->offset, 2u);
	CHECK_EQ(event_of(&data, RECORDING_FORK, 1)->offset, RECORDING_NOWHERE);
	recording_free(&data);
	data = recording_of(folder, 2);
	CHECK_EQ(data.about.client, 2u);
	recording_free(&data);
}

TEST(a_store_that_fails_is_sigbus, "A page that cannot be read is SIGBUS and logged; its neighbours are what they are.")
{
	char store[128], path[64];

	snprintf(path, sizeof(path), "%s", write_store("short", 3, 64));
	snprintf(store, sizeof(store), "short=file:%s", path);
	START("--store", store);
	CHECK_EQ(truncate(path, 32 * 4096), 0);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 64");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":262144,\"offset\":0,\"store\":\"short\"}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 0 30 3 30");
	EXPECT(&peer, "bus", "is 0 40 3 40");
	EXPECT(&peer, "yes", "is 0 31 3 31");
	EXPECT(&peer, "bus", "is 0 32 3 32");
	/* It stays so. */
	EXPECT(&peer, "bus", "is 0 40 3 40");
	manager_wait(&manager, "of store short, cannot be had", 2);
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 0);
}

TEST(what_was_not_delivered_is_sigbus_when_the_manager_stops,
     "After SIGTERM what was delivered stays, what was given back is zeros, and all else is SIGBUS, never zeros.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 64, 0);
	/* Mappings of their own within the region. */
	EXPECT(&peer, "done", "protect 0 20 4");
	EXPECT(&peer, "done", "drop 0 5 2");
	EXPECT(&peer, "done", "unmap 0 40 4");
	EXPECT(&peer, "yes", "is 0 7 1 7");
	EXPECT(&peer, "done", "close");
	CHECK_EQ(manager_stop(&manager), 0);
	for (unsigned i = 0; i < 64; i++) {
		const char *answer;

		if (i >= 40 && i < 44)
			continue;
		answer = peer_say(&peer, "is 0 %u 1 %u", i, i);
		/* Pages near one that was touched may have come with it. */
		if (strcmp(answer, i == 5 || i == 6 ? "zeros" : "bus") != 0 &&
		    (i == 5 || i == 6 || strcmp(answer, "yes")))
			FAIL("page %u is %s", i, answer);
		if (i == 7 && strcmp(answer, "yes"))
			FAIL("the page that was there is %s", answer);
		if (i == 63 && strcmp(answer, "bus"))
			FAIL("the last page is %s", answer);
	}
}

TEST(names_are_kept_whole, "The longest name that a client may have is seen by who asks.")
{
	char name[65] = {0};
	const struct result *said;

	memset(name, 'n', 64);
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 16");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give {\"name\":\"%sn\",\"regions\":[{\"base_host_virt_addr\":@0,\"size\":65536,\"offset\":0}]}", name);
	CHECK(strstr(peer_say(&peer, "answer"), "error"));
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done",
	       "give {\"name\":\"%s\",\"regions\":[{\"base_host_virt_addr\":@0,\"size\":65536,\"offset\":0}]}", name);
	EXPECT(&peer, "ok", "answer");
	said = RUN(from_env("USERFAULT"), "stat", "--control", manager.control, "--json");
	CHECK_EQ(said->status, 0);
	CHECK(strstr(said->out, name));
}

TEST(abstract_names_are_found,
     "A manager whose sockets are in the abstract name space is asked there, and handed memory.")
{
	const struct result *said;

	snprintf(manager.socket, sizeof(manager.socket), "@userfault-test-%d", getpid());
	snprintf(manager.control, sizeof(manager.control), "@userfault-test-%d-control", getpid());
	START(NULL);
	CHECK_EQ(manager_number(&manager, "clients"), 0);
	said = RUN(from_env("USERFAULT"), "stat", "--control", manager.control, "--json");
	CHECK_EQ(said->status, 0);
	CHECK(strstr(said->out, "\"clients\""));
	CHECK_EQ(RUN(from_env("USERFAULT"), "top", "--control", manager.control, "--once")->status, 0);
#ifndef __SANITIZE_ADDRESS__
	said = RUN(from_env("USERFAULT"), "run", "--engine", "user", "--manager", manager.socket, "--map",
	           "/tmp/none=default", "--", "head", "-c", "1", "/tmp/none");
	CHECK_EQ(said->status, 0);
#endif
}

/* The first in the folder whose name ends so; static memory. */
static const char *find_recorded(const char *folder, const char *end)
{
	static char path[300];
	struct dirent *entry;
	DIR *dir = opendir(folder);

	CHECK(dir);
	path[0] = 0;
	while (!path[0] && (entry = readdir(dir))) {
		const char *at = strstr(entry->d_name, end);

		if (at && !at[strlen(end)])
			snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
	}
	closedir(dir);
	if (!path[0])
		FAIL("no %s in %s", end, folder);
	return path;
}

static bool has_page(const struct workingset *set, uint64_t page)
{
	for (uint64_t i = 0; i < set->count; i++)
		if (set->offsets[i] == page * 4096)
			return true;
	return false;
}

TEST(recordings_are_complete_when_the_manager_stops,
     "After SIGTERM the recording of a client that lives has its end, and what it has touched is in the working set.")
{
	const char *folder = in_folder("records");
	struct recording_data data;
	struct workingset *set;
	bool read = false;

	CHECK_EQ(mkdir(folder, 0700), 0);
	START("--record", folder);
	peer_start(&peer);
	peer_give(&peer, &manager, 2048, 0);
	EXPECT(&peer, "yes", "is 0 2000 1 2000");
	EXPECT(&peer, "yes", "is 0 77 1 77");
	CHECK_EQ(manager_stop(&manager), 0);
	CHECK_EQ(recording_read(&data, find_recorded(folder, ".recording")), 0);
	CHECK(data.complete);
	for (size_t i = 0; i < data.count; i++)
		read |= data.events[i].kind == RECORDING_READ && data.events[i].offset <= 77 * 4096ul &&
		        data.events[i].offset + data.events[i].length > 77 * 4096ul;
	CHECK(read);
	recording_free(&data);
	CHECK_EQ(workingset_read(&set, AT_FDCWD, find_recorded(folder, "default.workingset")), 0);
	CHECK(has_page(set, 2000) && has_page(set, 77) && !has_page(set, 1000));
	free(set);
	EXPECT(&peer, "yes", "is 0 77 1 77");
}

TEST(layout_events_do_not_keep_pages_from_sigbus,
     "While a client's threads give pages back without end the manager stops, and what was not delivered is SIGBUS.")
{
	for (unsigned i = 0; i < 5; i++) {
		memset(&manager, 0, sizeof(manager));
		START(NULL);
		peer_start(&peer);
		peer_give(&peer, &manager, 1024, 0);
		EXPECT(&peer, "yes", "is 0 1023 1 1023");
		EXPECT(&peer, "done", "flood 0 64");
		EXPECT(&peer, "done", "flood 0 64");
		/* With the user engine they go on when nobody has the object any more, and would run into its end. */
		if (strcmp(test_engine, "user") != 0)
			EXPECT(&peer, "done", "close");
		CHECK_EQ(manager_stop(&manager), 0);
		EXPECT(&peer, "bus", "is 0 700 1 700");
		EXPECT(&peer, "yes", "is 0 1023 1 1023");
		peer_kill(&peer);
	}
}

TEST(clients_are_served_on_in_the_time_of_grace,
     "With --grace clients go on after SIGTERM, nobody else may come, and their end is the manager's.")
{
	int status;

	START("--grace", "1000");
	peer_start(&peer);
	peer_start(&other);
	peer_give(&peer, &manager, 64, 0);
	CHECK_EQ(kill(manager.pid, SIGTERM), 0);
	UNTIL(access(manager.socket, F_OK));
	EXPECT(&other, "ENOENT", "connect %s", manager.socket);
	EXPECT(&peer, "yes", "is 0 63 1 63");
	peer_kill(&peer);
	CHECK_EQ(waitpid(manager.pid, &status, 0), manager.pid);
	CHECK_EQ(status, 0);
}

TEST(a_place_that_is_left_and_stays_is_empty, "MREMAP_DONTUNMAP: what moved is what it was, and its old place zeros.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 64, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "1", "leave 0");
	for (unsigned i = 0; i < 2; i++) {
		pid_t worker = manager_worker(&manager);

		EXPECT(&peer, "yes", "is 0 1 1 1");
		EXPECT(&peer, "yes", "is 0 %u 1 %u", 2 + 8 * i, 2 + 8 * i);
		EXPECT(&peer, "zeros", "is 1 1 1 1");
		EXPECT(&peer, "zeros", "is 1 %u 1 1", 2 + 8 * i);
		CHECK_EQ(kill(worker, SIGKILL), 0);
		UNTIL(manager_worker(&manager) != worker);
	}
	EXPECT(&peer, "done", "unmap 1 0 64");
	EXPECT(&peer, "yes", "is 0 30 1 30");
}

TEST(shared_memory_that_is_left_is_not_emptied,
     "MREMAP_DONTUNMAP of shared memory: what is there is seen through both places, and what is not is nowhere zeros.")
{
	START(NULL);
	peer_start(&peer);
	EXPECT(&peer, "0", "map memfd 64");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done", "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":262144,\"offset\":0}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "1", "leave 0");
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "yes", "is 1 1 1 1");
	EXPECT(&peer, "bus", "is 1 20 1 20");
	EXPECT(&peer, "yes", "is 0 20 1 20");
	EXPECT(&peer, "yes", "is 0 21 1 21");
	EXPECT(&peer, "yes", "is 1 21 1 21");
}

TEST(a_killed_worker_is_replaced, "Another worker takes over, with everything as it was.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 64, 0);
	EXPECT(&peer, "yes", "is 0 1 1 1");
	EXPECT(&peer, "done", "drop 0 2 1");
	for (unsigned i = 0; i < 5; i++) {
		pid_t worker = manager_worker(&manager);

		CHECK_EQ(kill(worker, SIGKILL), 0);
		UNTIL(manager_worker(&manager) != worker);
		EXPECT(&peer, "yes", "is 0 %u 1 %u", 10 + 8 * i, 10 + 8 * i);
		EXPECT(&peer, "zeros", "is 0 2 1 2");
	}
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 5);
	/* And the connection still speaks. */
	EXPECT(&peer, "done", "send {\"size\":\"default\"}");
	EXPECT(&peer, "ok 16777216", "answer");
}

TEST(a_message_is_taken_as_a_whole,
     "A later message of which one region is refused leaves none of its regions behind, and the client is served on.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "1", "map private 8");
	/* The second lies over one that was given. */
	EXPECT(&peer, "done",
	       "send {\"regions\":[{\"base_host_virt_addr\":@1,\"size\":32768,\"offset\":0},"
	       "{\"base_host_virt_addr\":@0,\"size\":4096,\"offset\":4096}]}");
	CHECK(strstr(peer_say(&peer, "answer"), "error region "));
	CHECK(strstr(peer.answer, "overlaps"));
	/* The same place, with another content. */
	EXPECT(&peer, "done", "send {\"regions\":[{\"base_host_virt_addr\":@1,\"size\":32768,\"offset\":65536}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 1 1 1 17");
	EXPECT(&peer, "yes", "is 0 1 1 1");
}

TEST(a_region_that_is_given_otherwise_is_refused,
     "The same range with another answer to what is given back is not the same region.")
{
	START(NULL);
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "done",
	       "send {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":32768,\"offset\":0,\"removed\":\"store\"}]}");
	CHECK(strstr(peer_say(&peer, "answer"), "overlaps"));
}

static struct uf_handover *handover;
static _Atomic unsigned answered;

static void *ask(void *arg)
{
	(void)arg;
	for (unsigned i = 0;; i++) {
		uint64_t size = 0;
		char cause[128];

		CHECK_EQ(uf_handover_size(handover, i % 2 ? "default" : "second", &size, cause, sizeof(cause)), 0);
		CHECK_EQ(size, i % 2 ? PAGES * 4096 : 7 * 4096);
		answered++;
	}
	return NULL;
}

TEST(answers_belong_to_their_questions,
     "While workers are killed, what a program asks is answered, and each answer is to the question that it has asked.")
{
	char second[128];
	pthread_t thread;

	snprintf(second, sizeof(second), "second=file:%s", write_store("second", 2, 7));
	/* It never hands over. */
	START("--store", second, "--workers", "1", "--handover-timeout", "3600");
	CHECK_EQ(uf_handover_open(&handover, manager.socket, NULL, 0), 0);
	CHECK_EQ(pthread_create(&thread, NULL, ask, NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		pid_t worker = manager_worker(&manager);
		unsigned had = answered;

		UNTIL(answered > had + i % 5);
		CHECK_EQ(kill(worker, SIGKILL), 0);
		UNTIL(manager_worker(&manager) != worker);
	}
}

TEST(the_worker_outlives_the_supervisor, "When the supervisor is killed the worker serves its clients and ends with "
                                         "the last; meanwhile another manager can have the sockets.")
{
	struct manager next = {.pid = 0};
	char store[128];
	pid_t worker;

	snprintf(store, sizeof(store), "default=file:%s", write_store("next", 2, 64));
	START(NULL);
	worker = manager_worker(&manager);
	peer_start(&peer);
	peer_start(&other);
	peer_give(&peer, &manager, 64, 0);
	CHECK_EQ(kill(manager.pid, SIGKILL), 0);
	CHECK_EQ(waitpid(manager.pid, NULL, 0), manager.pid);
	EXPECT(&peer, "yes", "is 0 9 1 9");
	UNTIL(!strcmp(peer_say(&other, "connect %s", manager.socket), "ECONNREFUSED"));
	manager_wait(&manager, "the supervisor is gone", 1);
	strcpy(next.socket, manager.socket);
	strcpy(next.control, manager.control);
	MANAGER(&next, "--store", store);
	peer_give(&other, &next, 64, 0);
	EXPECT(&other, "yes", "is 0 50 2 50");
	EXPECT(&peer, "yes", "is 0 50 1 50");
	peer_kill(&peer);
	UNTIL(kill(worker, 0) && errno == ESRCH);
	EXPECT(&other, "yes", "is 0 20 2 20");
}

TEST(an_orphan_ends_as_a_manager_does,
     "A worker without a supervisor ends by SIGTERM, and what was not delivered is SIGBUS.")
{
	pid_t worker;

	START(NULL);
	worker = manager_worker(&manager);
	peer_start(&peer);
	peer_give(&peer, &manager, 512, 0);
	EXPECT(&peer, "yes", "is 0 9 1 9");
	EXPECT(&peer, "done", "close");
	CHECK_EQ(kill(manager.pid, SIGKILL), 0);
	CHECK_EQ(waitpid(manager.pid, NULL, 0), manager.pid);
	manager_wait(&manager, "the supervisor is gone", 1);
	CHECK_EQ(kill(worker, SIGTERM), 0);
	UNTIL(kill(worker, 0) && errno == ESRCH);
	EXPECT(&peer, "bus", "is 0 500 1 500");
	EXPECT(&peer, "yes", "is 0 9 1 9");
}

TEST(huge_pages_are_served,
     "Regions of hugetlbfs with a page_size of 2 MiB, private and shared, hold the store's bytes.")
{
	static const char *const kinds[] = {"huge", "hugememfd"};

	if (free_huge_pages() < 4)
		SKIP("fewer than 4 huge pages");
	START(NULL);
	for (unsigned i = 0; i < 2; i++) {
		peer_start(&peer);
		EXPECT(&peer, "0", "map %s 1024", kinds[i]);
		EXPECT(&peer, "done", "connect %s", manager.socket);
		EXPECT(&peer, "done",
		       "give [{\"base_host_virt_addr\":@0,\"size\":4194304,\"offset\":2097152,\"page_size\":2097152}]");
		for (unsigned k = 0; k < 1024; k += 73)
			EXPECT(&peer, "yes", "is 0 %u 1 %u", k, 512 + k);
		peer_kill(&peer);
		manager_settled(&manager, 1000, 0);
	}
}
