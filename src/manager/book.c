// SPDX-License-Identifier: MIT
/*
 * The file: a head, the text, and the log, which grows at the end. A log that is written anew lies behind the old one, or before it where there
 * is room, and one word says which counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "manager/book.h"

#define HEAD     4096u
#define LOGS     (HEAD + BOOK_TEXT) /* offset of the first log */
#define GROWTH   65536u
#define PIECE    65536u            /* received at once */
#define MAPPED   ((size_t)1 << 30) /* addresses of a book, which take no memory; a longer one cannot be written */
#define MARK     (1ull << 63)
#define LONG_LOG 1024u /* entries */

static struct book_head *head_of(const struct book *book)
{
	return (struct book_head *)book->base;
}

static char *text_of(const struct book *book)
{
	return book->base + HEAD;
}

static struct book_log *log_at(const struct book *book, uint64_t offset)
{
	return (struct book_log *)(book->base + offset);
}

static struct book_log *log_of(const struct book *book)
{
	return log_at(book, atomic_load_explicit(&head_of(book)->log, memory_order_acquire));
}

static uint64_t log_bytes(uint64_t count)
{
	return sizeof(struct book_log) + count * sizeof(struct book_entry);
}

int book_create(void)
{
	int fd = memfd_create("userfault-book", MFD_CLOEXEC);
	uint64_t log = LOGS;
	int err;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, LOGS + GROWTH) && pwrite(fd, &log, sizeof(log), 0) == sizeof(log))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* At least so many bytes of the file are there. */
static int reach(struct book *book, uint64_t bytes)
{
	size_t size = (bytes + GROWTH - 1) & ~(size_t)(GROWTH - 1);

	if (bytes <= book->reached)
		return 0;
	if (size > MAPPED)
		return -ENOMEM;
	if (ftruncate(book->fd, (off_t)size))
		return -errno;
	book->reached = size;
	return 0;
}

static uint32_t text_from(uint64_t word)
{
	return (uint32_t)((word & ~MARK) >> 32);
}

/*
 * What was received and not counted: the bytes behind what was, up to the first zero, since there were only zeros, and no message has one in
 * it. Behind that there may be the rest of a clean-up that was not finished.
 */
static void count_text(struct book *book)
{
	uint64_t word = atomic_load(&head_of(book)->text);
	size_t len = (uint32_t)word, more = strnlen(text_of(book) + len, BOOK_TEXT - len);
	size_t end = len + more, page = (end + HEAD - 1) & ~(size_t)(HEAD - 1);

	/* Whole pages are given back: to write zeros to them would take memory. */
	memset(text_of(book) + end, 0, (page < BOOK_TEXT ? page : BOOK_TEXT) - end);
	if (page < BOOK_TEXT && fallocate(book->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(HEAD + page),
	                                  (off_t)(BOOK_TEXT - page)))
		memset(text_of(book) + page, 0, BOOK_TEXT - page);
	atomic_store(&head_of(book)->text, word + more);
}

int book_open(struct book *book, int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	void *base;

	*book = (struct book){.fd = fd};
	if (size < (off_t)LOGS)
		return size < 0 ? -errno : -EINVAL;
	base = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	book->base = base;
	book->reached = (size_t)size;
	count_text(book);
	book->last = log_of(book)->last;
	for (uint64_t i = 0; i < book_count(book); i++)
		if (book_entry(book, i)->id > book->last)
			book->last = book_entry(book, i)->id;
	return 0;
}

void book_close(struct book *book)
{
	if (book->base)
		munmap(book->base, MAPPED);
	book->base = NULL;
}

/*
 * The inbox.
 */

/* All of it has been taken: from the beginning again. What is received must find zeros. */
static void rewind_text(struct book *book, uint32_t len)
{
	memset(text_of(book), 0, len);
	atomic_store(&head_of(book)->text, 0);
}

/*
 * A message that began in the second half goes to the front. There is a zero behind it when it counts, so what it was copied from is not
 * taken for more of it.
 */
