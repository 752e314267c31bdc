// SPDX-License-Identifier: MIT
/*
 * A client's book: that it holds what it is told, and that whoever writes it may be killed at any instruction.
 *
 * For the second, a child does one thing to the book. Between any two of its instructions the file is copied, and the copy is opened as by a
 * successor: the one thing has been done or it has not, and the book can be used from there on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "base/rawsys.h"
#include "manager/book.h"
#include "support/stepped.h"
#include "support/test.h"

/* The file, as book.c lays it out. */
#define PAGE    4096u
#define LOGS    (PAGE + BOOK_TEXT)
#define GROWTH  65536u
#define LONGEST ((uint64_t)1 << 30)

#define PIECE 65536u /* received at once */

static struct book book;
static int file, client, server;

static void open_book(int fd)
{
	file = fd;
	CHECK(file >= 0);
	CHECK_EQ(book_open(&book, file), 0);
}

static void begin(void)
{
	int pair[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	client = pair[0];
	server = pair[1];
	open_book(book_create());
}

static void reopen(struct book *which)
{
	int fd = which->fd;

	book_close(which);
	CHECK_EQ(book_open(which, fd), 0);
}

static struct book_head *head(const struct book *which)
{
	return (struct book_head *)which->base;
}

/* As if whoever received it had been killed before it was counted. */
static void uncount(struct book *which, size_t bytes)
{
	atomic_fetch_sub(&head(which)->text, bytes);
}

/*
 * What is said.
 */

static void say_bytes(const void *bytes, size_t len)
{
	CHECK_EQ(send(client, bytes, len, MSG_NOSIGNAL), len);
}

static void say(const char *text)
{
	say_bytes(text, strlen(text));
}

static void say_with(const char *text, size_t count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};
	struct msghdr message = {.msg_iov = &piece,
	                         .msg_iovlen = 1,
	                         .msg_control = control.bytes,
	                         .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *first = CMSG_FIRSTHDR(&message);
	int sent = eventfd(0, EFD_CLOEXEC);

	CHECK(sent >= 0 && count <= 64);
	*first = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
	for (size_t i = 0; i < count; i++)
		memcpy(CMSG_DATA(first) + i * sizeof(int), &sent, sizeof(int));
	CHECK_EQ(sendmsg(client, &message, MSG_NOSIGNAL), strlen(text));
	close(sent);
}

static void receive(size_t bytes)
{
	CHECK_EQ(book_receive(&book, server), bytes);
}

static bool is_text(const struct book *which, const char *expected)
{
	size_t len;
	const char *text = book_text(which, &len);

	return len == strlen(expected) && !memcmp(text, expected, len);
}

static void has_text(const struct book *which, const char *expected)
{
	size_t len;
	const char *text = book_text(which, &len);

	if (!is_text(which, expected))
		FAIL("the text is '%.*s', expected '%s'", (int)len, text, expected);
}

/* A long conversation: what is at which place of it. */
static char at_place(size_t place)
{
	return (char)('a' + place % 23 + place / PIECE % 3);
}

static void say_much(size_t from, size_t len)
{
	static char bytes[PIECE];

	CHECK(len <= PIECE);
	for (size_t i = 0; i < len; i++)
		bytes[i] = at_place(from + i);
	say_bytes(bytes, len);
}

static void has_places(const struct book *which, size_t from, size_t to)
{
	size_t len;
	const char *text = book_text(which, &len);

	CHECK_EQ(len, to - from);
	for (size_t i = 0; i < len; i++)
		if (text[i] != at_place(from + i))
			FAIL("at %zu of %zu the text is '%c'", i, len, text[i]);
}

/* Until there is no room: how many places. */
static size_t fill_text(void)
{
	size_t len = 0;

	while (len + PIECE <= BOOK_TEXT) {
		say_much(len, PIECE);
		receive(PIECE);
		len += PIECE;
	}
	return len;
}

/*
 * Descriptors.
 */

struct numbers {
	size_t count;
	int list[64];
};

static void note(void *arg, int fd)
{
	struct numbers *numbers = arg;

	CHECK(numbers->count < 64);
	numbers->list[numbers->count++] = fd;
}

static struct numbers listed(const struct book *which)
{
	struct numbers numbers = {0};

	book_descriptors(which, note, &numbers);
	return numbers;
}

static bool lists(const struct numbers *numbers, int fd)
{
	for (size_t i = 0; i < numbers->count; i++)
		if (numbers->list[i] == fd)
			return true;
	return false;
}

static bool is_open(pid_t pid, int fd)
{
	char path[64];
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	return !lstat(path, &status);
}

static size_t count_open(void)
{
	DIR *folder = opendir("/proc/self/fd");
	size_t count = 0;

	CHECK(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/*
 * The log.
 */

/* No byte of one is as in another. */
static struct book_entry entry_of(uint64_t i)
{
	return (struct book_entry){
		.kind = BOOK_REGION,
		.flags = (uint8_t)i,
		.store = (uint16_t)(0x101 * i),
		.unit = (uint32_t)(0x1010101 * i),
		.id = i,
		.a = 0x101010101010101 * i,
		.b = 0x101010101010101 * (i + 1),
		.c = 0x101010101010101 * (i + 2),
	};
}

static void append(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		struct book_entry entry = entry_of(i);

		CHECK_EQ(book_append(&book, &entry), 0);
	}
}

static bool is_entry(const struct book *which, uint64_t index, uint64_t i)
{
	struct book_entry expected = entry_of(i);
	const struct book_entry *entry = book_entry(which, index);

	return entry->kind == expected.kind && entry->flags == expected.flags && entry->store == expected.store &&
	       entry->unit == expected.unit && entry->id == expected.id && entry->a == expected.a &&
	       entry->b == expected.b && entry->c == expected.c;
}

static void has_entries(const struct book *which, uint64_t from, uint64_t to)
{
	CHECK_EQ(book_count(which), to - from);
	for (uint64_t i = from; i < to; i++)
		if (!is_entry(which, i - from, i))
			FAIL("entry %llu of %llu is another", (unsigned long long)(i - from),
			     (unsigned long long)(to - from));
}

/* What a killed worker may have left where entries will be. */
static void litter(uint64_t offset, size_t bytes)
{
	CHECK_EQ(lseek(file, 0, SEEK_END) >= (off_t)(offset + bytes), 1);
	memset(book.base + offset, 0x5a, bytes);
}

static uint64_t log_end(void)
{
	return head(&book)->log + sizeof(struct book_log) + book_count(&book) * sizeof(struct book_entry);
}

static int rewrite(uint64_t from, uint64_t to)
{
	struct book_rewrite writing;

	book_rewrite_begin(&writing, &book, to - from);
	for (uint64_t i = from; i < to; i++) {
		struct book_entry entry = entry_of(i);

		book_rewrite_add(&writing, &entry);
	}
	return book_rewrite_end(&writing);
}

/* Bytes of the file that are no hole. */
static uint64_t held(uint64_t from, uint64_t to)
{
	uint64_t bytes = 0;
	off_t at = (off_t)from, end;

	while ((at = lseek(file, at, SEEK_DATA)) >= 0 && (uint64_t)at < to) {
		end = lseek(file, at, SEEK_HOLE);
		bytes += ((uint64_t)end < to ? (uint64_t)end : to) - (uint64_t)at;
		at = end;
	}
	return bytes;
}

/*
 * What it holds.
 */

TEST(text_stays_until_it_is_taken,
     "What comes lies behind what was not taken, whole or not, until the connection ends.")
{
	begin();
	has_text(&book, "");
	CHECK_EQ(book_receive(&book, server), -EAGAIN);
	say("[one][tw");
	receive(8);
	has_text(&book, "[one][tw");
	book_take(&book, 5);
	has_text(&book, "[tw");
	say("o]");
	say("[three]");
	receive(9);
	has_text(&book, "[two][three]");
	book_take(&book, 5);
	CHECK_EQ(book_receive(&book, server), -EAGAIN);
	has_text(&book, "[three]");
	book_take(&book, 7);
	has_text(&book, "");
	say("[four");
	shutdown(client, SHUT_WR);
	receive(5);
	receive(0);
	has_text(&book, "[four");
	CHECK_EQ(book_receive(&book, -1), -EBADF);
	has_text(&book, "[four");
}

TEST(successor_finds_the_text, "Whoever opens the book has the text, also what had been received and not been counted.")
{
	begin();
	say("[one][two]");
	receive(10);
	book_take(&book, 5);
	reopen(&book);
	has_text(&book, "[two]");
	say("[three");
	receive(6);
	uncount(&book, 6);
	has_text(&book, "[two]");
	reopen(&book);
	has_text(&book, "[two][three");
	reopen(&book);
	has_text(&book, "[two][three");
}

TEST(nothing_old_lies_behind_the_text,
     "Of what was taken nothing is found again, when a shorter text comes to where it was.")
{
	begin();
	for (int i = 0; i < 3; i++) {
		say("a long text, which has been taken");
		receive(33);
		book_take(&book, 33);
	}
	say("short");
	receive(5);
	uncount(&book, 5);
	reopen(&book);
	has_text(&book, "short");
}

TEST(one_descriptor_is_taken,
     "The first of the descriptors that came goes into the slot; of the others none stays open.")
{
	static const size_t counts[] = {1, 2, 3, BOOK_DESCRIPTORS, BOOK_DESCRIPTORS + 1, 64};

	begin();
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		size_t kept = counts[i] < BOOK_DESCRIPTORS ? counts[i] : BOOK_DESCRIPTORS, before = count_open();
		_Atomic int slot = -1;
		struct numbers numbers;

		say_with("x", counts[i]);
		receive(1);
		CHECK_EQ(count_open(), before + kept);
		reopen(&book);
		numbers = listed(&book);
		CHECK_EQ(numbers.count, kept);
		for (size_t j = 0; j < kept; j++)
			CHECK_EQ(fcntl(numbers.list[j], F_GETFD), FD_CLOEXEC);
		CHECK_EQ(book_take_fd(&book, &slot), kept);
		CHECK_EQ(slot, numbers.list[0]);
		CHECK_EQ(count_open(), before + 1);
		CHECK_EQ(close(slot), 0);
		CHECK_EQ(listed(&book).count, 0);
		CHECK_EQ(book_take_fd(&book, &slot), 0);
	}
}

TEST(full_slot_takes_no_descriptor, "When the slot has one, all that came are closed; and none that did not come.")
{
	_Atomic int slot;
	size_t before;

	begin();
	slot = eventfd(0, EFD_CLOEXEC);
	before = count_open();
	say_with("x", 3);
	receive(1);
	CHECK_EQ(listed(&book).count, 3);
	CHECK_EQ(book_take_fd(&book, &slot), 3);
	CHECK_EQ(count_open(), before);
	CHECK(is_open(getpid(), slot));
	say("y");
	receive(1);
	CHECK_EQ(listed(&book).count, 0);
	CHECK_EQ(book_take_fd(&book, &slot), 0);
	CHECK_EQ(count_open(), before);
	/* Nor is any that came before, and was left there, one that came with this. */
	say_with("x", 3);
	receive(1);
	say("y");
	receive(1);
	CHECK_EQ(listed(&book).count, 0);
	CHECK_EQ(book_take_fd(&book, &slot), 0);
	say_with("x", 3);
	receive(1);
	say_with("x", 1);
	receive(1);
	CHECK_EQ(listed(&book).count, 1);
}

TEST(text_with_a_zero_is_no_message,
     "What came together with a zero byte becomes something that no message begins with or has.")
{
	static const char zero[] = "]\0[one]";

	begin();
	say("[");
	receive(1);
	say_bytes(zero, sizeof(zero) - 1);
	receive(7);
	has_text(&book, "[\1      ");
	uncount(&book, 7);
	reopen(&book);
	has_text(&book, "[\1      ");
}

TEST(text_is_bounded, "Two of the longest messages have room; then nothing more is received, and nothing is lost, "
                      "until some of it is taken.")
{
	size_t len;

	begin();
	len = fill_text();
	CHECK(len >= 2u << 20);
	say_much(len, 1000);
	CHECK_EQ(book_receive(&book, server), -ENOBUFS);
	has_places(&book, 0, len);
	/* As much would have to be moved as there is room for. */
	book_take(&book, len / 2);
	CHECK_EQ(book_receive(&book, server), -ENOBUFS);
	reopen(&book);
	CHECK_EQ(book_receive(&book, server), -ENOBUFS);
	has_places(&book, len / 2, len);
	book_take(&book, 1);
	receive(1000);
	has_places(&book, len / 2 + 1, len + 1000);
}

TEST(text_is_moved_to_the_front,
     "A message that began in the second half goes on at the front, with its mark, and nothing is left behind it.")
{
	size_t len, from;

	begin();
	len = fill_text();
	from = len / 2 + 1000;
	book_take(&book, from);
	book_mark(&book);
	say_much(len, 100);
	receive(100);
	has_places(&book, from, len + 100);
	CHECK(book_is_marked(&book));
	/* To the middle of where it was. */
	say_much(len + 100, PIECE);
	receive(PIECE);
	uncount(&book, PIECE);
	reopen(&book);
	has_places(&book, from, len + 100 + PIECE);
	CHECK(book_is_marked(&book));
}

TEST(what_lies_behind_the_text_is_cleaned_up,
     "Whoever opens the book leaves zeros behind what it finds, and gives back whole pages of it.")
{
	begin();
	say("[one][tw");
	receive(8);
	litter(PAGE + 9, 100);
	litter(PAGE + 3000, 5 * PAGE);
	litter(PAGE + BOOK_TEXT - 10, 10);
	append(0, 10);
	reopen(&book);
	has_text(&book, "[one][tw");
	for (size_t i = 8; i < BOOK_TEXT; i++)
		CHECK_EQ(book_text(&book, &(size_t){0})[i], 0);
	reopen(&book);
	CHECK_EQ(held(2 * PAGE, LOGS), 0);
	has_entries(&book, 0, 10);
}

TEST(mark_is_of_the_first_message,
     "It stays while text comes and for a successor, and goes with the message that it is of.")
{
	begin();
	say("[one][two]");
	receive(10);
	CHECK(!book_is_marked(&book));
	book_mark(&book);
	CHECK(book_is_marked(&book));
	has_text(&book, "[one][two]");
	say("[three]");
	receive(7);
	CHECK(book_is_marked(&book));
	reopen(&book);
	CHECK(book_is_marked(&book));
	has_text(&book, "[one][two][three]");
	book_take(&book, 5);
	CHECK(!book_is_marked(&book));
	has_text(&book, "[two][three]");
	reopen(&book);
	CHECK(!book_is_marked(&book));
	book_mark(&book);
	book_take(&book, 12);
	say("[four]");
	receive(6);
	CHECK(!book_is_marked(&book));
	has_text(&book, "[four]");
}

TEST(log_keeps_its_order,
     "Entries are there in the order that they came in, through growth of the file, and for a successor.")
{
	uint64_t many = 4 * GROWTH / sizeof(struct book_entry);

	begin();
	CHECK_EQ(book_count(&book), 0);
	CHECK_EQ(book.last, 0);
	append(1, 4);
	has_entries(&book, 1, 4);
	CHECK_EQ(book.last, 3);
	reopen(&book);
	has_entries(&book, 1, 4);
	append(4, many);
	has_entries(&book, 1, many);
	reopen(&book);
	has_entries(&book, 1, many);
	CHECK_EQ(book.last, many - 1);
	/* Of an object's events the highest counts, whatever comes last. */
	append(7, 8);
	CHECK_EQ(book.last, many - 1);
	reopen(&book);
	CHECK_EQ(book.last, many - 1);
}

TEST(messages_are_entries,
     "A layout event is in the log as it came; a fork by its child's descriptor, until it is seen to.")
{
	struct uffd_msg moved = {.event = UFFD_EVENT_REMAP, .arg.remap = {.from = 4096, .to = 8192, .len = 16384}};
	struct uffd_msg forked = {.event = UFFD_EVENT_FORK, .arg.fork.ufd = 77};

	begin();
	CHECK_EQ(book_append_message(&book, &moved, 5), 0);
	CHECK_EQ(book_append_message(&book, &forked, 6), 0);
	forked.arg.fork.ufd = 78;
	CHECK_EQ(book_append_message(&book, &forked, 9), 0);
	reopen(&book);
	CHECK_EQ(book_count(&book), 3);
	CHECK_EQ(book.last, 9);
	CHECK_EQ(book_entry(&book, 0)->kind, BOOK_EVENT);
	CHECK_EQ(book_entry(&book, 0)->id, 5);
	CHECK(!memcmp(&book_entry(&book, 0)->msg, &moved, sizeof(moved)));
	CHECK_EQ(book_entry(&book, 1)->kind, BOOK_FORK);
	CHECK_EQ(book_entry(&book, 1)->id, 6);
	CHECK_EQ(book_entry(&book, 1)->a, 77);
	CHECK_EQ(listed(&book).count, 2);
	book_forked(&book, 1);
	CHECK_EQ(book_entry(&book, 1)->kind, BOOK_FORKED);
	CHECK_EQ(book_entry(&book, 1)->id, 6);
	CHECK_EQ(listed(&book).count, 1);
	CHECK_EQ(listed(&book).list[0], 78);
	/* Beside those that came on the connection. */
	say_with("x", 2);
	receive(1);
	CHECK_EQ(listed(&book).count, 3);
	CHECK_EQ(listed(&book).list[2], 78);
}

TEST(log_is_written_anew,
     "Behind the old one or before it; the old one's memory is given back, and the highest event is known.")
{
	const uint64_t many = 2000, few = 100;
	uint64_t first, second, end;

	begin();
	append(1, many);
	first = head(&book)->log;
	end = log_end();
	CHECK_EQ(first, LOGS);
	CHECK_EQ(rewrite(0, few), 0);
	second = head(&book)->log;
	CHECK(second >= end && second % PAGE == 0);
	has_entries(&book, 0, few);
	CHECK_EQ(held(first, second), 0);
	reopen(&book);
	has_entries(&book, 0, few);
	CHECK_EQ(book.last, many - 1);
	append(few, many);
	has_entries(&book, 0, many);
	end = log_end();
	/* What a worker that was killed may have left there is not in the way. */
	litter(first, second - first);
	CHECK_EQ(rewrite(1, few), 0);
	CHECK_EQ(head(&book)->log, first);
	has_entries(&book, 1, few);
	CHECK_EQ(held(second, end), 0);
	append(few, 2 * many);
	has_entries(&book, 1, 2 * many);
	/* Nothing at all is a log as well. */
	CHECK_EQ(rewrite(1, 1), 0);
	reopen(&book);
	CHECK_EQ(book_count(&book), 0);
	CHECK_EQ(book.last, 2 * many - 1);
}

TEST(log_is_long_by_what_it_led_to,
     "It is when it is four times as long as it was when it was written anew, and a thousand entries more.")
{
	begin();
	append(0, 1024);
	CHECK(!book_is_long(&book));
	append(1024, 1025);
	CHECK(book_is_long(&book));
	CHECK_EQ(rewrite(0, 10), 0);
	CHECK(!book_is_long(&book));
	append(10, 1024 + 4 * 10);
	CHECK(!book_is_long(&book));
	reopen(&book);
	append(1024 + 4 * 10, 1024 + 4 * 10 + 1);
	CHECK(book_is_long(&book));
}

TEST(log_ends_at_a_gigabyte, "Then there is -ENOMEM for what would be longer, and the log is what it was.")
{
	struct book_rewrite writing;
	struct book_entry entry = entry_of(1);
	uint64_t count;

	begin();
	CHECK_EQ(ftruncate(file, (off_t)LONGEST), 0);
	atomic_store(&head(&book)->log, LONGEST - 2 * PAGE);
	reopen(&book);
	count = (2 * PAGE - sizeof(struct book_log)) / sizeof(struct book_entry);
	append(0, count);
	CHECK_EQ(book_append(&book, &entry), -ENOMEM);
	has_entries(&book, 0, count);
	/* There is no room for so many before it either. */
	book_rewrite_begin(&writing, &book, LONGEST / sizeof(struct book_entry));
	book_rewrite_add(&writing, &entry);
	book_rewrite_add(&writing, &entry);
	CHECK_EQ(book_rewrite_end(&writing), -ENOMEM);
	has_entries(&book, 0, count);
	reopen(&book);
	has_entries(&book, 0, count);
	CHECK_EQ(rewrite(0, 10), 0);
	append(10, count + 1);
	has_entries(&book, 0, count + 1);
}

TEST(file_that_cannot_grow, "Then the log stays as it is, and the error is told.")
{
	uint64_t count = (GROWTH - sizeof(struct book_log)) / sizeof(struct book_entry), log = LOGS;
	struct book_entry entry = entry_of(1);
	int fd = memfd_create("book", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK_EQ(ftruncate(fd, LOGS + GROWTH), 0);
	CHECK_EQ(pwrite(fd, &log, sizeof(log), 0), sizeof(log));
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	open_book(fd);
	append(0, count);
	CHECK_EQ(book_append(&book, &entry), -EPERM);
	CHECK_EQ(rewrite(0, 10), -EPERM);
	has_entries(&book, 0, count);
}

TEST(only_a_book_is_opened, "What is too short for one, or no file, is refused.")
{
	int fd = memfd_create("book", MFD_CLOEXEC);

	CHECK_EQ(book_open(&book, -1), -EBADF);
	CHECK_EQ(book_open(&book, fd), -EINVAL);
	CHECK(!book.base);
	CHECK_EQ(ftruncate(fd, LOGS - 1), 0);
	CHECK_EQ(book_open(&book, fd), -EINVAL);
	book_close(&book);
}

/*
 * Killed at any instruction.
 */

/* The file as it was last looked at: what is a hole is zeros. */
static struct {
	char *bytes;
	bool *held; /* pages */
	size_t size, room;
	bool changed;
} image;

static void make_room(size_t size)
{
	if (size <= image.room)
		return;
	image.bytes = realloc(image.bytes, size);
	image.held = realloc(image.held, size / PAGE);
	CHECK(image.bytes && image.held);
	memset(image.bytes + image.room, 0, size - image.room);
	memset(image.held + image.room / PAGE, 0, (size - image.room) / PAGE);
	image.room = size;
}

static void take_page(size_t page, const char *bytes)
{
	char *last = image.bytes + page * PAGE;

	image.held[page] = bytes;
	if (bytes && memcmp(last, bytes, PAGE)) {
		memcpy(last, bytes, PAGE);
		image.changed = true;
	}
	if (!bytes) {
		memset(last, 0, PAGE);
		image.changed = true;
	}
}

/* Whether it is another than before. */
static bool take_image(void)
{
	off_t size = lseek(file, 0, SEEK_END), at = 0, data;
	char page[PAGE];

	make_room((size_t)size);
	image.changed = image.size != (size_t)size;
	image.size = (size_t)size;
	while (at < size) {
		off_t end = size;

		data = lseek(file, at, SEEK_DATA);
		for (data = data < 0 ? size : data; at < data; at += PAGE)
			if (image.held[at / PAGE])
				take_page((size_t)at / PAGE, NULL);
		if (at < size)
			end = lseek(file, at, SEEK_HOLE);
		for (; at < end; at += PAGE) {
			CHECK_EQ(pread(file, page, PAGE, at), PAGE);
			take_page((size_t)at / PAGE, page);
		}
	}
	return image.changed;
}

static int copy_of_image(void)
{
	int fd = memfd_create("copy", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)image.size), 0);
	for (size_t at = 0; at < image.size; at += PAGE)
		if (image.held[at / PAGE])
			CHECK_EQ(pwrite(fd, image.bytes + at, PAGE, (off_t)at), PAGE);
	return fd;
}

