// SPDX-License-Identifier: MIT
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <userfault/handover.h>

#include "support/test.h"

/* A peer that takes text up to the end that is given, and then says what it is told to. */
struct peer {
	const char *until;  /* what the text ends with; NULL: reads nothing */
	const char *answer; /* NULL: hangs up */
	int count;          /* how often */
	int listener;
	char name[64];
	char text[1 << 20];
	size_t used;
	int passed, descriptors;
	pthread_t thread;
};

static struct peer peer;
static struct uf_handover *handover;
static char cause[256];

static bool complete(size_t from)
{
	size_t len = strlen(peer.until);

	return peer.used - from >= len && !memcmp(peer.text + peer.used - len, peer.until, len);
}

static void take_some(int fd)
{
	char control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec bytes = {peer.text + peer.used, sizeof(peer.text) - peer.used - 1};
	struct msghdr head = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(fd, &head, 0);
	struct cmsghdr *c = CMSG_FIRSTHDR(&head);

	CHECK(got > 0);
	if (c) {
		memcpy(&peer.passed, CMSG_DATA(c), sizeof(int));
		peer.descriptors += (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	}
	peer.used += (size_t)got;
}

static void *play(void *arg)
{
	int fd = accept(peer.listener, NULL, NULL);

	(void)arg;
	CHECK(fd >= 0);
	for (int i = 0; i < peer.count; i++) {
		size_t from = peer.used;

		while (peer.until && !complete(from))
			take_some(fd);
		if (!peer.answer)
			break;
		CHECK_EQ(send(fd, peer.answer, strlen(peer.answer), MSG_NOSIGNAL), strlen(peer.answer));
	}
	close(fd);
	return NULL;
}

static void start(const char *until, const char *answer, int count)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(peer.name, sizeof(peer.name), "@userfault-test-%d", getpid());
	strcpy(address.sun_path + 1, peer.name + 1);
	peer.listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(bind(peer.listener, (struct sockaddr *)&address,
	              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(peer.name))),
	         0);
	CHECK_EQ(listen(peer.listener, 1), 0);
	peer.until = until;
	peer.answer = answer;
	peer.count = count;
	CHECK_EQ(pthread_create(&peer.thread, NULL, play, NULL), 0);
	CHECK_EQ(uf_handover_open(&handover, peer.name, cause, sizeof(cause)), 0);
}

/* Asks for a size of a peer that gives this answer. */
static int ask(const char *answer, uint64_t *size)
{
	int err;

	start("}\n", answer, 1);
	err = uf_handover_size(handover, "base", size, cause, sizeof(cause));
	pthread_join(peer.thread, NULL);
	return err;
}

TEST(size_is_asked_and_answered, "A store's size is one line each way.")
{
	uint64_t size = 0;

	CHECK_EQ(ask("ok 18446744073709551615\n", &size), 0);
	CHECK(size == UINT64_MAX);
	CHECK(!strcmp(peer.text, "{\"number\":1,\"size\":\"base\"}\n"));
	uf_handover_close(handover);
}

TEST(refusal_has_the_managers_reason,
     "A refusal is -EREMOTEIO with the manager's own words, made printable, and the connection stays of use.")
{
	uint64_t size;

	start("}\n", "error no such store: \x1b[2J\n", 2);
	CHECK_EQ(uf_handover_size(handover, "base", &size, cause, sizeof(cause)), -EREMOTEIO);
	CHECK(!strcmp(cause, "no such store: ?[2J"));
	CHECK_EQ(uf_handover_size(handover, NULL, &size, cause, sizeof(cause)), -EREMOTEIO);
	pthread_join(peer.thread, NULL);
	CHECK(strstr(peer.text, "{\"number\":2,\"size\":\"default\"}\n"));
	uf_handover_close(handover);
}

