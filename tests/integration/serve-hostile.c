// SPDX-License-Identifier: MIT
/*
 * What strangers can do to `userfault serve`. A good client runs all the time: after each of them it must still be served, by the same worker,
 * and what the manager has open must be what it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "manager.h"
#include "manager/log.h"
#include "support/folder.h"
#include "support/passing.h"
#include "support/test.h"

#define PAGES 1024u /* of the store */
#define OWN   64u   /* of the good client */

static struct manager manager;
static struct peer good;
static unsigned before; /* descriptors */
static unsigned round_; /* of the good client */

static void start(const char *const options[])
{
	const char *all[16] = {"--store"};
	char store[128];
	int n = 2;

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, PAGES));
	all[1] = store;
	while (*options && n < 15)
		all[n++] = *options++;
	manager_start(&manager, all);
	peer_start(&good);
	peer_give_again(&good, &manager, OWN);
	before = manager_descriptors(&manager);
}

#define START(...) start((const char *const[]){__VA_ARGS__, NULL})

/* It is served: pages that it has just given back. */
static void good_is_served(void)
{
	EXPECT(&good, "done", "drop 0 0 %u", OWN);
	for (unsigned i = round_++ % 7; i < OWN; i += 7)
		EXPECT(&good, "yes", "is 0 %u 1 %u", i, i);
}

/* And nothing is left of the others. */
static void all_is_well(void)
{
	good_is_served();
	manager_settled(&manager, before, 1);
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 0);
	good_is_served();
}

static int connect_to_manager(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, manager.socket);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* What comes until the line, or the connection, ends. Static memory. */
static const char *hear(int fd)
{
	static char line[1024];
	size_t used = 0;

	while (used < sizeof(line) - 1 && recv(fd, line + used, 1, 0) == 1 && line[used] != '\n')
		used++;
	line[used] = '\0';
	return line;
}

static void hears(int fd, const char *words)
{
	const char *line = hear(fd);

	if (!strstr(line, words))
		FAIL("the answer is '%s', without '%s'", line, words);
}

/* Refused for this reason, and hung up on. */
static void is_refused(int fd, const char *words)
{
	hears(fd, words);
	CHECK(!hear(fd)[0]);
	close(fd);
}

/* The same without a word. */
static void is_hung_up_on(int fd)
{
	char byte;

	CHECK(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

static void send_text(int fd, const char *text)
{
	send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static char *memory;

static int open_object(bool enabled)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	CHECK(fd >= 0);
	if (!enabled)
		return fd;
	CHECK_EQ(ioctl(fd, UFFDIO_API, &api), 0);
	memory = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (uintptr_t)memory;
	range.range.len = 64 * 4096;
	CHECK_EQ(ioctl(fd, UFFDIO_REGISTER, &range), 0);
	return fd;
}

/* A message with one region, which need not be there. */
static const char *region(unsigned long long addr, unsigned long long size, unsigned long long offset, const char *more)
{
	static char text[512];

	snprintf(text, sizeof(text), "{\"regions\":[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu%s}]}",
	         addr, size, offset, more);
	return text;
}

static const char *good_region(void)
{
	return region((uintptr_t)memory, 64 * 4096, 0, "");
}

TEST(what_is_no_message_is_refused, "Text that is no message is refused with a reason, and the connection ended.")
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		/* NULL: in Firecracker's form, which has no answers. */
		{"hello\n", "neither a JSON array nor an object"},
		{"{]", "not JSON"},
		{"{}", "either"},
		{"[]", NULL},
		{" [{]", NULL},
		{"\n\t[{\"size\":4096}]", NULL},
		{"[[[[[[[[[[[[[[[[[[[[[[[[[", NULL},
		{"{\"regions\":[]}", "no regions"},
		{"{\"regions\":[[[[[[[[[[[[[[[[[[[[[[", "nested deeper"},
		{"{\"size\":\"default\",\"size\":\"default\"}", "duplicate"},
		{"{\"size\":\"\\u0000\"}", "error"},
		{"{\"number\":7,\"regions\":7}", "error #7 "},
	};

	START(NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = connect_to_manager();

		send_text(fd, cases[i].text);
		if (cases[i].words)
			is_refused(fd, cases[i].words);
		else
			is_hung_up_on(fd);
	}
	/* A zero in it. */
	for (unsigned i = 0; i < 2; i++) {
		int fd = connect_to_manager();

		CHECK_EQ(send(fd, "{\"si\0ze\":\"default\"}", 19, 0), 19);
		is_refused(fd, "error");
	}
	all_is_well();
}

