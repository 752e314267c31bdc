// SPDX-License-Identifier: MIT
/* Metrics over HTTP, asked for with plain sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "manager/http.h"
#include "support/numbers.h"
#include "support/test.h"

static struct http *http;
static struct sockaddr_in address = {.sin_family = AF_INET};
static int listen_fd, collect_error;
static unsigned clients = 3;

static int collect(void *arg, struct status *status)
{
	CHECK(arg == &clients);
	numbers_fill(status, clients, 100);
	return collect_error;
}

static void begin(void)
{
	socklen_t len = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(listen_fd, 64), 0);
	CHECK_EQ(getsockname(listen_fd, (struct sockaddr *)&address, &len), 0);
	CHECK_EQ(http_start(&http, listen_fd, collect, &clients), 0);
}

static int connected(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static size_t hear(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size - 1 && (n = recv(fd, text + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return len;
}

/* The whole answer, with its headers. */
static char *ask_for(const char *request)
{
	static char text[8 << 20];
	int fd = connected();

	CHECK_EQ(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	CHECK(hear(fd, text, sizeof(text)) > 0);
	close(fd);
	return text;
}

#define CLOSE "\r\nHost: x\r\nConnection: close\r\n\r\n"

static void check_status(const char *answer, const char *status)
{
	if (strncmp(answer, "HTTP/1.1 ", 9) != 0 || strncmp(answer + 9, status, strlen(status)) != 0)
		FAIL("the answer is '%.100s', expected %s", answer, status);
}

static const char *body_of(const char *answer)
{
	const char *body = strstr(answer, "\r\n\r\n");

	CHECK(body);
	return body + 4;
}

TEST(metrics_are_answered, "GET /metrics is answered with the metrics, and their format's type and version.")
{
	struct status status;
	char *answer, *text;

	begin();
	answer = ask_for("GET /metrics HTTP/1.1" CLOSE);
	check_status(answer, "200 ");
	CHECK(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
	numbers_fill(&status, clients, 100);
	text = status_prometheus(&status);
	CHECK(!strcmp(body_of(answer), text));
	free(text);
	status_free(&status);
	http_stop(http);
}

TEST(head_has_no_body, "HEAD is answered as GET is, but for the body.")
{
	char *answer;

	begin();
	answer = ask_for("HEAD /metrics HTTP/1.1" CLOSE);
	check_status(answer, "200 ");
	CHECK(strstr(answer, "Content-Length: "));
	CHECK(!body_of(answer)[0]);
	http_stop(http);
}

TEST(there_is_nothing_else, "Any other path is 404, any other method 405, what is no HTTP 400; a query is passed over.")
{
	begin();
	check_status(ask_for("GET / HTTP/1.1" CLOSE), "404 ");
	check_status(ask_for("GET /metricsx HTTP/1.1" CLOSE), "404 ");
	check_status(ask_for("GET /metrics/ HTTP/1.1" CLOSE), "404 ");
	check_status(ask_for("GET /../metrics HTTP/1.1" CLOSE), "404 ");
	check_status(ask_for("DELETE /metrics HTTP/1.1" CLOSE), "405 ");
	check_status(
		ask_for("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"),
		"405 ");
	CHECK(strstr(ask_for("PUT /metrics HTTP/1.1" CLOSE), "Allow: GET, HEAD\r\n"));
	check_status(ask_for("GET /metrics?x=1 HTTP/1.1" CLOSE), "200 ");
	http_stop(http);
}

TEST(headers_are_bounded, "Endless headers are refused, and the next is served.")
{
	static char endless[1 << 20] = "GET /metrics HTTP/1.1\r\nX: ";
	char rest[4096];
	int fd;

	begin();
	memset(endless + strlen(endless), 'x', sizeof(endless) - strlen(endless) - 1);
	fd = connected();
	/* It may hang up before all is sent. */
	send(fd, endless, sizeof(endless) - 1, MSG_NOSIGNAL);
	hear(fd, rest, sizeof(rest));
	CHECK(strncmp(rest, "HTTP/1.1 200", 12) != 0);
	close(fd);
	check_status(ask_for("GET /metrics HTTP/1.1" CLOSE), "200 ");
	http_stop(http);
}

TEST(numbers_that_cannot_be_had, "When the numbers cannot be had the answer is 503.")
{
	collect_error = -ENOMEM;
	begin();
	check_status(ask_for("GET /metrics HTTP/1.1" CLOSE), "503 ");
	http_stop(http);
}

TEST(silence_holds_up_nobody, "Connections that say nothing are closed after a while, and who comes next is served.")
{
	int silent[20];
	char nothing[16];

	begin();
	for (int i = 0; i < 20; i++)
		silent[i] = connected();
	check_status(ask_for("GET /metrics HTTP/1.1" CLOSE), "200 ");
	for (int i = 0; i < 16; i++)
		CHECK_EQ(hear(silent[i], nothing, sizeof(nothing)), 0);
	http_stop(http);
}

TEST(it_stops_at_once, "http_stop() ends connections, and the listening descriptor stays open.")
{
	int fd;
	char nothing[16];

	begin();
	fd = connected();
	http_stop(http);
	http_stop(NULL);
	CHECK_EQ(http_start(&http, listen_fd, collect, &clients), 0);
	check_status(ask_for("GET /metrics HTTP/1.1" CLOSE), "200 ");
	http_stop(http);
	CHECK_EQ(close(listen_fd), 0);
	CHECK_EQ(hear(fd, nothing, sizeof(nothing)), 0);
}

TEST(thousands_of_clients, "The metrics of many clients arrive whole.")
{
	const char *answer;

	clients = 1000;
	begin();
	answer = ask_for("GET /metrics HTTP/1.1" CLOSE);
	check_status(answer, "200 ");
	CHECK(strstr(answer, "userfault_client_fault_duration_seconds_count{client=\"1000\""));
	CHECK_EQ(answer[strlen(answer) - 1], '\n');
	http_stop(http);
}
