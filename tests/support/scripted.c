// SPDX-License-Identifier: MIT
/*
 * A small userfaultfd over plain memory. One lock and one condition for everything: what is tested is what stands
 * above, and the engine must never be the reason why something cannot happen.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "support/scripted.h"
#include "support/test.h"

#define ALL_FEATURES    ((uint64_t)0x1ffff)
#define MAX_DESCRIPTORS 4096

enum state { MISSING, PRESENT, POISONED };

struct page {
	char *bytes;
	enum state state;
	bool mapped, protected;
	uint64_t mode; /* UFFDIO_REGISTER_MODE_*; 0: not registered */
};

struct area {
	uint64_t start;
	size_t count;
	struct page *pages;
	struct area *next; /* later ones first: they lie over what was there before */
};

/* A scripted_touch() that sleeps; it lives on that thread's stack. */
struct sleeper {
	uint64_t address;
	uint64_t flags;
	uint32_t tid;
	bool read, woken;
	struct sleeper *next;
};

struct queued {
	struct uffd_msg msg;
	bool layout; /* while it is unread, requests answer -EAGAIN */
	struct queued *next;
};

struct answer {
	struct scripted_answer answer;
	struct answer *next;
};

struct context {
	unsigned descriptors;
	bool enabled, exited, rung, blocking;
	bool coming; /* the event of a change is on its way */
	int bell;
	enum uf_way way;
	uint64_t features;
	struct area *areas;
	struct sleeper *sleepers;
	struct queued *queue;
	struct answer *answers;
	struct scripted_call *calls;
	size_t call_count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* everything below, and every context */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct context *contexts[MAX_DESCRIPTORS];
static uint64_t denied;
static int denial;

static struct way {
	int err;
	uint64_t features;
} ways[UF_WAY_USER_ENGINE] = {{0, ALL_FEATURES}, {0, ALL_FEATURES}, {0, ALL_FEATURES}};

static void *zalloc(size_t size)
{
	void *p = calloc(1, size);

	CHECK(p);
	return p;
}

static struct context *context_of(const struct uf *uf)
{
	CHECK(uf && uf->fd >= 0 && uf->fd < MAX_DESCRIPTORS && contexts[uf->fd]);
	return contexts[uf->fd];
}

static struct page *find_page(const struct context *context, uint64_t address)
{
	for (const struct area *area = context->areas; area; area = area->next)
		if (address >= area->start && (address - area->start) / page_size < area->count)
			return &area->pages[(address - area->start) / page_size];
	return NULL;
}

static struct page *mapped_page(const struct context *context, uint64_t address)
{
	struct page *page = find_page(context, address);

	return page && page->mapped ? page : NULL;
}

static struct page *add_area(struct context *context, uint64_t start, size_t count)
{
	struct area *area = zalloc(sizeof(*area));