TEST(what_has_no_end_is_refused, "A message longer than a mebibyte is refused before its end, whoever goes on sending.")
{
	static char piece[65536];
	int fd;

	START(NULL);
	memset(piece, ' ', sizeof(piece));
	fd = connect_to_manager();
	send_text(fd, "{\"name\":");
	for (unsigned i = 0; i < 64; i++)
		if (send(fd, piece, sizeof(piece), MSG_NOSIGNAL) < 0)
			break;
	is_refused(fd, "longer than");
	all_is_well();
}

TEST(a_message_may_trickle_in, "A message that comes byte by byte is taken like one that comes at once.")
{
	const char *text = "{\"number\":3,\"size\":\"default\"}";
	int fd;

	START("--handover-timeout", "3600");
	fd = connect_to_manager();
	for (const char *c = text; *c; c++) {
		CHECK_EQ(send(fd, c, 1, 0), 1);
		if ((c - text) % 5 == 0)
			good_is_served();
	}
	hears(fd, "ok #3 4194304");
	close(fd);
	all_is_well();
}

TEST(a_handover_has_its_time, "Who has not handed over in time is told so and hung up on; a message that stays without "
                              "its end counts for nothing.")
{
	int idle, half;

	START("--handover-timeout", "1");
	idle = connect_to_manager();
	half = connect_to_manager();
	send_text(half, "[{\"base_host_virt_addr\":");
	is_refused(idle, "error it took too long");
	is_hung_up_on(half);
	manager_wait(&manager, "it took too long to hand over", 2);
	all_is_well();
}

TEST(regions_are_checked, "Regions that overlap, wrap, are not aligned, reach behind their store or name none that "
                          "there is are refused with a reason.")
{
	unsigned long long size = PAGES * 4096ull;
	int fds[16], objects[16], n = 0;
	const struct {
		unsigned long long addr, size, offset;
		const char *more, *words;
	} cases[] = {
		{4096, 4096, size, "", "reach beyond"},
		{4096, 8192, size - 4096, "", "reach beyond"},
		{4096, size + 4096, 0, "", "reach beyond"},
		{4096, 1ull << 62, 0, "", "reach beyond"},
		{0x7ffffffffffff000, 8192, 0, "", "behind 2^63"},
		{4096, 4096, 0x7ffffffffffff000, "", "behind 2^63"},
		{4097, 4096, 0, "", "not multiples"},
		{4096, 100, 0, "", "not multiples"},
		{4096, 0, 0, "", "'size' is 0"},
		{4096, 4096, 0, ",\"page_size\":3", "page size"},
		{4096, 4096, 0, ",\"store\":\"/etc/passwd\"", "there is no store /etc/passwd"},
		{4096, 4096, 0, "},{\"base_host_virt_addr\":4096,\"size\":8192,\"offset\":0", "overlap"},
	};

	START(NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++, n++) {
		const char *text = region(cases[i].addr, cases[i].size, cases[i].offset, cases[i].more);

		objects[n] = open_object(true);
		fds[n] = connect_to_manager();
		send_with_fd(fds[n], text, strlen(text), objects[n]);
		is_refused(fds[n], cases[i].words);
		close(objects[n]);
	}
	all_is_well();
}

