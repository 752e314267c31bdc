// SPDX-License-Identifier: MIT
/*
 * manager SOCKET NAME=FILE[,bad=OFFSET] ... -- COMMAND [ARGUMENT...]
 *
 * A second reader of userfault-handover(5), as plain as can be: one thread, one loop, a page a fault. It listens, runs the command with itself
 * as the manager, and exits with the command's status. A page of a store at or behind OFFSET cannot be had: it is poisoned. With
 * MANAGER_REPORT=FILE it leaves there how many clients and regions there were, and how many faults were served.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "handover/message.h"

#define STORES  16
#define CLIENTS 256

static struct store {
	const char *name;
	int fd;
	uint64_t size, bad;
} stores[STORES];

struct piece {
	uint64_t addr, end, offset;
	const struct store *store; /* NULL: zeros */
	uint32_t page_size;
	bool removed_is_store;
};

static struct client {
	int fd; /* 0: free */
	int passed;
	struct uf *uf;
	char *text;
	size_t used;
	struct handover_scan scan;
	struct piece *pieces;
	size_t count;
	uint64_t *parked; /* addresses of faults */
	size_t parked_count;
} clients[CLIENTS];

static unsigned long clients_seen, regions_seen, faults_seen;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "manager: %s: %s\n", what, strerror(errno));
	exit(99);
}

static void *grow(void *memory, size_t size)
{
	memory = realloc(memory, size ? size : 1);
	if (!memory)
		die("realloc");
	return memory;
}

static const struct store *find_store(const char *name)
{
	for (size_t i = 0; i < STORES && stores[i].name; i++)
		if (!strcmp(stores[i].name, name))
			return &stores[i];
	return NULL;
}

/*
 * What lies where.
 */

static void add_piece(struct client *client, struct piece piece)
{
	client->pieces = grow(client->pieces, (client->count + 1) * sizeof(piece));
	client->pieces[client->count++] = piece;
}

/* No piece reaches over addr afterwards. */
static void cut(struct client *client, uint64_t addr)
{
	for (size_t i = 0; i < client->count; i++) {
		struct piece behind = client->pieces[i];

		if (behind.addr >= addr || behind.end <= addr)
			continue;
		client->pieces[i].end = addr;
		behind.offset += addr - behind.addr;
		behind.addr = addr;
		add_piece(client, behind);
		return;
	}
}

static void forget(struct client *client, uint64_t begin, uint64_t end)
{
	cut(client, begin);
	cut(client, end);
	for (size_t i = 0; i < client->count;)
		if (client->pieces[i].addr >= begin && client->pieces[i].end <= end)
			client->pieces[i] = client->pieces[--client->count];
		else
			i++;
}

static void removed(struct client *client, uint64_t begin, uint64_t end)
{
	cut(client, begin);
	cut(client, end);
	for (size_t i = 0; i < client->count; i++) {
		struct piece *piece = &client->pieces[i];

		if (piece->addr >= begin && piece->end <= end && !piece->removed_is_store)
			piece->store = NULL;
	}
}

static void moved(struct client *client, uint64_t from, uint64_t to, uint64_t len)
{
	forget(client, to, to + len);
	cut(client, from);
	cut(client, from + len);
	for (size_t i = 0; i < client->count; i++) {
		struct piece *piece = &client->pieces[i];

		if (piece->addr < from || piece->end > from + len)
			continue;
		piece->addr += to - from;
		piece->end += to - from;
	}
}

/*
 * Faults.
 */

/* False: the page cannot be had. */
static bool read_page(const struct store *store, uint64_t offset, char *page, size_t size)
{
	memset(page, 0, size);
	if (!store || offset >= store->size)
		return true;
	if (offset + size > store->bad)
		return false;
	for (size_t done = 0; done < size;) {
		ssize_t got = pread(store->fd, page + done, size - done, (off_t)(offset + done));

		if (got <= 0)
			return !got;
		done += (size_t)got;
	}
	return true;
}