/* More is received and appended, and found by one more successor, who finds no more than that. */
static void goes_on(struct book *successor)
{
	size_t len, again;
	const char *text = book_text(successor, &len);
	char *before = malloc(len + 1);
	struct book_entry entry = {.kind = BOOK_ZEROS, .id = successor->last + 1, .a = 5};
	uint64_t count = book_count(successor);
	bool marked = book_is_marked(successor);
	int pair[2];

	CHECK(before);
	memcpy(before, text, len);
	before[len] = '+';
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CHECK_EQ(send(pair[0], "+", 1, 0), 1);
	CHECK_EQ(book_receive(successor, pair[1]), 1);
	close(pair[0]);
	close(pair[1]);
	uncount(successor, 1);
	CHECK_EQ(book_append(successor, &entry), 0);
	reopen(successor);
	text = book_text(successor, &again);
	CHECK_EQ(again, len + 1);
	CHECK(!memcmp(text, before, len + 1));
	CHECK_EQ(book_is_marked(successor), marked);
	CHECK_EQ(book_count(successor), count + 1);
	CHECK_EQ(book_entry(successor, count)->a, 5);
	CHECK_EQ(successor->last, entry.id);
	free(before);
}

/* One thing that is done to the book. `done` checks what a successor finds, and tells whether it has been done. */
struct trial {
	bool (*done)(struct book *successor, pid_t child);
	bool begun, was_done;
	uint64_t beside;
};

