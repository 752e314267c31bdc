// SPDX-License-Identifier: MIT
/* userfault run: a program with a userfaultfd that works. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <userfault.h>

#include "cli/command.h"
#include "cli/run.h"
#include "preload/settings.h"

enum { CANNOT_RUN = 126, NOT_FOUND = 127 };

enum choice { CHOICE_AUTO, CHOICE_KERNEL, CHOICE_USER };

static int refuse(int status, const char *program, const char *reason)
{
	fail("run: %s: %s", program, reason);
	return status;
}

/*
 * The program.
 */

/* Where the shell would find it. False: nowhere. */
static bool find_program(const char *name, char path[PATH_MAX])
{
	const char *dirs = getenv("PATH");

	if (strchr(name, '/'))
		return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && !access(path, F_OK);
	for (const char *dir = dirs ? dirs : "/bin:/usr/bin"; dir;
	     dir = strchr(dir, ':') ? strchr(dir, ':') + 1 : NULL) {
		int len = (int)strcspn(dir, ":");

		if (snprintf(path, PATH_MAX, "%.*s/%s", len, len ? dir : ".", name) < PATH_MAX && !access(path, X_OK))
			return true;
	}
	return false;
}

/* Whether the loader drops LD_PRELOAD for it. */
static bool is_privileged(const char *path)
{
	struct stat stat_;

	if (stat(path, &stat_))
		return false;
	if ((stat_.st_mode & S_ISUID) && stat_.st_uid != geteuid())
		return true;
	if ((stat_.st_mode & S_ISGID) && stat_.st_gid != getegid())
		return true;
	return geteuid() && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* The loader that the program asks for, or "" for a static one. False: no such program for this machine. */
static bool find_loader(int fd, char loader[PATH_MAX])
{
	Elf64_Ehdr own, head;
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	bool same = self >= 0 && pread(self, &own, sizeof(own), 0) == (ssize_t)sizeof(own) &&
	            pread(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
	            !memcmp(own.e_ident, head.e_ident, EI_OSABI) && own.e_machine == head.e_machine;

	if (self >= 0)
		close(self);
	loader[0] = '\0';
	for (unsigned i = 0; same && i < head.e_phnum; i++) {
		Elf64_Phdr part;

		if (pread(fd, &part, sizeof(part), (off_t)(head.e_phoff + i * sizeof(part))) != (ssize_t)sizeof(part))
			return false;
		if (part.p_type != PT_INTERP || part.p_filesz >= PATH_MAX)
			continue;
		if (pread(fd, loader, part.p_filesz, (off_t)part.p_offset) != (ssize_t)part.p_filesz)
			return false;
		loader[part.p_filesz] = '\0';
	}
	return same;
}

/* 0: the library can be loaded into it. Else says why not. */
static int check_program(const char *name, const char *path, int depth)
{
	char start[PATH_MAX], loader[PATH_MAX], *end;
	int fd = open(path, O_RDONLY | O_CLOEXEC), status = 0;
	ssize_t len;

	/* What may be executed but not read cannot be looked at: the loader will say. */
	if (fd < 0)
		return errno == EACCES && !access(path, X_OK) ? 0 : refuse(CANNOT_RUN, name, strerror(errno));
	len = pread(fd, start, sizeof(start) - 1, 0);
	start[len > 0 ? len : 0] = '\0';
	if (is_privileged(path)) {
		status = refuse(CANNOT_RUN, name,
		                "it is setuid, setgid or has capabilities: nothing can be preloaded into it");
	} else if (!strncmp(start, "#!", 2)) {
		char *interpreter = start + 2 + strspn(start + 2, " \t");

		end = interpreter + strcspn(interpreter, " \t\n");
		*end = '\0';
		if (depth < 4)
			status = check_program(name, interpreter, depth + 1);
	} else if (len < 4 || memcmp(start, ELFMAG, SELFMAG) != 0) {
		/* A script without a first line, which execvp(3) gives to the shell. */
		status = 0;
	} else if (!find_loader(fd, loader)) {
		status = refuse(CANNOT_RUN, name, "it is made for another machine or word size than this command");
	} else if (!loader[0]) {
		status = refuse(CANNOT_RUN, name, "it is statically linked: nothing can be preloaded into it");
	}
	close(fd);
	return status;
}

/*
 * The library.
 */

/* Beside the command in the build folder, or where both were installed. */
static bool find_library(char path[PATH_MAX])
{
	static const char *const places[] = {UF_RUN_BUILT, UF_RUN_INSTALLED};
	char self[PATH_MAX], *slash;
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len < 0)
		return false;
	self[len] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char candidate[2 * PATH_MAX];

		snprintf(candidate, sizeof(candidate), "%s/%s", self, places[i]);
		if (realpath(candidate, path))
			return true;
	}
	return false;
}

