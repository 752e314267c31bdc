// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "manager/ahead.h"
#include "manager/client.h"
#include "manager/log.h"
#include "manager/worker.h"
#include "workingset/workingset.h"

/* Done at once for one client: so long another waits for its turn, and its end. */
#define PART_UNITS 1024u
#define PART_BYTES ((uint64_t)4 << 20)

struct job {
	struct job *next;
	struct client *client;
	bool planned;
	bool whole;      /* all of [at, end), once what the working set says has come */
	uint64_t *addrs; /* of single units, rising */
	size_t count, done;
	uint64_t unit, at, end;
};

/* What earlier clients have touched of a store, as the file was when it was read. */
struct known {
	struct timespec changed;
	struct workingset *set; /* or NULL */
};

struct ahead {
	struct worker *worker;
	struct known *known;       /* for each store; the thread's */
	pthread_mutex_t lock;      /* all below. Innermost */
	pthread_cond_t more, less; /* a job has come; one has been put back, or is done */
	struct job *jobs, **end;
	struct job *current;     /* is being done, and in no list */
	struct client *unwanted; /* whose current job is to be dropped */
};

/*
 * What to bring.
 */

static int read_set(struct ahead *ahead, size_t number, const char *path)
{
	const struct named_store *store = &ahead->worker->stores.list[number];
	struct known *known = &ahead->known[number];
	uint64_t print;
	int err;

	free(known->set);
	known->set = NULL;
	err = workingset_read(&known->set, AT_FDCWD, path);
	if (!err)
		err = workingset_print(store->store, &print);
	if (!err && workingset_fits(known->set, store->size, print))
		return 0;
	free(known->set);
	known->set = NULL;
	return err ? err : -ESTALE;
}

/* The working set of a store, as it is now; NULL: there is none that fits. */
static const struct workingset *known_of(struct ahead *ahead, size_t number)
{
	const char *folder = ahead->worker->options->prefetch, *name = ahead->worker->stores.list[number].name;
	struct known *known = &ahead->known[number];
	struct stat stat_;
	char path[4096];
	int err;

	if (!folder || !workingset_is_name(name))
		return NULL;
	snprintf(path, sizeof(path), "%s/%s.workingset", folder, name);
	if (stat(path, &stat_))
		return NULL;
	if (stat_.st_mtim.tv_sec == known->changed.tv_sec && stat_.st_mtim.tv_nsec == known->changed.tv_nsec)
		return known->set;
	known->changed = stat_.st_mtim;
	err = read_set(ahead, number, path);
	if (err)
		say(LOG_WARNING, "%s is not used: %s", path,
		    err == -ESTALE ? "it was recorded from another store" : strerror(-err));
	return known->set;
}

static bool find(struct client *client, uint64_t addr, struct space_range *range)
{
	signal_mask before = session_enter(&client->session);
	bool found = space_find(client->session.space, addr, range);

	session_leave(&client->session, before);
	return found;
}

static void plan(struct ahead *ahead, struct job *job)
{
	const struct workingset *set;
	struct workingset_place place;
	struct space_range range;
	int64_t count;

	job->planned = true;
	if (!find(job->client, job->at, &range))
		return;
	job->whole = ((const struct client_source *)range.source)->flags & BOOK_PREFETCH;
	set = known_of(ahead, ((const struct client_source *)range.source)->store);
	if (!set)
		return;
	place = (struct workingset_place){
		.addr = range.start, .offset = range.offset, .len = range.len, .unit = range.unit};
	count = workingset_addrs(set, &place, WORKINGSET_MOST, &job->addrs);
	if (count < 0)
		say(LOG_WARNING, "client %llu: nothing is brought ahead: %s",
		    (unsigned long long)job->client->record->id, strerror((int)-count));
	job->count = count > 0 ? (size_t)count : 0;
	job->unit = range.unit;
}

/* One part. False: there is no more. */
static bool bring_part(struct ahead *ahead, struct job *job)
{
	struct session *session = &job->client->session;
	size_t n;
	uint64_t len;

	if (!job->planned)
		plan(ahead, job);
	if (job->done < job->count) {
		n = job->count - job->done < PART_UNITS ? job->count - job->done : PART_UNITS;
		session_bring_set(session, job->addrs + job->done, n, job->unit);
		job->done += n;
	} else if (job->whole && job->at < job->end) {
		len = job->end - job->at < PART_BYTES ? job->end - job->at : PART_BYTES;
		session_bring(session, job->at, len, false);
		job->at += len;
	}
	return job->done < job->count || (job->whole && job->at < job->end);
}

/*
 * Jobs.
 */

static void free_job(struct job *job)
{
	free(job->addrs);
	free(job);
}

/* With the lock. */
static void append(struct ahead *ahead, struct job *job)
{
	job->next = NULL;
	*ahead->end = job;
	ahead->end = &job->next;
}

static void *run(void *arg)
{
	struct ahead *ahead = arg;

	pthread_mutex_lock(&ahead->lock);
	for (;;) {
		struct job *job = ahead->jobs;
		bool more;

		if (!job) {
			pthread_cond_wait(&ahead->more, &ahead->lock);
			continue;
		}
		ahead->jobs = job->next;
		if (!ahead->jobs)
			ahead->end = &ahead->jobs;
		ahead->current = job;
		pthread_mutex_unlock(&ahead->lock);
		more = bring_part(ahead, job);
		pthread_mutex_lock(&ahead->lock);
		ahead->current = NULL;
		if (more && ahead->unwanted != job->client)
			append(ahead, job);
		else
			free_job(job);
		pthread_cond_broadcast(&ahead->less);
	}
	return NULL;
}

void ahead_region(struct ahead *ahead, struct client *client, uint64_t start, uint64_t len)
{
	struct job *job = calloc(1, sizeof(*job));

	/* It comes when it is touched. */
	if (!job)
		return;
	*job = (struct job){.client = client, .at = start, .end = start + len};
	pthread_mutex_lock(&ahead->lock);
	append(ahead, job);
	pthread_cond_signal(&ahead->more);
	pthread_mutex_unlock(&ahead->lock);
}

void ahead_forget(struct ahead *ahead, struct client *client)
{
	struct job **link, *job;

	pthread_mutex_lock(&ahead->lock);
	for (link = &ahead->jobs; (job = *link);) {
		if (job->client != client) {
			link = &job->next;
			continue;
		}
		*link = job->next;
		free_job(job);
	}
	ahead->end = link;
	while (ahead->current && ahead->current->client == client) {
		ahead->unwanted = client;
		pthread_cond_wait(&ahead->less, &ahead->lock);
	}
	if (ahead->unwanted == client)
		ahead->unwanted = NULL;
	pthread_mutex_unlock(&ahead->lock);
}

int ahead_start(struct ahead **out, struct worker *worker)
{
	struct ahead *ahead = calloc(1, sizeof(*ahead));
	pthread_t id;
	int err = ahead ? 0 : -ENOMEM;

	if (!err) {
		*ahead = (struct ahead){.worker = worker, .end = &ahead->jobs};
		pthread_mutex_init(&ahead->lock, NULL);
		pthread_cond_init(&ahead->more, NULL);
		pthread_cond_init(&ahead->less, NULL);
		ahead->known = calloc(worker->stores.count, sizeof(*ahead->known));
		err = ahead->known ? -pthread_create(&id, NULL, run, ahead) : -ENOMEM;
	}
	*out = ahead;
	return err;
}