TEST(answers_have_the_number_of_their_question,
     "An answer with a number is that of the message which has it; one to an earlier message is passed over.")
{
	uint64_t size = 0;

	CHECK_EQ(ask("ok #1 4096\n", &size), 0);
	CHECK_EQ(size, 4096);
	uf_handover_close(handover);
	close(peer.listener);

	memset(&peer, 0, sizeof(peer));
	start("}\n", "error #1 never\nok #1 1\nok #2 2\n", 1);
	CHECK_EQ(uf_handover_size(handover, NULL, &size, cause, sizeof(cause)), -EREMOTEIO);
	CHECK(!strcmp(cause, "never"));
	pthread_join(peer.thread, NULL);
	/* The next message goes nowhere, and its answer is there already. */
	CHECK_EQ(uf_handover_size(handover, NULL, &size, cause, sizeof(cause)), 0);
	CHECK_EQ(size, 2);
	uf_handover_close(handover);
}

TEST(a_refusal_with_a_number_is_one, "A numbered refusal has the manager's reason without the number.")
{
	uint64_t size;

	CHECK_EQ(ask("error #1 no\n", &size), -EREMOTEIO);
	CHECK(!strcmp(cause, "no"));
	uf_handover_close(handover);
}

TEST(other_answers_end_the_connection,
     "What is no answer is -EPROTO, a hang-up -ECONNRESET, and after that every call is -EPIPE.")
{
	static const char *const answers[] = {"ok\n",     "ok \n",    "ok x\n",      "ok 1x\n",
	                                      "okay 1\n", "\n",       "error\n",     "ok 18446744073709551616\n",
	                                      "OK 1\n",   "ok 1 \n",  "ok #2 1\n",   "ok #1\n",
	                                      "ok #\n",   "ok # 1\n", "ok #1 1 2\n", "error #1\n",
	                                      "ok#1 1\n"};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		uint64_t size;

		CHECK_EQ(ask(answers[i], &size), -EPROTO);
		CHECK_EQ(uf_handover_size(handover, NULL, &size, cause, sizeof(cause)), -EPIPE);
		uf_handover_close(handover);
		close(peer.listener);
	}
}

TEST(hang_up_is_reset, "A manager that hangs up instead of answering is -ECONNRESET.")
{
	uint64_t size;

	CHECK_EQ(ask(NULL, &size), -ECONNRESET);
	CHECK_EQ(uf_handover_size(handover, NULL, &size, cause, sizeof(cause)), -EPIPE);
	uf_handover_close(handover);
}

TEST(answer_without_end_is_refused, "An answer that does not come to its end is -EPROTO.")
{
	static char endless[2000];
	uint64_t size;

	memset(endless, 'o', sizeof(endless) - 1);
	CHECK_EQ(ask(endless, &size), -EPROTO);
	uf_handover_close(handover);
}

TEST(refusal_before_the_end_is_heard, "Who refuses a message before it has read it all, and hangs up, is still heard.")
{
	static struct uf_handover_region regions[UF_HANDOVER_BATCH];

	for (size_t i = 0; i < UF_HANDOVER_BATCH; i++)
		regions[i] = (struct uf_handover_region){.addr = (void *)(i * 4096), .size = 4096, .page_size = 4096};
	start(NULL, "error not today\n", 1);
	CHECK_EQ(uf_handover_give(handover, 0, regions, UF_HANDOVER_BATCH, NULL, cause, sizeof(cause)), -EREMOTEIO);
	CHECK(!strcmp(cause, "not today"));
	pthread_join(peer.thread, NULL);
	uf_handover_close(handover);
}