	area->start = start;
	area->count = count;
	area->pages = zalloc(count * sizeof(*area->pages));
	area->next = context->areas;
	context->areas = area;
	return area->pages;
}

/* The descriptor is readable exactly while there is something to read. */
static void ring(struct context *context)
{
	bool any = context->queue;
	uint64_t value = 1;

	for (struct sleeper *sleeper = context->sleepers; sleeper; sleeper = sleeper->next)
		any = any || (!sleeper->read && !sleeper->woken);
	if (any && !context->rung)
		CHECK_EQ(write(context->bell, &value, sizeof(value)), sizeof(value));
	if (!any && context->rung)
		CHECK_EQ(read(context->bell, &value, sizeof(value)), sizeof(value));
	context->rung = any;
	pthread_cond_broadcast(&changed);
}

static void wake(struct context *context, uint64_t start, uint64_t len)
{
	for (struct sleeper *sleeper = context->sleepers; sleeper; sleeper = sleeper->next)
		if (sleeper->address - start < len)
			sleeper->woken = true;
	ring(context);
}

static bool layout_changing(const struct context *context)
{
	if (context->coming)
		return true;
	for (const struct queued *queued = context->queue; queued; queued = queued->next)
		if (queued->layout)
			return true;
	return false;
}

static void enqueue(struct context *context, const struct uffd_msg *msg, bool layout)
{
	struct queued *queued = zalloc(sizeof(*queued)), **last = &context->queue;

	queued->msg = *msg;
	queued->layout = layout;
	while (*last)
		last = &(*last)->next;
	*last = queued;
	ring(context);
}

/* Descriptors. */

static int new_descriptor(enum uf_way way, int open_flags)
{
	struct context *context = zalloc(sizeof(*context));

	context->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	CHECK(context->bell >= 0 && context->bell < MAX_DESCRIPTORS);
	context->descriptors = 1;
	context->way = way;
	context->blocking = !(open_flags & O_NONBLOCK);
	contexts[context->bell] = context;
	return context->bell;
}

static int scripted_engine_open(enum uf_way way, int open_flags, void **state)
{
	int fd;

	(void)state;
	pthread_mutex_lock(&lock);
	fd = ways[way].err ? ways[way].err : new_descriptor(way, open_flags);
	pthread_mutex_unlock(&lock);
	return fd;
}

static int scripted_recognise(int fd, uint64_t *features, void **state)
{
	int err = -ENOTTY;

	(void)state;
	pthread_mutex_lock(&lock);
	if (fd >= 0 && fd < MAX_DESCRIPTORS && contexts[fd]) {
		*features = contexts[fd]->features;
		err = contexts[fd]->enabled ? 0 : -EINVAL;
	}
	pthread_mutex_unlock(&lock);
	return err;
}

/* A context outlives its descriptor: threads may still sleep in it, and go on with zeros. */
static void scripted_engine_close(struct uf *uf)
{
	struct context *context;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	contexts[uf->fd] = NULL;
	context->descriptors = 0;
	pthread_cond_broadcast(&changed);
	close(uf->fd);
	pthread_mutex_unlock(&lock);
}

unsigned scripted_descriptors(void)
{
	unsigned count = 0;

	pthread_mutex_lock(&lock);
	for (int fd = 0; fd < MAX_DESCRIPTORS; fd++)
		count += contexts[fd] != NULL;
	pthread_mutex_unlock(&lock);
	return count;
}

/* Requests: taken apart, done, and put together again. */

static bool delivers(unsigned long request)
{
	return request == UFFDIO_COPY || request == UFFDIO_ZEROPAGE || request == UFFDIO_CONTINUE ||
	       request == UFFDIO_MOVE || request == UFFDIO_POISON;
}

static struct scripted_call decode(unsigned long request, const void *arg)
{
	struct scripted_call call = {.request = request};
	union {
		const struct uffdio_range *range;
		const struct uffdio_register *reg;
		const struct uffdio_copy *copy;
		const struct uffdio_zeropage *zeropage;
		const struct uffdio_move *move;
	} in = {.range = arg};