/* What there is beside the file: shared memory; and descriptors that came, with duplicates to have them again. */
static _Atomic int *slot;
static struct numbers came, spare;

static uint64_t beside(pid_t child)
{
	uint64_t open = 0;

	for (size_t i = 0; i < came.count; i++)
		open |= (uint64_t)is_open(child, came.list[i]) << i;
	return (uint64_t)(uint32_t)*slot << 32 | open;
}

static void look(void *arg, pid_t child, bool over)
{
	struct trial *trial = arg;
	struct book successor;
	bool done;
	int fd;

	if (!take_image() && beside(child) == trial->beside && trial->begun && !over)
		return;
	trial->beside = beside(child);
	fd = copy_of_image();
	CHECK_EQ(book_open(&successor, fd), 0);
	done = trial->done(&successor, child);
	goes_on(&successor);
	book_close(&successor);
	close(fd);
	/* It can be seen not to have been done, and to be done in the end; and it stays done. */
	if (!trial->begun)
		CHECK(!done);
	if (trial->was_done || over)
		CHECK(done);
	trial->begun = true;
	trial->was_done = done;
}

static void begin_trial(void)
{
	begin();
	slot = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(slot != MAP_FAILED);
	*slot = -1;
}

static void at_any_instruction(void (*what)(void), bool (*done)(struct book *successor, pid_t child))
{
	struct trial trial = {.done = done};

	CHECK(stepped(what, look, &trial) > 0);
}

