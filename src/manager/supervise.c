// SPDX-License-Identifier: MIT
/*
 * The supervisor: one thread, which does little, so that it lasts. It accepts connections and writes them down, and when the worker dies it cleans
 * up and starts the next. It never reads what a client says.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef UF_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/clock.h"
#include "manager/book.h"
#include "manager/journal.h"
#include "manager/log.h"
#include "manager/sandbox.h"
#include "manager/serve.h"
#include "manager/sockets.h"
#include "manager/worker.h"

/*
 * A worker that failed within this time, ns, is followed by the next after a pause, which doubles up to a limit, ms. Who was killed from outside
 * has not failed.
 */
#define SHORT_LIFE 1000000000u
#define PAUSE_MAX  1000

struct supervisor {
	const struct serve_options *options;
	struct journal *journal;
	struct sockets sockets;
	int signals, told, self; /* signalfd; eventfd: a worker serves; pidfd of this process */
	pid_t worker;            /* 0: none */
	uint64_t born;           /* when it was started, ns */
	int pause_ms;
	bool served; /* a worker has been there */
	int status;  /* of the exit */
};

static void notify(const char *state)
{
#ifdef UF_SYSTEMD
	sd_notify(0, state);
#else
	(void)state;
#endif
}

/*
 * The worker.
 */

struct start {
	struct supervisor *supervisor;
	int status;
};

/* A thread of its own: the C library takes the first one of a process that was made by clone(2) for that of its parent. */
static void *run_worker(void *arg)
{
	struct start *start = arg;
	struct supervisor *supervisor = start->supervisor;

	start->status = worker_run(supervisor->options, supervisor->journal, &supervisor->sockets, supervisor->told,
	                           supervisor->self);
	return NULL;
}

static void be_worker(struct supervisor *supervisor)
{
	struct start start = {.supervisor = supervisor, .status = 1};
	pthread_t thread;

	signal(SIGPIPE, SIG_IGN);
	if (!sandbox_enter_worker(supervisor->options) && !pthread_create(&thread, NULL, run_worker, &start))
		pthread_join(thread, NULL);
	_exit(start.status);
}

static int start_worker(struct supervisor *supervisor)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid < 0)
		return -errno;
	if (!pid)
		be_worker(supervisor);
	supervisor->worker = pid;
	supervisor->born = now_ns();
	atomic_store(&supervisor->journal->worker, pid);
	return 0;
}

static void say_how(int status)
{
	if (WIFSIGNALED(status))
		say(LOG_WARNING, "the worker was killed by signal %d; the next one takes over", WTERMSIG(status));
	else
		say(LOG_WARNING, "the worker ended with status %d; the next one takes over", WEXITSTATUS(status));
}

/* Closes what the last worker had open for itself, and puts what it had in hand where the next one looks. */
static int settle(struct supervisor *supervisor)
{
	const int keep[] = {0,
	                    1,
	                    2,
	                    supervisor->sockets.handover,
	                    supervisor->sockets.control,
	                    supervisor->sockets.metrics,
	                    supervisor->signals,
	                    supervisor->told,
	                    supervisor->self};

	return journal_settle(supervisor->journal, keep, sizeof(keep) / sizeof(keep[0]));
}