TEST(a_descriptor_must_be_a_userfaultfd, "No descriptor, or one of anything else, is refused with a reason.")
{
	int pair[2], pipes[2], objects[16], n = 0;

	START(NULL);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CHECK_EQ(pipe(pipes), 0);
	objects[n++] = -1;
	objects[n++] = pipes[0];
	objects[n++] = pipes[1];
	objects[n++] = pair[0];
	objects[n++] = socket(AF_UNIX, SOCK_DGRAM, 0);
	objects[n++] = socket(AF_UNIX, SOCK_STREAM, 0);
	objects[n++] = open("/dev/zero", O_RDWR);
	objects[n++] = open(manager.log, O_RDONLY);
	objects[n++] = open("/", O_RDONLY | O_DIRECTORY);
	objects[n++] = open("/", O_PATH);
	objects[n++] = eventfd(0, 0);
	objects[n++] = memfd_create("none", 0);
	objects[n++] = (int)syscall(SYS_pidfd_open, getpid(), 0);
	objects[n++] = open_object(false);
	for (int i = 0; i < n; i++) {
		const char *text = region(4096, 4096, 0, "");
		int fd = connect_to_manager();

		send_with_fd(fd, text, strlen(text), objects[i]);
		is_refused(fd, i ? "error " : "error no descriptor came with it");
	}
	all_is_well();
}

