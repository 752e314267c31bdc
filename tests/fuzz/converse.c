// SPDX-License-Identifier: MIT
/*
 * Any bytes as all that a client says on its connection, with what receives and understands it: converse.c, the book, the messages.
 *
 * What follows from it must not depend on how it comes: first it is sent as one piece, and then in pieces, to an engine that has to be waited
 * for or not, and to workers that are killed. The regions that are written down, the answers and the end must be the same. The first
 * byte of the input says how many bytes after it say how the pieces are cut and what happens; the rest is the text. In it \v stands for
 * a long run of spaces, so that it goes over the whole of the book's text and begins anew.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "manager/client.h"
#include "manager/worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/*
 * What converse.c calls is seen here first: a worker may be killed there, answers are kept, and a thread is called when its time has come.
 */
static ssize_t send_answer(int fd, const void *line, size_t len, int flags);
static int begin_thread(pthread_t *thread, const void *none, void *(*what)(void *arg), void *arg);
static ssize_t next_message(struct handover_scan *scan, struct handover_message *message, const char *text, size_t len,
                            char *cause, size_t cause_size);
static void free_message(struct handover_message *message);
static void take_message(struct book *book, size_t len);

#define book_take      take_message
#define send           send_answer
#define pthread_create begin_thread
#define handover_next  next_message
#define handover_free  free_message
#include "manager/converse.c"
#undef book_take
#undef send
#undef pthread_create
#undef handover_next
#undef handover_free

#define REGIONS_MAX 64u
#define SPACES      30000u
#define LONGEST     ((size_t)3 << 20) /* text, with the spaces */
#define RARE        128u              /* inputs to one that has them */

/* Of one of the two ways. */
struct run {
	struct journal_client record;
	struct client client;
	int peer; /* the client's end of the connection */
	bool user;
	bool silent; /* the form that is not answered has come: a successor does not know that */
	bool served;
	const char *text;          /* all that is said; NULL: it has a zero in it */
	size_t total, taken, next; /* of it; and of the message that is looked at */
	enum handover_kind kind;   /* of that */
	void *(*aside)(void *arg);
	struct handover_region *regions; /* of the message that is being handled */
	unsigned until_killed;           /* places where it may be; 0: it is not */
	jmp_buf killed;
	char *answers;
	size_t len, room;
};

static struct run *now;

static struct named_store list[] = {{.name = (char[]){"default"}, .size = 1 << 30},
                                    {.name = (char[]){"base"}, .size = 123456}};
static struct journal journal;
static struct worker worker = {.stores = {.list = list, .count = 2}, .journal = &journal};
static struct thread thread = {.worker = &worker};

/* What the worker has there would end with it. */
static void may_be_killed(void *memory)
{
	if (!now->until_killed || --now->until_killed)
		return;
	free(memory);
	longjmp(now->killed, 1);
}

static ssize_t send_answer(int fd, const void *line, size_t len, int flags)
{
	(void)fd;
	(void)flags;
	/* Otherwise a successor would take them for new, whatever has become of them. */
	if (!memcmp(line, "ok", 2))
		MUST(now->kind == HANDOVER_SIZE || (now->kind == HANDOVER_GIVE && book_is_marked(&now->client.book)));
	MUST(len && ((const char *)line)[len - 1] == '\n' && !memchr(line, '\n', len - 1));
	for (size_t i = 0; i < len - 1; i++)
		MUST(((const char *)line)[i] >= ' ' && ((const char *)line)[i] <= '~');
	may_be_killed(NULL);
	if (now->len + len > now->room) {
		now->room = 2 * (now->len + len);
		now->answers = realloc(now->answers, now->room);
		MUST(now->answers);
	}
	memcpy(now->answers + now->len, line, len);
	now->len += len;
	return (ssize_t)len;
}

static int begin_thread(pthread_t *id, const void *none, void *(*what)(void *arg), void *arg)
{
	(void)id;
	(void)none;
	MUST(arg == &now->client && !now->aside);
	now->aside = what;
	return 0;
}

static ssize_t next_message(struct handover_scan *scan, struct handover_message *message, const char *text, size_t len,
                            char *cause, size_t cause_size)
{
	ssize_t n;

	if (now->text)
		MUST(len <= now->total - now->taken && !memcmp(text, now->text + now->taken, len));
	n = handover_next(scan, message, text, len, cause, cause_size);
	now->next = n > 0 ? (size_t)n : 0;
	now->kind = message->kind;
	now->regions = n > 0 ? message->regions : NULL;
	now->silent |= n > 0 && message->kind == HANDOVER_ARRAY;
	return n;
}