	switch (request) {
	case UFFDIO_COPY:
		call.address = in.copy->dst;
		call.src = in.copy->src;
		call.len = in.copy->len;
		call.mode = in.copy->mode;
		break;
	case UFFDIO_MOVE:
		call.address = in.move->dst;
		call.src = in.move->src;
		call.len = in.move->len;
		call.mode = in.move->mode;
		break;
	default:
		/* The others begin with a range, and those with a mode have it behind the range. */
		call.address = in.range->start;
		call.len = in.range->len;
		if (request != UFFDIO_WAKE && request != UFFDIO_UNREGISTER)
			call.mode = in.zeropage->mode;
	}
	return call;
}

static void encode(const struct scripted_call *call, void *arg)
{
	if (call->request == UFFDIO_COPY)
		((struct uffdio_copy *)arg)->copy = call->done;
	else if (call->request == UFFDIO_MOVE)
		((struct uffdio_move *)arg)->move = call->done;
	else if (delivers(call->request))
		((struct uffdio_zeropage *)arg)->zeropage = call->done;
	else if (call->request == UFFDIO_REGISTER && !call->err)
		((struct uffdio_register *)arg)->ioctls = (uint64_t)call->done;
}

static int register_range(struct context *context, struct scripted_call *call)
{
	bool any = false;

	if (!call->mode || (call->mode & ~(uint64_t)7))
		return -EINVAL;
	for (uint64_t at = 0; at < call->len; at += page_size)
		any = any || mapped_page(context, call->address + at);
	if (!any)
		return -EINVAL;
	for (uint64_t at = 0; at < call->len; at += page_size) {
		struct page *page = mapped_page(context, call->address + at);

		if (page)
			page->mode = call->mode;
	}
	call->done = 1 << _UFFDIO_WAKE | 1 << _UFFDIO_COPY | 1 << _UFFDIO_ZEROPAGE | 1 << _UFFDIO_MOVE |
	             1 << _UFFDIO_POISON;
	if (call->mode & UFFDIO_REGISTER_MODE_WP)
		call->done |= 1 << _UFFDIO_WRITEPROTECT;
	if (call->mode & UFFDIO_REGISTER_MODE_MINOR)
		call->done |= 1 << _UFFDIO_CONTINUE;
	return 0;
}

static int unregister_range(struct context *context, const struct scripted_call *call)
{
	for (uint64_t at = 0; at < call->len; at += page_size) {
		struct page *page = mapped_page(context, call->address + at);

		if (page) {
			page->mode = 0;
			page->protected = false;
		}
	}
	wake(context, call->address, call->len);
	return 0;
}

static int protect_range(struct context *context, const struct scripted_call *call)
{
	bool protect = call->mode & UFFDIO_WRITEPROTECT_MODE_WP;

	for (uint64_t at = 0; at < call->len; at += page_size) {
		struct page *page = mapped_page(context, call->address + at);

		if (!page || !(page->mode & UFFDIO_REGISTER_MODE_WP))
			return -ENOENT;
		if (page->state == PRESENT || (context->features & UFFD_FEATURE_WP_UNPOPULATED))
			page->protected = protect;
	}
	if (!protect && !(call->mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE))
		wake(context, call->address, call->len);
	return 0;
}

static int deliver_page(struct context *context, const struct scripted_call *call, uint64_t at)
{
	struct page *page = mapped_page(context, call->address + at), *src;

	if (page->state == PRESENT || (page->state == POISONED && call->request != UFFDIO_COPY))
		return -EEXIST;
	page->state = call->request == UFFDIO_POISON ? POISONED : PRESENT;
	page->protected = false;
	switch (call->request) {
	case UFFDIO_COPY:
		memcpy(page->bytes, (void *)(uintptr_t)(call->src + at), page_size);
		page->protected = call->mode & UFFDIO_COPY_MODE_WP;
		break;
	case UFFDIO_ZEROPAGE:
		memset(page->bytes, 0, page_size);
		break;
	case UFFDIO_MOVE:
		src = mapped_page(context, call->src + at);
		if (!src || src->state != PRESENT) {
			page->state = MISSING;
			return -ENOENT;
		}
		memcpy(page->bytes, src->bytes, page_size);
		src->state = MISSING;
		break;
	case UFFDIO_CONTINUE: /* the bytes kept here are the file's */
		break;
	}
	return 0;
}

/* The first `len` bytes of what the call asks for. */
static int deliver(struct context *context, struct scripted_call *call, uint64_t len)
{
	int err = 0;

	for (uint64_t at = 0; at < len; at += page_size) {
		struct page *page = mapped_page(context, call->address + at);

		if (!page || !page->mode) {
			call->done = -ENOENT;
			return -ENOENT;
		}
	}
	call->done = 0;
	while (!err && (uint64_t)call->done < len) {
		err = deliver_page(context, call, (uint64_t)call->done);
		if (!err)
			call->done += (int64_t)page_size;
	}
	/* Bit 0 of the mode is DONTWAKE in all of them. */
	if (call->done > 0 && !(call->mode & UFFDIO_COPY_MODE_DONTWAKE))
		wake(context, call->address, (uint64_t)call->done);
	if (err && call->done > 0)
		return -EAGAIN;
	if (err)
		call->done = err;
	return err;
}

static int answer_of_the_dead(unsigned long request)
{
	switch (request) {
	case UFFDIO_WAKE:
		return 0;
	case UFFDIO_REGISTER:
	case UFFDIO_UNREGISTER:
		return -ENOMEM;
	case UFFDIO_MOVE:
		return -EINVAL;
	default:
		return -ESRCH;
	}
}

static int ordinary(struct context *context, struct scripted_call *call)
{
	if (!call->len || (call->address | call->len) % page_size || call->address + call->len < call->address)
		return -EINVAL;
	if (context->exited)
		return answer_of_the_dead(call->request);
	if ((delivers(call->request) || call->request == UFFDIO_WRITEPROTECT) && layout_changing(context)) {
		call->done = -EAGAIN;
		return -EAGAIN;
	}
	switch (call->request) {
	case UFFDIO_REGISTER:
		return register_range(context, call);
	case UFFDIO_UNREGISTER:
		return unregister_range(context, call);
	case UFFDIO_WRITEPROTECT:
		return protect_range(context, call);
	case UFFDIO_WAKE:
		wake(context, call->address, call->len);
		return 0;
	default:
		return delivers(call->request) ? deliver(context, call, call->len) : -EINVAL;
	}
}

static bool take_answer(struct context *context, const struct scripted_call *call, struct scripted_answer *taken)
{
	for (struct answer **at = &context->answers; *at; at = &(*at)->next) {
		struct answer *answer = *at;

		if (answer->answer.request != call->request ||
		    (answer->answer.address && answer->answer.address != call->address))
			continue;
		*taken = answer->answer;
		*at = answer->next;
		free(answer);
		return true;
	}
	return false;
}

/* The ordinary course, but no further than that. */
static void up_to(struct context *context, struct scripted_call *call, uint64_t limit)
{
	uint64_t len = call->len;

	if (limit < len)
		call->len = limit;
	call->err = ordinary(context, call);
	if (!call->err && limit < len)
		call->err = -EAGAIN;
	call->len = len;
}

static void scripted_course(struct context *context, struct scripted_call *call, const struct scripted_answer *answer)
{
	if (answer->ordinary) {
		up_to(context, call, answer->done > 0 ? (uint64_t)answer->done : call->len);
		return;
	}
	if (answer->perform)
		ordinary(context, call);
	else if (answer->done > 0 && delivers(call->request))
		deliver(context, call, (uint64_t)answer->done);
	call->err = answer->err;
	call->done = answer->done;
}

static int enable(struct context *context, struct uffdio_api *api)
{
	uint64_t offered = ways[context->way].features;
	int err = 0;

	if (context->enabled || api->api != UFFD_API || (api->features & ~offered))
		err = -EINVAL;
	else if (api->features & denied)
		err = denial;
	if (err) {
		*api = (struct uffdio_api){0};
		return err;
	}
	context->enabled = true;
	context->features = api->features;
	if (api->features & UFFD_FEATURE_WP_ASYNC)
		context->features |= UFFD_FEATURE_WP_UNPOPULATED;
	api->features = offered;
	api->ioctls = UFFD_API_IOCTLS;
	return 0;
}

static void record(struct context *context, const struct scripted_call *call)
{
	size_t count = context->call_count + 1;

	context->calls = realloc(context->calls, count * sizeof(*call));
	CHECK(context->calls);
	context->calls[context->call_count] = *call;
	context->call_count = count;
}

static struct scripted_call call_now(const struct uf *uf, struct context *context, unsigned long request, void *arg)
{
	struct scripted_call call = decode(request, arg);
	struct scripted_answer answer;