static void send_many(int fd, const char *text, const int *fds, size_t count)
{
	char control[CMSG_SPACE(253 * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};
	struct msghdr message = {.msg_iov = &piece,
	                         .msg_iovlen = 1,
	                         .msg_control = control,
	                         .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(head), fds, count * sizeof(int));
	CHECK_EQ(sendmsg(fd, &message, MSG_NOSIGNAL), piece.iov_len);
}

TEST(descriptors_beyond_the_first_are_closed,
     "Of hundreds of descriptors one is taken, and those that come later are closed.")
{
	int fds[253], object, fd;

	START(NULL);
	object = open_object(true);
	for (unsigned i = 0; i < 253; i++)
		fds[i] = object;
	fd = connect_to_manager();
	send_many(fd, "\n", fds, 253);
	send_many(fd, " ", fds, 253);
	send_many(fd, good_region(), fds, 2);
	hears(fd, "ok");
	/* The connection, the object, the book, and no more. */
	CHECK_EQ(manager_descriptors(&manager), before + 3);
	for (unsigned i = 0; i < 100; i++)
		send_many(fd, " ", fds, 253);
	send_text(fd, "{\"size\":\"default\"}");
	hears(fd, "ok 4194304");
	CHECK_EQ(manager_descriptors(&manager), before + 3);
	close(fd);
	munmap(memory, 64 * 4096);
	close(object);
	/* This process lives, and so does the client. */
	good_is_served();
	CHECK_EQ(manager_number(&manager, "clients"), 2);
}

TEST(a_descriptor_that_blocks_holds_up_nobody, "A client whose descriptor was, or is made, blocking is served, and so "
                                               "are the others, without the manager turning in circles.")
{
	struct peer peer;

	START("--workers", "1");
	peer_start(&peer);
	EXPECT(&peer, "0", "map private 64");
	EXPECT(&peer, "done", "blocking");
	EXPECT(&peer, "done", "connect %s", manager.socket);
	EXPECT(&peer, "done", "give {\"regions\":[{\"base_host_virt_addr\":@0,\"size\":262144,\"offset\":0}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 0 1 1 1");
	for (unsigned i = 0; i < 5; i++) {
		EXPECT(&peer, "done", "blocking");
		good_is_served();
		EXPECT(&peer, "yes", "is 0 %u 1 %u", 10 + 10 * i, 10 + 10 * i);
		good_is_served();
	}
	peer_kill(&peer);
	all_is_well();
}

TEST(answers_that_nobody_reads_end_the_conversation,
     "A client that asks without end and reads nothing is hung up on; the others are served.")
{
	static char many[65536];
	size_t len = 0;
	int fd;

	START("--workers", "1");
	while (len + 32 < sizeof(many))
		len += (size_t)sprintf(many + len, "{\"size\":\"default\"}\n");
	fd = connect_to_manager();
	/* It ends by EPIPE. */
	while (send(fd, many, len, MSG_NOSIGNAL) > 0)
		good_is_served();
	close(fd);
	all_is_well();
}

TEST(connections_without_end_hold_up_nobody,
     "Who connects and goes, with and without a word, a thousand times leaves nothing behind.")
{
	time_t began = time(NULL), seconds;

	START("--max-clients", "16");
	for (unsigned i = 0; i < 1000; i++) {
		int fd = connect_to_manager();

		if (i % 3)
			send_text(fd, i % 3 == 1 ? "{\"size\":\"default\"}" : "{\"regi");
		if (i % 5 == 0)
			good_is_served();
		close(fd);
	}
	all_is_well();
	/* Nor is each of them written about: there are two processes, and the second that it began in and the last one. */
	seconds = time(NULL) - began + 2;
	CHECK(manager_logged(&manager, "", NULL) < 3 * LOG_SPARINGLY * seconds);
}

TEST(clients_are_counted, "With as many clients as there may be, the next is told so; when one has gone there is room.")
{
	int fds[3], fd;

	START("--max-clients", "4", "--handover-timeout", "3600");
	for (unsigned i = 0; i < 3; i++) {
		fds[i] = connect_to_manager();
		send_text(fds[i], "{\"size\":\"default\"}");
		hears(fds[i], "ok");
	}
	fd = connect_to_manager();
	is_refused(fd, "error there are too many clients");
	manager_wait(&manager, "there are too many clients", 1);
	close(fds[0]);
	UNTIL(manager_number(&manager, "clients") == 3);
	UNTIL((fd = connect_to_manager(), send_text(fd, "{\"size\":\"default\"}"), !strncmp(hear(fd), "ok", 2)) ||
	      close(fd));
	close(fd);
	close(fds[1]);
	close(fds[2]);
	all_is_well();
}

TEST(regions_are_counted,
     "With as many regions as a client may have, more are refused as a whole, and those it has are served.")
{
	struct peer peer;

	START("--max-regions", "2");
	peer_start(&peer);
	peer_give(&peer, &manager, 8, 0);
	EXPECT(&peer, "1", "map private 8");
	EXPECT(&peer, "2", "map private 8");
	EXPECT(&peer, "done",
	       "send {\"regions\":[{\"base_host_virt_addr\":@1,\"size\":32768,\"offset\":0},"
	       "{\"base_host_virt_addr\":@2,\"size\":32768,\"offset\":0}]}");
	CHECK(strstr(peer_say(&peer, "answer"), "too many regions"));
	EXPECT(&peer, "done", "send {\"regions\":[{\"base_host_virt_addr\":@2,\"size\":32768,\"offset\":0}]}");
	EXPECT(&peer, "ok", "answer");
	EXPECT(&peer, "yes", "is 2 3 1 3");
	EXPECT(&peer, "yes", "is 0 3 1 3");
	peer_kill(&peer);
	all_is_well();
}

TEST(users_are_let_in_by_name, "With --allow-uid others than those users are told that they may not, and may not.")
{
	const struct passwd *nobody = getpwnam("nobody");
	char store[128];
	int status;

	CHECK(nobody);
	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, PAGES));
	MANAGER(&manager, "--store", store, "--allow-uid", "nobody");
	is_refused(connect_to_manager(), "error this user may not hand over here");
	/* The file's mode does not let others in, nor the folder's. */
	CHECK_EQ(chmod(manager.socket, 0666), 0);
	CHECK_EQ(chmod(test_folder(), 0711), 0);
	if (!fork()) {
		int fd;

		CHECK_EQ(setuid(nobody->pw_uid), 0);
		fd = connect_to_manager();
		send_text(fd, "{\"size\":\"default\"}");
		hears(fd, "ok 4194304");
		_exit(0);
	}
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
	manager_wait(&manager, "uid 0: refused: this user may not hand over here", 1);
}

