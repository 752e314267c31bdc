/* SPDX-License-Identifier: MIT */
/*
 * command.h - running a program to its end and looking at what it said
 */
#ifndef TESTS_COMMAND_H
#define TESTS_COMMAND_H

struct result {
	int status; /* exit status; 128 + N for signal N */
	char out[65536];
	char err[8192];
};

/*
 * Runs argv[0] (a path, or found in PATH). output: a file for its standard output, or NULL to capture it. Returns static
 * memory, good until the next call. Fails the test when it cannot be run.
 */
const struct result *run_to(const char *output, const char *const argv[]);

#define RUN(...)            run_to(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_TO(output, ...) run_to(output, (const char *const[]){__VA_ARGS__, NULL})

/* The value of an environment variable that the build sets for the tests; fails the test without it. */
const char *from_env(const char *name);

#endif