	if (!take_answer(context, &call, &answer)) {
		call.err = ordinary(context, &call);
		return call;
	}
	if (answer.before) {
		pthread_mutex_unlock(&lock);
		answer.before((struct uf *)(uintptr_t)uf, answer.arg);
		pthread_mutex_lock(&lock);
	}
	scripted_course(context, &call, &answer);
	return call;
}

static int scripted_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct scripted_call call = {.request = request};
	struct context *context;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	if (request == UFFDIO_API && arg) {
		call.mode = ((struct uffdio_api *)arg)->features;
		call.err = enable(context, arg);
	} else if (!context->enabled && request != UFFDIO_API) {
		call.err = -EINVAL;
	} else if (!arg) {
		call.err = -EFAULT;
	} else {
		call = call_now(uf, context, request, arg);
		encode(&call, arg);
	}
	record(context, &call);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return call.err;
}

/* Messages. */

static void fault_message(const struct context *context, const struct sleeper *sleeper, struct uffd_msg *msg)
{
	memset(msg, 0, sizeof(*msg));
	msg->event = UFFD_EVENT_PAGEFAULT;
	msg->arg.pagefault.flags = sleeper->flags;
	msg->arg.pagefault.address = sleeper->address;
	if (!(context->features & UFFD_FEATURE_EXACT_ADDRESS))
		msg->arg.pagefault.address &= ~((uint64_t)page_size - 1);
	if (context->features & UFFD_FEATURE_THREAD_ID)
		msg->arg.pagefault.feat.ptid = sleeper->tid;
}

