// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/rawsys.h"
#include "base/thread.h"
#include "uffd/user/own.h"
#include "uffd/user/passing.h"
#include "uffd/user/service.h"

/* Monitors at a time; one more is turned away. */
#define CLIENTS USER_TRAYS

struct client {
	int socket;
	int life;
	const char *staging;
	uint32_t tray, reader;
};

struct service {
	struct user_object *object;
	struct client clients[CLIENTS];
	struct pollfd fds[1 + CLIENTS]; /* the rope, then the clients */
	size_t count;
	uint32_t last_reader;
	bool watching; /* somebody who has gone, but does not seem so, may hold an event */
};

/* Until it is looked again whether who holds an event has gone, ms. Another process may have had its memory for a moment (/proc/PID/mem). */
#define WATCH 100

int user_service_name(int bell, uint64_t features)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	uint64_t random;

	if (raw_syscall3(SYS_getrandom, (long)&random, sizeof(random), 0) != (long)sizeof(random))
		return -EIO;
	snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, SERVICE_NAME "%016llx/%016llx",
	         (unsigned long long)random, (unsigned long long)features);
	return bind(bell, (struct sockaddr *)&name,
	            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + SERVICE_NAME_LEN))
	               ? -errno
	               : 0;
}

static int set_mark(int bell, int type, pid_t pid)
{
	struct f_owner_ex mark = {type, pid};

	return fcntl(bell, F_SETOWN_EX, &mark) ? -errno : 0;
}

int user_service_mark(int bell)
{
	return set_mark(bell, F_OWNER_PID, raw_getpid());
}

bool user_service_is_gone(int bell)
{
	struct ucred maker;
	socklen_t len = sizeof(maker);
	struct f_owner_ex mark;

	/*
	 * Only whoever sees the maker of the bell, dead or alive, sees those that came from him. The maker himself may go: of a child's bell that is
	 * the parent, and the child has not marked it yet.
	 */
	return !getsockopt(bell, SOL_SOCKET, SO_PEERCRED, &maker, &len) && maker.pid > 0 &&
	       !fcntl(bell, F_GETOWN_EX, &mark) && mark.type == F_OWNER_TID && !mark.pid;
}

bool user_service_name_of(int fd, char name[SERVICE_NAME_LEN + 1])
{
	struct sockaddr_un address;
	socklen_t len = sizeof(address);

	memset(&address, 0, sizeof(address));
	if (raw_syscall3(SYS_getsockname, fd, (long)&address, (long)&len) || address.sun_family != AF_UNIX ||
	    address.sun_path[0] || memcmp(address.sun_path + 1, SERVICE_NAME, sizeof(SERVICE_NAME) - 1))
		return false;
	memcpy(name, address.sun_path + 1, SERVICE_NAME_LEN);
	name[SERVICE_NAME_LEN] = '\0';
	return true;
}

