/* SPDX-License-Identifier: MIT */
/*
 * manager.h - a real `userfault serve`, and programs that are its clients
 *
 * The manager's log goes to a file. Clients are handing.c, which does what it is told line by line, on either engine.
 */
#ifndef TESTS_MANAGER_H
#define TESTS_MANAGER_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

struct manager {
	pid_t pid;                             /* the supervisor */
	char socket[64], control[64], log[64]; /* the first two: empty, or where they are to be */
};

/*
 * Starts one with options of its own, the last of which is NULL, and returns when it serves. Its worker goes with the test too, but not with
 * the supervisor.
 */
void manager_start(struct manager *manager, const char *const options[]);

#define MANAGER(manager, ...) manager_start(manager, (const char *const[]){__VA_ARGS__, NULL})

/* SIGTERM, and its exit status. */
int manager_stop(struct manager *manager);

/* The process that serves. Waits until there is one. */
pid_t manager_worker(const struct manager *manager);

/* SIGSTOP to a process. Returns when each of its threads has stopped: until then it may still serve, or answer. */
void stop_process(pid_t pid);

/* How many lines of its log contain both (`also` may be NULL); waits until there are so many. */
unsigned manager_logged(const struct manager *manager, const char *text, const char *also);
void manager_wait(const struct manager *manager, const char *text, unsigned count);

/* The descriptors that it has open; waits until there are at most so many, and its records are free but for `clients`. */
unsigned manager_descriptors(const struct manager *manager);
void manager_settled(const struct manager *manager, unsigned descriptors, unsigned clients);

/* A number of its status, by its name in the JSON: "worker_restarts", ..., and "clients" for how many there are. */
long long manager_number(const struct manager *manager, const char *name);

/* Waits, in steps of a millisecond, until the condition holds. */
#define UNTIL(condition)             \
	do {                         \
		while (!(condition)) \
			breathe();   \
	} while (0)
void breathe(void);

/* A store: a file of so many pages, whose words follow from `seed`. Its path, good as long as in_folder()'s. */
const char *write_store(const char *name, unsigned seed, size_t pages);

/* A client. */
struct peer {
	pid_t pid; /* of the program itself, whatever has started it */
	pid_t started;
	FILE *to, *from;
	char answer[4096];
};

/* On the engine that the tests were told. */
void peer_start(struct peer *peer);

/* Tells it a line; its answer, one line as well. */
const char *peer_say(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The two halves of it, where it may take long. */
void peer_tell(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *peer_hear(struct peer *peer);

/* Its answer must be this. */
#define EXPECT(peer, answer, ...) peer_expect(__FILE__, __LINE__, peer, answer, __VA_ARGS__)
void peer_expect(const char *file, int line, struct peer *peer, const char *answer, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* Maps so many private pages and hands them over from page `from` of the store `default` on: region 0. */
void peer_give(struct peer *peer, const struct manager *manager, unsigned pages, unsigned from);

/*
 * The same from its first page on, for one that touches its pages again and again: what it removes comes from the store once more. Where the
 * manager has little patience it may take several attempts.
 */
void peer_give_again(struct peer *peer, const struct manager *manager, unsigned pages);

/* Kills it and waits for its end. */
void peer_kill(struct peer *peer);

#endif
