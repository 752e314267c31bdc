// SPDX-License-Identifier: MIT
/* userfault probe: what this kernel offers to this process, and why not more. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/probe.h"

const char *error_name(int error)
{
	const char *name = strerrorname_np(-error);
	static char number[32];

	if (name)
		return name;
	snprintf(number, sizeof(number), "error %d", -error);
	return number;
}

const char *bit_name(const char *(*name_of)(unsigned), unsigned bit)
{
	const char *name = name_of(bit);
	static char number[32];

	if (name[0])
		return name;
	snprintf(number, sizeof(number), "bit %u", bit);
	return number;
}

/* Asked of uf_open() itself, so that what is shown is what it does. */
static void find_open_way(struct findings *findings)
{
	struct uf *uf;

	findings->open_error = uf_open(&uf, NULL);
	if (findings->open_error)
		return;
	findings->open_way = uf_way(uf);
	uf_close(uf);
}

static bool any_way_works(const struct uf_probe_result *probe)
{
	for (int way = 0; way < UF_WAY_COUNT; way++)
		if (!probe->ways[way].error)
			return true;
	return false;
}

int cmd_probe(int argc, char **argv)
{
	struct findings findings = {.probe.size = sizeof(findings.probe)};
	bool json = false;
	int err;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (!strcmp(argv[i], "--help")) {
			printf("usage: userfault probe [--json]\n");
			return finish_output(0);
		} else if (argv[i][0] == '-') {
			return usage_error("probe: unknown option '%s'; usage: userfault probe [--json]", argv[i]);
		} else {
			return usage_error("probe: unexpected argument '%s'; usage: userfault probe [--json]", argv[i]);
		}
	}
	err = uf_probe(&findings.probe);
	if (err)
		return fail("probe: %s", strerror(-err));
	find_open_way(&findings);
	machine_read(&findings.machine);
	if (!json)
		probe_print_text(&findings);
	else if (probe_print_json(&findings))
		return fail("probe: %s", strerror(ENOMEM));
	return finish_output(any_way_works(&findings.probe) ? 0 : 1);
}