/* Maps the staging memory of a client, which must not be able to take it away again. */
static const char *map_staging(int memfd)
{
	int seals = fcntl(memfd, F_GET_SEALS);
	void *p;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || lseek(memfd, 0, SEEK_END) < (off_t)STAGING_SIZE)
		return NULL;
	p = mmap(NULL, STAGING_SIZE, PROT_READ, MAP_SHARED, memfd, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* One that nobody has, nor is to be carried out yet for somebody who has gone. */
static uint32_t free_tray(const struct service *service)
{
	uint64_t taken = 0;
	uint32_t tray;

	for (size_t i = 0; i < service->count; i++)
		taken |= (uint64_t)1 << service->clients[i].tray;
	for (tray = 0; tray < USER_TRAYS; tray++)
		if (!(taken >> tray & 1) && !user_pending_uses(&service->object->pending, tray))
			break;
	return tray;
}

/* Memory that can be written to cannot be sealed against that. Who has no such memory has not long to live. */
static bool has_life(int life)
{
	return fcntl(life, F_ADD_SEALS, F_SEAL_WRITE) && errno == EBUSY;
}

/* The monitor in the place of the last one takes that of this one. With the space's lock. */
static void close_client(struct service *service, size_t i)
{
	user_own_close(service->clients[i].socket);
	user_own_close(service->clients[i].life);
	raw_unmap((void *)service->clients[i].staging, STAGING_SIZE);
	service->count--;
	service->clients[i] = service->clients[service->count];
	service->fds[1 + i] = service->fds[1 + service->count];
}

static void let_go(struct service *service)
{
	uint32_t readers[CLIENTS];

	for (size_t i = 0; i < service->count; i++)
		readers[i] = service->clients[i].reader;
	user_pending_let_go(&service->object->pending, readers, service->count);
}

static void drop_client(struct service *service, size_t i)
{
	struct user_pending *pending = &service->object->pending;
	signal_mask before;

	user_pending_attached(pending, false);
	user_pending_forget_tray(pending, service->clients[i].tray);
	/* Nobody forks meanwhile: a child closes what is in the list, and what was closed before may by then have become the child's own. */
	before = user_space_lock();
	close_client(service, i);
	user_space_unlock(before);
	let_go(service);
	/* It may have been woken for what it never read. */
	user_pending_leave(pending);
}

static void drop_dead(struct service *service)
{
	for (size_t i = service->count; i-- > 0;) {
		struct pollfd fd = {.fd = service->clients[i].socket};

		if ((poll(&fd, 1, 0) == 1 && (fd.revents & POLLHUP)) || !has_life(service->clients[i].life))
			drop_client(service, i);
	}
}

static int admit(struct service *service, const char *staging, int life, struct service_attached *answer)
{
	answer->features = atomic_load(&service->object->features);
	answer->reader = service->last_reader + 1;
	if (!(answer->features & USER_ENABLED))
		return -EINVAL;
	answer->features &= ~USER_ENABLED;
	if (!staging || !has_life(life))
		return -EPROTO;
	answer->tray = free_tray(service);
	return answer->tray == USER_TRAYS || answer->reader == USER_READERS ? -EMFILE : 0;
}

/* The socket and the life are the service's from now on; or closed. */
static void attach(struct service *service, int socket, int memfd, int life)
{
	struct user_object *object = service->object;
	const char *staging = map_staging(memfd);
	struct service_attached answer = {0};
	struct client *client;

	drop_dead(service);
	answer.err = admit(service, staging, life, &answer);
	if (answer.err) {
		user_pass(socket, &answer, sizeof(answer), NULL, 0);
		raw_unmap((void *)staging, STAGING_SIZE);
		raw_close(socket);
		raw_close(life);
		return;
	}
	service->last_reader = answer.reader;
	client = &service->clients[service->count];
	*client = (struct client){user_own(socket), user_own(life), staging, answer.tray, answer.reader};
	service->fds[1 + service->count++] = (struct pollfd){.fd = client->socket, .events = POLLIN};
	user_pending_attached(&object->pending, true);
	/* It is told of everything that waits. Before the answer: what it reads after that is its own. */
	let_go(service);
	user_pending_renew(&object->pending);
	service->watching = user_pending_is_held(&object->pending, answer.reader);
	if (user_pass(client->socket, &answer, sizeof(answer), (int[]){object->pending.memfd, object->pending.rope}, 2))
		drop_client(service, service->count - 1);
}

/* False: there is nothing to be received any more. */
static bool on_rope(struct service *service)
{
	int fds[3] = {-1, -1, -1};
	size_t count = 3;
	char kind;

	if (user_receive(service->object->pending.rope, &kind, sizeof(kind), fds, &count) != sizeof(kind))
		return false;
	if (kind == SERVICE_ATTACH && count == 3) {
		attach(service, fds[0], fds[1], fds[2]);
		raw_close(fds[1]);
		return true;
	}
	for (size_t i = 0; i < count; i++)
		raw_close(fds[i]);
	if (kind == SERVICE_RING)
		user_pending_ring(&service->object->pending);
	return true;
}

/* The source is an offset into the staging memory: nothing else of ours can be named. */
static int place_source(const struct client *client, struct uffdio_copy *copy)
{
	if (copy->src > STAGING_SIZE || copy->len > STAGING_SIZE - copy->src)
		return -EINVAL;
	copy->src += (uint64_t)(uintptr_t)client->staging;
	return 0;
}

static bool pass_child(struct user_object *object, const struct client *client, uint32_t number)
{
	bool there = user_pending_has_child(&object->pending, number);
	struct service_answer answer = {.err = there ? 0 : -ENOENT};
	int fd = (int)(number & ~CHILD_INHERIT);

	return !user_pass(client->socket, &answer, sizeof(answer), &fd, there);
}

static bool serve(struct service *service, const struct client *client)
{
	struct user_object *object = service->object;
	struct user_wake wake = {0};
	struct service_request request;
	struct service_answer answer = {0};
	bool sent;
	ssize_t len = recv(client->socket, &request, sizeof(request), MSG_DONTWAIT);

	if (len < 0)
		return errno == EAGAIN || errno == EINTR;
	if (len != (ssize_t)sizeof(request))
		return false;
	if (request.request == SERVICE_CHILD)
		return pass_child(object, client, (uint32_t)request.arg[0]);
	if (request.request == UFFDIO_COPY)
		answer.err = place_source(client, (struct uffdio_copy *)request.arg);
	if (!answer.err)
		answer.err = user_request(object, request.request, request.arg, &wake);
	memcpy(answer.arg, request.arg, sizeof(answer.arg));
	/*
	 * The answer first: a thread that is woken may end this process, and then it would never be given. But whoever has it must not be told of
	 * what it was about.
	 */
	if (wake.end)
		user_pending_withdraw(&object->pending, wake.start, wake.end);
	sent = send(client->socket, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(answer);
	if (wake.end)
		user_pending_wake(&object->pending, wake.start, wake.end);
	return sent;
}

/* What the thread is given; gone as soon as it has told its id. */
struct start {
	struct service *service;
	_Atomic uint32_t tid;
};

static void *run(void *arg)
{
	struct start *start = arg;
	struct service *service = start->service;

	atomic_store(&start->tid, (uint32_t)raw_gettid());
	futex_wake_in(FUTEX_PRIVATE_FLAG, &start->tid, 1);
	for (;;) {
		int ready = poll(service->fds, 1 + service->count, service->watching ? WATCH : -1);

		if (service->watching) {
			drop_dead(service);
			service->watching = user_pending_is_held(&service->object->pending, 0);
		}
		if (ready <= 0)
			continue;
		/* Readable also when it is at its end. */
		if (service->fds[0].revents && !on_rope(service) && (service->fds[0].revents & POLLHUP))
			break;
		for (size_t i = service->count; i-- > 0;)
			if (service->fds[1 + i].revents && !serve(service, &service->clients[i]))
				drop_client(service, i);
	}
	/* Nobody has the descriptor any more. */
	while (service->count)
		drop_client(service, service->count - 1);
	user_object_end(service->object);
	service->object->service = NULL;
	user_object_release(service->object);
	raw_unmap(service, sizeof(*service));
	return NULL;
}

void user_service_forget(struct user_object *object)
{
	struct service *service = object->service;

	/* The parent's monitors stay attached to the parent. */
	while (service && service->count)
		close_client(service, service->count - 1);
	raw_unmap(service, sizeof(*service));
	object->service = NULL;
}

/* Returns the id of the thread, or -errno. */
static int start(struct user_object *object)
{
	struct service *service;
	struct start start = {0};
	pthread_t thread;
	int err;

	service = mmap(NULL, sizeof(*service), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (service == MAP_FAILED)
		return -ENOMEM;
	service->object = object;
	object->service = service;
	service->fds[0] = (struct pollfd){.fd = object->pending.rope, .events = POLLIN};
	user_object_hold(object);
	start.service = service;
	err = thread_start(&thread, run, &start);
	if (err) {
		user_object_release(object);
		raw_unmap(service, sizeof(*service));
		return err;
	}
	pthread_detach(thread);
	while (!atomic_load(&start.tid))
		futex_sleep_in(FUTEX_PRIVATE_FLAG, &start.tid, 0, NULL, true);
	return (int)atomic_load(&start.tid);
}

/* The same for the one caller who is to do it; 0 for the others. */
static int start_once(struct user_object *object)
{
	bool no = false;
	int tid;

	if (atomic_load(&object->served) || !atomic_compare_exchange_strong(&object->served, &no, true))
		return 0;
	tid = start(object);
	if (tid < 0)
		atomic_store(&object->served, false);
	return tid;
}

/* The thread may have ended already, with the last bell: then there is nobody to be told. With the space's lock. */
static void mark_served(struct user_object *object, int tid)
{
	if (object->pending.bell >= 0)
		set_mark(object->pending.bell, F_OWNER_TID, tid);
}

int user_service_ensure(struct user_object *object)
{
	int tid = start_once(object);
	signal_mask before;

	if (tid <= 0)
		return tid;
	before = user_space_lock();
	mark_served(object, tid);
	user_space_unlock(before);
	return 0;
}

int user_service_start_in_child(struct user_object *object)
{
	int tid = start_once(object);

	if (tid <= 0)
		return tid;
	mark_served(object, tid);
	return 0;
}