#define OLD 40u /* entries before */

static void append_one(void)
{
	append(OLD, OLD + 1);
}

static bool appended(struct book *successor, pid_t child)
{
	bool done = book_count(successor) > OLD;

	(void)child;
	has_entries(successor, 0, done ? OLD + 1 : OLD);
	CHECK_EQ(successor->last, done ? OLD : OLD - 1);
	return done;
}

TEST(killed_while_it_appends, "The entry is there as a whole, or not at all.")
{
	begin_trial();
	append(0, OLD);
	litter(log_end(), 2 * sizeof(struct book_entry));
	at_any_instruction(append_one, appended);
}

#define FULL ((GROWTH - sizeof(struct book_log)) / sizeof(struct book_entry)) /* of what a new file has room for */

static void append_behind(void)
{
	append(FULL, FULL + 1);
}

static bool appended_behind(struct book *successor, pid_t child)
{
	bool done = book_count(successor) > FULL;

	(void)child;
	has_entries(successor, 0, done ? FULL + 1 : FULL);
	return done;
}

TEST(killed_while_the_file_grows, "Also when the file has to grow for the entry.")
{
	begin_trial();
	append(0, FULL);
	CHECK_EQ(lseek(file, 0, SEEK_END), LOGS + GROWTH);
	at_any_instruction(append_behind, appended_behind);
	CHECK(lseek(file, 0, SEEK_END) > LOGS + GROWTH);
}

