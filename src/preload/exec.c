// SPDX-License-Identifier: MIT
/*
 * Programs that are executed with an environment of their own find the library in it too. Those that keep the one they have need nothing:
 * but libc's own functions call each other without coming by here, so each is wrapped.
 */
#include <alloca.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "preload/map.h"
#include "preload/next.h"
#include "preload/settings.h"

/* On the stack: after vfork(2) the heap is somebody else's. */
#define TEXT              4096
#define ENVIRONMENT(envp) settings_environment(envp, alloca(settings_room(envp) * sizeof(char *)), alloca(TEXT), TEXT)

/* The kernel would run what lies at the path itself. */
static bool is_served(const char *path)
{
	return map_any() && map_find(AT_FDCWD, path, 0);
}

WRAP(int, execve, (const char *path, char *const argv[], char *const envp[]))
{
	if (is_served(path))
		return (int)as_libc(-EACCES);
	return NEXT(execve)(path, argv, ENVIRONMENT(envp));
}

WRAP(int, execvpe, (const char *file, char *const argv[], char *const envp[]))
{
	if (strchr(file, '/') && is_served(file))
		return (int)as_libc(-EACCES);
	return NEXT(execvpe)(file, argv, ENVIRONMENT(envp));
}

WRAP(int, fexecve, (int fd, char *const argv[], char *const envp[]))
{
	return NEXT(fexecve)(fd, argv, ENVIRONMENT(envp));
}

WRAP(int, execveat, (int dir, const char *path, char *const argv[], char *const envp[], int flags))
{
	return NEXT(execveat)(dir, path, argv, ENVIRONMENT(envp), flags);
}

WRAP(int, execv, (const char *path, char *const argv[]))
{
	return execve(path, argv, environ);
}

WRAP(int, execvp, (const char *file, char *const argv[]))
{
	return execvpe(file, argv, environ);
}

/* The arguments of an execl*(), up to and with their NULL, as an array. */
#define ARGUMENTS(argv, first, args)                        \
	do {                                                \
		va_list count_args_;                        \
		size_t count_ = 2;                          \
                                                            \
		va_copy(count_args_, args);                 \
		while (va_arg(count_args_, char *) != NULL) \
			count_++;                           \
		va_end(count_args_);                        \
		(argv) = alloca(count_ * sizeof(char *));   \
		(argv)[0] = (char *)(first);                \
		for (size_t i_ = 1; i_ < count_; i_++)      \
			(argv)[i_] = va_arg(args, char *);  \
	} while (0)

EXPORT int execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list args;

	va_start(args, arg);
	ARGUMENTS(argv, arg, args);
	va_end(args);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	va_list args;

	va_start(args, arg);
	ARGUMENTS(argv, arg, args);
	va_end(args);
	return execvpe(file, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	char **argv, **envp;
	va_list args;

	va_start(args, arg);
	ARGUMENTS(argv, arg, args);
	envp = va_arg(args, char **);
	va_end(args);
	return execve(path, argv, envp);
}

WRAP(int, posix_spawn,
     (pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const envp[restrict]))
{
	if (is_served(path))
		return EACCES;
	return NEXT(posix_spawn)(pid, path, actions, attr, argv, ENVIRONMENT(envp));
}

WRAP(int, posix_spawnp,
     (pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const envp[restrict]))
{
	if (strchr(file, '/') && is_served(file))
		return EACCES;
	return NEXT(posix_spawnp)(pid, file, actions, attr, argv, ENVIRONMENT(envp));
}
