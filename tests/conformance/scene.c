// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define FIELD(type, field) ((int)offsetof(struct type, field))

const struct request request_register = {
	.name = "register",
	.nr = UFFDIO_REGISTER,
	.mode = UFFDIO_REGISTER_MODE_MISSING,
	.start = FIELD(uffdio_register, range.start),
	.len = FIELD(uffdio_register, range.len),
	.mode_at = FIELD(uffdio_register, mode),
	.result_at = FIELD(uffdio_register, ioctls),
	.src_at = -1,
};

const struct request request_unregister = {
	.name = "unregister",
	.nr = UFFDIO_UNREGISTER,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.start = FIELD(uffdio_range, start),
	.len = FIELD(uffdio_range, len),
	.mode_at = -1,
	.result_at = -1,
	.src_at = -1,
};

const struct request request_copy = {
	.name = "copy",
	.nr = UFFDIO_COPY,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.dontwake = UFFDIO_COPY_MODE_DONTWAKE,
	.start = FIELD(uffdio_copy, dst),
	.len = FIELD(uffdio_copy, len),
	.mode_at = FIELD(uffdio_copy, mode),
	.result_at = FIELD(uffdio_copy, copy),
	.src_at = FIELD(uffdio_copy, src),
};

const struct request request_zeropage = {
	.name = "zeropage",
	.nr = UFFDIO_ZEROPAGE,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.dontwake = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
	.start = FIELD(uffdio_zeropage, range.start),
	.len = FIELD(uffdio_zeropage, range.len),
	.mode_at = FIELD(uffdio_zeropage, mode),
	.result_at = FIELD(uffdio_zeropage, zeropage),
	.src_at = -1,
};

const struct request request_continue = {
	.name = "continue",
	.nr = UFFDIO_CONTINUE,
	.feature = UFFD_FEATURE_MINOR_SHMEM,
	.register_mode = UFFDIO_REGISTER_MODE_MINOR,
	.dontwake = UFFDIO_CONTINUE_MODE_DONTWAKE,
	.source = MEMORY_MEMFD,
	.start = FIELD(uffdio_continue, range.start),
	.len = FIELD(uffdio_continue, range.len),
	.mode_at = FIELD(uffdio_continue, mode),
	.result_at = FIELD(uffdio_continue, mapped),
	.src_at = -1,
};

const struct request request_move = {
	.name = "move",
	.nr = UFFDIO_MOVE,
	.feature = UFFD_FEATURE_MOVE,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.dontwake = UFFDIO_MOVE_MODE_DONTWAKE,
	.start = FIELD(uffdio_move, dst),
	.len = FIELD(uffdio_move, len),
	.mode_at = FIELD(uffdio_move, mode),
	.result_at = FIELD(uffdio_move, move),
	.src_at = FIELD(uffdio_move, src),
};

const struct request request_poison = {
	.name = "poison",
	.nr = UFFDIO_POISON,
	.feature = UFFD_FEATURE_POISON,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.dontwake = UFFDIO_POISON_MODE_DONTWAKE,
	.start = FIELD(uffdio_poison, range.start),
	.len = FIELD(uffdio_poison, range.len),
	.mode_at = FIELD(uffdio_poison, mode),
	.result_at = FIELD(uffdio_poison, updated),
	.src_at = -1,
};

const struct request request_writeprotect = {
	.name = "writeprotect",
	.nr = UFFDIO_WRITEPROTECT,
	.feature = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	.start = FIELD(uffdio_writeprotect, range.start),
	.len = FIELD(uffdio_writeprotect, range.len),
	.mode_at = FIELD(uffdio_writeprotect, mode),
	.result_at = -1,
	.src_at = -1,
};

const struct request request_wake = {
	.name = "wake",
	.nr = UFFDIO_WAKE,
	.register_mode = UFFDIO_REGISTER_MODE_MISSING,
	.start = FIELD(uffdio_range, start),
	.len = FIELD(uffdio_range, len),
	.mode_at = -1,
	.result_at = -1,
	.src_at = -1,
};

const struct request *const all_requests[] = {
	&request_register, &request_unregister, &request_copy,         &request_zeropage, &request_continue,
	&request_move,     &request_poison,     &request_writeprotect, &request_wake,     NULL,
};

