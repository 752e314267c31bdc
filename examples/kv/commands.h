/* SPDX-License-Identifier: MIT */
/*
 * commands.h - what each command does to the heap, and what it answers
 */
#ifndef KV_COMMANDS_H
#define KV_COMMANDS_H

#include <stdint.h>
#include <time.h>

#include "buffer.h"
#include "table.h"

/* What the commands work on. Touched by the server's thread only. */
struct kv {
	struct heap *heap; /* NULL: it has not arrived yet, and commands wait for it */
	uint64_t commands; /* executed; it goes with the heap when that moves */
	uint64_t clients;  /* connected now */
	uint64_t accepted; /* since the start of the process */
	time_t started;
	/* Adds to INFO what there is to be said of migrations. */
	void (*describe)(void *arg, struct buffer *text);
	void *arg;
};

enum command_result {
	COMMAND_DONE,  /* the reply has been added */
	COMMAND_CLOSE, /* so it has, and the connection ends behind it */
	COMMAND_EARLY, /* the heap is not here: nothing has been done, and it is to be executed when it is */
	COMMAND_MIGRATE, /* MIGRATETO: args[1] to args[4] are for struct server_options; the reply is the caller's to give */
};

/* args: one or more, outside the heap. */
enum command_result command_execute(struct kv *kv, const struct slice *args, size_t count, struct buffer *reply);

#endif
