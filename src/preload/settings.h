/* SPDX-License-Identifier: MIT */
/*
 * settings.h - what `userfault run` was told, as the library it preloads finds it
 *
 * In the environment, so that it reaches the children of the program too:
 *
 *	LD_PRELOAD          with this library first
 *	USERFAULT_RUN       "user": the user engine alone; "auto": where the kernel refuses
 *	USERFAULT_VERBOSE   "1": tell on standard error what is done
 *	USERFAULT_TRAP      "mprotect": hide pages without guard pages
 *	USERFAULT_MAP       the files that a manager serves (map.h): lines, each with its end, which are a number that tells this `run` from
 *	                    others, the time of its start, the path of the manager's socket; and for each file its path, its store, where it
 *	                    begins in the store, and its size
 */
#ifndef PRELOAD_SETTINGS_H
#define PRELOAD_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#define SETTING_ENGINE  "USERFAULT_RUN"
#define SETTING_VERBOSE "USERFAULT_VERBOSE"
#define SETTING_TRAP    "USERFAULT_TRAP"
#define SETTING_MAP     "USERFAULT_MAP"

#define MAP_FILES_MAX 64 /* that SETTING_MAP may tell */

struct settings {
	bool kernel_first; /* ask the kernel before the user engine */
	bool verbose;
};

/* Read once, when the library is loaded. */
const struct settings *settings(void);

/* One line on standard error, if verbose; by a system call, in any context. */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * The environment for a program that is executed: `envp` with this library and its settings in it, if the program left them out; else envp
 * itself. `room` has settings_room(envp) entries, and `text` takes the new LD_PRELOAD. Async-signal-safe.
 */
size_t settings_room(char *const envp[]);
char *const *settings_environment(char *const envp[], char **room, char *text, size_t text_size);

#endif