TEST(regions_are_given_with_the_descriptor,
     "The descriptor goes once, with the first message; the text is as userfault-handover(5) has it.")
{
	struct uf_handover_region regions[] = {
		{.addr = (void *)0x10000, .size = 8192, .offset = 4096},
		{.addr = (void *)0x20000,
	         .size = 4096,
	         .page_size = 4096,
	         .store = "a \"b\" \\",
	         .flags = UF_HANDOVER_REMOVED_IS_STORE | UF_HANDOVER_PREFETCH},
	};
	int pipes[2];

	CHECK_EQ(pipe(pipes), 0);
	start("]}\n", "ok\n", 2);
	CHECK_EQ(uf_handover_give(handover, pipes[1], regions, 2, "me", cause, sizeof(cause)), 0);
	CHECK_EQ(uf_handover_give(handover, -1, regions, 1, NULL, cause, sizeof(cause)), 0);
	pthread_join(peer.thread, NULL);
	CHECK_EQ(peer.descriptors, 1);
	CHECK_EQ(write(peer.passed, "x", 1), 1);
	CHECK_EQ(read(pipes[0], cause, 1), 1);
	CHECK(!strcmp(
		peer.text,
		"{\"number\":1,\"name\":\"me\",\"regions\":[{\"base_host_virt_addr\":65536,\"size\":8192,\"offset\":"
		"4096},"
		"{\"base_host_virt_addr\":131072,\"size\":4096,\"offset\":0,\"page_size\":4096,"
		"\"page_size_kib\":4096,\"store\":\"a \\\"b\\\" \\\\\",\"removed\":\"store\",\"prefetch\":true}]}\n"
		"{\"number\":2,\"regions\":[{\"base_host_virt_addr\":65536,\"size\":8192,\"offset\":4096}]}\n"));
	uf_handover_close(handover);
}

TEST(many_regions_go_in_batches, "More regions than a message has go in several, each answered.")
{
	static struct uf_handover_region regions[2 * UF_HANDOVER_BATCH + 1];
	int messages = 0;

	for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++)
		regions[i] = (struct uf_handover_region){.addr = (void *)(i * 4096), .size = 4096};
	start("]}\n", "ok\n", 3);
	CHECK_EQ(uf_handover_give(handover, 0, regions, sizeof(regions) / sizeof(regions[0]), "many", cause,
	                          sizeof(cause)),
	         0);
	pthread_join(peer.thread, NULL);
	for (const char *at = peer.text; (at = strstr(at, "]}\n")); at++)
		messages++;
	CHECK_EQ(messages, 3);
	CHECK_EQ(peer.descriptors, 1);
	uf_handover_close(handover);
}

TEST(wrong_arguments_send_nothing, "What is wrong with the arguments is found before anything is sent.")
{
	struct uf_handover_region region = {.addr = (void *)4096, .size = 4096};
	char name[UF_HANDOVER_NAME_MAX + 2];
	uint64_t size;

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	start("]}\n", "ok\n", 1);
	CHECK_EQ(uf_handover_give(NULL, 0, &region, 1, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_give(handover, 0, &region, 0, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_give(handover, 0, NULL, 1, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_give(handover, 0, &region, 1, name, NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_give(handover, 0, &region, 1, "a\nb", NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_give(handover, 9999, &region, 1, "a", NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_size(handover, "", &size, NULL, 0), -EINVAL);
	CHECK_EQ(uf_handover_size(handover, "a", NULL, NULL, 0), -EINVAL);
	region.store = name;
	CHECK_EQ(uf_handover_give(handover, 0, &region, 1, NULL, NULL, 0), -EINVAL);
	region = (struct uf_handover_region){.addr = (void *)4096, .size = 4096, .flags = 1u << 31};
	CHECK_EQ(uf_handover_give(handover, 0, &region, 1, NULL, NULL, 0), -EINVAL);
	region.flags = 0;
	CHECK_EQ(uf_handover_give(handover, 0, &region, 1, NULL, NULL, 0), 0);
	pthread_join(peer.thread, NULL);
	uf_handover_close(handover);
}

TEST(no_manager_is_told_with_its_path, "Where nobody listens the cause names the socket.")
{
	CHECK_EQ(uf_handover_open(&handover, "/nowhere/manager", cause, sizeof(cause)), -ENOENT);
	CHECK(strstr(cause, "/nowhere/manager"));
	CHECK_EQ(uf_handover_open(&handover, "@userfault-test-nobody", cause, sizeof(cause)), -ECONNREFUSED);
	CHECK_EQ(uf_handover_open(&handover, "", cause, sizeof(cause)), -EINVAL);
	CHECK_EQ(uf_handover_open(&handover, "@", cause, sizeof(cause)), -EINVAL);
	CHECK_EQ(uf_handover_open(&handover, NULL, cause, sizeof(cause)), -EINVAL);
	uf_handover_close(NULL);
}
