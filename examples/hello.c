// SPDX-License-Identifier: MIT
/*
 * hello - memory whose content is decided when it is touched
 *
 * cc hello.c $(pkg-config --cflags --libs userfault) -o hello
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <userfault.h>

#define PAGES 4
static size_t page_size;

/* Serves faults for ever: each page gets a text that tells when it was made. */
static void *monitor(void *arg)
{
	struct uf *uf = arg;
	struct pollfd ready = {.fd = uf_fd(uf), .events = POLLIN};
	char page[65536] = "";
	int made = 0;

	for (;;) {
		struct uffd_msg msg;

		/* -EAGAIN: no message, or another thread was faster */
		if (uf_read(uf, &msg, 1) < 1) {
			poll(&ready, 1, -1);
			continue;
		}
		void *addr = (void *)(uintptr_t)(msg.arg.pagefault.address & ~(page_size - 1));
		snprintf(page, page_size, "page made for fault number %d", ++made);
		uf_copy(uf, addr, page, page_size, 0);
	}
	return NULL;
}

int main(void)
{
	struct uf *uf;
	pthread_t thread;
	int err;

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	err = uf_open(&uf, NULL);
	if (!err)
		err = uf_register(uf, memory, PAGES * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL);
	if (err) {
		fprintf(stderr, "hello: %s; 'userfault probe' tells why\n", strerror(-err));
		return 1;
	}
	pthread_create(&thread, NULL, monitor, uf);
	for (int i = PAGES - 1; i >= 0; i--)
		printf("page %d: %s\n", i, memory + (size_t)i * page_size);
	return 0;
}