/* Faults come before events, as with the kernel. */
static bool next_message(struct context *context, struct uffd_msg *msg)
{
	struct sleeper *first = NULL;
	struct queued *queued = context->queue;

	for (struct sleeper *sleeper = context->sleepers; sleeper; sleeper = sleeper->next)
		if (!sleeper->read && !sleeper->woken)
			first = sleeper; /* new ones are put in front */
	if (first) {
		fault_message(context, first, msg);
		first->read = true;
		return true;
	}
	if (!queued)
		return false;
	*msg = queued->msg;
	context->queue = queued->next;
	free(queued);
	return true;
}

static ssize_t scripted_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct context *context;
	size_t taken = 0;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	if (!context->enabled) {
		pthread_mutex_unlock(&lock);
		return -EINVAL;
	}
	for (;;) {
		while (taken < count && next_message(context, &msgs[taken]))
			taken++;
		if (taken || !context->blocking)
			break;
		pthread_cond_wait(&changed, &lock);
	}
	ring(context);
	pthread_mutex_unlock(&lock);
	return taken ? (ssize_t)taken : -EAGAIN;
}

const struct uf_engine_ops uf_engine_scripted = {
	.name = "scripted",
	.faults_are_sigbus = true,
	.open = scripted_engine_open,
	.recognise = scripted_recognise,
	.ioctl = scripted_ioctl,
	.read = scripted_read,
	.close = scripted_engine_close,
};

/* What the test decides. */

void scripted_way(enum uf_way way, int err, uint64_t features)
{
	pthread_mutex_lock(&lock);
	ways[way] = (struct way){err, features};
	pthread_mutex_unlock(&lock);
}

void scripted_deny(uint64_t features, int err)
{
	pthread_mutex_lock(&lock);
	denied = err ? features : 0;
	denial = err;
	pthread_mutex_unlock(&lock);
}

struct uf *scripted_open(uint64_t features)
{
	struct uf_options opts = {.size = sizeof(opts), .required = features};
	struct uf *uf;

	CHECK_EQ(uf_engine_open_negotiated(&uf, &uf_engine_scripted, &opts), 0);
	return uf;
}

struct uf *scripted_adopt(int fd)
{
	struct uf *uf = zalloc(sizeof(*uf));

