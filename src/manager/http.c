// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "manager/http.h"

#define CONNECTIONS       16u
#define SILENCE           10u                /* seconds */
#define CONNECTION_MEMORY ((size_t)16 << 10) /* of a request, with all of its headers */

struct http {
	struct MHD_Daemon *daemon;
	status_collect *collect;
	void *arg;
};

/* `text` is given away; NULL: no memory. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *type, char *text)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!text)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, code, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_metrics(struct http *http, struct MHD_Connection *connection)
{
	struct status status = {0};
	enum MHD_Result result;

	if (http->collect(http->arg, &status))
		result = answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
		                strdup("the numbers cannot be had now\n"));
	else
		result = answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
		                status_prometheus(&status));
	status_free(&status);
	return result;
}

/* Answered as soon as the headers are there: whatever body follows is not read. */
static enum MHD_Result take_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                    const char *version, const char *body, size_t *body_len, void **state)
{
	struct http *http = arg;

	(void)version;
	(void)body;
	(void)body_len;
	(void)state;
	if (strcmp(url, "/metrics") != 0)
		return answer(connection, MHD_HTTP_NOT_FOUND, "text/plain", strdup("there is only /metrics\n"));
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", strdup("only GET and HEAD\n"));
	return answer_metrics(http, connection);
}

/* What peers do wrong is theirs to know. */
static void log_nothing(void *arg, const char *format, va_list args)
{
	(void)arg;
	(void)format;
	(void)args;
}

int http_start(struct http **out, int listen_fd, status_collect *collect, void *arg)
{
	struct http *http = malloc(sizeof(*http));
	int flags = fcntl(listen_fd, F_GETFL), err;
	sigset_t all, before;

	if (!http)
		return -ENOMEM;
	*http = (struct http){.collect = collect, .arg = arg};
	if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK)) {
		err = -errno;
		free(http);
		return err;
	}
	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	http->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL,
	                                take_request, http, MHD_OPTION_LISTEN_SOCKET, listen_fd,
	                                MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
	                                SILENCE, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
	                                MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL, MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!http->daemon) {
		free(http);
		return -ENOMEM;
	}
	*out = http;
	return 0;
}

void http_stop(struct http *http)
{
	if (!http)
		return;
	/* Takes the descriptor back, which would be closed otherwise. */
	MHD_quiesce_daemon(http->daemon);
	MHD_stop_daemon(http->daemon);
	free(http);
}
