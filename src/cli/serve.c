// SPDX-License-Identifier: MIT
/* userfault serve: the manager. */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "base/size.h"
#include "cli/command.h"
#include "manager/journal.h"
#include "manager/paths.h"
#include "manager/serve.h"
#include "manager/stores.h"

#define CACHE       ((uint64_t)256 << 20)
#define CLIENTS     1024
#define CLIENTS_MAX 65536
#define REGIONS     65536
#define HANDOVER_MS 10000
#define UIDS_MAX    64

static void print_usage(void)
{
	printf("usage: userfault serve --listen SOCKET --store NAME=URI [OPTION...]\n"
	       "\n"
	       "Serves the page faults of other processes: they connect to SOCKET and hand over their memory\n"
	       "(userfault-handover(5)), and get its pages from the stores.\n"
	       "\n"
	       "  -l, --listen SOCKET         a unix socket, or @NAME in the abstract name space\n"
	       "  -s, --store NAME=URI        where pages come from, such as default=file:/srv/snapshot; may be "
	       "repeated\n"
	       "  -b, --budget SIZE           of the cache for stores that are neither files nor memory; 256M, 0: "
	       "none\n"
	       "  -w, --workers N             threads, 1 to 64; one for each processor, at most 4\n"
	       "  -r, --record DIR            what each client touches goes to files there\n"
	       "  -p, --prefetch DIR          what was recorded there is brought before it is asked for\n"
	       "  -c, --control SOCKET        where userfault-stat(1) and userfault-top(1) ask; or 'none'\n"
	       "  -m, --metrics [ADDRESS:]PORT\n"
	       "                              for Prometheus, over HTTP; without an address on 127.0.0.1\n"
	       "  -u, --allow-uid USER        who may connect; may be repeated; everybody the socket's mode lets\n"
	       "      --max-clients N         1 to 65536; 1024\n"
	       "      --max-clients-of-user N 1 to 65536; as many as there may be\n"
	       "      --max-regions N         of one client, 1 to 16777216; 65536\n"
	       "      --handover-timeout SECONDS\n"
	       "                              from the connection to the whole message, 1 to 3600; 10\n"
	       "      --grace SECONDS         how long clients are served on after SIGTERM, 0 to 86400; 0\n"
	       "      --no-sandbox            it keeps all its rights: for debugging\n"
	       "  -h, --help                  print this\n");
}

enum { OPT_CLIENTS = 256, OPT_CLIENTS_OF_USER, OPT_REGIONS, OPT_TIMEOUT, OPT_GRACE, OPT_NO_SANDBOX };