/* False: it has to wait for what is not read yet. */
static bool serve(struct client *client, uint64_t addr)
{
	static char page[2 << 20];

	for (size_t i = 0; i < client->count; i++) {
		const struct piece *piece = &client->pieces[i];
		uint64_t at = addr & ~(uint64_t)(piece->page_size - 1);
		void *place = (void *)(uintptr_t)at;
		ssize_t done;

		if (addr < piece->addr || addr >= piece->end)
			continue;
		if (read_page(piece->store, piece->offset + (at - piece->addr), page, piece->page_size))
			done = uf_copy(client->uf, place, page, piece->page_size, 0);
		else
			done = uf_poison(client->uf, place, piece->page_size, 0);
		if (done == -EEXIST)
			uf_wake(client->uf, place, piece->page_size);
		faults_seen += done > 0;
		return done != -EAGAIN;
	}
	return true;
}

static void park(struct client *client, uint64_t addr)
{
	client->parked = grow(client->parked, (client->parked_count + 1) * sizeof(addr));
	client->parked[client->parked_count++] = addr;
}

static void take_event(struct client *client, const struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		park(client, msg->arg.pagefault.address);
		break;
	case UFFD_EVENT_REMOVE:
		removed(client, msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_UNMAP:
		forget(client, msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_REMAP:
		moved(client, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_FORK:
		close((int)msg->arg.fork.ufd);
		break;
	}
}

static void serve_client(struct client *client)
{
	struct uffd_msg msgs[32];
	ssize_t count;
	size_t left = 0;

	while ((count = uf_read(client->uf, msgs, 32)) > 0)
		for (ssize_t i = 0; i < count; i++)
			take_event(client, &msgs[i]);
	for (size_t i = 0; i < client->parked_count; i++)
		if (!serve(client, client->parked[i]))
			client->parked[left++] = client->parked[i];
	client->parked_count = left;
}

/*
 * Clients.
 */

static void drop(struct client *client)
{
	if (client->uf)
		uf_close(client->uf);
	if (client->passed >= 0)
		close(client->passed);
	close(client->fd);
	free(client->text);
	free(client->pieces);
	free(client->parked);
	*client = (struct client){0};
}

static void answer(struct client *client, const char *line)
{
	if (send(client->fd, line, strlen(line), MSG_NOSIGNAL) < 0)
		fprintf(stderr, "manager: a client went before its answer\n");
}

/* NULL, or why not. */
static const char *take_regions(struct client *client, const struct handover_message *message)
{
	if (client->passed >= 0) {
		if (client->uf)
			return "a second descriptor";
		if (uf_adopt(&client->uf, client->passed))
			return "not a userfaultfd";
		client->passed = -1;
	}
	if (!client->uf)
		return "no descriptor was given";
	for (size_t i = 0; i < message->count; i++)
		if (!find_store(message->regions[i].store))
			return "no such store";
	for (size_t i = 0; i < message->count; i++) {
		const struct handover_region *region = &message->regions[i];

		forget(client, region->addr, region->addr + region->size);
		add_piece(client,
		          (struct piece){region->addr, region->addr + region->size, region->offset,
		                         find_store(region->store), region->page_size, region->removed_is_store});
	}
	regions_seen += message->count;
	return NULL;
}

static void take_message(struct client *client, const struct handover_message *message)
{
	char line[128], number[32] = "";
	const char *reason = NULL;

	if (message->numbered)
		snprintf(number, sizeof(number), " #%llu", (unsigned long long)message->number);
	snprintf(line, sizeof(line), "ok%s\n", number);

	if (message->kind == HANDOVER_SIZE) {
		const struct store *store = find_store(message->store);

		if (store)
			snprintf(line, sizeof(line), "ok%s %llu\n", number, (unsigned long long)store->size);
		else
			reason = "no such store";
	} else {
		reason = take_regions(client, message);
	}
	if (reason)
		snprintf(line, sizeof(line), "error%s %s\n", number, reason);
	if (message->kind != HANDOVER_ARRAY)
		answer(client, line);
}

/* False: the client is gone, or speaks another language. */
static bool take_text(struct client *client)
{
	for (;;) {
		struct handover_message message;
		char cause[200], line[220];
		ssize_t len = handover_next(&client->scan, &message, client->text, client->used, cause, sizeof(cause));

		if (len < 0 && !client->scan.array) {
			snprintf(line, sizeof(line), "error %s\n", cause);
			answer(client, line);
		}
		if (len <= 0)
			return !len;
		take_message(client, &message);
		handover_free(&message);
		client->used -= (size_t)len;
		memmove(client->text, client->text + len, client->used);
	}
}

static bool receive(struct client *client)
{
	char control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec bytes;
	struct msghdr head = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t got;

	client->text = grow(client->text, client->used + 65536);
	bytes = (struct iovec){client->text + client->used, 65536};
	got = recvmsg(client->fd, &head, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&head); c; c = CMSG_NXTHDR(&head, c)) {
		if (c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)) || client->passed >= 0)
			return false;
		memcpy(&client->passed, CMSG_DATA(c), sizeof(int));
	}
	client->used += (size_t)got;
	return take_text(client);
}

