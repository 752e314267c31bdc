// SPDX-License-Identifier: MIT
/* Wrong arguments to every function: the documented answer, and nothing changes. */
#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <string.h>

#include <userfault/dirty.h>

#include "conformance/scene.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING

/* An answer is left alone when there is none. */
static struct uf *const untouched = (struct uf *)0x1234;

static void open_fails(const struct uf_options *opts, int err)
{
	struct uf *uf = untouched;

	CHECK_EQ(uf_open(&uf, opts), err);
	CHECK(uf == untouched);
}

TEST(bad_open_out, "uf_open(): -EINVAL without a place for the object.")
{
	CHECK_EQ(uf_open(NULL, NULL), -EINVAL);
}

TEST(bad_open_size, "uf_open(): -EINVAL size too small; a larger structure than ours is taken.")
{
	struct {
		struct uf_options opts;
		char newer[64];
	} larger = {.opts = options(0)};
	struct uf_options opts = options(0);
	struct uf *uf;

	opts.size = 0;
	open_fails(&opts, -EINVAL);
	opts.size = sizeof(opts) - 1;
	open_fails(&opts, -EINVAL);
	larger.opts.size = sizeof(larger);
	CHECK_EQ(uf_open(&uf, &larger.opts), 0);
}

TEST(bad_open_flags, "uf_open(): -EINVAL unknown flag, contradictory flags.")
{
	struct uf_options opts = options(0);

	opts.flags = 1u << 31;
	open_fails(&opts, -EINVAL);
	opts.flags = UF_OPEN_USER_MODE_ONLY | UF_OPEN_KERNEL_FAULTS;
	open_fails(&opts, -EINVAL);
}

TEST(bad_open_engine, "uf_open(): -EINVAL unknown engine.")
{
	struct uf_options opts = options(0);

	opts.engine = (enum uf_engine)77;
	open_fails(&opts, -EINVAL);
}

TEST(bad_adopt_out, "uf_adopt(): -EINVAL without a place for the object; the descriptor stays the caller's.")
{
	struct uf *uf = object(0);

	CHECK_EQ(uf_adopt(NULL, uf_fd(uf)), -EINVAL);
	CHECK(fcntl(uf_fd(uf), F_GETFD) >= 0);
}

