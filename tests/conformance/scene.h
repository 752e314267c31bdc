/* SPDX-License-Identifier: MIT */
/*
 * scene.h - a request, memory on which it can succeed, and its argument built field by field
 *
 * What holds for several requests is written once against this and becomes a named test for each of them.
 *
 *	struct scene scene = scene_set(&request_copy, 4, 0);   four missing pages, registered; features beside the needed
 *	scene_fill(&scene, 1, 2, 0);                           argument: pages 1 and 2, mode 0
 *	CHECK_EQ(scene_issue(&scene), 0);                      through uf_ioctl()
 *	CHECK_EQ(scene_result(&scene), 2 * page_size);
 */
#ifndef CONFORMANCE_SCENE_H
#define CONFORMANCE_SCENE_H

#include <stdbool.h>

#include "conformance/engine.h"
#include "support/memory.h"

struct request {
	const char *name;
	unsigned long nr;
	uint64_t feature; /* that offers it, or 0 */
	uint64_t register_mode;
	uint64_t mode;     /* a valid mode, to be ORed in */
	uint64_t dontwake; /* the mode bit, or 0 */
	enum memory_source source;
	int start, len;                 /* offsets of the fields in the argument */
	int mode_at, result_at, src_at; /* the same, or -1 */
};

extern const struct request request_register, request_unregister, request_copy, request_zeropage, request_continue,
	request_move, request_poison, request_writeprotect, request_wake;

/* All of them, ended by NULL. */
extern const struct request *const all_requests[];

struct scene {
	const struct request *request;
	struct uf *uf;
	struct memory memory;
	char *src; /* pages that hold their pattern(): the source of copy and move, the file's pages of continue */
	union {
		char bytes[64];
		uint64_t align;
	} arg;
};

/* Memory of so many pages, registered as the request needs it (for REGISTER itself: not yet), all missing. */
struct scene scene_set(const struct request *request, size_t pages, uint64_t features);

/* The argument for `pages` pages from page `first` on. */
void scene_fill(struct scene *scene, size_t first, size_t pages, uint64_t mode);

void scene_put(struct scene *scene, int offset, uint64_t value);
uint64_t scene_get(const struct scene *scene, int offset);

int scene_issue(struct scene *scene);
int64_t scene_result(const struct scene *scene);

/* The same request through its uf_*() function. Only of the five that deliver pages. */
ssize_t scene_deliver(struct scene *scene, size_t first, size_t pages, uint64_t mode);

/* Page `page` is there, put there by whatever can; and whether it is: it has to be afterwards. */
void scene_make_present(struct scene *scene, size_t page);
bool scene_take_missing(struct scene *scene, size_t page);

char *scene_page(const struct scene *scene, size_t page);

/* The access to a delivered page gives what was delivered: its pattern, zeros, or SIGBUS (needs catch_signals()). */
struct outcome;
void scene_check_outcome(const struct scene *scene, size_t page, const struct outcome *outcome);

/* REGISTER the range with the mode; must succeed. */
void registered(struct uf *uf, void *addr, size_t len, uint64_t mode);

#endif