static void move_text(struct book *book, uint32_t from, uint32_t len)
{
	uint64_t mark = atomic_load(&head_of(book)->text) & MARK;
	uint32_t rest = len - from;

	memcpy(text_of(book), text_of(book) + from, rest);
	memset(text_of(book) + rest, 0, from - rest);
	atomic_store(&head_of(book)->text, mark | rest);
	memset(text_of(book) + from, 0, rest);
}

/*
 * How many bytes are to be received behind `len`. Their pages are there then: the kernel does not wait for a page on behalf of a task that is
 * killed, but leaves the message in the connection, and what it has stored of it by then in the text. It would come twice. No more
 * pages than the text that is waiting needs.
 */
static size_t reach_text(const struct book *book, uint32_t len, int connection)
{
	int waiting;
	size_t end = len + PIECE;

	if (!ioctl(connection, FIONREAD, &waiting) && waiting >= 0 && waiting < (int)PIECE)
		end = (len + (size_t)waiting + HEAD) & ~(size_t)(HEAD - 1);
	if (end > len + PIECE)
		end = len + PIECE;
	for (size_t at = len; at < end; at = (at + HEAD) & ~(size_t)(HEAD - 1))
		*(volatile char *)(text_of(book) + at) = 0;
	return end - len;
}

ssize_t book_receive(struct book *book, int connection)
{
	struct book_head *head = head_of(book);
	uint64_t word = atomic_load(&head->text);
	uint32_t from = text_from(word), len = (uint32_t)word;
	ssize_t n;

	if (from == len) {
		rewind_text(book, len);
		from = len = 0;
	} else if (len + PIECE > BOOK_TEXT && from > len - from) {
		move_text(book, from, len);
		len -= from;
		from = 0;
	}
	if (len + PIECE > BOOK_TEXT)
		return -ENOBUFS;
	/* Nothing of the last descriptors, so that what is found here afterwards came with this call. */
	memset(&head->control, 0, sizeof(head->control));
	head->piece = (struct iovec){.iov_base = text_of(book) + len, .iov_len = reach_text(book, len, connection)};
	head->message = (struct msghdr){.msg_iov = &head->piece,
	                                .msg_iovlen = 1,
	                                .msg_control = &head->control,
	                                .msg_controllen = sizeof(head->control)};
	n = recvmsg(connection, &head->message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	/* A zero is in no message: what comes behind one would be counted now, and be forgotten by a successor. */
	if (n > 0 && memchr(text_of(book) + len, 0, (size_t)n)) {
		/* First of all it is no message any more, whatever is found of it. */
		text_of(book)[len] = '\1';
		atomic_signal_fence(memory_order_seq_cst);
		memset(text_of(book) + len + 1, ' ', (size_t)n - 1);
	}
	atomic_store(&head->text, (word & MARK) | (uint64_t)from << 32 | (len + (uint32_t)n));
	return n;
}

const char *book_text(const struct book *book, size_t *len)
{
	uint64_t word = atomic_load(&head_of(book)->text);

	*len = (uint32_t)word - text_from(word);
	return text_of(book) + text_from(word);
}

void book_take(struct book *book, size_t len)
{
	atomic_store(&head_of(book)->text, (atomic_load(&head_of(book)->text) & ~MARK) + ((uint64_t)len << 32));
}

void book_mark(struct book *book)
{
	atomic_fetch_or(&head_of(book)->text, MARK);
}

bool book_is_marked(const struct book *book)
{
	return atomic_load(&head_of(book)->text) & MARK;
}

/* The descriptors in the inbox, whatever the kernel says of its length: what it has not written is zeros. */
static int *received(const struct book *book, size_t *count)
{
	struct cmsghdr *first = (struct cmsghdr *)head_of(book)->control.bytes;
	size_t most = sizeof(head_of(book)->control) - CMSG_LEN(0);

	*count = 0;
	if (first->cmsg_level != SOL_SOCKET || first->cmsg_type != SCM_RIGHTS || first->cmsg_len < CMSG_LEN(0))
		return NULL;
	*count = (first->cmsg_len - CMSG_LEN(0) < most ? first->cmsg_len - CMSG_LEN(0) : most) / sizeof(int);
	return (int *)CMSG_DATA(first);
}

unsigned book_take_fd(struct book *book, _Atomic int *slot)
{
	struct cmsghdr *first = (struct cmsghdr *)head_of(book)->control.bytes;
	size_t count;
	int *fds = received(book, &count);

	for (size_t i = 0; i < count; i++) {
		int fd = fds[i];

		/* First into the record, or out of the inbox: one that is in neither is nobody's, and swept up. */
		if (!i && atomic_load(slot) < 0)
			atomic_store(slot, fd);
		fds[i] = -1;
		if (atomic_load(slot) != fd)
			close(fd);
	}
	first->cmsg_len = 0;
	return (unsigned)count;
}

void book_descriptors(const struct book *book, void (*what)(void *arg, int fd), void *arg)
{
	size_t count;
	int *fds = received(book, &count);

	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			what(arg, fds[i]);
	for (uint64_t i = 0; i < book_count(book); i++)
		if (book_entry(book, i)->kind == BOOK_FORK)
			what(arg, (int)book_entry(book, i)->a);
}

/*
 * The log.
 */

int book_append(struct book *book, const struct book_entry *entry)
{
	uint64_t offset = atomic_load(&head_of(book)->log), count = book_count(book);
	int err = reach(book, offset + log_bytes(count + 1));

	if (err)
		return err;
	log_at(book, offset)->entries[count] = *entry;
	/* Release: it is there for whoever reads the count. */
	atomic_store_explicit(&log_at(book, offset)->count, count + 1, memory_order_release);
	if (entry->id > book->last)
		book->last = entry->id;
	return 0;
}

int book_append_message(struct book *book, const struct uffd_msg *msg, uint64_t id)
{
	struct book_entry entry = {.kind = BOOK_EVENT, .id = id, .msg = *msg};

	if (msg->event == UFFD_EVENT_FORK)
		entry = (struct book_entry){.kind = BOOK_FORK, .id = id, .a = msg->arg.fork.ufd};
	return book_append(book, &entry);
}

uint64_t book_count(const struct book *book)
{
	return atomic_load_explicit(&log_of(book)->count, memory_order_acquire);
}

const struct book_entry *book_entry(const struct book *book, uint64_t index)
{
	return &log_of(book)->entries[index];
}

void book_forked(struct book *book, uint64_t index)
{
	__atomic_store_n(&log_of(book)->entries[index].kind, (uint8_t)BOOK_FORKED, __ATOMIC_RELEASE);
}

bool book_is_long(const struct book *book)
{
	return book_count(book) > LONG_LOG + 4 * log_of(book)->short_count;
}

void book_rewrite_begin(struct book_rewrite *rewrite, struct book *book, uint64_t count)
{
	uint64_t offset = atomic_load(&head_of(book)->log), end = offset + log_bytes(book_count(book));
	bool before = offset - LOGS >= log_bytes(count);

	/* On a page's border, so that the other one's memory can be given back. */
	*rewrite = (struct book_rewrite){.book = book, .at = before ? LOGS : (end + HEAD - 1) & ~(uint64_t)(HEAD - 1)};
}

void book_rewrite_add(struct book_rewrite *rewrite, const struct book_entry *entry)
{
	struct book *book = rewrite->book;

	if (!rewrite->err)
		rewrite->err = reach(book, rewrite->at + log_bytes(rewrite->count + 1));
	if (rewrite->err)
		return;
	log_at(book, rewrite->at)->entries[rewrite->count++] = *entry;
}

int book_rewrite_end(struct book_rewrite *rewrite)
{
	struct book *book = rewrite->book;
	uint64_t old = atomic_load(&head_of(book)->log), old_bytes = log_bytes(book_count(book));

	if (!rewrite->err)
		rewrite->err = reach(book, rewrite->at + log_bytes(rewrite->count));
	if (rewrite->err)
		return rewrite->err;
	log_at(book, rewrite->at)->short_count = rewrite->count;
	log_at(book, rewrite->at)->last = book->last;
	atomic_store(&log_at(book, rewrite->at)->count, rewrite->count);
	/* Release: from here on it is the log. */
	atomic_store_explicit(&head_of(book)->log, rewrite->at, memory_order_release);
	fallocate(book->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)old,
	          (off_t)((old_bytes + HEAD - 1) & ~(uint64_t)(HEAD - 1)));
	return 0;
}