TEST(null_object, "A null object is -EINVAL.")
{
	struct uffdio_range range = {0};
	struct uffd_msg msg;
	char byte;

	CHECK_EQ(uf_fd(NULL), -EINVAL);
	CHECK_EQ(uf_features(NULL), 0);
	CHECK_EQ(uf_ioctls(NULL), 0);
	CHECK_EQ(uf_way(NULL), UF_WAY_ADOPTED);
	CHECK_EQ(uf_register(NULL, &byte, 1, MISSING, NULL), -EINVAL);
	CHECK_EQ(uf_unregister(NULL, &byte, 1), -EINVAL);
	CHECK_EQ(uf_copy(NULL, &byte, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_zeropage(NULL, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_continue(NULL, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_move(NULL, &byte, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_poison(NULL, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_writeprotect(NULL, &byte, 1, 0), -EINVAL);
	CHECK_EQ(uf_wake(NULL, &byte, 1), -EINVAL);
	CHECK_EQ(uf_read(NULL, &msg, 1), -EINVAL);
	CHECK_EQ(uf_ioctl(NULL, UFFDIO_WAKE, &range), -EINVAL);
	uf_close(NULL);
}

TEST(bad_read, "uf_read(): -EINVAL count is 0, or no place for messages.")
{
	struct uf *uf = object(0);
	struct uffd_msg msg;

	CHECK_EQ(uf_read(uf, &msg, 0), -EINVAL);
	CHECK_EQ(uf_read(uf, NULL, 1), -EINVAL);
}

TEST(bad_register_leaves_answer, "uf_register() stores no ioctls when it fails.")
{
	uint64_t ioctls = 12345;

	CHECK_EQ(uf_register(object(0), anon(1), page_size, 0, &ioctls), -EINVAL);
	CHECK_EQ(ioctls, 12345);
}

TEST(bad_register_with_handler, "A registration that fails leaves nothing to the handler either.")
{
	struct uf_options opts = options(0);
	char *pages = anon(2);
	struct uf *uf, *other;

	need(UFFD_FEATURE_SIGBUS);
	opts.handler = (uf_handler *)abort;
	CHECK_EQ(object_open(&uf, &opts), 0);
	other = object(0);
	registered(other, pages + page_size, page_size, MISSING);
	CHECK_EQ(uf_register(uf, pages, 2 * page_size, MISSING, NULL), -EBUSY);
	CHECK_EQ(uf_register(uf, pages + 1, page_size, MISSING, NULL), -EINVAL);
	CHECK_EQ(*(volatile char *)pages, 0);
}

TEST(bad_probe, "uf_probe(): -EINVAL size.")
{
	struct uf_probe_result probe = {.size = 0};

	CHECK_EQ(uf_probe(NULL), -EINVAL);
	CHECK_EQ(uf_probe(&probe), -EINVAL);
	probe.size = sizeof(probe) - 1;
	CHECK_EQ(uf_probe(&probe), -EINVAL);
}

TEST(words_for_everything, "Static strings, never NULL; \"\" for a value without a name.")
{
	static const unsigned wrong = 1000;

	CHECK(uf_way_name((enum uf_way)wrong));
	CHECK(uf_obstacle_text((enum uf_way)wrong, (enum uf_obstacle)wrong));
	CHECK(uf_obstacle_remedy((enum uf_way)wrong, (enum uf_obstacle)wrong));
	CHECK(uf_memory_name((enum uf_memory)wrong));
	CHECK(uf_mode_name((enum uf_mode)wrong));
	CHECK(!strcmp(uf_feature_name(wrong), ""));
	CHECK(!strcmp(uf_ioctl_name(wrong), ""));
	CHECK(*uf_feature_name(0));
	CHECK(*uf_ioctl_name(_UFFDIO_COPY));
}

static struct uf_dirty *tracker(void)
{
	struct uf_options opts = options(0);
	struct uf_dirty_options dirty_opts = {.size = sizeof(dirty_opts), .engine = opts.engine};
	struct uf_dirty *dirty;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	CHECK_EQ(uf_dirty_open(&dirty, &dirty_opts), 0);
	return dirty;
}

/* A newer program's structure: one field more than this library knows. */
struct newer_options {
	struct uf_options known;
	uint64_t unknown;
};

TEST(options_may_grow,
     "A longer structure is taken when what is unknown in it is zero, and refused with -E2BIG otherwise.")
{
	struct newer_options opts = {.known = options(0)};
	struct uf *uf;

	if (!strcmp(test_engine, "kernel")) {
		opts.known.size = sizeof(opts);
		CHECK_EQ(uf_open(&uf, &opts.known), 0);
		uf_close(uf);
	}
	opts.known.size = sizeof(opts);
	opts.unknown = 1;
	CHECK_EQ(uf_open(&uf, &opts.known), -E2BIG);
}

TEST(bad_dirty_open, "uf_dirty_open(): -EINVAL (size, method).")
{
	struct uf_dirty *const none = (struct uf_dirty *)0x1234;
	struct uf_dirty_options opts = {.size = 0};
	struct uf_dirty *dirty = none;

	CHECK_EQ(uf_dirty_open(NULL, NULL), -EINVAL);
	CHECK_EQ(uf_dirty_open(&dirty, &opts), -EINVAL);
	opts.size = offsetof(struct uf_dirty_options, flags);
	CHECK_EQ(uf_dirty_open(&dirty, &opts), -EINVAL);
	opts.size = sizeof(opts);
	opts.method = (enum uf_dirty_method)77;
	CHECK_EQ(uf_dirty_open(&dirty, &opts), -EINVAL);
	opts.method = UF_DIRTY_AUTO;
	opts.engine = (enum uf_engine)77;
	CHECK_EQ(uf_dirty_open(&dirty, &opts), -EINVAL);
	CHECK(dirty == none);
}

TEST(bad_dirty_null, "A null tracker is -EINVAL; closing it is allowed.")
{
	struct uf_dirty_range range;
	uint64_t next;

	CHECK_EQ(uf_dirty_track(NULL, anon(1), page_size, 0), -EINVAL);
	CHECK_EQ(uf_dirty_untrack(NULL, anon(1), page_size), -EINVAL);
	CHECK_EQ(uf_dirty_collect(NULL, 0, page_size, &range, 1, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_method(NULL), UF_DIRTY_AUTO);
	uf_dirty_close(NULL);
}

TEST(bad_dirty_track, "uf_dirty_track(): -EINVAL as uf_register(), -EEXIST watched already, -EBUSY by another object.")
{
	struct uf_dirty *dirty = tracker();
	char *pages = anon(4);

	CHECK_EQ(uf_dirty_track(dirty, pages + 1, page_size, 0), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, pages, page_size + 1, 0), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, pages, 0, 0), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, pages, page_size, 3), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, pages, -page_size, 0), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, unmapped(1), page_size, 0), -EINVAL);
	CHECK_EQ(uf_dirty_track(dirty, pages, 2 * page_size, 0), 0);
	CHECK_EQ(uf_dirty_track(dirty, pages + page_size, 2 * page_size, 0), -EEXIST);
	registered(object(0), pages + 3 * page_size, page_size, MISSING);
	CHECK_EQ(uf_dirty_track(dirty, pages + 3 * page_size, page_size, 0), -EBUSY);
	uf_dirty_close(dirty);
}

TEST(bad_dirty_untrack, "uf_dirty_untrack(): -ENOENT, not a range that was given to uf_dirty_track(), whole.")
{
	struct uf_dirty *dirty = tracker();
	char *pages = anon(3);

	CHECK_EQ(uf_dirty_untrack(dirty, pages, page_size), -ENOENT);
	CHECK_EQ(uf_dirty_track(dirty, pages, 2 * page_size, 0), 0);
	CHECK_EQ(uf_dirty_untrack(dirty, pages, page_size), -ENOENT);
	CHECK_EQ(uf_dirty_untrack(dirty, pages + page_size, page_size), -ENOENT);
	CHECK_EQ(uf_dirty_untrack(dirty, pages, 3 * page_size), -ENOENT);
	CHECK_EQ(uf_dirty_untrack(dirty, pages, 2 * page_size), 0);
	uf_dirty_close(dirty);
}

TEST(bad_dirty_collect,
     "uf_dirty_collect(): -EINVAL start > end, not aligned, count 0, unknown flag; nothing is forgotten.")
{
	struct uf_dirty *dirty = tracker();
	char *pages = anon(2);
	uint64_t start = (uintptr_t)pages, end = start + 2 * page_size, next = 12345;
	struct uf_dirty_range range = {1, 2};

	CHECK_EQ(uf_dirty_track(dirty, pages, 2 * page_size, 0), 0);
	pages[page_size] = 1;
	CHECK_EQ(uf_dirty_collect(dirty, end, start, &range, 1, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start + 1, end, &range, 1, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start, end - 1, &range, 1, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start, end, &range, 0, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start, end, NULL, 1, 0, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start, end, &range, 1, 1u << 31, &next), -EINVAL);
	CHECK_EQ(uf_dirty_collect(dirty, start, end, &range, 1, 0, NULL), -EINVAL);
	CHECK_EQ(next, 12345);
	CHECK_EQ(range.start, 1);
	CHECK_EQ(uf_dirty_collect(dirty, start, end, &range, 1, 0, &next), 1);
	CHECK_EQ(range.start, start + page_size);
	CHECK_EQ(range.end, end);
	uf_dirty_close(dirty);
}