	CHECK_EQ(scripted_recognise(fd, &uf->features, &uf->state), 0);
	uf->ops = &uf_engine_scripted;
	uf->fd = fd;
	uf->way = UF_WAY_ADOPTED;
	uf->ioctls = UFFD_API_IOCTLS;
	return uf;
}

void scripted_answer(struct uf *uf, const struct scripted_answer *answer)
{
	struct answer *new = zalloc(sizeof(*new)), **last;

	new->answer = *answer;
	pthread_mutex_lock(&lock);
	last = &context_of(uf)->answers;
	while (*last)
		last = &(*last)->next;
	*last = new;
	pthread_mutex_unlock(&lock);
}

size_t scripted_unused(struct uf *uf)
{
	size_t count = 0;

	pthread_mutex_lock(&lock);
	for (const struct answer *answer = context_of(uf)->answers; answer; answer = answer->next)
		count++;
	pthread_mutex_unlock(&lock);
	return count;
}

void scripted_message(struct uf *uf, const struct uffd_msg *msg)
{
	pthread_mutex_lock(&lock);
	enqueue(context_of(uf), msg, msg->event != UFFD_EVENT_PAGEFAULT);
	pthread_mutex_unlock(&lock);
}

size_t scripted_calls(struct uf *uf, struct scripted_call *calls, size_t room)
{
	const struct context *context;
	size_t count;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	count = context->call_count;
	for (size_t i = 0; i < count && i < room; i++)
		calls[i] = context->calls[i];
	pthread_mutex_unlock(&lock);
	return count;
}

size_t scripted_count(struct uf *uf, unsigned long request)
{
	const struct context *context;
	size_t count = 0;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	for (size_t i = 0; i < context->call_count; i++)
		count += context->calls[i].request == request;
	pthread_mutex_unlock(&lock);
	return count;
}

void scripted_forget(struct uf *uf)
{
	pthread_mutex_lock(&lock);
	context_of(uf)->call_count = 0;
	pthread_mutex_unlock(&lock);
}

/* The process that is served. */

char *scripted_memory(struct uf *uf, uint64_t address, size_t pages)
{
	char *bytes = aligned_alloc(page_size, pages * page_size);
	struct page *page;

	CHECK(bytes && address % page_size == 0);
	memset(bytes, 0, pages * page_size);
	pthread_mutex_lock(&lock);
	page = add_area(context_of(uf), address ? address : (uintptr_t)bytes, pages);
	for (size_t i = 0; i < pages; i++)
		page[i] = (struct page){.bytes = bytes + i * page_size, .mapped = true};
	pthread_mutex_unlock(&lock);
	return bytes;
}

enum scripted_page scripted_page(struct uf *uf, uint64_t address)
{
	enum scripted_page state = SCRIPTED_UNMAPPED;
	const struct page *page;

	pthread_mutex_lock(&lock);
	page = mapped_page(context_of(uf), address);
	if (page && page->state == POISONED)
		state = SCRIPTED_POISONED;
	else if (page && page->protected)
		state = SCRIPTED_PROTECTED;
	else if (page)
		state = page->state == PRESENT ? SCRIPTED_PRESENT : SCRIPTED_MISSING;
	pthread_mutex_unlock(&lock);
	return state;
}

bool scripted_load(struct uf *uf, uint64_t address, unsigned char *value)
{
	const struct page *page;
	bool there;

	pthread_mutex_lock(&lock);
	page = mapped_page(context_of(uf), address);
	there = page && page->state == PRESENT;
	if (there)
		*value = (unsigned char)page->bytes[address % page_size];
	pthread_mutex_unlock(&lock);
	return there;
}

bool scripted_store(struct uf *uf, uint64_t address, unsigned char value)
{
	struct page *page;
	bool there;

	pthread_mutex_lock(&lock);
	page = mapped_page(context_of(uf), address);
	there = page && page->state == PRESENT && !page->protected;
	if (there)
		page->bytes[address % page_size] = (char)value;
	pthread_mutex_unlock(&lock);
	return there;
}