static void tell_of_fork(void)
{
	struct uffd_msg msg = {.event = UFFD_EVENT_FORK, .arg.fork.ufd = 77};

	CHECK_EQ(book_append_message(&book, &msg, OLD + 5), 0);
}

static bool fork_is_told_of(struct book *successor, pid_t child)
{
	bool done = book_count(successor) > OLD;
	struct numbers numbers = listed(successor);

	(void)child;
	CHECK_EQ(numbers.count, done);
	CHECK(!done || numbers.list[0] == 77);
	CHECK_EQ(successor->last, done ? OLD + 5 : OLD - 1);
	return done;
}

TEST(killed_while_it_tells_of_a_fork, "The child's descriptor is the book's from the moment that the entry is there.")
{
	begin_trial();
	append(0, OLD);
	at_any_instruction(tell_of_fork, fork_is_told_of);
}

static void see_to_fork(void)
{
	book_forked(&book, OLD);
}

static bool fork_is_seen_to(struct book *successor, pid_t child)
{
	bool done = book_entry(successor, OLD)->kind == BOOK_FORKED;

	(void)child;
	CHECK_EQ(book_count(successor), OLD + 1);
	CHECK(done || book_entry(successor, OLD)->kind == BOOK_FORK);
	CHECK_EQ(book_entry(successor, OLD)->id, OLD + 5);
	CHECK_EQ(listed(successor).count, !done);
	CHECK(done || listed(successor).list[0] == 77);
	return done;
}

