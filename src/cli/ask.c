// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/ask.h"
#include "cli/command.h"
#include "manager/control.h"
#include "manager/paths.h"

/* A manager that is busy answers late; one that does not answer for so long is not well. */
#define TIMEOUT_MS 15000

int ask_where(const char *command, const char *given, char path[ASK_PATH])
{
	if (!given)
		return path_control(path, ASK_PATH)
		               ? usage_error("%s: XDG_RUNTIME_DIR is too long for a socket: give --control SOCKET",
		                             command)
		               : 0;
	if (snprintf(path, ASK_PATH, "%s", given) >= ASK_PATH)
		return usage_error("%s: the path of the socket is too long", command);
	return 0;
}

static void tell(const char *path, int err, char cause[ASK_CAUSE])
{
	if (err == -ENOENT || err == -ECONNREFUSED)
		snprintf(cause, ASK_CAUSE, "%s: no manager listens there (is 'userfault serve' running?)", path);
	else if (err == -EACCES)
		snprintf(cause, ASK_CAUSE, "%s: Permission denied: the socket's mode decides who may ask", path);
	else if (err == -ETIMEDOUT)
		snprintf(cause, ASK_CAUSE, "%s: no answer within %d s", path, TIMEOUT_MS / 1000);
	else if (err == -EPROTO || err == -EBADMSG)
		snprintf(cause, ASK_CAUSE, "%s: whoever listens there does not answer as a manager does", path);
	else
		snprintf(cause, ASK_CAUSE, "%s: %s", path, strerror(-err));
}

/* The manager's own words, if it answered with an error. */
static int take_error(const char *path, const char *json, char cause[ASK_CAUSE])
{
	json_t *root = json_loads(json, 0, NULL);
	const char *why = json_string_value(json_object_get(root, "error"));

	if (why)
		snprintf(cause, ASK_CAUSE, "%s: the manager answers: %s", path, why);
	json_decref(root);
	return why ? 0 : -1;
}

int ask_status(const char *path, char **json, struct status *status, char cause[ASK_CAUSE])
{
	struct status mine = {0};
	int err = control_ask(path, "status", TIMEOUT_MS, json);

	if (err) {
		tell(path, err, cause);
		return -1;
	}
	err = status_from_json(&mine, *json);
	if (!err) {
		if (status)
			*status = mine;
		else
			status_free(&mine);
		return 0;
	}
	if (take_error(path, *json, cause))
		tell(path, err, cause);
	free(*json);
	*json = NULL;
	return -1;
}
