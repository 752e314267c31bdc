/* SPDX-License-Identifier: MIT */
/*
 * model.h - what a key-value server must hold: paragraphs of a text under numbered keys
 *
 * A key's value is always one of the paragraphs; which one, the model knows. Keys are independent of each other: different threads may use
 * different keys.
 */
#ifndef DEMO_MODEL_H
#define DEMO_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "kv/table.h"

#define MODEL_KEY 32 /* bytes of a key's name, with the zero at its end */

struct model {
	char *text;
	size_t size;
	size_t *starts;  /* of the paragraphs; count + 1 of them */
	uint32_t *which; /* the paragraph that a key holds; at first its own */
	size_t count;    /* of paragraphs, and of keys */
};

/* Whole lines of the file, of about `paragraph` bytes each. 0, -EINVAL: there is none, or what open(2) and read(2) say. */
int model_open(struct model *model, const char *path, size_t paragraph);
void model_close(struct model *model);

struct slice model_key(size_t key, char text[MODEL_KEY]);
struct slice model_value(const struct model *model, size_t key);

/* As the server's DIGEST: 32 digits and a zero. */
void model_digest(const struct model *model, char text[33]);

#endif
