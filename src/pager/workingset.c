// SPDX-License-Identifier: MIT
/* Working sets of mappings: recorded, saved, replayed. What is in them, and how they are kept: workingset.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "pager/pager.h"

/*
 * Recording.
 */

void pager_touched(void *arg, struct session_source *source, uint64_t offset)
{
	struct mapping *mapping = (struct mapping *)source;

	(void)arg;
	workingset_order_add(&mapping->record, (offset - mapping->offset) / mapping->unit);
}

static int begin(struct mapping *mapping)
{
	workingset_order_end(&mapping->record);
	return workingset_order_init(&mapping->record, mapping->len / mapping->unit, WORKINGSET_MOST);
}

int uf_pager_record(struct uf_pager *pager, void *addr, int on)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	signal_mask before;
	int err = 0;

	if (!mapping)
		return -EINVAL;
	/* With the gate closed nobody is just writing something down. */
	before = session_change_begin(&pager->session);
	if (on)
		err = begin(mapping);
	atomic_store(&mapping->source.recording, on && !err);
	session_change_end(&pager->session, before);
	return err;
}

int uf_pager_save(struct uf_pager *pager, void *addr, const char *path)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	struct workingset *set;
	int err;

	if (!mapping || !path)
		return -EINVAL;
	err = workingset_from_order(&set, &mapping->record, mapping->unit, mapping->offset);
	if (err)
		return err;
	set->size = uf_store_size(mapping->source.store);
	err = workingset_write(set, AT_FDCWD, path);
	free(set);
	return err;
}

/*
 * Replay.
 */

struct replay {
	struct job job; /* first */
	struct workingset_place place;
	struct workingset *set;
};

/* At once not more than this, so that the end of the pager is noticed. */
#define AT_ONCE 4096u

static int bring_units(struct uf_pager *pager, const uint64_t *addrs, uint64_t count, uint64_t unit)
{
	int err = 0;

	for (uint64_t i = 0; !err && i < count; i += AT_ONCE) {
		if (atomic_load(&pager->ending))
			err = -ECANCELED;
		else
			err = session_bring_set(&pager->session, addrs + i, count - i < AT_ONCE ? count - i : AT_ONCE,
			                        unit);
	}
	return err;
}

/* Of the first that were touched as many as there is room for. */
static int replay(struct uf_pager *pager, struct job *job)
{
	struct replay *replay = (struct replay *)job;
	uint64_t unit = replay->place.unit, resident = atomic_load(&pager->resident), *addrs;
	uint64_t room = resident < pager->evict_above ? (pager->evict_above - resident) / unit : 0;
	int64_t count = workingset_addrs(replay->set, &replay->place, room, &addrs);
	int err = count < 0 ? (int)count : 0;

	free(replay->set);
	if (err)
		return err;
	err = bring_units(pager, addrs, (uint64_t)count, unit);
	free(addrs);
	/* What there is no room for comes when it is touched. */
	return err == -ENOMEM ? 0 : err;
}

int uf_pager_replay(struct uf_pager *pager, void *addr, const char *path, int wait)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	struct replay *job;
	int err;

	if (!mapping || !path)
		return -EINVAL;
	job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	err = workingset_read(&job->set, AT_FDCWD, path);
	if (err) {
		free(job);
		return err;
	}
	job->job.run = replay;
	job->place = (struct workingset_place){
		.addr = mapping->addr, .offset = mapping->offset, .len = mapping->len, .unit = mapping->unit};
	err = worker_do(pager, &job->job, wait);
	if (wait)
		session_settle(&pager->session);
	return err;
}
