// SPDX-License-Identifier: MIT
/* userfault: the table of subcommands. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

static int cmd_help(int argc, char **argv);

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *description;
} commands[] = {
	{"probe", cmd_probe, "tell what this kernel offers to this process, and why not more"},
	{"report", cmd_report, "make a page of what was recorded about clients"},
	{"run", cmd_run, "run a program with a userfaultfd that works"},
	{"serve", cmd_serve, "serve the page faults of other processes"},
	{"stat", cmd_stat, "tell what a manager says about itself"},
	{"top", cmd_top, "show what the clients of a manager do, now"},
	{"help", cmd_help, "list the commands"},
};

#define COUNT (sizeof(commands) / sizeof(commands[0]))

static void print_usage(void)
{
	printf("usage: userfault COMMAND [ARGUMENT...]\n"
	       "       userfault --help | --version\n"
	       "\n"
	       "Commands\n");
	for (size_t i = 0; i < COUNT; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].description);
	printf("\n"
	       "Each has a manual page, such as userfault-probe(1).\n");
}

static int cmd_help(int argc, char **argv)
{
	if (argc > 1)
		return usage_error("help: unexpected argument '%s'", argv[1]);
	print_usage();
	return finish_output(0);
}

static int version(int argc, char **argv)
{
	if (argc > 1)
		return usage_error("--version: unexpected argument '%s'", argv[1]);
	printf("userfault %s\n", UF_VERSION);
	return finish_output(0);
}

int main(int argc, char **argv)
{
	const char *name;

	if (argc < 2)
		return usage_error("no command given; 'userfault help' lists them");
	name = argv[1];
	argc--;
	argv++;
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		return cmd_help(argc, argv);
	if (!strcmp(name, "--version"))
		return version(argc, argv);
	for (size_t i = 0; i < COUNT; i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc, argv);
	if (name[0] == '-')
		return usage_error("unknown option '%s'; 'userfault help' shows the usage", name);
	return usage_error("unknown command '%s'; 'userfault help' lists them", name);
}
