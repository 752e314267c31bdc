/* SPDX-License-Identifier: MIT */
/*
 * nbdkit.h - a real NBD server, which ends with the test
 *
 * It listens on a unix socket in the test's folder, or on a port of TCP that nobody else has; each request is in its log before it is carried
 * out, and waits there while the server is paused.
 */
#ifndef TESTS_NBDKIT_H
#define TESTS_NBDKIT_H

#include <sys/types.h>

struct nbdkit {
	pid_t pid;
	char socket[64], control[64], log[64];
	char uri[512];
	int listener; /* while one is started on TCP */
};

/* Starts it with arguments of its own, the last of which is NULL: filters, the plugin, its parameters. Returns when it answers. */
void nbdkit_start(struct nbdkit *server, const char *const argv[]);

#define NBDKIT(server, ...) nbdkit_start(server, (const char *const[]){__VA_ARGS__, NULL})

/* The same on TCP, on the port that the URI has. */
void nbdkit_start_tcp(struct nbdkit *server, const char *const argv[]);

#define NBDKIT_TCP(server, ...) nbdkit_start_tcp(server, (const char *const[]){__VA_ARGS__, NULL})

/* Kills it at once, as a crash would. It may be started again, and is found by the same URI. */
void nbdkit_kill(struct nbdkit *server);

void nbdkit_pause(const struct nbdkit *server);
void nbdkit_resume(const struct nbdkit *server);

/* How many lines of the log contain both (`also` may be NULL). */
unsigned nbdkit_logged(const struct nbdkit *server, const char *text, const char *also);

/* Waits until there are so many. */
void nbdkit_wait(const struct nbdkit *server, const char *text, unsigned count);

#endif