static void fall_asleep(struct context *context, uint64_t address, uint64_t flags)
{
	struct sleeper self = {.address = address, .flags = flags, .tid = (uint32_t)raw_gettid()};
	struct sleeper **at;

	self.next = context->sleepers;
	context->sleepers = &self;
	ring(context);
	while (!self.woken && context->descriptors && !context->exited)
		pthread_cond_wait(&changed, &lock);
	for (at = &context->sleepers; *at != &self; at = &(*at)->next)
		;
	*at = self.next;
	if (context->descriptors)
		ring(context);
}

/* What the access meets: 1 and the flags of a fault, or how it ends. */
static int meets(struct context *context, uint64_t address, enum scripted_access access, uint64_t *flags)
{
	struct page *page = mapped_page(context, address);
	bool writes = access == SCRIPTED_WRITE;

	*flags = writes ? UFFD_PAGEFAULT_FLAG_WRITE : 0;
	if (context->exited)
		return -ESRCH;
	if (!page)
		return -EFAULT;
	if (page->state == POISONED)
		return -EIO;
	if (!context->descriptors)
		page->mode = page->protected = 0;
	if (page->protected && writes) {
		*flags |= UFFD_PAGEFAULT_FLAG_WP;
		if (context->features & UFFD_FEATURE_WP_ASYNC)
			page->protected = false;
		return page->protected;
	}
	if (page->state == PRESENT)
		return 0;
	if (page->mode & UFFDIO_REGISTER_MODE_MINOR)
		*flags |= UFFD_PAGEFAULT_FLAG_MINOR;
	if (page->mode & (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR))
		return 1;
	memset(page->bytes, 0, page_size);
	page->state = PRESENT;
	return 0;
}

static int handle_here(struct uf *uf, uint64_t address, uint64_t flags)
{
	struct uf_fault fault = {.address = address, .flags = flags};
	int err;

	if (!uf->handler)
		return -EIO;
	pthread_mutex_unlock(&lock);
	err = uf->handler(uf, &fault, uf->arg);
	pthread_mutex_lock(&lock);
	return err ? -EIO : 0;
}

