// SPDX-License-Identifier: MIT
/* What the five requests that deliver pages have in common: COPY, ZEROPAGE, CONTINUE, MOVE, POISON. */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define PAGES 4

/* The fault of a missing page as this request's registration reports it. */
static void expect_read_fault(struct scene *scene, size_t page)
{
	bool minor = scene->request->register_mode & UFFDIO_REGISTER_MODE_MINOR;

	expect_fault(scene->uf, scene_page(scene, page), page_size, minor ? UFFD_PAGEFAULT_FLAG_MINOR : 0);
}

static void check_delivered(struct scene *scene, size_t page)
{
	struct outcome outcome = try_read(scene_page(scene, page));

	scene_check_outcome(scene, page, &outcome);
}

static struct actor *waiting_reader(struct scene *scene, size_t page)
{
	struct actor *actor = act_read(scene_page(scene, page));

	CHECK(actor_waits(actor));
	return actor;
}

static void check_end(struct scene *scene, struct actor *actor, size_t page)
{
	struct outcome outcome = actor_end(actor);

	scene_check_outcome(scene, page, &outcome);
}

static void resolves(const struct request *request)
{
	struct scene scene;
	struct actor *actor;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	actor = waiting_reader(&scene, 1);
	expect_read_fault(&scene, 1);
	CHECK_EQ(scene_deliver(&scene, 1, 1, 0), page_size);
	check_end(&scene, actor, 1);
	expect_silence(scene.uf);
}

static void whole(const struct request *request)
{
	struct scene scene;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	scene_fill(&scene, 0, PAGES, 0);
	CHECK_EQ(scene_issue(&scene), 0);
	CHECK_EQ(scene_result(&scene), PAGES * page_size);
	for (size_t i = 0; i < PAGES; i++)
		check_delivered(&scene, i);
	expect_silence(scene.uf);
}

static void only_what_was_named(const struct request *request)
{
	struct scene scene;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	CHECK_EQ(scene_deliver(&scene, 1, 2, 0), 2 * page_size);
	CHECK(scene_take_missing(&scene, 0));
	CHECK(scene_take_missing(&scene, 3));
	check_delivered(&scene, 1);
	check_delivered(&scene, 2);
}

static void result_is_output_only(const struct request *request)
{
	static const int64_t before[] = {1, -1, -EAGAIN, INT64_MAX};
	struct scene scene = scene_set(request, PAGES, 0);

	for (size_t i = 0; i < PAGES; i++) {
		scene_fill(&scene, i, 1, 0);
		scene_put(&scene, request->result_at, (uint64_t)before[i]);
		CHECK_EQ(scene_issue(&scene), 0);
		CHECK_EQ(scene_result(&scene), page_size);
	}
}

static void nothing_tried_leaves_result(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, request->len, 1);
	scene_put(&scene, request->result_at, 12345);
	CHECK_EQ(scene_issue(&scene), -EINVAL);
	CHECK_EQ(scene_result(&scene), 12345);
}

static void present(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	scene_make_present(&scene, 0);
	scene_fill(&scene, 0, 2, 0);
	CHECK_EQ(scene_issue(&scene), -EEXIST);
	CHECK_EQ(scene_result(&scene), -EEXIST);
	CHECK_EQ(scene_deliver(&scene, 0, 2, 0), -EEXIST);
	CHECK(scene_take_missing(&scene, 1));
}

static void partial(const struct request *request)
{
	struct scene scene;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	scene_make_present(&scene, 2);
	scene_fill(&scene, 0, PAGES, 0);
	CHECK_EQ(scene_issue(&scene), -EAGAIN);
	CHECK_EQ(scene_result(&scene), 2 * page_size);
	check_delivered(&scene, 0);
	check_delivered(&scene, 1);
	/* Going on from there tells what was in the way. */
	CHECK_EQ(scene_deliver(&scene, 2, 2, 0), -EEXIST);
	CHECK_EQ(scene_deliver(&scene, 3, 1, 0), page_size);
	check_delivered(&scene, 3);
}

static void partial_count(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	scene_make_present(&scene, 3);
	CHECK_EQ(scene_deliver(&scene, 0, PAGES, 0), 3 * page_size);
	CHECK_EQ(scene_deliver(&scene, 3, 1, 0), -EEXIST);
}

