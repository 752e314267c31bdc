// SPDX-License-Identifier: MIT
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "preload/map.h"
#include "preload/settings.h"
#include "uffd/user/space.h"

static struct settings now = {.kernel_first = true};
static char library[512];

__attribute__((constructor)) static void read_settings(void)
{
	const char *engine = getenv(SETTING_ENGINE), *verbose = getenv(SETTING_VERBOSE);
	const char *trap = getenv(SETTING_TRAP);
	Dl_info info;

	now.kernel_first = !engine || strcmp(engine, "user") != 0;
	now.verbose = verbose && !strcmp(verbose, "1");
	if (trap && !strcmp(trap, "mprotect"))
		user_space_use_mprotect();
	if (dladdr((void *)read_settings, &info) && strlen(info.dli_fname) < sizeof(library))
		strcpy(library, info.dli_fname);
}

const struct settings *settings(void)
{
	return &now;
}

void tell(const char *format, ...)
{
	char line[256] = "userfault: ";
	size_t len = strlen(line);
	va_list args;
	int more;

	if (!now.verbose)
		return;
	va_start(args, format);
	more = vsnprintf(line + len, sizeof(line) - len - 1, format, args);
	va_end(args);
	if (more < 0)
		return;
	len += (size_t)more < sizeof(line) - len - 1 ? (size_t)more : sizeof(line) - len - 2;
	line[len++] = '\n';
	raw_syscall3(SYS_write, STDERR_FILENO, (long)line, (long)len);
}

/* The value of a variable in an environment, or NULL. */
static const char *value_of(char *const envp[], const char *name)
{
	size_t len = strlen(name);

	for (; envp && *envp; envp++)
		if (!strncmp(*envp, name, len) && (*envp)[len] == '=')
			return *envp + len + 1;
	return NULL;
}

static bool append(char *text, size_t size, const char *more)
{
	size_t len = strlen(text);

	if (len + strlen(more) >= size)
		return false;
	strcpy(text + len, more);
	return true;
}

size_t settings_room(char *const envp[])
{
	size_t count = 0;

	while (envp && envp[count])
		count++;
	return count + 5;
}

char *const *settings_environment(char *const envp[], char **room, char *text, size_t text_size)
{
	static char engine[] = SETTING_ENGINE "=user", automatic[] = SETTING_ENGINE "=auto";
	static char verbose[] = SETTING_VERBOSE "=1";
	const char *preload = value_of(envp, "LD_PRELOAD");
	size_t count = 0;

	if (!library[0] || (preload && strstr(preload, library) && (!map_any() || value_of(envp, SETTING_MAP))))
		return envp;
	text[0] = '\0';
	if (!append(text, text_size, "LD_PRELOAD=") ||
	    (!(preload && strstr(preload, library)) && !append(text, text_size, library)) ||
	    (preload && preload[0] &&
	     ((!strstr(preload, library) && !append(text, text_size, ":")) || !append(text, text_size, preload))))
		return envp;
	for (; envp && *envp; envp++)
		if (strncmp(*envp, "LD_PRELOAD=", 11) != 0 &&
		    strncmp(*envp, SETTING_MAP "=", sizeof(SETTING_MAP)) != 0 &&
		    strncmp(*envp, SETTING_ENGINE "=", sizeof(SETTING_ENGINE)) != 0)
			room[count++] = *envp;
	room[count++] = text;
	room[count++] = now.kernel_first ? automatic : engine;
	if (now.verbose && !value_of(envp, SETTING_VERBOSE))
		room[count++] = verbose;
	if (map_any())
		room[count++] = (char *)map_setting();
	room[count] = NULL;
	return room;
}
