// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "support/proxy.h"
#include "support/test.h"

/* A connection that is passed on, by two threads. */
struct pair {
	struct proxy *proxy;
	int fds[2];
	_Atomic int64_t left; /* bytes until it is cut */
	_Atomic unsigned threads;
	uint64_t random;
};

struct direction {
	struct pair *pair;
	int from;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void cut(struct pair *pair)
{
	struct linger reset = {.l_onoff = 1};

	if (pair->random % 2)
		for (int i = 0; i < 2; i++)
			setsockopt(pair->fds[i], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	shutdown(pair->fds[0], SHUT_RDWR);
	shutdown(pair->fds[1], SHUT_RDWR);
}

static void *pass_on(void *arg)
{
	struct direction *direction = arg;
	struct pair *pair = direction->pair;
	int from = pair->fds[direction->from], to = pair->fds[!direction->from];
	uint64_t random = pair->random + (uint64_t)direction->from;
	char bytes[16384];
	ssize_t got;

	while ((got = recv(from, bytes, sizeof(bytes), 0)) > 0) {
		int64_t left = INT64_MAX;

		if (!atomic_load(&pair->proxy->calm))
			left = atomic_fetch_sub(&pair->left, got);
		if (next_random(&random) % 64 == 0)
			nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(&random) % 2000000)}, NULL);
		if (left > 0 && send(to, bytes, (size_t)(left < got ? left : got), MSG_NOSIGNAL) < 0)
			break;
		if (left <= got) {
			if (left > 0)
				atomic_fetch_add(&pair->proxy->cuts, 1);
			cut(pair);
			break;
		}
	}
	/* An end is passed on too. */
	shutdown(to, SHUT_WR);
	if (atomic_fetch_sub(&pair->threads, 1) == 1) {
		close(pair->fds[0]);
		close(pair->fds[1]);
		free(pair);
	}
	free(direction);
	return NULL;
}

static int64_t choose(struct proxy *proxy, uint64_t *random)
{
	uint64_t most = atomic_load(&proxy->most), value = next_random(random);

	most = most ? most : 1 << 20;
	switch (next_random(random) % 4) {
	case 0:
		return (int64_t)(value % 300) + 1;
	case 1:
		return (int64_t)(value % 20000) + 1;
	default:
		return (int64_t)(value % most) + 1;
	}
}

static void start_pair(struct proxy *proxy, int client, const struct sockaddr_in *to, uint64_t *random)
{
	int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	struct pair *pair = calloc(1, sizeof(*pair));

	CHECK(pair && server >= 0);
	if (connect(server, (const struct sockaddr *)to, sizeof(*to))) {
		close(server);
		close(client);
		free(pair);
		return;
	}
	*pair = (struct pair){.proxy = proxy, .fds = {client, server}, .threads = 2, .random = next_random(random)};
	atomic_store(&pair->left, choose(proxy, random));
	for (int i = 0; i < 2; i++) {
		struct direction *direction = malloc(sizeof(*direction));
		pthread_t thread;

		CHECK(direction);
		*direction = (struct direction){pair, i};
		setsockopt(pair->fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		CHECK_EQ(pthread_create(&thread, NULL, pass_on, direction), 0);
		pthread_detach(thread);
	}
}

struct proxy *proxy_start(const char *address, uint64_t seed)
{
	struct proxy *proxy = mmap(NULL, sizeof(*proxy), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, to = at;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(at);
	uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;

	CHECK(proxy != MAP_FAILED && listener >= 0);
	to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	CHECK_EQ(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(listen(listener, 16), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	snprintf(proxy->address, sizeof(proxy->address), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			int client = accept(listener, NULL, NULL);

			if (client >= 0)
				start_pair(proxy, client, &to, &random);
		}
	}
	close(listener);
	return proxy;
}
