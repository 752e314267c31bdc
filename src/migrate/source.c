// SPDX-License-Identifier: MIT
/* Contracts: <userfault/migrate.h> and migrate/source.h. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/rawsys.h"
#include "migrate/address.h"
#include "migrate/source.h"

#define TIMEOUT_MS      30000
#define ENOUGH          ((uint64_t)1 << 20)
#define LEAST_BANDWIDTH 65536
#define FLAGS           (UF_MIGRATE_CHECKSUM | UF_MIGRATE_ONE_CONNECTION)

static void fill_in(void *side, struct uf_migrate_statistics *stats)
{
	struct uf_source *source = side;

	stats->total = source->regions.pages * source->regions.page_size;
	stats->remaining = bitmap_count(source->todo, 0, source->regions.numbers) * source->regions.page_size;
	for (unsigned i = 0; i < 2; i++)
		stats->wire += atomic_load_explicit(&source->channels[i].stream.bytes, memory_order_relaxed);
}

static int take_options(struct uf_source *source, const struct uf_source_options *opts)
{
	char cause[TLS_CAUSE];
	int err = opts ? options_take(&source->options, sizeof(source->options), opts, sizeof(source->options))
	               : -EINVAL;

	if (err)
		return err;
	if ((source->options.flags & ~FLAGS) || !source->options.stop != !source->options.resume)
		return -EINVAL;
	if (source->options.bandwidth && source->options.bandwidth < LEAST_BANDWIDTH)
		return -EINVAL;
	if (!source->options.timeout_ms)
		source->options.timeout_ms = TIMEOUT_MS;
	if (!source->options.enough)
		source->options.enough = ENOUGH;
	source->limit.rate = source->options.bandwidth;
	source->tally.complete = fill_in;
	source->tally.side = source;
	source->tally.progress = source->options.progress;
	source->tally.failed = source->options.failed;
	source->tally.arg = source->options.arg;
	err = tls_open(&source->tls, source->options.tls, false, cause);
	if (err)
		tally_fail(&source->tally, "TLS: %s", cause);
	return err;
}

static int make_bitmaps(struct uf_source *source)
{
	source->bitmap_size = BITMAP_SIZE(source->regions.numbers);
	source->todo = raw_map_own(source->bitmap_size);
	source->sent = raw_map_own(source->bitmap_size);
	source->unsure = raw_map_own(source->bitmap_size);
	return source->todo && source->sent && source->unsure ? 0 : -ENOMEM;
}

int uf_source_open(struct uf_source **out, const struct uf_migrate_region *regions, size_t count,
                   const struct uf_source_options *opts)
{
	struct uf_source *source;
	int err;

	if (!out)
		return -EINVAL;
	source = calloc(1, sizeof(*source));
	if (!source)
		return -ENOMEM;
	source->fresh = true;
	source->sender.pagemap = -1;
	pthread_mutex_init(&source->cancel, NULL);
	source->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = source->wake < 0 ? -errno : 0;
	tally_init(&source->tally);
	for (unsigned i = 0; i < 2; i++)
		channel_init(&source->channels[i], WIRE_DESTINATION, &source->regions);
	if (!err)
		err = regions_take(&source->regions, regions, count);
	if (!err)
		err = regions_check_kinds(&source->regions);
	if (!err)
		err = take_options(source, opts);
	if (!err)
		err = make_bitmaps(source);
	if (!err)
		err = sender_open(&source->sender);
	if (err) {
		uf_source_close(source);
		return err;
	}
	source_begin_anew(source);
	*out = source;
	return 0;
}

void uf_source_close(struct uf_source *source)
{
	if (!source)
		return;
	uf_dirty_close(source->tracker);
	sender_close(&source->sender);
	raw_unmap(source->todo, source->bitmap_size);
	raw_unmap(source->sent, source->bitmap_size);
	raw_unmap(source->unsure, source->bitmap_size);
	tls_close(source->tls);
	for (unsigned i = 0; i < 2; i++)
		channel_destroy(&source->channels[i]);
	regions_drop(&source->regions);
	if (source->wake >= 0)
		close(source->wake);
	pthread_mutex_destroy(&source->cancel);
	tally_destroy(&source->tally);
	free(source);
}

/* The whole way, while the program is ours. */
static int give(struct uf_source *source)
{
	int err;

	if (source->peer_standing == WIRE_CANCELED)
		return -ECANCELED;
	if (source->peer_standing == WIRE_COMMITTED || source->peer_standing == WIRE_COMPLETE)
		return -EPROTO;
	err = source_precopy(source);
	if (!err)
		err = source_handover(source);
	return err ? err : source_postcopy(source);
}