static void partial_wakes(const struct request *request)
{
	struct scene scene;
	struct actor *first, *last;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	scene_make_present(&scene, 1);
	first = waiting_reader(&scene, 0);
	expect_read_fault(&scene, 0);
	last = waiting_reader(&scene, 3);
	expect_read_fault(&scene, 3);
	CHECK_EQ(scene_deliver(&scene, 0, PAGES, 0), page_size);
	check_end(&scene, first, 0);
	CHECK(actor_waits(last));
	CHECK_EQ(scene_deliver(&scene, 2, 2, 0), 2 * page_size);
	check_end(&scene, last, 3);
}

static void dontwake(const struct request *request)
{
	struct scene scene;
	struct actor *actor;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	actor = waiting_reader(&scene, 0);
	expect_read_fault(&scene, 0);
	CHECK_EQ(scene_deliver(&scene, 0, 1, request->dontwake), page_size);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(scene.uf, scene_page(&scene, 0), page_size), 0);
	check_end(&scene, actor, 0);
}

static void batch(const struct request *request)
{
	struct scene scene;
	struct actor *actors[PAGES];

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	for (size_t i = 0; i < PAGES; i++)
		actors[i] = waiting_reader(&scene, i);
	for (size_t i = 0; i < PAGES; i++)
		CHECK_EQ(scene_deliver(&scene, i, 1, request->dontwake), page_size);
	for (size_t i = 0; i < PAGES; i++)
		CHECK(actor_waits(actors[i]));
	CHECK_EQ(uf_wake(scene.uf, scene_page(&scene, 0), PAGES * page_size), 0);
	for (size_t i = 0; i < PAGES; i++)
		check_end(&scene, actors[i], i);
}

static void wakes_all_of_the_page(const struct request *request)
{
	struct scene scene;
	struct actor *actors[3], *other;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	for (size_t i = 0; i < 3; i++)
		actors[i] = waiting_reader(&scene, 1);
	other = waiting_reader(&scene, 2);
	CHECK_EQ(scene_deliver(&scene, 1, 1, 0), page_size);
	for (size_t i = 0; i < 3; i++)
		check_end(&scene, actors[i], 1);
	CHECK(actor_waits(other));
	CHECK_EQ(scene_deliver(&scene, 2, 1, 0), page_size);
	check_end(&scene, other, 2);
}

static void existing_does_not_wake(const struct request *request)
{
	struct scene scene;
	struct actor *actor;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	actor = waiting_reader(&scene, 0);
	CHECK_EQ(scene_deliver(&scene, 0, 1, request->dontwake), page_size);
	CHECK_EQ(scene_deliver(&scene, 0, 1, 0), -EEXIST);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(scene.uf, scene_page(&scene, 0), page_size), 0);
	check_end(&scene, actor, 0);
}

static void in_background(const struct request *request)
{
	struct scene scene;
	struct actor *actor;

	catch_signals();
	scene = scene_set(request, PAGES, 0);
	CHECK_EQ(scene_deliver(&scene, 0, PAGES, 0), PAGES * page_size);
	actor = act_read(scene_page(&scene, 2));
	CHECK(!actor_waits(actor));
	check_end(&scene, actor, 2);
	expect_silence(scene.uf);
}

static void beyond_registration(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	CHECK_EQ(uf_unregister(scene.uf, scene_page(&scene, 2), page_size), 0);
	CHECK_EQ(scene_deliver(&scene, 0, PAGES, 0), request->nr == UFFDIO_MOVE ? -EINVAL : -ENOENT);
	CHECK(scene_take_missing(&scene, 0));
	CHECK(scene_take_missing(&scene, 3));
}

#define RESOLVES   "The primary ioctl to resolve userfaults: the page is put in place and the blocked thread woken."
#define WHOLE      "This ioctl(2) operation returns 0 on success.  In this case, the entire area was done."
#define ONLY_NAMED "None of the page-delivering ioctls default to the range that you registered with."
#define OUTPUT     "The field is output-only; it is not read by the operation."
#define UNTOUCHED  "Linux stores nothing in the result field of a request that it refuses with EINVAL."
#define PRESENT    "EEXIST the first page is there already: in errno and, negated, in the result field."
#define PARTIAL    "EAGAIN The number of bytes done does not equal the value that was specified in the len field."
#define COUNT      "n > 0: n bytes are in place. When n < len, go on at addr + n."
#define PART_WAKES "Partial progress wakes the threads of what is in place, and no others."
#define DONTWAKE   "Do not wake up the thread that waits for page-fault resolution."
#define BATCH      "The monitor can perform several calls in a batch and then explicitly wake up using UFFDIO_WAKE."
#define WAKES_ALL  "Every thread that waits for the page is woken, and none that waits for another."
#define NO_WAKE    "-EEXIST: the page was NOT woken for; uf_wake() it if a thread may wait."
#define BACKGROUND "Userland can manage the virtual memory in the background: what is in place does not fault."
#define BEYOND     "A request reaching into a part that is not registered does nothing."

