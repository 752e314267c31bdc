// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"

static int read_text(struct model *model, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	struct stat stat_;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &stat_))
		err = -errno;
	else if (!stat_.st_size)
		err = -EINVAL;
	model->size = err ? 0 : (size_t)stat_.st_size;
	model->text = err ? MAP_FAILED : mmap(NULL, model->size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (!err && model->text == MAP_FAILED)
		err = -errno;
	close(fd);
	return err;
}

/* Where the paragraph that begins at `at` ends: with a line, unless that is far. */
static size_t end_of(const struct model *model, size_t at, size_t paragraph)
{
	size_t left = model->size - at, most = left < 2 * paragraph ? left : 2 * paragraph;
	const char *end;

	if (left <= paragraph)
		return model->size;
	end = memchr(model->text + at + paragraph, '\n', most - paragraph);
	return end ? (size_t)(end - model->text) + 1 : at + most;
}

int model_open(struct model *model, const char *path, size_t paragraph)
{
	int err;

	*model = (struct model){.text = MAP_FAILED};
	err = read_text(model, path);
	if (err)
		return err;
	model->starts = calloc(model->size / paragraph + 2, sizeof(*model->starts));
	model->which = calloc(model->size / paragraph + 2, sizeof(*model->which));
	if (!model->starts || !model->which)
		return -ENOMEM;
	for (size_t at = 0; at < model->size; at = model->starts[model->count]) {
		model->which[model->count] = (uint32_t)model->count;
		model->starts[++model->count] = end_of(model, at, paragraph);
	}
	return 0;
}

void model_close(struct model *model)
{
	if (model->text != MAP_FAILED)
		munmap(model->text, model->size);
	free(model->starts);
	free(model->which);
}

struct slice model_key(size_t key, char text[MODEL_KEY])
{
	return (struct slice){text, (size_t)snprintf(text, MODEL_KEY, "paragraph:%zu", key)};
}

struct slice model_value(const struct model *model, size_t key)
{
	size_t start = model->starts[model->which[key]];

	return (struct slice){model->text + start, model->starts[model->which[key] + 1] - start};
}

void model_digest(const struct model *model, char text[33])
{
	uint64_t digest[2] = {0, 0};
	char name[MODEL_KEY];

	for (size_t i = 0; i < model->count; i++) {
		struct slice key = model_key(i, name), value = model_value(model, i);

		table_digest_add(digest, key, value);
	}
	snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, digest[0], digest[1]);
}
