// SPDX-License-Identifier: MIT
/* Contracts: <userfault/migrate.h> and migrate/destination.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/options.h"
#include "base/rawsys.h"
#include "base/thread.h"
#include "migrate/address.h"
#include "migrate/destination.h"

#define TIMEOUT_MS 30000
#define TICK_NS    50000000

static void fill_in(void *side, struct uf_migrate_statistics *stats)
{
	struct uf_destination *destination = side;

	stats->total = destination->regions.pages * destination->regions.page_size;
	stats->remaining = stats->total - atomic_load(&destination->present) * destination->regions.page_size;
	for (unsigned i = 0; i < 2; i++)
		stats->wire += atomic_load_explicit(&destination->channels[i].stream.bytes, memory_order_relaxed);
}

static int take_options(struct uf_destination *destination, const struct uf_destination_options *opts)
{
	struct uf_destination_options *options = &destination->options;
	char cause[TLS_CAUSE];
	int err = opts ? options_take(options, sizeof(*options), opts, sizeof(*options)) : -EINVAL;

	if (err)
		return err;
	if ((options->flags & ~UF_MIGRATE_CHECKSUM) || !options->start ||
	    (options->open_flags & ~(UF_OPEN_USER_MODE_ONLY | UF_OPEN_KERNEL_FAULTS)))
		return -EINVAL;
	if (!options->timeout_ms)
		options->timeout_ms = TIMEOUT_MS;
	destination->tally.complete = fill_in;
	destination->tally.side = destination;
	destination->tally.progress = options->progress;
	destination->tally.failed = options->failed;
	destination->tally.arg = options->arg;
	err = tls_open(&destination->tls, options->tls, true, cause);
	if (err)
		tally_fail(&destination->tally, "TLS: %s", cause);
	return err;
}

static int open_object(struct uf_destination *destination)
{
	return uf_open(&destination->uf, &(struct uf_options){
						 .size = sizeof(struct uf_options),
						 .engine = destination->options.engine,
						 .flags = destination->options.open_flags,
						 .wanted = UFFD_FEATURE_POISON | UFFD_FEATURE_MISSING_SHMEM,
					 });
}

static size_t asked_ns_size(const struct uf_destination *destination)
{
	return destination->regions.numbers * sizeof(destination->asked_ns[0]);
}

static int make_memory(struct uf_destination *destination)
{
	size_t size = BITMAP_SIZE(destination->regions.numbers);

	destination->have = raw_map_own(size);
	destination->asked = raw_map_own(size);
	destination->asked_ns = raw_map_own(asked_ns_size(destination));
	destination->buffer = raw_map_own(WIRE_RUN);
	destination->faults_buffer = raw_map_own(WIRE_RUN);
	return destination->have && destination->asked && destination->asked_ns && destination->buffer &&
	                       destination->faults_buffer
	               ? 0
	               : -ENOMEM;
}

static int empty_regions(struct uf_destination *destination)
{
	/* A huge page would bring neighbours of what has come with it, as zeros. Where there are none it is refused, which is as well. */
	for (size_t i = 0; i < destination->regions.count; i++)
		raw_madvise(destination->regions.at[i].addr, destination->regions.at[i].len, MADV_NOHUGEPAGE);
	return place_empty_all(destination);
}

static void make_locks(struct uf_destination *destination)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&destination->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&destination->changed, &attr);
	pthread_condattr_destroy(&attr);
	tally_init(&destination->tally);
	for (unsigned i = 0; i < 2; i++)
		channel_init(&destination->channels[i], WIRE_SOURCE, &destination->regions);
}