TEST(killed_while_it_sees_to_a_fork, "The child's descriptor is the book's until the entry says otherwise.")
{
	begin_trial();
	append(0, OLD);
	tell_of_fork();
	at_any_instruction(see_to_fork, fork_is_seen_to);
}

/* From entry 1 on, so that all of them are others. */
static void rewrite_shorter(void)
{
	CHECK_EQ(rewrite(1, OLD / 4), 0);
}

static bool rewritten(struct book *successor, pid_t child)
{
	bool done = book_count(successor) < OLD;

	(void)child;
	has_entries(successor, done ? 1 : 0, done ? OLD / 4 : OLD);
	CHECK_EQ(successor->last, OLD - 1);
	return done;
}

TEST(killed_while_it_rewrites,
     "Of a log that is written anew behind the old one all of the old entries are there, or all of the new.")
{
	begin_trial();
	append(0, OLD);
	litter(log_end(), 2 * PAGE);
	at_any_instruction(rewrite_shorter, rewritten);
	CHECK(head(&book)->log > LOGS);
}

TEST(killed_while_it_rewrites_before, "The same before the old one.")
{
	begin_trial();
	append(0, OLD);
	CHECK_EQ(rewrite(0, 1), 0);
	append(1, OLD);
	litter(LOGS, PAGE);
	at_any_instruction(rewrite_shorter, rewritten);
	CHECK_EQ(head(&book)->log, LOGS);
}

static void receive_some(void)
{
	CHECK(book_receive(&book, server) > 0);
}

/* What is not in the book is in the connection still. */
static void is_waiting(bool expected)
{
	int bytes;

	CHECK_EQ(ioctl(server, FIONREAD, &bytes), 0);
	CHECK_EQ(bytes > 0, expected);
}

static bool received(struct book *successor, pid_t child)
{
	bool done = !is_text(successor, "[two][thr");
	struct numbers numbers = listed(successor);

	if (done)
		has_text(successor, "[two][three]");
	is_waiting(!done);
	CHECK_EQ(numbers.count, done ? 2 : 0);
	for (size_t i = 0; i < numbers.count; i++)
		CHECK(is_open(child, numbers.list[i]));
	CHECK(book_is_marked(successor));
	return done;
}

TEST(killed_while_it_receives, "Text and descriptors are in the connection or in the book, together.")
{
	begin_trial();
	say("[one][two][thr");
	receive(14);
	book_take(&book, 5);
	book_mark(&book);
	say_with("ee]", 2);
	at_any_instruction(receive_some, received);
}

#define PAGES (3 * PAGE + 100) /* bytes of text */

static bool received_pages(struct book *successor, pid_t child)
{
	size_t len;
	bool done = *book_text(successor, &len);

	(void)child;
	has_places(successor, 0, done ? PAGES : 0);
	is_waiting(!done);
	return done;
}

TEST(killed_while_it_receives_pages, "A text that goes over several pages comes as a whole.")
{
	begin_trial();
	say_much(0, PAGES);
	at_any_instruction(receive_some, received_pages);
}

static bool received_shorter(struct book *successor, pid_t child)
{
	bool done = !is_text(successor, "");

	(void)child;
	if (done)
		has_text(successor, "short");
	is_waiting(!done);
	CHECK_EQ(listed(successor).count, 0);
	return done;
}