static void free_message(struct handover_message *message)
{
	handover_free(message);
	now->regions = NULL;
}

static void take_message(struct book *book, size_t len)
{
	MUST(len && len == now->next);
	book_take(book, len);
	MUST(!book_is_marked(book));
	now->taken += len;
	now->next = 0;
}

/*
 * The rest of the manager.
 */

void say_sparingly(enum log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	(void)level;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
}

int stores_find(const struct stores *stores, const char *name)
{
	for (size_t i = 0; i < stores->count; i++)
		if (!strcmp(stores->list[i].name, name))
			return (int)i;
	return -1;
}

void journal_close_fd(_Atomic int *slot)
{
	MUST(atomic_load(slot) < 0 || !close(atomic_exchange(slot, -1)));
}

void worker_ring(struct client *client)
{
	MUST(client == &now->client);
}

void client_end(struct client *client, const char *reason)
{
	(void)reason;
	client->stage = CLIENT_OVER;
}

int client_serve(struct client *client, char *cause, size_t cause_size)
{
	may_be_killed(NULL);
	if (client->record->name[0] == '!') {
		snprintf(cause, cause_size, "it cannot be served");
		return -EIO;
	}
	now->served = true;
	client->stage = now->user ? CLIENT_ATTACHING : CLIENT_SERVED;
	client->user = now->user;
	client->open = !now->user;
	return 0;
}

static bool same(const struct book_entry *a, const struct book_entry *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->store == b->store && a->unit == b->unit &&
	       a->a == b->a && a->b == b->b && a->c == b->c;
}

/* What lies in the way of a region, or is just it: NULL if it is nothing. */
static const struct book_entry *find(const struct book *book, const struct book_entry *region)
{
	for (uint64_t i = 0; i < book_count(book); i++) {
		const struct book_entry *entry = book_entry(book, i);

		if (entry->a < region->a + region->b && region->a < entry->a + entry->b)
			return entry;
	}
	return NULL;
}

/* As client.c does it, with the log as its space. */
int client_add(struct client *client, const struct book_entry *regions, size_t count, size_t *index)
{
	uint64_t there = book_count(&client->book);

	/* What has become of them since is not to be forgotten. */
	MUST(!book_is_marked(&client->book));
	for (size_t i = 0; i < count; i++) {
		const struct book_entry *entry = find(&client->book, &regions[i]);

		*index = i;
		if (entry && !same(entry, &regions[i]))
			return -EEXIST;
		if (!entry && ++there > REGIONS_MAX)
			return -E2BIG;
	}
	for (size_t i = 0; i < count; i++) {
		*index = i;
		may_be_killed((void *)(uintptr_t)regions);
		if (!find(&client->book, &regions[i]))
			MUST(!book_append(&client->book, &regions[i]));
	}
	return 0;
}

/*
 * Workers.
 */

static void open_client(struct run *run)
{
	bool served = atomic_load(&run->record.state) == JOURNAL_SERVED;

	run->client = (struct client){.thread = &thread, .record = &run->record, .taken_over = served};
	MUST(!book_open(&run->client.book, atomic_load(&run->record.book)));
	if (served)
		MUST(!client_serve(&run->client, NULL, 0));
	if (run->client.stage != CLIENT_ATTACHING)
		client_converse(&run->client);
}

/* All that was its own is gone, and the next one opens the client. */
static void die(struct run *run)
{
	run->until_killed = 0;
	run->aside = NULL;
	free(run->regions);
	run->regions = NULL;
	handover_free(&run->client.add);
	book_close(&run->client.book);
	open_client(run);
}

static void work(struct run *run, void (*what)(struct run *run))
{
	if (run->client.stage == CLIENT_OVER)
		return;
	if (setjmp(run->killed))
		die(run);
	else
		what(run);
}

static void hear(struct run *run)
{
	client_converse(&run->client);
}