static int set_environment(enum choice choice, bool verbose)
{
	const char *before = getenv("LD_PRELOAD");
	char library[PATH_MAX], *preload;
	int err;

	if (!find_library(library))
		return fail("run: the library %s is not beside this command: is the installation complete?",
		            UF_RUN_BUILT);
	/* The loader takes both as the end of a name. */
	if (strpbrk(library, " :"))
		return fail("run: %s: the loader cannot preload a library whose path has a blank or a colon in it",
		            library);
	if (asprintf(&preload, "%s%s%s", library, before && *before ? ":" : "", before ? before : "") < 0)
		return fail("run: %s", strerror(ENOMEM));
	err = setenv("LD_PRELOAD", preload, 1) || setenv(SETTING_ENGINE, choice == CHOICE_USER ? "user" : "auto", 1) ||
	      (verbose ? setenv(SETTING_VERBOSE, "1", 1) : unsetenv(SETTING_VERBOSE));
	free(preload);
	return err ? fail("run: %s", strerror(errno)) : 0;
}

/*
 * The kernel's.
 */

/* 0: a program that calls userfaultfd(2) gets the kernel's, the kernel's own accesses included. */
static int try_kernel(void)
{
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_KERNEL, .flags = UF_OPEN_KERNEL_FAULTS};
	struct uf *uf;
	int err = uf_open(&uf, &opts);

	if (err)
		return err;
	/* The device needs other calls than a program may make. */
	err = uf_way(uf) == UF_WAY_SYSCALL ? 0 : -EPERM;
	uf_close(uf);
	return err;
}

static int execute(char **argv)
{
	execvp(argv[0], argv);
	return refuse(errno == ENOENT ? NOT_FOUND : CANNOT_RUN, argv[0], strerror(errno));
}

static int run_program(enum choice choice, bool verbose, const struct run_maps *maps, char **argv)
{
	char path[PATH_MAX];
	int status, err = choice == CHOICE_USER ? -EOPNOTSUPP : try_kernel();

	if (!find_program(argv[0], path))
		return refuse(NOT_FOUND, argv[0], "no such program");
	if (!err && !maps->count) {
		if (verbose)
			fprintf(stderr, "userfault: the kernel's userfaultfd works, and nothing stands before it\n");
		return execute(argv);
	}
	if (err && choice == CHOICE_KERNEL)
		return fail("run: the kernel's userfaultfd: %s; 'userfault probe' tells why", strerror(-err));
	if (err && verbose && choice == CHOICE_AUTO)
		fprintf(stderr, "userfault: the kernel's userfaultfd: %s; the user engine takes its place\n",
		        strerror(-err));
	status = check_program(argv[0], path, 0);
	if (!status)
		status = run_maps_prepare(maps);
	if (!status)
		status = set_environment(choice, verbose);
	return status ? status : execute(argv);
}

static int choose(const char *name, enum choice *choice)
{
	static const char *const names[] = {"auto", "kernel", "user"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i])) {
			*choice = (enum choice)i;
			return 0;
		}
	return usage_error("run: unknown engine '%s': it is auto, kernel or user", name);
}

int cmd_run(int argc, char **argv)
{
	static const struct option options[] = {
		{"engine", required_argument, NULL, 'e'}, {"manager", required_argument, NULL, 'M'},
		{"map", required_argument, NULL, 'm'},    {"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},         {0},
	};
	enum choice choice = CHOICE_AUTO;
	struct run_maps maps = {0};
	bool verbose = false;
	int option, err = 0;

	opterr = 0;
	optind = 1;
	while (!err && (option = getopt_long(argc, argv, "+:", options, NULL)) >= 0) {
		switch (option) {
		case 'e':
			err = choose(optarg, &choice);
			break;
		case 'M':
			maps.manager = optarg;
			break;
		case 'm':
			err = run_maps_add(&maps, optarg);
			break;
		case 'v':
			verbose = true;
			break;
		case 'h':
			printf("usage: userfault run [--engine auto|kernel|user] [--verbose]\n"
			       "                     [--manager SOCKET --map PATH=STORE[@OFFSET]...] [--] PROGRAM "
			       "[ARGUMENT...]\n");
			return finish_output(0);
		default:
			err = option_error("run", option, argv, options);
		}
	}
	if (err)
		return err;
	if (optind == argc)
		return usage_error("run: no program given");
	if (!maps.count != !maps.manager)
		return usage_error("run: --manager and --map go together");
	return run_program(choice, verbose, &maps, argv + optind);
}
