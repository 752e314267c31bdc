// SPDX-License-Identifier: MIT
/*
 * handed - memory whose content a manager brings
 *
 * userfault serve --listen /tmp/manager --store default=file:/usr/share/dict/words &
 * cc handed.c $(pkg-config --cflags --libs userfault) -o handed
 * ./handed /tmp/manager | head
 *
 * Prints the store. The program opens no file: it gives away what is missing in its memory, and reads.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <userfault.h>

/* So that the manager learns what becomes of the memory, and can say that a page is lost. */
static const struct uf_options options = {
	.size = sizeof(options),
	.wanted = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_POISON,
};

static int hand_over(struct uf *uf, struct uf_handover *handover, void *memory, size_t len, char *cause, size_t size)
{
	struct uf_handover_region region = {.addr = memory, .size = len, .offset = 0};
	int err = uf_register(uf, memory, len, UFFDIO_REGISTER_MODE_MISSING, NULL);

	if (err) {
		snprintf(cause, size, "register: %s", strerror(-err));
		return err;
	}
	return uf_handover_give(handover, uf_fd(uf), &region, 1, "handed", cause, size);
}

int main(int argc, char **argv)
{
	struct uf_handover *handover = NULL;
	struct uf *uf = NULL;
	char cause[256] = "usage: handed SOCKET", *memory = MAP_FAILED;
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE), len = 0;
	uint64_t size = 0;
	int err = argc == 2 ? uf_handover_open(&handover, argv[1], cause, sizeof(cause)) : 1;

	if (!err)
		err = uf_handover_size(handover, NULL, &size, cause, sizeof(cause));
	if (!err) {
		len = (size + page_size - 1) / page_size * page_size;
		memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		err = memory == MAP_FAILED || uf_open(&uf, &options);
		snprintf(cause, sizeof(cause), "no memory, or no userfaultfd: 'userfault probe' tells why");
	}
	if (!err)
		err = hand_over(uf, handover, memory, len, cause, sizeof(cause));
	if (err) {
		fprintf(stderr, "handed: %s\n", cause);
		return 1;
	}
	/* By a loop of our own: the user engine cannot serve what a system call touches. */
	for (uint64_t i = 0; i < size; i++)
		putchar(memory[i]);
	uf_close(uf);
	uf_handover_close(handover);
	return 0;
}
