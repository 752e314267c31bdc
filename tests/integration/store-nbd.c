// SPDX-License-Identifier: MIT
/* Stores on an NBD server, which is a real one. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <userfault/store.h>

#include "command.h"
#include "conditions.h"
#include "module-dir.h"
#include "nbdkit.h"
#include "support/folder.h"
#include "support/test.h"

#define MIB (1 << 20)

static struct nbdkit server;
static pthread_mutex_t cause_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_cause[1024]; /* with the lock while there are requests */
static _Atomic unsigned causes;
static const char *fault; /* a file: while it is there the server fails */

static void note_cause(void *arg, const char *cause)
{
	(void)arg;
	pthread_mutex_lock(&cause_lock);
	snprintf(last_cause, sizeof(last_cause), "%s", cause);
	pthread_mutex_unlock(&cause_lock);
	if (fault)
		unlink(fault);
	atomic_fetch_add(&causes, 1);
}

static struct uf_store *open_with(unsigned attempts, unsigned flags)
{
	struct uf_store_options opts = {
		.size = sizeof(opts), .attempts = attempts, .pause_ms = 1, .flags = flags, .failed = note_cause};
	struct uf_store *store;
	char cause[512] = "";
	int err = uf_store_open(&store, server.uri, &opts, cause, sizeof(cause));

	if (err)
		FAIL("%s", cause);
	return store;
}

static struct uf_store *open_store(void)
{
	return open_with(1, 0);
}

static void create(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/*
 * Requests in the background.
 */

#define MANY 64

struct request {
	struct uf_store_request request;
	char buf[4096];
};

static struct request requests[MANY];
static _Atomic unsigned completed;

static void count_done(struct uf_store_request *request)
{
	(void)request;
	atomic_fetch_add(&completed, 1);
}

static void submit(struct uf_store *store, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		requests[i].request = (struct uf_store_request){.action = UF_STORE_READ,
		                                                .buf = requests[i].buf,
		                                                .len = 4096,
		                                                .offset = i * 4096,
		                                                .done = count_done};
		CHECK_EQ(uf_store_submit(store, &requests[i].request), 0);
	}
}

static void wait_for(_Atomic unsigned *counter, unsigned count)
{
	while (atomic_load(counter) < count)
		sched_yield();
}

/* Block number i begins with i, as number of four bytes. */
static void write_numbers(struct uf_store *store)
{
	char block[4096] = {0};

	for (unsigned i = 0; i < MANY; i++) {
		memcpy(block, &i, sizeof(i));
		CHECK_EQ(uf_store_write(store, block, sizeof(block), i * sizeof(block)), 0);
	}
}

static void check_numbers(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		CHECK_EQ(requests[i].request.result, 0);
		CHECK(!memcmp(requests[i].buf, &i, sizeof(i)));
	}
}

TEST(round_trip,
     "What is written is read back, also across the end and in large pieces; flushed, it is in the server's file.")
{
	static char data[5 * MIB], back[5 * MIB];
	const char *path = in_folder("disk");
	struct uf_store *store;
	char file[100];
	int fd;

	snprintf(file, sizeof(file), "file=%s", path);
	create(path, "");
	CHECK_EQ(truncate(path, sizeof(data) + 512), 0);
	NBDKIT(&server, "file", file);
	store = open_store();
	CHECK_EQ(uf_store_size(store), sizeof(data) + 512);
	CHECK_EQ(uf_store_flags(store), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i ^ i >> 12);
	CHECK_EQ(uf_store_write(store, data, sizeof(data), 512), 0);
	CHECK_EQ(uf_store_flush(store), 0);
	CHECK(nbdkit_logged(&server, " Flush ", NULL) > 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(fd, back, sizeof(back), 512), sizeof(back));
	CHECK(!memcmp(back, data, sizeof(data)));
	memset(back, 1, sizeof(back));
	CHECK_EQ(uf_store_read(store, back, sizeof(back), 1024), 0);
	CHECK(!memcmp(back, data + 512, sizeof(data) - 512));
	for (size_t i = sizeof(data) - 512; i < sizeof(data); i++)
		CHECK_EQ(back[i], 0);
	CHECK_EQ(uf_store_read(store, back, 1, sizeof(data) + 512), -ERANGE);
	CHECK_EQ(uf_store_try_read(store, back, 1, 0), -EAGAIN);
	uf_store_close(store);
	CHECK_EQ(atomic_load(&causes), 0);
}