void registered(struct uf *uf, void *addr, size_t len, uint64_t mode)
{
	CHECK_EQ(uf_register(uf, addr, len, mode, NULL), 0);
}

struct scene scene_set(const struct request *request, size_t pages, uint64_t features)
{
	struct scene scene = {.request = request};

	need(request->feature);
	scene.uf = object(features);
	scene.memory = memory_map(request->source, pages);
	if (request->register_mode & UFFDIO_REGISTER_MODE_MINOR) {
		scene.src = memory_alias(&scene.memory);
		for (size_t i = 0; i < pages; i++)
			memset(scene.src + i * page_size, pattern(i), page_size);
	} else {
		scene.src = filled(pages);
	}
	if (request->register_mode)
		registered(scene.uf, scene.memory.at, scene.memory.len, request->register_mode);
	return scene;
}

void scene_put(struct scene *scene, int offset, uint64_t value)
{
	memcpy(scene->arg.bytes + offset, &value, sizeof(value));
}

uint64_t scene_get(const struct scene *scene, int offset)
{
	uint64_t value;

	memcpy(&value, scene->arg.bytes + offset, sizeof(value));
	return value;
}

void scene_fill(struct scene *scene, size_t first, size_t pages, uint64_t mode)
{
	const struct request *request = scene->request;

	memset(&scene->arg, 0, sizeof(scene->arg));
	scene_put(scene, request->start, (uintptr_t)scene_page(scene, first));
	scene_put(scene, request->len, pages * page_size);
	if (request->mode_at >= 0)
		scene_put(scene, request->mode_at, request->mode | mode);
	if (request->src_at >= 0)
		scene_put(scene, request->src_at, (uintptr_t)scene->src + first * page_size);
}

int scene_issue(struct scene *scene)
{
	return uf_ioctl(scene->uf, scene->request->nr, &scene->arg);
}

int64_t scene_result(const struct scene *scene)
{
	return (int64_t)scene_get(scene, scene->request->result_at);
}

ssize_t scene_deliver(struct scene *scene, size_t first, size_t pages, uint64_t mode)
{
	char *at = scene_page(scene, first), *src = scene->src + first * page_size;
	size_t len = pages * page_size;

	switch (scene->request->nr) {
	case UFFDIO_COPY:
		return uf_copy(scene->uf, at, src, len, mode);
	case UFFDIO_ZEROPAGE:
		return uf_zeropage(scene->uf, at, len, mode);
	case UFFDIO_CONTINUE:
		return uf_continue(scene->uf, at, len, mode);
	case UFFDIO_MOVE:
		return uf_move(scene->uf, at, src, len, mode);
	case UFFDIO_POISON:
		return uf_poison(scene->uf, at, len, mode);
	default:
		FAIL("%s delivers no pages", scene->request->name);
	}
}

bool scene_take_missing(struct scene *scene, size_t page)
{
	ssize_t done;

	if (scene->request->nr != UFFDIO_CONTINUE)
		return take_missing(scene->uf, scene_page(scene, page));
	done = uf_continue(scene->uf, scene_page(scene, page), page_size, UFFDIO_CONTINUE_MODE_DONTWAKE);
	if (done != -EEXIST)
		CHECK_EQ(done, page_size);
	return done != -EEXIST;
}

void scene_make_present(struct scene *scene, size_t page)
{
	CHECK(scene_take_missing(scene, page));
}

char *scene_page(const struct scene *scene, size_t page)
{
	return scene->memory.at + page * page_size;
}

void scene_check_outcome(const struct scene *scene, size_t page, const struct outcome *outcome)
{
	if (scene->request->nr == UFFDIO_POISON) {
		CHECK_EQ(outcome->signal, SIGBUS);
		/* BUS_MCEERR_AR; a kernel without CONFIG_MEMORY_FAILURE knows no such code. */
		CHECK(outcome->code == BUS_MCEERR_AR || outcome->code == BUS_ADRERR);
		CHECK_EQ((uintptr_t)outcome->addr & ~(page_size - 1), (uintptr_t)scene_page(scene, page));
		return;
	}
	CHECK_EQ(outcome->signal, 0);
	CHECK_EQ(outcome->value, scene->request->nr == UFFDIO_ZEROPAGE ? 0 : pattern(page));
}
