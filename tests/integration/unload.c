// SPDX-License-Identifier: MIT
/* The shared library in a program that loads and unloads it as a plugin. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "command.h"
#include "support/test.h"

static int decline(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	(void)uf;
	(void)fault;
	(void)arg;
	return -EFAULT;
}

/* dlsym() gives an object's address, and C has no cast from that to a function's. */
static void find(void *library, const char *name, void *function)
{
	void *symbol = dlsym(library, name);

	CHECK(symbol);
	memcpy(function, &symbol, sizeof(symbol));
}

static void load_open_close_and_unload(void)
{
	struct uf_options options = {.size = sizeof(options), .handler = decline};
	void *library = dlopen(from_env("USERFAULT_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
	int (*open)(struct uf **, const struct uf_options *);
	void (*close)(struct uf *);
	struct uf *uf;

	if (!library)
		FAIL("%s", dlerror());
	find(library, "uf_open", &open);
	find(library, "uf_close", &close);
	CHECK_EQ(open(&uf, &options), 0);
	close(uf);
	CHECK_EQ(dlclose(library), 0);
}

/* SIGBUS from the kernel, which has nothing to do with userfaultfd. */
static void touch_behind_the_end_of_a_file(void)
{
	int fd = memfd_create("empty", MFD_CLOEXEC);
	volatile char *page = mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0);

	CHECK(page != MAP_FAILED);
	(void)*page;
}

TEST(unloaded_library_leaves_death, "After dlclose() a SIGBUS kills as it would have without the library.")
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		load_open_close_and_unload();
		touch_behind_the_end_of_a_file();
		FAIL("the access went through");
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
}

static void on_bus(int sig)
{
	(void)sig;
	_exit(0);
}

TEST(unloaded_library_leaves_handler, "After dlclose() a SIGBUS reaches the handler that the program had installed.")
{
	CHECK(signal(SIGBUS, on_bus) != SIG_ERR);
	load_open_close_and_unload();
	touch_behind_the_end_of_a_file();
	FAIL("the access went through");
}
