// SPDX-License-Identifier: MIT
/* One thread, for what is asked for in the background: it waits for stores so that the program need not. */
#include <stdlib.h>

#include "base/thread.h"
#include "pager/pager.h"

static struct job *next_job(struct uf_pager *pager)
{
	struct job *job;

	pthread_mutex_lock(&pager->jobs_lock);
	while (!pager->jobs && !atomic_load(&pager->ending))
		pthread_cond_wait(&pager->jobs_changed, &pager->jobs_lock);
	job = atomic_load(&pager->ending) ? NULL : pager->jobs;
	if (job) {
		pager->jobs = job->next;
		if (!pager->jobs)
			pager->last_job = &pager->jobs;
	}
	pthread_mutex_unlock(&pager->jobs_lock);
	return job;
}

/* What is known to nobody else any more is freed; otherwise whoever waits is told. */
static void end_job(struct uf_pager *pager, struct job *job, int err)
{
	pthread_mutex_lock(&pager->jobs_lock);
	job->err = err;
	job->done = true;
	if (job->waited) {
		pthread_cond_broadcast(&pager->jobs_changed);
		job = NULL;
	}
	pthread_mutex_unlock(&pager->jobs_lock);
	free(job);
}

static void *work(void *arg)
{
	struct uf_pager *pager = arg;
	struct job *job;

	while ((job = next_job(pager)))
		end_job(pager, job, job->run(pager, job));
	return NULL;
}

int worker_start(struct uf_pager *pager)
{
	int err;

	pthread_mutex_init(&pager->jobs_lock, NULL);
	pthread_cond_init(&pager->jobs_changed, NULL);
	pager->last_job = &pager->jobs;
	err = thread_start(&pager->worker, work, pager);
	pager->has_worker = !err;
	return err;
}

void worker_end(struct uf_pager *pager)
{
	atomic_store(&pager->ending, true);
	if (!pager->has_worker)
		return;
	pthread_mutex_lock(&pager->jobs_lock);
	pthread_cond_broadcast(&pager->jobs_changed);
	pthread_mutex_unlock(&pager->jobs_lock);
	pthread_join(pager->worker, NULL);
	while (pager->jobs) {
		struct job *job = pager->jobs;

		pager->jobs = job->next;
		end_job(pager, job, job->run(pager, job)); /* which notices, and gives up */
	}
	pthread_cond_destroy(&pager->jobs_changed);
	pthread_mutex_destroy(&pager->jobs_lock);
}

int worker_do(struct uf_pager *pager, struct job *job, bool wait)
{
	int err = 0;

	job->next = NULL;
	job->waited = wait;
	job->done = false;
	pthread_mutex_lock(&pager->jobs_lock);
	*pager->last_job = job;
	pager->last_job = &job->next;
	pthread_cond_broadcast(&pager->jobs_changed);
	while (wait && !job->done)
		pthread_cond_wait(&pager->jobs_changed, &pager->jobs_lock);
	if (wait)
		err = job->err;
	pthread_mutex_unlock(&pager->jobs_lock);
	if (wait)
		free(job);
	return err;
}