TEST(larger_than_a_request, "What is larger than the server takes at once is read and written all the same.")
{
	enum { LEN = 70 * MIB };
	struct uf_store *store;
	char *data = malloc(LEN), *back = malloc(LEN);

	NBDKIT(&server, "memory", "80M");
	store = open_store();
	for (size_t i = 0; i < LEN / 8; i++)
		memcpy(data + 8 * i, &i, 8);
	CHECK_EQ(uf_store_write(store, data, LEN, 4096), 0);
	requests[0].request = (struct uf_store_request){
		.action = UF_STORE_READ, .buf = back, .len = LEN, .offset = 4096, .done = count_done};
	CHECK_EQ(uf_store_submit(store, &requests[0].request), 0);
	uf_store_close(store);
	CHECK_EQ(requests[0].request.result, 0);
	CHECK(!memcmp(back, data, LEN));
}

/* Each extent from `from` to `to` is as told. */
static void check_extents(struct uf_store *store, uint64_t from, uint64_t to, int zero)
{
	struct uf_extent extent;

	for (; from < to; from += extent.len) {
		CHECK_EQ(uf_store_extent(store, from, to - from, &extent), 0);
		CHECK_EQ(extent.zero, zero);
		CHECK(extent.len >= 1 && extent.len <= to - from);
	}
}

TEST(zeros_are_known, "What the server knows to be zeros need not be read.")
{
	char data[65536];
	struct uf_store *store;

	memset(data, 1, sizeof(data));
	NBDKIT(&server, "memory", "8G");
	store = open_store();
	CHECK_EQ(uf_store_write(store, data, sizeof(data), 4 * MIB), 0);
	check_extents(store, 0, 4 * MIB, 1);
	check_extents(store, 4 * MIB, 4 * MIB + sizeof(data), 0);
	check_extents(store, 4 * MIB + sizeof(data), (uint64_t)8192 * MIB, 1);
	uf_store_close(store);
}

TEST(zeros_are_not_known, "Of a server that does not tell, or not in this protocol, nothing is known to be zeros.")
{
	struct uf_store *store;

	NBDKIT(&server, "--filter", "noextents", "memory", "8M");
	store = open_store();
	check_extents(store, 0, 8 * MIB, 0);
	uf_store_close(store);
	nbdkit_kill(&server);
	NBDKIT(&server, "--no-sr", "memory", "8M");
	store = open_store();
	check_extents(store, 0, 8 * MIB, 0);
	CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	uf_store_close(store);
}

TEST(in_flight_together, "As many requests as there are in flight at once, and closing waits for them.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	write_numbers(store);
	nbdkit_pause(&server);
	submit(store, MANY);
	nbdkit_wait(&server, " Read ", MANY);
	CHECK_EQ(completed, 0);
	nbdkit_resume(&server);
	uf_store_close(store);
	CHECK_EQ(completed, MANY);
	check_numbers(MANY);
}

TEST(any_order, "Slow answers come in any order, each to its request.")
{
	struct uf_store *store;

	NBDKIT(&server, "--filter", "delay", "memory", "1M", "rdelay=10ms");
	store = open_store();
	write_numbers(store);
	for (unsigned i = 0; i < 5; i++) {
		submit(store, MANY);
		wait_for(&completed, (i + 1) * MANY);
		check_numbers(MANY);
	}
	uf_store_close(store);
}

static struct uf_store *chained;
static unsigned links;

static void submit_next(struct uf_store_request *request)
{
	CHECK_EQ(request->result, 0);
	if (++links < 200)
		CHECK_EQ(uf_store_submit(chained, request), 0);
}

TEST(done_submits, "`done` may submit the next request.")
{
	NBDKIT(&server, "memory", "1M");
	chained = open_store();
	requests[0].request = (struct uf_store_request){
		.action = UF_STORE_READ, .buf = requests[0].buf, .len = 4096, .done = submit_next};
	CHECK_EQ(uf_store_submit(chained, &requests[0].request), 0);
	uf_store_close(chained);
	CHECK_EQ(links, 200);
}

TEST(background_writes, "Writes and flushes in the background.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	for (unsigned i = 0; i < MANY; i++) {
		memcpy(requests[i].buf, &i, sizeof(i));
		requests[i].request = (struct uf_store_request){.action = UF_STORE_WRITE,
		                                                .buf = requests[i].buf,
		                                                .len = 4096,
		                                                .offset = i * 4096,
		                                                .done = count_done};
		CHECK_EQ(uf_store_submit(store, &requests[i].request), 0);
	}
	wait_for(&completed, MANY);
	requests[0].request = (struct uf_store_request){.action = UF_STORE_FLUSH, .done = count_done};
	CHECK_EQ(uf_store_submit(store, &requests[0].request), 0);
	wait_for(&completed, MANY + 1);
	CHECK_EQ(requests[0].request.result, 0);
	CHECK(nbdkit_logged(&server, " Flush ", NULL) > 0);
	submit(store, MANY);
	uf_store_close(store);
	check_numbers(MANY);
}