TEST(killed_while_it_receives_where_text_was,
     "What was taken before does not come again, in whole or in part; nor do descriptors.")
{
	begin_trial();
	say_with("a long text, which has been taken", 3);
	receive(33);
	book_take(&book, 33);
	CHECK_EQ(book_take_fd(&book, slot), 3);
	say("short");
	at_any_instruction(receive_some, received_shorter);
}

static void receive_none(void)
{
	CHECK_EQ(book_receive(&book, server), -EAGAIN);
}

static bool rewound(struct book *successor, pid_t child)
{
	(void)child;
	has_text(successor, "");
	return !((struct book_head *)image.bytes)->text;
}

TEST(killed_while_it_rewinds, "While it begins at the front again there is no text, old or new.")
{
	begin_trial();
	say("a long text, which has been taken");
	receive(33);
	book_take(&book, 33);
	at_any_instruction(receive_none, rewound);
}

static const char with_zero[] = "[two]\0[three][four]";

/* Up to the zero, or nothing that could be a message. */
static bool received_zero(struct book *successor, pid_t child)
{
	bool done = !is_text(successor, "[one]");
	size_t len;
	const char *text = book_text(successor, &len);

	(void)child;
	CHECK(!memcmp(text, "[one]", 5));
	if (done && text[5] != '\1')
		has_text(successor, "[one][two]");
	is_waiting(!done);
	return done;
}

TEST(killed_while_it_receives_a_zero, "Nothing that came behind a zero is taken for a message.")
{
	begin_trial();
	say("[one]");
	receive(5);
	say_bytes(with_zero, sizeof(with_zero) - 1);
	at_any_instruction(receive_some, received_zero);
}

static void take_one(void)
{
	book_take(&book, 5);
}

static bool taken(struct book *successor, pid_t child)
{
	bool done = !is_text(successor, "[one][two]");

	(void)child;
	if (done)
		has_text(successor, "[two]");
	/* Never that of the other message. */
	CHECK_EQ(book_is_marked(successor), !done);
	return done;
}

TEST(killed_while_it_takes, "The first message is there with its mark, or the second without.")
{
	begin_trial();
	say("[one][two]");
	receive(10);
	book_mark(&book);
	at_any_instruction(take_one, taken);
}

static void mark_one(void)
{
	book_mark(&book);
}

static bool marked(struct book *successor, pid_t child)
{
	(void)child;
	has_text(successor, "[two]");
	return book_is_marked(successor);
}

TEST(killed_while_it_marks, "The text is what it was, marked or not.")
{
	begin_trial();
	say("[one][two]");
	receive(10);
	take_one();
	at_any_instruction(mark_one, marked);
}

static void take_descriptor(void)
{
	CHECK_EQ(book_take_fd(&book, slot), came.count);
}

/* A successor takes what is left; the descriptors of this process have the same numbers as those of the child. */
static void take_the_rest(struct book *successor, _Atomic int *its_slot, int expected)
{
	struct numbers numbers = listed(successor);

	book_take_fd(successor, its_slot);
	CHECK_EQ(*its_slot, expected);
	CHECK(is_open(getpid(), expected));
	CHECK_EQ(listed(successor).count, 0);
	for (size_t i = 0; i < numbers.count; i++)
		CHECK(numbers.list[i] == expected || !is_open(getpid(), numbers.list[i]));
	for (size_t i = 0; i < came.count; i++)
		CHECK_EQ(dup2(spare.list[i], came.list[i]), came.list[i]);
}

static bool descriptor_taken(struct book *successor, pid_t child)
{
	struct numbers numbers = listed(successor);
	_Atomic int its_slot = *slot;
	size_t open = 0;

	CHECK(its_slot == -1 || its_slot == came.list[0]);
	CHECK(its_slot == came.list[0] || lists(&numbers, came.list[0]));
	CHECK(is_open(child, came.list[0]));
	/* What the book has nobody else may have opened meanwhile. */
	for (size_t i = 0; i < numbers.count; i++)
		CHECK(is_open(child, numbers.list[i]));
	for (size_t i = 1; i < came.count; i++)
		open += is_open(child, came.list[i]);
	take_the_rest(successor, &its_slot, came.list[0]);
	return *slot >= 0 && !numbers.count && !open;
}

static void begin_with_descriptors(void)
{
	begin_trial();
	say_with("x", 3);
	receive(1);
	came = listed(&book);
	spare.count = came.count;
	for (size_t i = 0; i < came.count; i++)
		spare.list[i] = fcntl(came.list[i], F_DUPFD_CLOEXEC, 100);
}

TEST(killed_while_it_takes_a_descriptor,
     "It is in the inbox or in the slot, and whatever is in the inbox is open; a successor takes the rest.")
{
	begin_with_descriptors();
	at_any_instruction(take_descriptor, descriptor_taken);
}

static int full;

static bool descriptors_closed(struct book *successor, pid_t child)
{
	struct numbers numbers = listed(successor);
	_Atomic int its_slot = *slot;
	size_t open = 0;

	CHECK_EQ(its_slot, full);
	CHECK(is_open(child, full));
	for (size_t i = 0; i < numbers.count; i++)
		CHECK(is_open(child, numbers.list[i]));
	for (size_t i = 0; i < came.count; i++)
		open += is_open(child, came.list[i]);
	take_the_rest(successor, &its_slot, full);
	return !numbers.count && !open;
}

TEST(killed_while_it_closes_descriptors,
     "When the slot is full they are in the inbox while they are open, at the least.")
{
	begin_with_descriptors();
	full = eventfd(0, EFD_CLOEXEC);
	*slot = full;
	at_any_instruction(take_descriptor, descriptors_closed);
}

