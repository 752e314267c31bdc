// SPDX-License-Identifier: MIT
/* A lock whose holder is killed, and tasks that are gone. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/lock.h"
#include "base/task.h"
#include "support/test.h"

static struct lock lock;
static _Atomic bool holds, enough;

static int hold(void *unused)
{
	(void)unused;
	lock_take(&lock);
	atomic_store(&holds, true);
	while (!atomic_load(&enough))
		raw_syscall3(SYS_sched_yield, 0, 0, 0);
	lock_release(&lock);
	return 0;
}

/* A process of its own in this memory, which holds the lock. */
static pid_t start_holder(void)
{
	size_t size = 65536;
	char *stack = malloc(size);
	pid_t holder = clone(hold, stack + size, CLONE_VM | SIGCHLD, NULL);

	CHECK(holder > 0);
	while (!atomic_load(&holds))
		sched_yield();
	return holder;
}

TEST(lock_of_the_dead,
     "A lock whose holder was killed is taken over by the next, who is told; also before anybody has waited for it.")
{
	pid_t holder = start_holder();

	CHECK_EQ(lock.word, (uint32_t)holder);
	kill(holder, SIGKILL);
	/* Not waited for: a zombie holds nothing. */
	CHECK(lock_take(&lock));
	lock_release(&lock);
	CHECK_EQ(lock.word, 0);
	CHECK_EQ(waitpid(holder, NULL, 0), holder);
	CHECK(task_is_gone((uint32_t)holder));
	CHECK(!lock_take(&lock));
	lock_release(&lock);
}

static void *take(void *taken_over)
{
	*(bool *)taken_over = lock_take(&lock);
	return NULL;
}

TEST(lock_of_the_living, "A holder that lives keeps the lock, for longer than anybody's patience.")
{
	pid_t holder = start_holder();
	struct timespec longer = {.tv_nsec = 50 * 1000 * 1000};
	pthread_t waiter;
	bool taken_over = true;

	CHECK_EQ(pthread_create(&waiter, NULL, take, &taken_over), 0);
	while (!(atomic_load(&lock.word) & LOCK_WAITED))
		sched_yield();
	/* Only to give a wrong answer time to come. */
	nanosleep(&longer, NULL);
	CHECK(!task_is_gone((uint32_t)holder));
	CHECK_EQ(atomic_load(&lock.word), (uint32_t)holder | LOCK_WAITED);
	atomic_store(&enough, true);
	CHECK_EQ(waitpid(holder, NULL, 0), holder);
	CHECK_EQ(pthread_join(waiter, NULL), 0);
	CHECK(!taken_over);
}