TEST(several_connections, "Where the server allows it requests take turns on several connections, and elsewhere never.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	/* The further ones are made in the background. */
	while (nbdkit_logged(&server, " Read ", NULL) == nbdkit_logged(&server, " Read ", "connection=1 "))
		CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	uf_store_close(store);
	nbdkit_kill(&server);
	NBDKIT(&server, "--filter", "multi-conn", "memory", "1M", "multi-conn-mode=disable");
	store = open_store();
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	CHECK_EQ(nbdkit_logged(&server, " Connect ", NULL), 1);
	uf_store_close(store);
}

/*
 * Failures.
 */

static void start_failing(void)
{
	char file[100];

	snprintf(file, sizeof(file), "error-file=%s", in_folder("fault"));
	NBDKIT(&server, "--filter", "error", "memory", "1M", "error=EIO", "error-rate=100%", file);
}

TEST(transient_failures, "A failure that passes is tried again, and nobody but the options' function is told.")
{
	struct uf_store *store;

	start_failing();
	store = open_with(3, 0);
	write_numbers(store);
	fault = in_folder("fault");
	create(fault, "");
	CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	CHECK_EQ(atomic_load(&causes), 1);
	CHECK(strstr(last_cause, "read of 4096 bytes at 0, attempt 1 of 3: Input/output error: the server refuses it"));
	create(fault, "");
	submit(store, 1);
	uf_store_close(store);
	CHECK_EQ(atomic_load(&causes), 2);
	check_numbers(1);
}

TEST(lasting_failures, "A failure that does not pass is an error with its cause, each time it is asked for.")
{
	struct uf_store *store;

	start_failing();
	store = open_with(2, 0);
	create(in_folder("fault"), "");
	for (unsigned i = 1; i <= 2; i++) {
		CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), -EIO);
		CHECK_EQ(atomic_load(&causes), 2 * i);
	}
	CHECK(strstr(last_cause, server.uri) && strstr(last_cause, "attempt 2 of 2: Input/output error"));
	submit(store, MANY);
	wait_for(&completed, MANY);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(requests[i].request.result, -EIO);
	CHECK_EQ(atomic_load(&causes), 4 + 2 * MANY);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), -EIO);
	unlink(in_folder("fault"));
	CHECK_EQ(uf_store_write(store, "x", 1, 0), 0);
	uf_store_close(store);
}

TEST(killed_in_mid_read,
     "When the server dies, what is in flight fails with the cause; started anew, it is found again.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	nbdkit_pause(&server);
	submit(store, MANY);
	nbdkit_wait(&server, " Read ", MANY);
	nbdkit_kill(&server);
	wait_for(&completed, MANY);
	for (unsigned i = 0; i < MANY; i++)
		CHECK(requests[i].request.result < 0);
	CHECK_EQ(atomic_load(&causes), MANY);
	CHECK(strstr(last_cause, "attempt 1 of 1") && strstr(last_cause, "no connection: "));
	CHECK(uf_store_read(store, requests[0].buf, 4096, 0) < 0);
	NBDKIT(&server, "memory", "1M");
	CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	submit(store, MANY);
	uf_store_close(store);
	CHECK_EQ(completed, 2 * MANY);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(requests[i].request.result, 0);
}

TEST(restarted_in_mid_read, "Where there are attempts left, a server that is started anew goes unnoticed.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_with(1000, 0);
	nbdkit_pause(&server);
	submit(store, MANY);
	nbdkit_wait(&server, " Read ", MANY);
	nbdkit_kill(&server);
	wait_for(&causes, MANY + 1);
	CHECK_EQ(completed, 0);
	NBDKIT(&server, "memory", "1M");
	uf_store_close(store);
	CHECK_EQ(completed, MANY);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(requests[i].request.result, 0);
}

TEST(restarted_again_and_again,
     "However often the server is started anew while there are requests, each gets its own bytes.")
{
	char file[100];
	struct uf_store *store;

	snprintf(file, sizeof(file), "file=%s", in_folder("disk"));
	create(file + strlen("file="), "");
	CHECK_EQ(truncate(file + strlen("file="), MIB), 0);
	NBDKIT(&server, "file", file);
	store = open_with(1000000, 0);
	write_numbers(store);
	for (unsigned i = 1; i <= 20; i++) {
		memset(requests, 0, sizeof(requests));
		submit(store, MANY);
		if (i % 2)
			wait_for(&completed, (i - 1) * MANY + i % MANY);
		nbdkit_kill(&server);
		NBDKIT(&server, "file", file);
		wait_for(&completed, i * MANY);
		check_numbers(MANY);
	}
	uf_store_close(store);
}