/* As client_turn() does it, when what had to be waited for is done. */
static void go_on(struct run *run)
{
	struct client *client = &run->client;

	if (client->stage == CLIENT_ATTACHING) {
		client->stage = CLIENT_SERVED;
		client->open = true;
		client_converse(client);
	}
	if (client->adding && client->stage == CLIENT_SERVED) {
		MUST(run->aside);
		run->aside(client);
		run->aside = NULL;
		MUST(atomic_load(&client->attached) <= 0);
		handover_free(&client->add);
		client->adding = false;
		client->added = true;
		client_converse(client);
	}
}

static bool waits(const struct run *run)
{
	return run->client.stage == CLIENT_ATTACHING || (run->client.stage == CLIENT_SERVED && run->client.adding);
}

static ssize_t receive_once(struct run *run)
{
	int connection = atomic_load(&run->record.connection);

	book_take_fd(&run->client.book, &run->record.object);
	return connection < 0 ? -1 : book_receive(&run->client.book, connection);
}

static void receive_and_die(struct run *run)
{
	receive_once(run);
	die(run);
}

static void receive_and_die_before_it_counts(struct run *run)
{
	ssize_t n = receive_once(run);

	if (n > 0)
		atomic_fetch_sub(&((struct book_head *)run->client.book.base)->text, (uint64_t)n);
	die(run);
}

/*
 * The client.
 */

static void meet(struct run *run, const char *text, size_t len, bool user)
{
	int pair[2];

	/* What comes together with a zero is made something else. */
	*run = (struct run){.user = user, .text = memchr(text, 0, len) ? NULL : text, .total = len};
	now = run;
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	run->peer = pair[1];
	run->record.connection = pair[0];
	run->record.object = -1;
	run->record.book = book_create();
	MUST(run->record.book >= 0);
	run->record.state = JOURNAL_MET;
	open_client(run);
}

static ssize_t send_some(const struct run *run, const char *text, size_t len, unsigned descriptors)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(32 * sizeof(int))];
	} control = {0};
	struct iovec piece = {(void *)(uintptr_t)text, len};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
	int sent = descriptors ? eventfd(0, EFD_CLOEXEC) : -1;
	ssize_t n;

	if (descriptors) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
		control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		                                 .cmsg_type = SCM_RIGHTS,
		                                 .cmsg_len = CMSG_LEN(descriptors * sizeof(int))};
		for (size_t i = 0; i < descriptors; i++)
			memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &sent, sizeof(int));
	}
	n = sendmsg(run->peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (descriptors)
		close(sent);
	return n;
}

static bool is_over(const struct run *run)
{
	return run->client.stage == CLIENT_OVER || atomic_load(&run->record.connection) < 0;
}

/* False: nobody hears it any more. The first byte has the descriptors. */
static bool tell(struct run *run, const char *text, size_t len, unsigned descriptors)
{
	while (len) {
		size_t most = descriptors ? 1 : len < 32768 ? len : 32768;
		ssize_t n = is_over(run) ? -1 : send_some(run, text, most, descriptors);

		if (is_over(run))
			return false;
		if (n < 0) {
			work(run, hear);
			work(run, go_on);
			continue;
		}
		text += n;
		len -= (size_t)n;
		descriptors = 0;
	}
	return true;
}

static bool has_more(const struct run *run)
{
	int bytes = 0;

	return !is_over(run) && !ioctl(atomic_load(&run->record.connection), FIONREAD, &bytes) && bytes;
}

/* It is heard to its end. */
static void end(struct run *run)
{
	run->until_killed = 0;
	while (has_more(run) || waits(run)) {
		work(run, hear);
		work(run, go_on);
	}
	shutdown(run->peer, SHUT_WR);
	for (int i = 0; i < 2; i++)
		work(run, hear);
	MUST(is_over(run));
	MUST(run->served || atomic_load(&run->record.state) == JOURNAL_MET);
	MUST(run->client.stage == CLIENT_OVER || atomic_load(&run->record.state) == JOURNAL_SERVED);
}

static void clean_up(struct run *run)
{
	handover_free(&run->client.add);
	book_close(&run->client.book);
	journal_close_fd(&run->record.connection);
	journal_close_fd(&run->record.object);
	journal_close_fd(&run->record.book);
	close(run->peer);
	free(run->answers);
}

