// SPDX-License-Identifier: MIT
/* Flushes of a file whose disk fails: a filter stands for the kernel, which tells of a failure once. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <userfault/store.h>

#include "support/folder.h"
#include "support/test.h"

static char last_cause[1024];

/* Several threads of the store may fail at once. */
static void note_cause(void *arg, const char *cause)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	(void)arg;
	pthread_mutex_lock(&lock);
	snprintf(last_cause, sizeof(last_cause), "%s", cause);
	pthread_mutex_unlock(&lock);
}

static struct uf_store *open_store(unsigned attempts)
{
	struct uf_store_options opts = {
		.size = sizeof(opts), .attempts = attempts, .pause_ms = 1, .failed = note_cause};
	const char *path = in_folder("file");
	struct uf_store *store;
	char uri[100];
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 4096), 0);
	close(fd);
	snprintf(uri, sizeof(uri), "file:%s", path);
	CHECK_EQ(uf_store_open(&store, uri, &opts, NULL, 0), 0);
	CHECK_EQ(uf_store_write(store, "written", 7, 0), 0);
	return store;
}

static int answers[4]; /* to one call after the other; 0 to all further ones */
static int listener = -1;

static void *answer(void *arg)
{
	struct seccomp_notif *request;
	struct seccomp_notif_resp *response;

	(void)arg;
	CHECK_EQ(seccomp_notify_alloc(&request, &response), 0);
	for (unsigned call = 0;; call++) {
		memset(request, 0, sizeof(*request));
		CHECK_EQ(seccomp_notify_receive(listener, request), 0);
		memset(response, 0, sizeof(*response));
		response->id = request->id;
		response->error = call < sizeof(answers) / sizeof(answers[0]) ? answers[call] : 0;
		CHECK_EQ(seccomp_notify_respond(listener, response), 0);
	}
	return NULL;
}

/* From here on fdatasync(2) of this thread, and of those that it starts, answers so. */
static void answer_with(int first, int second)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	pthread_t thread;
	int err;

	CHECK(filter);
	answers[0] = first;
	answers[1] = second;
	CHECK_EQ(seccomp_rule_add(filter, SCMP_ACT_NOTIFY, SCMP_SYS(fdatasync), 0), 0);
	err = seccomp_load(filter);
	if (err)
		SKIP("no filter that tells of calls: %s", strerror(-err));
	listener = seccomp_notify_fd(filter);
	CHECK(listener >= 0);
	CHECK_EQ(pthread_create(&thread, NULL, answer, NULL), 0);
}

TEST(failed_once, "After a flush that failed none succeeds, though the kernel takes what it has lost for written.")
{
	struct uf_store *store = open_store(1);

	answer_with(-EIO, 0);
	CHECK_EQ(uf_store_flush(store), -EIO);
	CHECK_EQ(uf_store_flush(store), -EIO);
	CHECK(strstr(last_cause, "may be lost"));
	CHECK_EQ(uf_store_write(store, "again", 5, 0), 0);
	CHECK_EQ(uf_store_flush(store), -EIO);
	uf_store_close(store);
}

TEST(attempts, "Nor does another attempt of the same flush.")
{
	struct uf_store *store = open_store(3);

	answer_with(-ENOMEM, 0);
	CHECK_EQ(uf_store_flush(store), -ENOMEM);
	uf_store_close(store);
}

static void set_done(struct uf_store_request *request)
{
	*(int *)request->user = request->result;
}

TEST(in_background, "Nor one in the background, which is as good as any other.")
{
	int first = 1, second = 1;
	struct uf_store_request requests[] = {
		{.action = UF_STORE_FLUSH, .done = set_done, .user = &first},
		{.action = UF_STORE_FLUSH, .done = set_done, .user = &second},
	};
	struct uf_store *store = open_store(2);

	answer_with(-EIO, 0);
	CHECK_EQ(uf_store_submit(store, &requests[0]), 0);
	CHECK_EQ(uf_store_submit(store, &requests[1]), 0);
	uf_store_close(store);
	CHECK_EQ(first, -EIO);
	CHECK_EQ(second, -EIO);
}

TEST(interrupted, "A flush that a signal has interrupted goes on.")
{
	struct uf_store *store = open_store(1);

	answer_with(-EINTR, 0);
	CHECK_EQ(uf_store_flush(store), 0);
	CHECK_EQ(uf_store_flush(store), 0);
	CHECK(!last_cause[0]);
	uf_store_close(store);
}