static void open_again(void)
{
	struct book another;

	CHECK_EQ(book_open(&another, file), 0);
}

static bool counted(struct book *successor, pid_t child)
{
	(void)child;
	has_text(successor, "[two][three]");
	CHECK(book_is_marked(successor));
	return (uint32_t)((struct book_head *)image.bytes)->text == strlen("[one][two][three]");
}

TEST(killed_while_it_opens,
     "What had been received and not been counted is found again, and the rest of an old clean-up is not.")
{
	begin_trial();
	say("[one][two]");
	receive(10);
	take_one();
	book_mark(&book);
	say("[three]");
	receive(7);
	uncount(&book, 7);
	litter(PAGE + strlen("[one][two][three]") + 1, 100);
	litter(PAGE + 3000, 2 * PAGE);
	at_any_instruction(open_again, counted);
}

/*
 * Killed at any page: what would take too many instructions.
 */

#define STRIDE 16 /* stops to a look, unless the head of the file says something else than before */

struct strides {
	struct trial trial;
	unsigned stops;
	uint64_t text, log;
};

static void look_now_and_then(void *arg, pid_t child, bool over)
{
	struct strides *strides = arg;
	uint64_t text = head(&book)->text, log = head(&book)->log;

	if (text != strides->text || log != strides->log || strides->stops++ % STRIDE == 0 || over)
		look(&strides->trial, child, over);
	strides->text = text;
	strides->log = log;
}

/* `pages` that it has to touch, at the least. */
static void at_any_page(void (*what)(void), size_t pages, bool (*done)(struct book *successor, pid_t child))
{
	struct strides strides = {.trial.done = done};

	CHECK(stepped_by_pages(what, book.base, LOGS + 64 * GROWTH, look_now_and_then, &strides) >= pages);
}

/* Places that the text has, and those that were taken of it. */
static size_t filled, away;

static void fill_and_take(size_t left)
{
	begin_trial();
	filled = fill_text();
	away = filled - left;
	book_take(&book, away);
}

static bool moved(struct book *successor, pid_t child)
{
	(void)child;
	has_places(successor, away, filled);
	CHECK(book_is_marked(successor));
	return (uint32_t)((struct book_head *)image.bytes)->text == filled - away;
}

TEST(killed_while_it_moves_text, "While a megabyte goes to the front it is there as a whole, with its mark, and once.")
{
	fill_and_take(BOOK_TEXT / 2 - 1000);
	book_mark(&book);
	at_any_page(receive_none, BOOK_TEXT / PAGE, moved);
}

TEST(killed_while_it_moves_little, "The same where there is more to be cleaned up than moved.")
{
	fill_and_take(5000);
	book_mark(&book);
	at_any_page(receive_none, BOOK_TEXT / PAGE, moved);
}

TEST(killed_while_it_rewinds_much, "Of two megabytes that were taken nothing is found again.")
{
	fill_and_take(0);
	at_any_page(receive_none, BOOK_TEXT / PAGE, rewound);
}

#define MANY 20000u /* entries before */

static void rewrite_many(void)
{
	CHECK_EQ(rewrite(1, MANY / 2), 0);
}

static bool many_rewritten(struct book *successor, pid_t child)
{
	bool done = book_count(successor) < MANY;

	(void)child;
	has_entries(successor, done ? 1 : 0, done ? MANY / 2 : MANY);
	CHECK_EQ(successor->last, MANY - 1);
	return done;
}

TEST(killed_while_it_rewrites_much, "Of a long log all of the old entries are there, or all of the new.")
{
	begin_trial();
	append(0, MANY);
	at_any_page(rewrite_many, MANY / 2 * sizeof(struct book_entry) / PAGE, many_rewritten);
}

/*
 * Killed inside of a system call.
 */

static void *kill_who_waits(void *arg)
{
	struct pollfd object = {.fd = *(int *)arg, .events = POLLIN};

	poll(&object, 1, -1);
	kill(getpid(), SIGKILL);
	return NULL;
}

/* Whoever first touches this page of the text waits, and is killed. */
static size_t killer_page;

static void receive_and_be_killed(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register range = {.range = {(uintptr_t)book.base + PAGE + killer_page * PAGE, PAGE},
	                                .mode = UFFDIO_REGISTER_MODE_MISSING};
	int object = (int)raw_syscall3(SYS_userfaultfd, O_CLOEXEC, 0, 0);
	pthread_t killer;

	if (object < 0)
		SKIP("userfaultfd: %s", strerror(-object));
	CHECK_EQ(ioctl(object, UFFDIO_API, &api), 0);
	CHECK_EQ(ioctl(object, UFFDIO_REGISTER, &range), 0);
	CHECK_EQ(pthread_create(&killer, NULL, kill_who_waits, &object), 0);
	receive_some();
	FAIL("it has received, and has not been killed");
}

TEST(killed_while_the_kernel_waits_for_a_page,
     "What the kernel has stored a part of, and not taken out of the connection, does not come twice.")
{
	for (killer_page = 0; killer_page * PAGE < PAGES; killer_page++) {
		int status;
		pid_t pid;

		begin();
		say_much(0, PAGES);
		pid = fork();
		if (!pid)
			receive_and_be_killed();
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status))
			_exit(WEXITSTATUS(status));
		CHECK_EQ(WTERMSIG(status), SIGKILL);
		reopen(&book);
		while (book_receive(&book, server) > 0)
			;
		has_places(&book, 0, PAGES);
	}
}