int uf_destination_open(struct uf_destination **out, const struct uf_migrate_region *regions, size_t count,
                        const struct uf_destination_options *opts)
{
	struct uf_destination *destination;
	int err;

	if (!out)
		return -EINVAL;
	destination = calloc(1, sizeof(*destination));
	if (!destination)
		return -ENOMEM;
	destination->listener = -1;
	destination->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	destination->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = destination->wake < 0 || destination->kick < 0 ? -errno : 0;
	make_locks(destination);
	if (!err)
		err = regions_take(&destination->regions, regions, count);
	if (!err)
		err = regions_check_kinds(&destination->regions);
	if (!err)
		err = take_options(destination, opts);
	if (!err)
		err = make_memory(destination);
	if (!err)
		err = open_object(destination);
	if (!err)
		destination->engine = uf_way(destination->uf) == UF_WAY_USER_ENGINE ? UF_ENGINE_USER : UF_ENGINE_KERNEL;
	if (!err)
		err = empty_regions(destination);
	if (!err)
		err = place_try(destination);
	if (err) {
		uf_destination_close(destination);
		return err;
	}
	*out = destination;
	return 0;
}

/* What cannot be poisoned stays watched for ever: a touch of it waits. */
static void let_go(struct uf_destination *destination)
{
	int standing = destination_standing(destination);

	/* It may be poisoning: until that is done nothing is let go. */
	faults_end(destination);
	if (standing == DESTINATION_LOST && !atomic_load(&destination->poisoned))
		return;
	if (destination->stage >= STAGE_ARMED)
		place_disarm(destination);
	uf_close(destination->uf);
	if (standing == DESTINATION_WAITS || standing == DESTINATION_CANCELS)
		place_empty_all(destination);
}

void uf_destination_close(struct uf_destination *destination)
{
	size_t size;

	if (!destination)
		return;
	uf_destination_abandon(destination);
	if (destination->uf)
		let_go(destination);
	if (destination->listener >= 0) {
		close(destination->listener);
		address_forget(destination->listening);
	}
	size = BITMAP_SIZE(destination->regions.numbers);
	raw_unmap(destination->have, size);
	raw_unmap(destination->asked, size);
	raw_unmap(destination->asked_ns, asked_ns_size(destination));
	raw_unmap(destination->buffer, WIRE_RUN);
	raw_unmap(destination->faults_buffer, WIRE_RUN);
	free(destination->listening);
	free(destination->state);
	tls_close(destination->tls);
	for (unsigned i = 0; i < 2; i++)
		channel_destroy(&destination->channels[i]);
	regions_drop(&destination->regions);
	if (destination->wake >= 0)
		close(destination->wake);
	if (destination->kick >= 0)
		close(destination->kick);
	tally_destroy(&destination->tally);
	pthread_cond_destroy(&destination->changed);
	pthread_mutex_destroy(&destination->lock);
	free(destination);
}

int uf_destination_listen(struct uf_destination *destination, const char *address)
{
	int fd;

	if (!destination || !address)
		return -EINVAL;
	if (destination->listener >= 0)
		return -EALREADY;
	fd = address_listen(address, &destination->listening);
	if (fd < 0)
		return fd;
	destination->listener = fd;
	return 0;
}

int uf_destination_address(const struct uf_destination *destination, char *address, size_t size)
{
	if (!destination || !address)
		return -EINVAL;
	if (destination->listener < 0)
		return -ENOTCONN;
	if (strlen(destination->listening) >= size)
		return -ENAMETOOLONG;
	strcpy(address, destination->listening);
	return 0;
}

/* Until the receiver ends, and start() has returned. With the lock, which is released meanwhile. */
static void attend(struct uf_destination *destination)
{
	while (destination->running || destination->start_due) {
		struct timespec until;

		if (destination->start_due) {
			destination->start_due = false;
			pthread_mutex_unlock(&destination->lock);
			destination->options.start(destination->options.arg, destination->state,
			                           destination->state_len);
			pthread_mutex_lock(&destination->lock);
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += TICK_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&destination->changed, &destination->lock, &until);
		pthread_mutex_unlock(&destination->lock);
		tally_tick(&destination->tally);
		pthread_mutex_lock(&destination->lock);
	}
}

