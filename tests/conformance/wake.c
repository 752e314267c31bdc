// SPDX-License-Identifier: MIT
/* UFFDIO_WAKE. */
#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING

TEST(wake_raises_the_fault_again, "A thread whose page is still missing faults again, and a new message comes.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	expect_fault(uf, page, page_size, 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(uf, page, page_size), 0);
	expect_fault(uf, page, page_size, 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
}

TEST(wake_only_the_range, "Wake up the thread waiting for page-fault resolution on a specified memory address range.")
{
	char *pages = anon(3), *src = filled(3);
	struct uf *uf = object(0);
	struct actor *actors[3];

	registered(uf, pages, 3 * page_size, MISSING);
	for (size_t i = 0; i < 3; i++) {
		actors[i] = act_read(pages + i * page_size);
		CHECK(actor_waits(actors[i]));
	}
	CHECK_EQ(uf_copy(uf, pages, src, 3 * page_size, UFFDIO_COPY_MODE_DONTWAKE), 3 * page_size);
	CHECK_EQ(uf_wake(uf, pages + page_size, page_size), 0);
	CHECK_EQ(actor_end(actors[1]).value, pattern(1));
	CHECK(actor_waits(actors[0]));
	CHECK(actor_waits(actors[2]));
	CHECK_EQ(uf_wake(uf, pages, 3 * page_size), 0);
	CHECK_EQ(actor_end(actors[0]).value, pattern(0));
	CHECK_EQ(actor_end(actors[2]).value, pattern(2));
}

TEST(wake_nobody, "Waking where nobody waits, or where nothing is registered, succeeds and does nothing.")
{
	char *pages = anon(2);
	struct uf *uf = object(0);

	registered(uf, pages, page_size, MISSING);
	CHECK_EQ(uf_wake(uf, pages, page_size), 0);
	CHECK_EQ(uf_wake(uf, pages + page_size, page_size), 0);
	CHECK_EQ(uf_wake(uf, unmapped(1), page_size), 0);
	expect_silence(uf);
}

TEST(wake_unread_fault, "A fault that was not read yet is woken as well, and comes again while its page is missing.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, UFFDIO_COPY_MODE_DONTWAKE), page_size);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(uf, page, page_size), 0);
	CHECK_EQ(actor_end(actor).value, pattern(0));
	expect_silence(uf);
}