/* What is left of it, after it was given away. */
static int go_on(struct uf_source *source)
{
	int given = SOURCE_COMMITTED, err = 0;

	switch (source->peer_standing) {
	case WIRE_READY:
		err = source_standing(source) == SOURCE_COMMITTED ? source_commit(source) : -EPROTO;
		break;
	case WIRE_COMMITTED:
		if (atomic_compare_exchange_strong(&source->standing, &given, SOURCE_GAVE))
			atomic_store(&source->tally.stopped_ns, now_ns() - source->stopped_ns);
		source->stopped = false;
		break;
	case WIRE_COMPLETE:
		if (source_standing(source) == SOURCE_COMMITTED)
			atomic_store(&source->tally.stopped_ns, now_ns() - source->stopped_ns);
		channel_tell(&source->channels[0], WIRE_BYE, 0);
		atomic_store(&source->standing, SOURCE_DONE);
		tally_phase(&source->tally, UF_MIGRATE_COMPLETE);
		return 0;
	case WIRE_CANCELED:
		return atomic_compare_exchange_strong(&source->standing, &given, SOURCE_OWNS) ? -ECANCELED : -EPROTO;
	default:
		return -EPROTO;
	}
	return err ? err : source_postcopy(source);
}

/* The migration is over, and the program is here: the next one begins anew. */
static void forget(struct uf_source *source)
{
	uint64_t count;

	pthread_mutex_lock(&source->cancel);
	atomic_store(&source->standing, SOURCE_OWNS);
	if (read(source->wake, &count, sizeof(count)) < 0)
		count = 0;
	pthread_mutex_unlock(&source->cancel);
	source->fresh = true;
	tally_phase(&source->tally, UF_MIGRATE_CANCELED);
}

/* What has ended it early. */
static int clean_up(struct uf_source *source, int err)
{
	int standing = source_standing(source);

	if (standing == SOURCE_CANCELS) {
		err = -ECANCELED;
		if (source->connections) {
			channel_reason(&source->channels[0], WIRE_CANCEL, WIRE_ACCEPTED, "cancelled at the source");
			stream_finish(&source->channels[0].stream, STREAM_GRACE_MS);
		}
	} else if (source->connections && err != -ENOTCONN && err != -ECANCELED && standing == SOURCE_OWNS) {
		/* Something here has failed, as stop(). The destination can only wait for another try. */
		tally_fail(&source->tally, "%s", tally_word(err));
	}
	source_disconnect(source);
	if (standing != SOURCE_OWNS && standing != SOURCE_CANCELS) {
		tally_tick(&source->tally);
		return err;
	}
	source_resume(source);
	if (err == -ECANCELED)
		forget(source);
	else
		tally_phase(&source->tally, UF_MIGRATE_WAITING);
	return err;
}

int uf_source_run(struct uf_source *source, const char *address)
{
	int standing, err;

	if (!source || !address)
		return -EINVAL;
	standing = source_standing(source);
	if (standing == SOURCE_DONE || standing == SOURCE_CANCELS)
		address_discard(address);
	if (standing == SOURCE_DONE)
		return -EALREADY;
	err = standing == SOURCE_CANCELS ? -ECANCELED : source_connect(source, address);
	if (!err)
		err = source_standing(source) == SOURCE_COMMITTED || source_standing(source) == SOURCE_GAVE
		              ? go_on(source)
		              : give(source);
	if (err)
		return clean_up(source, err);
	source_disconnect(source);
	tally_tick(&source->tally);
	return 0;
}

int uf_source_cancel(struct uf_source *source)
{
	int owns = SOURCE_OWNS, err = 0;
	uint64_t one = 1;

	if (!source)
		return -EINVAL;
	pthread_mutex_lock(&source->cancel);
	if (!atomic_compare_exchange_strong(&source->standing, &owns, SOURCE_CANCELS) && owns != SOURCE_CANCELS)
		err = -EALREADY;
	else
		raw_syscall3(SYS_write, source->wake, (long)&one, sizeof(one));
	pthread_mutex_unlock(&source->cancel);
	return err;
}

enum uf_migrate_owner uf_source_owner(const struct uf_source *source)
{
	switch (source_standing(source)) {
	case SOURCE_OWNS:
	case SOURCE_CANCELS:
		return UF_OWNER_SOURCE;
	case SOURCE_COMMITTED:
		return UF_OWNER_IN_DOUBT;
	default:
		return UF_OWNER_DESTINATION;
	}
}

int uf_source_reclaim(struct uf_source *source)
{
	int given = SOURCE_COMMITTED;

	if (!source)
		return -EINVAL;
	if (!atomic_compare_exchange_strong(&source->standing, &given, SOURCE_OWNS))
		return -EALREADY;
	source_resume(source);
	forget(source);
	return 0;
}

int uf_source_stats(const struct uf_source *source, struct uf_migrate_statistics *stats)
{
	/* Counting changes nothing but the lock. */
	return source ? tally_read((struct tally *)&source->tally, stats) : -EINVAL;
}