static void greet(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	for (size_t i = 0; i < CLIENTS; i++)
		if (!clients[i].fd) {
			clients[i] = (struct client){.fd = fd, .passed = -1};
			clients_seen++;
			return;
		}
	close(fd);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t len = strlen(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (len >= sizeof(address.sun_path))
		exit(99);
	memcpy(address.sun_path, path, len);
	if (path[0] == '@')
		address.sun_path[0] = 0;
	else
		unlink(path);
	if (bind(fd, (struct sockaddr *)&address,
	         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@'))) ||
	    listen(fd, 64) || (path[0] != '@' && chmod(path, 0666)))
		die(path);
	return fd;
}

/* Until the pipe, whose other end the command and its children hold open, ends or the command does. */
static void loop(int listener, int ended)
{
	for (;;) {
		struct pollfd fds[2 + 2 * CLIENTS] = {{ended, 0, 0}, {listener, POLLIN, 0}};
		bool waiting = false;

		for (size_t i = 0; i < CLIENTS; i++) {
			struct client *client = &clients[i];

			fds[2 + 2 * i] = (struct pollfd){client->fd ? client->fd : -1, POLLIN, 0};
			fds[3 + 2 * i] = (struct pollfd){client->uf ? uf_fd(client->uf) : -1, POLLIN, 0};
			waiting |= client->parked_count > 0;
		}
		if (poll(fds, 2 + 2 * CLIENTS, waiting ? 1 : -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[0].revents)
			return;
		if (fds[1].revents)
			greet(listener);
		for (size_t i = 0; i < CLIENTS; i++) {
			struct client *client = &clients[i];

			if (fds[2 + 2 * i].revents && client->fd == fds[2 + 2 * i].fd && !receive(client))
				drop(client);
			else if (client->uf && (fds[3 + 2 * i].revents || client->parked_count))
				serve_client(client);
		}
	}
}

static void open_store(struct store *store, char *spec)
{
	char *path = strchr(spec, '='), *bad;
	struct stat stat;

	if (!path)
		exit(99);
	*path++ = 0;
	bad = strstr(path, ",bad=");
	if (bad)
		*bad = 0;
	store->name = spec;
	store->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (store->fd < 0 || fstat(store->fd, &stat))
		die(path);
	store->size = (uint64_t)stat.st_size;
	store->bad = bad ? strtoull(bad + 5, NULL, 0) : UINT64_MAX;
}

static void report(void)
{
	const char *path = getenv("MANAGER_REPORT");
	FILE *file = path ? fopen(path, "w") : NULL;

	if (!file)
		return;
	fprintf(file, "clients %lu regions %lu faults %lu\n", clients_seen, regions_seen, faults_seen);
	fclose(file);
}

int main(int argc, char **argv)
{
	int ends[2], listener, at = 2, status;
	pid_t pid;

	for (; at < argc && strcmp(argv[at], "--") != 0 && at < 2 + STORES; at++)
		open_store(&stores[at - 2], argv[at]);
	if (at + 1 >= argc)
		return 99;
	listener = listen_at(argv[1]);
	if (pipe2(ends, O_CLOEXEC))
		die("pipe");
	pid = fork();
	if (!pid) {
		/* Not passed on by the command: the pipe ends with the command itself. */
		pid_t command = fork();

		if (!command) {
			close(ends[1]);
			execvp(argv[at + 1], argv + at + 1);
			die(argv[at + 1]);
		}
		while (waitpid(command, &status, 0) < 0)
			;
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	close(ends[1]);
	loop(listener, ends[0]);
	if (argv[1][0] != '@')
		unlink(argv[1]);
	while (waitpid(pid, &status, 0) < 0)
		;
	report();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}