TEST(further_connections_refused, "A server that says it may be several connections, and takes one, serves on that.")
{
	struct uf_store *store;

	NBDKIT(&server, "--filter", "limit", "memory", "1M", "limit=1");
	store = open_store();
	write_numbers(store);
	for (unsigned i = 1; i <= 20; i++) {
		submit(store, MANY);
		wait_for(&completed, i * MANY);
		check_numbers(MANY);
	}
	CHECK_EQ(atomic_load(&causes), 0);
	uf_store_close(store);
}

TEST(killed_without_traffic,
     "A server that dies while nothing is in flight does not disturb, nor keep a store from being closed.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	nbdkit_kill(&server);
	uf_store_close(store);
	CHECK_EQ(atomic_load(&causes), 0);
}

TEST(another_size, "An export that has another size when it is found again is not the one that was opened.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_store();
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "2M");
	/* Which connections have noticed is not known. */
	while (uf_store_read(store, requests[0].buf, 4096, 0) == 0 || !strstr(last_cause, "another size"))
		;
	CHECK(strstr(last_cause, "2097152 bytes instead of 1048576"));
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "1M");
	while (uf_store_read(store, requests[0].buf, 4096, 0))
		;
	uf_store_close(store);
}

TEST(unflushed_writes,
     "After writes that may be gone with the server no flush succeeds; after flushed ones all is well.")
{
	struct uf_store *store;

	NBDKIT(&server, "memory", "1M");
	store = open_with(1000, 0);
	CHECK_EQ(uf_store_write(store, "kept", 4, 0), 0);
	CHECK_EQ(uf_store_flush(store), 0);
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "1M");
	CHECK_EQ(uf_store_flush(store), 0);
	CHECK_EQ(uf_store_write(store, "lost", 4, 0), 0);
	uf_store_close(store);

	store = open_with(3, 0);
	CHECK_EQ(uf_store_write(store, "lost", 4, 0), 0);
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "1M");
	while (uf_store_flush(store) != -EIO)
		;
	CHECK(strstr(last_cause, "may be lost"));
	CHECK_EQ(uf_store_flush(store), -EIO);
	uf_store_close(store);
}

TEST(flush_fails, "Nor after a flush that the server could not do, of writes that it had acknowledged.")
{
	struct uf_store *store;
	char flush[200];

	fault = in_folder("fault");
	snprintf(flush, sizeof(flush), "flush=if [ -e %s ]; then echo EIO no >&2; exit 1; fi", fault);
	NBDKIT(&server, "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 0", "pwrite=cat >/dev/null",
	       flush);
	store = open_with(3, 0);
	create(fault, "");
	/* Nothing was written, so nothing is lost. */
	CHECK_EQ(uf_store_flush(store), 0);
	CHECK_EQ(atomic_load(&causes), 1);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), 0);
	create(fault, "");
	CHECK_EQ(uf_store_flush(store), -EIO);
	CHECK(strstr(last_cause, "may be lost"));
	CHECK_EQ(uf_store_flush(store), -EIO);
	uf_store_close(store);
}

TEST(cannot_flush, "A server that cannot flush never answers that what was written is durable.")
{
	struct uf_store *store;

	NBDKIT(&server, "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 3", "pwrite=cat >/dev/null");
	store = open_with(3, 0);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), 0);
	CHECK_EQ(uf_store_flush(store), -EOPNOTSUPP);
	CHECK_EQ(atomic_load(&causes), 1);
	CHECK(strstr(last_cause, "cannot flush"));
	requests[0].request = (struct uf_store_request){.action = UF_STORE_FLUSH, .done = count_done};
	CHECK_EQ(uf_store_submit(store, &requests[0].request), 0);
	uf_store_close(store);
	CHECK_EQ(requests[0].request.result, -EOPNOTSUPP);
	store = open_with(3, UF_STORE_READ_ONLY);
	CHECK_EQ(uf_store_flush(store), 0);
	uf_store_close(store);
}

TEST(read_only, "An export that is read-only makes a store that is; so does whoever asks for one.")
{
	struct uf_store *store;

	NBDKIT(&server, "--readonly", "memory", "1M");
	store = open_store();
	CHECK_EQ(uf_store_flags(store), UF_STORE_READ_ONLY);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), -EROFS);
	CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	CHECK_EQ(uf_store_flush(store), 0);
	uf_store_close(store);
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "1M");
	store = open_with(1, UF_STORE_READ_ONLY);
	CHECK_EQ(uf_store_write(store, "x", 1, 0), -EROFS);
	CHECK_EQ(uf_store_read(store, requests[0].buf, 4096, 0), 0);
	uf_store_close(store);
}