static const struct option long_options[] = {
	{"listen", required_argument, NULL, 'l'},
	{"store", required_argument, NULL, 's'},
	{"budget", required_argument, NULL, 'b'},
	{"workers", required_argument, NULL, 'w'},
	{"record", required_argument, NULL, 'r'},
	{"prefetch", required_argument, NULL, 'p'},
	{"control", required_argument, NULL, 'c'},
	{"metrics", required_argument, NULL, 'm'},
	{"allow-uid", required_argument, NULL, 'u'},
	{"max-clients", required_argument, NULL, OPT_CLIENTS},
	{"max-clients-of-user", required_argument, NULL, OPT_CLIENTS_OF_USER},
	{"max-regions", required_argument, NULL, OPT_REGIONS},
	{"handover-timeout", required_argument, NULL, OPT_TIMEOUT},
	{"grace", required_argument, NULL, OPT_GRACE},
	{"no-sandbox", no_argument, NULL, OPT_NO_SANDBOX},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* A number from `least` to `most`; false, and it has been said. */
static bool number(const char *option, const char *text, unsigned least, unsigned most, unsigned *out)
{
	uint64_t value;

	if (!number_parse(text, least, most, &value)) {
		usage_error("serve: --%s %s: a number from %u to %u is wanted", option, text, least, most);
		return false;
	}
	*out = (unsigned)value;
	return true;
}

static bool user(const char *text, uid_t *out)
{
	struct passwd *entry = getpwnam(text);
	unsigned value;

	if (entry) {
		*out = entry->pw_uid;
		return true;
	}
	if (!number("allow-uid", text, 0, 0xfffffffe, &value))
		return false;
	*out = value;
	return true;
}

struct parsed {
	struct serve_options options;
	const char *stores[STORES_MAX];
	uid_t uids[UIDS_MAX];
	char control[108];
};

static bool add_store(struct parsed *parsed, const char *spec)
{
	struct serve_options *options = &parsed->options;
	size_t len, other;

	if (stores_split(spec, &len)) {
		usage_error("serve: --store %s: NAME=URI is wanted, NAME of at most 64 printable characters", spec);
		return false;
	}
	for (size_t i = 0; i < options->store_count; i++) {
		if (stores_split(parsed->stores[i], &other) || other != len || strncmp(spec, parsed->stores[i], len))
			continue;
		usage_error("serve: --store %s: there is another of this name", spec);
		return false;
	}
	if (options->store_count == STORES_MAX) {
		usage_error("serve: more than %d stores", STORES_MAX);
		return false;
	}
	parsed->stores[options->store_count++] = spec;
	return true;
}

static bool take(struct parsed *parsed, int option, const char *value)
{
	struct serve_options *options = &parsed->options;
	unsigned seconds;

	switch (option) {
	case 'l':
		options->listen = value;
		return true;
	case 's':
		return add_store(parsed, value);
	case 'b':
		if (size_parse(value, &options->budget))
			return true;
		usage_error("serve: --budget %s: bytes are wanted, or with K, M, G, T", value);
		return false;
	case 'w':
		return number("workers", value, 1, JOURNAL_THREADS, &options->workers);
	case 'r':
		options->record = value;
		return true;
	case 'p':
		options->prefetch = value;
		return true;
	case 'c':
		options->control = value;
		return true;
	case 'm':
		options->metrics = value;
		return true;
	case 'u':
		if (options->uid_count < UIDS_MAX)
			return user(value, &parsed->uids[options->uid_count++]);
		usage_error("serve: more than %d users", UIDS_MAX);
		return false;
	case OPT_CLIENTS:
		return number("max-clients", value, 1, CLIENTS_MAX, &options->max_clients);
	case OPT_CLIENTS_OF_USER:
		return number("max-clients-of-user", value, 1, CLIENTS_MAX, &options->max_clients_of_user);
	case OPT_REGIONS:
		return number("max-regions", value, 1, 1u << 24, &options->max_regions);
	case OPT_TIMEOUT:
		if (!number("handover-timeout", value, 1, 3600, &seconds))
			return false;
		options->handover_ms = seconds * 1000;
		return true;
	case OPT_GRACE:
		if (!number("grace", value, 0, 86400, &seconds))
			return false;
		options->grace_ms = seconds * 1000;
		return true;
	case OPT_NO_SANDBOX:
		options->no_sandbox = true;
		return true;
	default:
		return false;
	}
}

/* In a folder of its own, which is made. NULL: there is no room for its path. */
static const char *default_control(struct parsed *parsed)
{
	char folder[108];

	if (path_runtime(folder, sizeof(folder)) || path_control(parsed->control, sizeof(parsed->control)))
		return NULL;
	/* What fails here fails when the socket is made, and is said then. */
	mkdir(folder, 0755);
	return parsed->control;
}

int cmd_serve(int argc, char **argv)
{
	static struct parsed parsed;
	struct serve_options *options = &parsed.options;
	int option, processors = get_nprocs();

	*options = (struct serve_options){.stores = parsed.stores,
	                                  .uids = parsed.uids,
	                                  .budget = CACHE,
	                                  .workers = processors < 1   ? 1
	                                             : processors > 4 ? 4
	                                                              : (unsigned)processors,
	                                  .max_clients = CLIENTS,
	                                  .max_clients_of_user = CLIENTS_MAX,
	                                  .max_regions = REGIONS,
	                                  .handover_ms = HANDOVER_MS};
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, ":l:s:b:w:r:p:c:m:u:h", long_options, NULL)) >= 0) {
		if (option == 'h') {
			print_usage();
			return finish_output(0);
		}
		if (option == ':' || option == '?')
			return option_error("serve", option, argv, long_options);
		if (!take(&parsed, option, optarg))
			return EXIT_USAGE;
	}
	if (optind < argc)
		return usage_error("serve: unexpected argument '%s'", argv[optind]);
	if (!options->store_count)
		return usage_error("serve: no --store: there is nothing to serve from");
	if (!options->control)
		options->control = default_control(&parsed);
	if (options->control && !strcmp(options->control, "none"))
		options->control = NULL;
	return supervise(options);
}