TEST(users_have_their_share,
     "A user who has as many clients as one may is told so; others find room, and so does he when one has gone.")
{
	const struct passwd *nobody = getpwnam("nobody");
	int fds[2], fd, status;

	CHECK(nobody);
	/* The one that is served is the first. */
	START("--max-clients-of-user", "3", "--handover-timeout", "3600");
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = connect_to_manager();
		send_text(fds[i], "{\"size\":\"default\"}");
		hears(fds[i], "ok");
	}
	is_refused(connect_to_manager(), "error this user has too many clients");
	manager_wait(&manager, "uid 0: refused: this user has too many clients", 1);
	CHECK_EQ(chmod(manager.socket, 0666), 0);
	CHECK_EQ(chmod(test_folder(), 0711), 0);
	if (!fork()) {
		CHECK_EQ(setuid(nobody->pw_uid), 0);
		fd = connect_to_manager();
		send_text(fd, "{\"size\":\"default\"}");
		hears(fd, "ok 4194304");
		_exit(0);
	}
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
	close(fds[0]);
	UNTIL((fd = connect_to_manager(), send_text(fd, "{\"size\":\"default\"}"), !strncmp(hear(fd), "ok", 2)) ||
	      close(fd));
	close(fd);
	close(fds[1]);
	all_is_well();
}

TEST(floods_of_layout_events_hold_up_nobody, "Clients that give pages back and touch them without end, in several "
                                             "threads each, slow another down, and do not stop it.")
{
	struct peer floods[3];

	START("--workers", "1");
	for (unsigned i = 0; i < 3; i++) {
		peer_start(&floods[i]);
		peer_give(&floods[i], &manager, 256, 0);
		for (unsigned k = 0; k < 2; k++)
			EXPECT(&floods[i], "done", "flood 0 256");
	}
	for (unsigned i = 0; i < 20; i++)
		good_is_served();
	for (unsigned i = 0; i < 3; i++)
		peer_kill(&floods[i]);
	all_is_well();
}

TEST(another_process_may_hand_over_what_is_not_its_own,
     "A descriptor of another process's object is served as that process's.")
{
	int fd, object, status;
	pid_t child;

	START(NULL);
	object = open_object(true);
	fd = connect_to_manager();
	child = fork();
	if (!child) {
		const char *text = good_region();

		send_with_fd(fd, text, strlen(text), object);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	hears(fd, "ok");
	CHECK(memory[5 * 4096] == memory[5 * 4096]);
	good_is_served();
}

TEST(the_same_object_twice_harms_nobody_else, "One object handed over on two connections is its owner's trouble alone.")
{
	int first, second, object;
	const char *text;

	START(NULL);
	object = open_object(true);
	text = good_region();
	first = connect_to_manager();
	second = connect_to_manager();
	send_with_fd(first, text, strlen(text), object);
	send_with_fd(second, text, strlen(text), object);
	hears(first, "ok");
	hears(second, "ok");
	for (unsigned i = 0; i < 64; i++) {
		madvise(memory, 64 * 4096, MADV_DONTNEED);
		(void)*(volatile char *)(memory + i * 4096);
	}
	good_is_served();
	CHECK_EQ(manager_number(&manager, "worker_restarts"), 0);
}

TEST(a_conversation_may_end_anywhere, "A client that closes at any byte of a handover leaves nothing behind.")
{
	const char *text;
	size_t len;

	START(NULL);
	close(open_object(true));
	text = good_region();
	len = strlen(text);
	for (size_t i = 1; i <= len; i += 3) {
		/* Of a process that ends, so that what was handed over ends too. */
		pid_t child = fork();

		if (!child) {
			int object = open_object(true), fd = connect_to_manager();

			send_with_fd(fd, text, i, object);
			_exit(0);
		}
		CHECK_EQ(waitpid(child, NULL, 0), child);
	}
	all_is_well();
}