/* A cancellation has had its effect. */
static void settle(struct uf_destination *destination)
{
	int cancels = DESTINATION_CANCELS;
	uint64_t count;

	pthread_mutex_lock(&destination->lock);
	if (atomic_compare_exchange_strong(&destination->standing, &cancels, DESTINATION_WAITS))
		raw_read(destination->wake, &count, sizeof(count));
	pthread_mutex_unlock(&destination->lock);
}

static int run(struct uf_destination *destination)
{
	pthread_t receiver;
	int err;

	pthread_mutex_lock(&destination->lock);
	err = thread_start(&receiver, destination_receive, destination);
	if (err) {
		pthread_mutex_unlock(&destination->lock);
		return err;
	}
	destination->running = true;
	attend(destination);
	err = destination->result;
	pthread_mutex_unlock(&destination->lock);
	pthread_join(receiver, NULL);
	tally_tick(&destination->tally);
	switch (destination_standing(destination)) {
	case DESTINATION_DONE:
		tally_phase(&destination->tally, UF_MIGRATE_COMPLETE);
		break;
	case DESTINATION_LOST:
		tally_phase(&destination->tally, UF_MIGRATE_LOST);
		break;
	default:
		break;
	}
	return err;
}

int uf_destination_run(struct uf_destination *destination, const char *connected)
{
	int count = 0, err = 0, standing;

	if (!destination || (!connected && destination->listener < 0))
		return -EINVAL;
	if (connected)
		count = address_descriptors(connected, destination->fds);
	if (count < 0)
		return count;
	destination->fds_count = count;
	standing = destination_standing(destination);
	if (standing == DESTINATION_DONE || standing == DESTINATION_LOST)
		err = -EALREADY;
	if (standing == DESTINATION_CANCELS)
		err = destination_decline(destination);
	if (err && connected)
		address_discard(connected);
	if (!err)
		err = run(destination);
	/* One that came when it had ended with something else is the next call's. */
	if (err == -ECANCELED)
		settle(destination);
	return err;
}

static void wake(struct uf_destination *destination)
{
	uint64_t one = 1;

	raw_syscall3(SYS_write, destination->wake, (long)&one, sizeof(one));
}

int uf_destination_cancel(struct uf_destination *destination)
{
	int waits = DESTINATION_WAITS, err = 0;

	if (!destination)
		return -EINVAL;
	/* Both at once, or the wake-up might come when the cancellation has had its effect, and end what comes after it. */
	pthread_mutex_lock(&destination->lock);
	if (!atomic_compare_exchange_strong(&destination->standing, &waits, DESTINATION_CANCELS) &&
	    waits != DESTINATION_CANCELS)
		err = -EALREADY;
	else
		wake(destination);
	pthread_mutex_unlock(&destination->lock);
	return err;
}

int uf_destination_abandon(struct uf_destination *destination)
{
	int begun = DESTINATION_BEGUN, err;

	if (!destination)
		return -EINVAL;
	if (!atomic_compare_exchange_strong(&destination->standing, &begun, DESTINATION_LOST))
		return begun == DESTINATION_WAITS || begun == DESTINATION_CANCELS ? -EAGAIN : -EALREADY;
	tally_fail(&destination->tally, "the source is gone for good");
	wake(destination);
	err = place_poison_missing(destination);
	if (!err)
		atomic_store(&destination->poisoned, true);
	return err;
}

enum uf_migrate_owner uf_destination_owner(const struct uf_destination *destination)
{
	int standing = destination_standing(destination);

	return standing == DESTINATION_WAITS || standing == DESTINATION_CANCELS ? UF_OWNER_SOURCE
	                                                                        : UF_OWNER_DESTINATION;
}

enum uf_engine uf_destination_engine(const struct uf_destination *destination)
{
	return destination->engine;
}

int uf_destination_stats(const struct uf_destination *destination, struct uf_migrate_statistics *stats)
{
	return destination ? tally_read((struct tally *)&destination->tally, stats) : -EINVAL;
}