/* Each byte is one piece of the text: how long it is, and what happens then. */
static void in_pieces(struct run *run, const uint8_t *pieces, size_t count, const char *text, size_t len, bool object)
{
	static const size_t lengths[] = {1, 2, 3, 7, 20, 60, 1000, 200000};
	unsigned waited = 0;

	for (size_t i = 0; i < count; i++) {
		size_t piece = lengths[pieces[i] & 7] < len ? lengths[pieces[i] & 7] : len;
		unsigned what = pieces[i] >> 3 & 7, more = pieces[i] >> 6;

		if (!tell(run, text, piece, object ? !i + (what == 7 ? 1 + 8 * more : 0) : 0))
			return;
		text += piece;
		len -= piece;
		switch (what) {
		case 0:
			continue;
		case 1:
			work(run, receive_and_die);
			break;
		case 2:
			work(run, receive_and_die_before_it_counts);
			break;
		case 3:
		case 4:
			run->until_killed = 1 + more + (what == 4 ? 4 : 0);
			/* fall through */
		default:
			work(run, hear);
			break;
		}
		if (waits(run) && (more & 1 || waited++ == 2)) {
			work(run, go_on);
			waited = 0;
		}
	}
	tell(run, text, len, count ? 0 : object);
}

/*
 * What became of it.
 */

static void check_log(const struct run *run)
{
	const struct book *book = &run->client.book;

	MUST(book_count(book) <= REGIONS_MAX);
	for (uint64_t i = 0; i < book_count(book); i++) {
		const struct book_entry *entry = book_entry(book, i);

		MUST(entry->kind == BOOK_REGION && entry->store < worker.stores.count);
		MUST(entry->unit >= HANDOVER_PAGE_MIN && !(entry->unit & (entry->unit - 1)));
		MUST(entry->b && !((entry->a | entry->b | entry->c) % entry->unit));
		MUST(entry->c + entry->b < list[entry->store].size + entry->unit);
		/* It is the first that lies there, and so all are apart. */
		MUST(find(book, entry) == entry);
	}
}

static void compare(const struct run *a, const struct run *b)
{
	uint64_t count = book_count(&a->client.book);

	MUST(book_count(&b->client.book) == count);
	for (uint64_t i = 0; i < count; i++)
		MUST(same(book_entry(&a->client.book, i), book_entry(&b->client.book, i)));
	MUST(atomic_load(&a->record.state) == atomic_load(&b->record.state));
	MUST((a->client.stage == CLIENT_OVER) == (b->client.stage == CLIENT_OVER));
	MUST((atomic_load(&a->record.object) < 0) == (atomic_load(&b->record.object) < 0));
	MUST(!strcmp(a->record.name, b->record.name));
	MUST(a->silent == b->silent);
	MUST(a->silent || (a->len == b->len && (!a->len || !memcmp(a->answers, b->answers, a->len))));
}

/* With the runs of spaces in it, where the sum of all bytes says so: else there would be little else to try. */
static char *expand(const uint8_t *data, size_t size, size_t *len)
{
	size_t most = size;
	unsigned sum = 0;
	char *text;

	for (size_t i = 0; i < size; i++)
		sum += data[i];
	for (size_t i = 0; i < size && most < LONGEST && !(sum % RARE); i++)
		most += data[i] == '\v' ? SPACES : 0;
	text = malloc(most + 1);
	MUST(text);
	*len = 0;
	for (size_t i = 0; i < size; i++) {
		size_t spaces = data[i] == '\v' && *len + SPACES + size - i <= most ? SPACES : 0;

		if (spaces)
			memset(text + *len, ' ', spaces);
		else
			text[*len] = (char)data[i];
		*len += spaces ? spaces : 1;
	}
	return text;
}

static unsigned count_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 64; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct run one, other;
	unsigned before = count_descriptors();
	size_t count, len;
	bool object, user;
	char *text;

	if (!size)
		return 0;
	object = data[0] & 32;
	user = data[0] & 64;
	count = (data[0] & 31u) < size - 1 ? data[0] & 31u : size - 1;
	text = expand(data + 1 + count, size - 1 - count, &len);
	meet(&one, text, len, false);
	tell(&one, text, len, object);
	end(&one);
	check_log(&one);
	meet(&other, text, len, user);
	in_pieces(&other, data + 1, count, text, len, object);
	end(&other);
	check_log(&other);
	if (one.text)
		compare(&one, &other);
	clean_up(&one);
	clean_up(&other);
	free(text);
	MUST(count_descriptors() == before);
	return 0;
}