#define DELIVERS(id)                                        \
	TEST(id##_resolves, RESOLVES)                       \
	{                                                   \
		resolves(&request_##id);                    \
	}                                                   \
	TEST(id##_whole, WHOLE)                             \
	{                                                   \
		whole(&request_##id);                       \
	}                                                   \
	TEST(id##_only_what_was_named, ONLY_NAMED)          \
	{                                                   \
		only_what_was_named(&request_##id);         \
	}                                                   \
	TEST(id##_result_is_output_only, OUTPUT)            \
	{                                                   \
		result_is_output_only(&request_##id);       \
	}                                                   \
	TEST(id##_refused_leaves_result, UNTOUCHED)         \
	{                                                   \
		nothing_tried_leaves_result(&request_##id); \
	}                                                   \
	TEST(id##_present, PRESENT)                         \
	{                                                   \
		present(&request_##id);                     \
	}                                                   \
	TEST(id##_partial, PARTIAL)                         \
	{                                                   \
		partial(&request_##id);                     \
	}                                                   \
	TEST(id##_partial_count, COUNT)                     \
	{                                                   \
		partial_count(&request_##id);               \
	}                                                   \
	TEST(id##_partial_wakes, PART_WAKES)                \
	{                                                   \
		partial_wakes(&request_##id);               \
	}                                                   \
	TEST(id##_dontwake, DONTWAKE)                       \
	{                                                   \
		dontwake(&request_##id);                    \
	}                                                   \
	TEST(id##_batch, BATCH)                             \
	{                                                   \
		batch(&request_##id);                       \
	}                                                   \
	TEST(id##_wakes_all_of_the_page, WAKES_ALL)         \
	{                                                   \
		wakes_all_of_the_page(&request_##id);       \
	}                                                   \
	TEST(id##_existing_does_not_wake, NO_WAKE)          \
	{                                                   \
		existing_does_not_wake(&request_##id);      \
	}                                                   \
	TEST(id##_in_background, BACKGROUND)                \
	{                                                   \
		in_background(&request_##id);               \
	}                                                   \
	TEST(id##_beyond_registration, BEYOND)              \
	{                                                   \
		beyond_registration(&request_##id);         \
	}

DELIVERS(copy)
DELIVERS(zeropage)
DELIVERS(continue)
DELIVERS(move)
DELIVERS(poison)

/* Where there is no such processor, it stays where it is. */
static void move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

TEST(deliver_from_another_processor,
     "Each fault gets what it is answered with by a thread on another processor, whatever the last answer was.")
{
	enum { PLACES = 60 };
	struct scene scene;

	catch_signals();
	scene = scene_set(&request_poison, PLACES, 0);
	for (size_t i = 0; i < PLACES; i++) {
		size_t place = i * 37 % PLACES;
		char *page = scene_page(&scene, place);
		struct actor *actor;
		struct outcome outcome;

		move_to(1);
		actor = act_read(page);
		move_to(0);
		CHECK(actor_waits(actor));
		expect_read_fault(&scene, place);
		if (i % 6 == 3) {
			CHECK_EQ(uf_wake(scene.uf, page, page_size), 0);
			expect_read_fault(&scene, place);
		}
		if (i % 6 == 4)
			CHECK_EQ(uf_zeropage(scene.uf, page, page_size, 0), page_size);
		else if (i % 6 == 5)
			CHECK_EQ(uf_poison(scene.uf, page, page_size, 0), page_size);
		else
			CHECK_EQ(uf_copy(scene.uf, page, filled(1), page_size, 0), page_size);
		outcome = actor_end(actor);
		CHECK_EQ(outcome.signal, i % 6 == 5 ? SIGBUS : 0);
		if (!outcome.signal)
			CHECK_EQ(outcome.value, i % 6 == 4 ? 0 : pattern(0));
	}
	expect_silence(scene.uf);
}
