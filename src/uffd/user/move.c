// SPDX-License-Identifier: MIT
/*
 * UFFDIO_MOVE, by content: the kernel offers no way to put a page under another address that leaves both mappings whole.
 *
 * The source is write-protected first, so that no write to it can be lost; then the destination is filled and shown; then the source
 * is emptied. A thread that writes to the source meanwhile traps, waits for the lock, and finds it empty, as after the kernel's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rawsys.h"
#include "uffd/user/deliver.h"
#include "uffd/user/window.h"

/* Pages that go in one step. */
#define RUN 64

static _Atomic bool moved;

bool user_deliver_has_moved(void)
{
	return atomic_load(&moved);
}

struct source {
	struct user_range *range; /* NULL: nothing is registered there */
	int prot;
	int pagemap;
};

#define PRESENT   ((uint64_t)1 << 63)
#define SWAPPED   ((uint64_t)1 << 62)
#define GUARD     ((uint64_t)1 << 58)
#define EXCLUSIVE ((uint64_t)1 << 56)

/* The source lies in one mapping, of the same kind and protection as the destination. */
static int find_source(struct source *source, uint64_t start, size_t len, const struct user_memory *dst)
{
	struct user_memory piece;
	int count;

	source->range = user_space_at(start);
	if (source->range) {
		piece = source->range->memory;
		if (piece.end - start < len)
			return -EINVAL;
	} else {
		if (user_space_in(start, start + len))
			return -EINVAL;
		count = user_memory_inspect(start, start + len, true, &piece, 1);
		if (!count)
			return -ENOENT;
		if (count < 0 || piece.start != start || piece.end != start + len)
			return -EINVAL;
	}
	if (piece.shared || piece.type != UF_MEMORY_ANON || piece.prot != dst->prot || !(piece.prot & PROT_WRITE))
		return -EINVAL;
	if (!source->range)
		atomic_store(&moved, true);
	source->prot = piece.prot;
	source->pagemap = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return source->pagemap < 0 ? source->pagemap : 0;
}

static bool is_zero(uint64_t page, size_t len)
{
	const uint64_t *words = (const uint64_t *)(uintptr_t)page;

	for (size_t i = 0; i < len / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/* 0: there is a page to move; -ENOENT: a hole; -EBUSY: it is shared since a fork; -EFAULT: it is poisoned. */
static int judge_source(const struct source *source, uint64_t page, size_t page_size)
{
	uint8_t state = source->range ? *user_page_state(source->range, page) : 0;
	uint64_t entry;

	if (state & USER_PAGE_POISONED)
		return -EFAULT;
	/* Nobody can read it where it is. */
	if (state & USER_PAGE_READY)
		return -EBUSY;
	if (state & USER_PAGE_HIDDEN)
		return -ENOENT;
	if (raw_pread(source->pagemap, &entry, sizeof(entry), page / page_size * sizeof(entry)) != sizeof(entry))
		return -EIO;
	if ((entry & SWAPPED) && (entry & GUARD))
		return -ENOENT;
	if (!(entry & (PRESENT | SWAPPED)))
		return -ENOENT;
	/* The page of zeros is everybody's, and movable. */
	if ((entry & PRESENT) && !(entry & EXCLUSIVE) && !is_zero(page, page_size))
		return -EBUSY;
	return 0;
}

static bool is_free(struct user_range *dst, uint64_t page)
{
	return (*user_page_state(dst, page) &
	        (USER_PAGE_HIDDEN | USER_PAGE_POISONED | USER_PAGE_PROTECTED | USER_PAGE_READY)) == USER_PAGE_HIDDEN;
}

/* After its content has gone: empty as after MADV_DONTNEED, and missing again if it is registered so. */
static void empty_source(const struct source *source, uint64_t start, size_t len)
{
	struct user_range *range = source->range;

	if (range && (range->mode & UFFDIO_REGISTER_MODE_MISSING) && !user_space_hide(range, start, start + len))
		return;
	raw_madvise(start, len, MADV_DONTNEED);
	raw_mprotect(start, len, source->prot);
	if (range)
		memset(user_page_state(range, start), 0, len / range->memory.page_size);
}

/* Pages that are all there, to pages that are all free. */
static int move_run(struct user_range *dst, uint64_t to, const struct source *source, uint64_t from, size_t len)
{
	const struct user_memory *memory = &dst->memory;
	int err = raw_mprotect(from, len, source->prot & ~PROT_WRITE);

	if (!err) {
		user_window_close(to, to + len);
		err = user_memory_open(memory, to, len);
	}
	if (!err) {
		err = user_memory_write(memory, to, (const void *)(uintptr_t)from, len);
		if (err)
			user_memory_shut(memory, to, len);
	}
	if (!err)
		err = user_deliver_publish(dst, to, len, false);
	if (err)
		raw_mprotect(from, len, source->prot);
	else
		empty_source(source, from, len);
	return err;
}

/* How many bytes are alike: all to be moved, or all holes. *hole tells which. An error stands for the first page. */
static size_t alike(struct user_range *dst, uint64_t to, const struct source *source, uint64_t from, size_t len,
                    bool *hole, int *err)
{
	size_t page_size = dst->memory.page_size, done = 0;

	for (; done < len && done < RUN * page_size; done += page_size) {
		int judged = is_free(dst, to + done) ? judge_source(source, from + done, page_size) : -EEXIST;

		if (!done) {
			*hole = judged == -ENOENT;
			*err = *hole ? 0 : judged;
		}
		if ((judged && judged != -ENOENT) || *hole != (judged == -ENOENT))
			break;
	}
	return done;
}

size_t user_deliver_move(uint64_t to, uint64_t from, size_t len, bool allow_holes, int *err)
{
	struct user_range *dst = user_space_at(to);
	struct source source = {.pagemap = -1};
	size_t done = 0;

	if (!dst || !dst->object) {
		struct user_memory piece;

		*err = user_memory_inspect(to, to + len, true, &piece, 1) == 0 ? -ENOENT : -EINVAL;
		return 0;
	}
	if (dst->memory.shared || dst->memory.type != UF_MEMORY_ANON || dst->memory.end - to < len)
		*err = -EINVAL;
	else
		*err = find_source(&source, from, len, &dst->memory);
	while (!*err && done < len) {
		bool hole = false;
		size_t step = alike(dst, to + done, &source, from + done, len - done, &hole, err);

		if (!*err && hole && !allow_holes)
			*err = -ENOENT;
		else if (!*err && !hole)
			*err = move_run(dst, to + done, &source, from + done, step);
		if (!*err)
			done += step;
	}
	if (source.pagemap >= 0)
		raw_close(source.pagemap);
	return done;
}