int scripted_touch(struct uf *uf, uint64_t address, enum scripted_access access)
{
	struct context *context;
	uint64_t flags;
	int result;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	for (;;) {
		result = meets(context, address, access, &flags);
		if (result <= 0)
			break;
		if (!(context->features & UFFD_FEATURE_SIGBUS)) {
			fall_asleep(context, address, flags);
			continue;
		}
		result = handle_here(uf, address, flags);
		if (result)
			break;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

static unsigned count_sleepers(const struct context *context)
{
	unsigned count = 0;

	for (const struct sleeper *sleeper = context->sleepers; sleeper; sleeper = sleeper->next)
		count += !sleeper->woken;
	return count;
}

unsigned scripted_sleepers(struct uf *uf)
{
	unsigned count;

	pthread_mutex_lock(&lock);
	count = count_sleepers(context_of(uf));
	pthread_mutex_unlock(&lock);
	return count;
}

void scripted_wait_sleepers(struct uf *uf, unsigned count)
{
	pthread_mutex_lock(&lock);
	while (count_sleepers(context_of(uf)) != count)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

void scripted_wait_read(struct uf *uf)
{
	const struct context *context;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	while (context->rung)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

/* The event of a layout change, where it is enabled. */
static void tell(struct context *context, uint64_t feature, const struct uffd_msg *msg, bool registered)
{
	if (registered && (context->features & feature))
		enqueue(context, msg, true);
}

static struct uffd_msg area_message(uint8_t event, uint64_t address, size_t len)
{
	struct uffd_msg msg;

	memset(&msg, 0, sizeof(msg));
	msg.event = event;
	msg.arg.remove.start = address;
	msg.arg.remove.end = address + len;
	return msg;
}

/* Empties the pages, or takes them away; returns whether any was registered. */
static bool clear_pages(struct context *context, uint64_t address, size_t len, bool unmap)
{
	bool registered = false;

	for (uint64_t at = address; at < address + len; at += page_size) {
		struct page *page = mapped_page(context, at);

		if (!page)
			continue;
		registered = registered || page->mode;
		page->state = MISSING;
		page->protected = false;
		memset(page->bytes, 0, page_size);
		if (unmap)
			page->mapped = false;
	}
	return registered;
}

void scripted_remove(struct uf *uf, uint64_t address, size_t len)
{
	struct uffd_msg msg = area_message(UFFD_EVENT_REMOVE, address, len);
	struct context *context;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	tell(context, UFFD_FEATURE_EVENT_REMOVE, &msg, clear_pages(context, address, len, false));
	pthread_mutex_unlock(&lock);
}

void scripted_unmap(struct uf *uf, uint64_t address, size_t len)
{
	struct uffd_msg msg = area_message(UFFD_EVENT_UNMAP, address, len);
	struct context *context;

	pthread_mutex_lock(&lock);
	context = context_of(uf);
	tell(context, UFFD_FEATURE_EVENT_UNMAP, &msg, clear_pages(context, address, len, true));
	pthread_mutex_unlock(&lock);
}

void scripted_coming(struct uf *uf, bool coming)
{
	pthread_mutex_lock(&lock);
	context_of(uf)->coming = coming;
	pthread_mutex_unlock(&lock);
}

void scripted_remap(struct uf *uf, uint64_t from, uint64_t to, size_t len)
{
	struct uffd_msg msg;
	struct context *context;
	struct page *new;
	bool registered = false;

	memset(&msg, 0, sizeof(msg));
	msg.event = UFFD_EVENT_REMAP;
	msg.arg.remap.from = from;
	msg.arg.remap.to = to;
	msg.arg.remap.len = len;
	pthread_mutex_lock(&lock);
	context = context_of(uf);
	new = add_area(context, to, len / page_size);
	for (size_t i = 0; i < len / page_size; i++) {
		struct page *old = mapped_page(context, from + i * page_size);

		if (!old)
			continue;
		registered = registered || old->mode;
		new[i] = *old;
		if (!(context->features & UFFD_FEATURE_EVENT_REMAP))
			new[i].mode = 0;
		old->mapped = false;
	}
	tell(context, UFFD_FEATURE_EVENT_REMAP, &msg, registered);
	msg = area_message(UFFD_EVENT_UNMAP, from, len);
	tell(context, UFFD_FEATURE_EVENT_UNMAP, &msg, registered);
	pthread_mutex_unlock(&lock);
}

static void copy_areas(struct context *child, const struct area *area)
{
	struct page *pages;

	if (!area)
		return;
	/* The last first, so that the order stays. */
	copy_areas(child, area->next);
	pages = add_area(child, area->start, area->count);
	memcpy(pages, area->pages, area->count * sizeof(*pages));
	for (size_t i = 0; i < area->count; i++) {
		if (!pages[i].bytes)
			continue;
		pages[i].bytes = zalloc(page_size);
		memcpy(pages[i].bytes, area->pages[i].bytes, page_size);
	}
}

void scripted_fork(struct uf *uf)
{
	struct context *context, *child;
	struct uffd_msg msg;

	memset(&msg, 0, sizeof(msg));
	msg.event = UFFD_EVENT_FORK;
	pthread_mutex_lock(&lock);
	context = context_of(uf);
	if (context->features & UFFD_FEATURE_EVENT_FORK) {
		int fd = new_descriptor(context->way, context->blocking ? 0 : O_NONBLOCK);

		child = contexts[fd];
		child->enabled = true;
		child->features = context->features;
		copy_areas(child, context->areas);
		msg.arg.fork.ufd = (uint32_t)fd;
		enqueue(context, &msg, true);
	}
	pthread_mutex_unlock(&lock);
}

void scripted_exit(struct uf *uf)
{
	pthread_mutex_lock(&lock);
	context_of(uf)->exited = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}