/*
 * Opening.
 */

static void check_refused(const char *uri, const char *why)
{
	struct uf_store *store;
	char cause[512] = "";

	CHECK(uf_store_open(&store, uri, NULL, cause, sizeof(cause)) < 0);
	if (!strstr(cause, why) || strchr(cause, '\n'))
		FAIL("%s: no \"%s\" in: %s", uri, why, cause);
}

TEST(open_errors, "What cannot be opened says why: no server, no such export, an empty one, a URI that is none.")
{
	char uri[200];

	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", in_folder("nothing"));
	check_refused(uri, "No such file or directory");
	check_refused("nbd+unix:///", "socket");
	check_refused("nbd+nonsense://x", "nonsense");
	NBDKIT(&server, "--filter", "exportname", "memory", "1M", "exportname=a", "exportname-strict=true");
	check_refused(server.uri, "export");
	snprintf(uri, sizeof(uri), "nbd+unix:///a?socket=%s", server.socket);
	strcpy(server.uri, uri);
	uf_store_close(open_store());
	nbdkit_kill(&server);
	NBDKIT(&server, "memory", "0");
	check_refused(server.uri, "it is empty");
}

TEST(module_does_not_load, "A module that cannot be loaded says which package is missing.")
{
	create(in_folder("libuserfault-store-nbd.so"), "not a library");
	CHECK_EQ(setenv("USERFAULT_MODULES", test_folder(), 1), 0);
	check_refused("nbd://localhost", "libnbd0");
}

TEST(module_is_missing, "Without the module it says with which package, or option, it is built.")
{
	if (access(UF_MODULE_DIR "/libuserfault-store-nbd.so", F_OK) == 0)
		hide_folder(UF_MODULE_DIR);
	CHECK_EQ(unsetenv("USERFAULT_MODULES"), 0);
	check_refused("nbd://localhost", "libnbd-dev");
	check_refused("nbd://localhost", "-Dnbd=enabled");
}

/*
 * TCP and TLS.
 */

TEST(tcp, "Over TCP; a server that is gone is an error.")
{
	struct uf_store *store;

	NBDKIT_TCP(&server, "memory", "1M");
	store = open_store();
	write_numbers(store);
	submit(store, MANY);
	wait_for(&completed, MANY);
	check_numbers(MANY);
	nbdkit_kill(&server);
	while (uf_store_read(store, requests[0].buf, 4096, 0) != -ECONNREFUSED)
		;
	uf_store_close(store);
}

static void make_certificates(void)
{
	static const char script[] =
		"cd %s && "
		"for ca in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=$ca -keyout "
		"$ca-key.pem "
		"-out $ca-cert.pem -addext basicConstraints=critical,CA:TRUE; done && "
		"openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server-key.pem -out server.csr && "
		"echo subjectAltName=IP:127.0.0.1 >server.ext && "
		"openssl x509 -req -days 9 -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -set_serial 1 "
		"-extfile server.ext -out server-cert.pem && "
		"mkdir -p trusting wary && cp ca-cert.pem trusting/ca-cert.pem && cp other-cert.pem wary/ca-cert.pem";
	char command[1024];
	const struct result *result;

	snprintf(command, sizeof(command), script, test_folder());
	result = RUN("/bin/sh", "-c", command);
	if (result->status)
		FAIL("openssl: %s", result->err);
}

TEST(tls,
     "With TLS to a server whose certificate the given authority has signed, and not to any other, nor without it.")
{
	char certificates[100], uri[512], *place;
	struct uf_store *store;

	make_certificates();
	snprintf(certificates, sizeof(certificates), "--tls-certificates=%s", test_folder());
	NBDKIT_TCP(&server, "--tls=require", certificates, "memory", "1M");
	check_refused(server.uri, "TLS");
	place = strdup(server.uri + strlen("nbd"));
	snprintf(uri, sizeof(uri), "nbds%s?tls-certificates=%s/wary", place, test_folder());
	check_refused(uri, "ertificate");
	snprintf(uri, sizeof(uri), "nbds%s?tls-certificates=%s/trusting", place, test_folder());
	strcpy(server.uri, uri);
	store = open_store();
	write_numbers(store);
	for (unsigned i = 0; i < 20; i++) {
		submit(store, MANY);
		wait_for(&completed, (i + 1) * MANY);
		check_numbers(MANY);
	}
	uf_store_close(store);
}