/* It has ended. False: and so does everything. */
static bool follow_up(struct supervisor *supervisor, int status)
{
	bool hopeless = WIFEXITED(status) && WEXITSTATUS(status) == WORKER_HOPELESS;
	int err;

	supervisor->worker = 0;
	atomic_store(&supervisor->journal->worker, 0);
	if (atomic_load(&supervisor->journal->ending) && WIFEXITED(status)) {
		supervisor->status = WEXITSTATUS(status);
		return false;
	}
	if (!supervisor->served && (hopeless || WIFEXITED(status))) {
		supervisor->status = 1;
		return false;
	}
	say_how(status);
	if (now_ns() - supervisor->born >= SHORT_LIFE || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		supervisor->pause_ms = 0;
	else if (!supervisor->pause_ms)
		supervisor->pause_ms = 1;
	else if (supervisor->pause_ms < PAUSE_MAX)
		supervisor->pause_ms *= 2;
	poll(NULL, 0, supervisor->pause_ms);
	atomic_fetch_add(&supervisor->journal->restarts, 1);
	err = settle(supervisor);
	if (!err)
		err = start_worker(supervisor);
	if (err)
		say(LOG_ERROR, "no worker can be started: %s; trying again", strerror(-err));
	return true;
}

/*
 * Connections.
 */

static bool may_connect(const struct serve_options *options, const struct ucred *peer)
{
	for (size_t i = 0; i < options->uid_count; i++)
		if (options->uids[i] == peer->uid)
			return true;
	return !options->uid_count;
}

static void turn_away(struct supervisor *supervisor, int fd, const struct ucred *peer, const char *reason)
{
	char line[128];
	int len = snprintf(line, sizeof(line), "error %s\n", reason);

	say_sparingly(LOG_WARNING, "pid %ld, uid %ld: refused: %s", (long)peer->pid, (long)peer->uid, reason);
	atomic_fetch_add(&supervisor->journal->refused, 1);
	send(fd, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void meet(struct supervisor *supervisor, int fd)
{
	struct journal *journal = supervisor->journal;
	struct journal_client *client;
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t len = sizeof(peer);
	int index, book;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || !may_connect(supervisor->options, &peer)) {
		turn_away(supervisor, fd, &peer, "this user may not hand over here");
		return;
	}
	index = journal_claim(journal, peer.uid);
	book = index < 0 ? index : book_create();
	if (book < 0) {
		if (index >= 0)
			journal_release(&journal->client[index]);
		turn_away(supervisor, fd, &peer, journal_refusal(book));
		return;
	}
	client = &journal->client[index];
	atomic_store(&client->connection, fd);
	atomic_store(&client->book, book);
	client->pid = peer.pid;
	atomic_store(&client->born, true);
	/* Release: the record is true. */
	atomic_store_explicit(&client->state, JOURNAL_MET, memory_order_release);
	journal_ring(journal, journal_thread(journal, (unsigned)index));
}

static void accept_all(struct supervisor *supervisor)
{
	/* So many, and then signals are looked at. */
	for (int i = 0; i < 64; i++) {
		int fd = accept4(supervisor->sockets.handover, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			say(LOG_ERROR, "cannot accept: %s", strerror(errno));
			poll(NULL, 0, 100);
		}
		if (fd < 0)
			return;
		meet(supervisor, fd);
	}
}

/*
 * The loop.
 */

static void stop(struct supervisor *supervisor)
{
	struct journal *journal = supervisor->journal;

	notify("STOPPING=1");
	atomic_store(&journal->ending, true);
	sockets_close_handover(&supervisor->sockets, supervisor->options);
}

/* False: everything has ended. */
static bool hear_signal(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;
	int status;

	while (read(supervisor->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			stop(supervisor);
	}
	while (supervisor->worker && waitpid(supervisor->worker, &status, WNOHANG) == supervisor->worker)
		if (!follow_up(supervisor, status))
			return false;
	return true;
}

static void hear_worker(struct supervisor *supervisor)
{
	uint64_t count;

	(void)!read(supervisor->told, &count, sizeof(count));
	if (supervisor->served)
		return;
	supervisor->served = true;
	notify("READY=1");
	say(LOG_INFO, "serving %zu store%s", supervisor->options->store_count,
	    supervisor->options->store_count == 1 ? "" : "s");
}

static void loop(struct supervisor *supervisor)
{
	for (;;) {
		struct pollfd fds[] = {
			{.fd = supervisor->signals, .events = POLLIN},
			{.fd = supervisor->told, .events = POLLIN},
			/* Nobody is let in before the stores are known to be there. */
			{.fd = supervisor->served ? supervisor->sockets.handover : -1, .events = POLLIN}};

		poll(fds, 3, supervisor->worker ? -1 : 100);
		if (fds[1].revents)
			hear_worker(supervisor);
		if (!hear_signal(supervisor))
			return;
		if (fds[2].revents && supervisor->sockets.handover >= 0)
			accept_all(supervisor);
		if (!supervisor->worker && !settle(supervisor))
			start_worker(supervisor);
	}
}

/* Four descriptors for a client, and some more. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_own(struct supervisor *supervisor)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	supervisor->told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	supervisor->self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (supervisor->signals < 0 || supervisor->told < 0 || supervisor->self < 0)
		return -errno;
	supervisor->journal->supervisor = getpid();
	return 0;
}

int supervise(const struct serve_options *options)
{
	struct supervisor supervisor = {.options = options, .signals = -1, .told = -1, .self = -1};
	int err = sockets_open(&supervisor.sockets, options);

	if (err)
		return 1;
	raise_limit();
	err = journal_open(&supervisor.journal, options->max_clients, options->max_clients_of_user, options->workers);
	if (!err)
		err = open_own(&supervisor);
	if (!err)
		err = sandbox_enter(options);
	if (!err)
		err = start_worker(&supervisor);
	if (err) {
		say(LOG_ERROR, "cannot start: %s", strerror(-err));
		supervisor.status = 1;
	} else {
		loop(&supervisor);
	}
	sockets_close(&supervisor.sockets, options);
	return supervisor.status;
}
