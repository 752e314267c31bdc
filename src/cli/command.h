/* SPDX-License-Identifier: MIT */
/*
 * command.h - the subcommands, and what they share
 *
 * A subcommand gets its own arguments, argv[0] being its name, and returns the exit status: 0; 1 for a failure, said in
 * one line on the standard error; 2 for wrong arguments.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

enum { EXIT_USAGE = 2 };

int cmd_probe(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_top(int argc, char **argv);

/* "userfault: <message>" on the standard error. Return 1 and EXIT_USAGE, to be returned in turn. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * What getopt_long(3) has just refused, named in one line: `option` is its answer, ':' or another. opterr has been 0, so that it says nothing
 * itself, and the short options began with ':'. Returns EXIT_USAGE.
 */
struct option;
int option_error(const char *command, int option, char **argv, const struct option *options);

/*
 * The last thing a subcommand does with the standard output: what was printed has arrived, or the command fails.
 * Returns `status`, or 1 and says why.
 */
int finish_output(int status);

/*
 * Prints text in lines of 80 columns. The cursor stands at column `column`, and so does the first letter of each further
 * line.
 */
void print_wrapped(int column, const char *text);

#endif
