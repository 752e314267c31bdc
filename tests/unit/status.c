// SPDX-License-Identifier: MIT
/* The forms of a status: JSON and back, and what Prometheus reads. */
#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "manager/paths.h"
#include "manager/status.h"
#include "base/utf8.h"
#include "support/numbers.h"
#include "support/test.h"

static struct status status, again;

/*
 * JSON.
 */

TEST(json_and_back, "What is written as JSON is read back with every number and name.")
{
	char *line, *second;

	numbers_fill(&status, 9, 1234);
	line = status_json(&status);
	CHECK(line && !strchr(line, '\n'));
	CHECK_EQ(status_from_json(&again, line), 0);
	CHECK_EQ(again.client_count, 9);
	CHECK_EQ(again.store_count, 2);
	for (size_t i = 0; i < 9; i++) {
		struct status_client *before = &status.clients[i], *after = &again.clients[i];

		/* Each bucket as well; padding is zero in both. */
		CHECK(!memcmp(&before->latency, &after->latency, sizeof(before->latency)));
		CHECK(!memcmp(before, after, sizeof(*before)));
	}
	for (size_t i = 0; i < 2; i++)
		CHECK(!memcmp(&status.stores[i], &again.stores[i], sizeof(status.stores[i])));
	second = status_json(&again);
	CHECK(second && !strcmp(line, second));
	free(line);
	free(second);
	status_free(&status);
	status_free(&again);
}

TEST(json_of_nothing, "A manager that serves nobody has a status too.")
{
	char *line = status_json(&status);

	CHECK(line);
	CHECK_EQ(status_from_json(&again, line), 0);
	CHECK_EQ(again.client_count, 0);
	free(line);
}

TEST(json_is_always_utf8, "A name of any bytes makes no invalid JSON.")
{
	struct status_client *client = status_add_client(&status);
	char *line;

	for (int i = 1; i < STATUS_NAME; i++)
		client->name[i - 1] = (char)(i * 4 + 3);
	strcpy(client->store, "a\xc3(\xed\xa0\x80\"\\\x01");
	line = status_json(&status);
	CHECK(line);
	CHECK_EQ(status_from_json(&again, line), 0);
	CHECK(!strcmp(again.clients[0].store, "a\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\\\x01"));
	free(line);
	status_free(&status);
	status_free(&again);
}

TEST(json_that_is_none, "What is no status is -EBADMSG, and leaves nothing behind.")
{
	static const char *const bad[] = {
		"", "{", "[]", "7", "{}", "{\"error\":\"x\"}", "{\"clients\":7}", "{\"clients\":[]} x"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_EQ(status_from_json(&status, bad[i]), -EBADMSG);
		CHECK(!status.clients && !status.stores);
	}
	CHECK_EQ(status_from_json(&status,
	                          "{\"clients\":[7,{\"latency\":{\"buckets\":[[-1,1],7,[]]}}],\"stores\":[null]}"),
	         0);
	CHECK_EQ(status.client_count, 2);
	status_free(&status);
}

TEST(integers_stay_positive, "A count that JSON's integers cannot hold is the largest that they can.")
{
	char *line;

	status.worker_restarts = UINT64_MAX;
	line = status_json(&status);
	CHECK(strstr(line, "\"worker_restarts\":9223372036854775807"));
	free(line);
}

/*
 * Prometheus. The grammar, as the format's document has it; `promtool check metrics` agreed when this was written.
 */

#define METRICS 64

struct metric {
	char name[80], type[16];
	bool has_samples;
};

struct parsed {
	struct metric metrics[METRICS];
	size_t count, samples;
	char series[4096][400]; /* name and labels of each sample */
	char values[4096][32];
};

static struct parsed parsed;

static size_t name_length(const char *text, bool colon)
{
	size_t len = 0;

	while (isalpha((unsigned char)text[len]) || text[len] == '_' || (colon && text[len] == ':') ||
	       (len && isdigit((unsigned char)text[len])))
		len++;
	return len;
}

static void parse_comment(const char *line)
{
	struct metric *metric = &parsed.metrics[parsed.count];
	size_t len = name_length(line + 7, true);

	CHECK(len && len < sizeof(metric->name) && line[7 + len] == ' ');
	if (!strncmp(line, "# HELP ", 7)) {
		/* One HELP and one TYPE, in front of the samples, and no metric twice. */
		memcpy(metric->name, line + 7, len);
		CHECK(strlen(line + 7 + len) > 1);
		for (size_t i = 0; i < parsed.count; i++)
			CHECK(strcmp(parsed.metrics[i].name, metric->name) != 0);
		CHECK(++parsed.count < METRICS);
		return;
	}
	CHECK(!strncmp(line, "# TYPE ", 7) && parsed.count);
	metric--;
	CHECK(!strncmp(metric->name, line + 7, len) && !metric->name[len] && !metric->type[0]);
	CHECK(snprintf(metric->type, sizeof(metric->type), "%s", line + 7 + len + 1) > 0);
	CHECK(!strcmp(metric->type, "counter") || !strcmp(metric->type, "gauge") || !strcmp(metric->type, "histogram"));
	/* Habits that tools count on: a counter's name ends with _total, no other's does. */
	CHECK_EQ(len > 6 && !strcmp(metric->name + len - 6, "_total"), !strcmp(metric->type, "counter"));
}

/* Behind the brace at the end. */
static const char *parse_labels(const char *at)
{
	do {
		size_t len = name_length(++at, false);

		CHECK(len && at[len] == '=' && at[len + 1] == '"');
		for (at += len + 2; *at != '"'; at += utf8_length(at)) {
			CHECK(*at && utf8_length(at));
			if (*at == '\\') {
				at++;
				CHECK(*at == '\\' || *at == '"' || *at == 'n');
			}
		}
		at++;
	} while (*at == ',');
	CHECK_EQ(*at, '}');
	return at + 1;
}

static void parse_sample(const char *line)
{
	const struct metric *metric = &parsed.metrics[parsed.count - 1];
	size_t len = name_length(line, true), base = strlen(metric->name);
	const char *at = line + len;
	char *end;

	CHECK(parsed.count && metric->type[0]);
	/* Samples of a metric are in one block. */
	CHECK(!strncmp(line, metric->name, base));
	if (!strcmp(metric->type, "histogram"))
		CHECK(len == base + strlen("_bucket") || len == base + strlen("_sum") ||
		      len == base + strlen("_count"));
	else
		CHECK_EQ(len, base);
	if (*at == '{')
		at = parse_labels(at);
	CHECK_EQ(*at, ' ');
	snprintf(parsed.series[parsed.samples], sizeof(parsed.series[0]), "%.*s", (int)(at - line), line);
	snprintf(parsed.values[parsed.samples], sizeof(parsed.values[0]), "%s", at + 1);
	for (size_t i = 0; i < parsed.samples; i++)
		CHECK(strcmp(parsed.series[i], parsed.series[parsed.samples]) != 0);
	strtod(at + 1, &end);
	CHECK(end > at + 1 && !*end);
	parsed.samples++;
	parsed.metrics[parsed.count - 1].has_samples = true;
	CHECK(parsed.samples < sizeof(parsed.series) / sizeof(parsed.series[0]));
}

static void parse(char *text)
{
	size_t len = strlen(text);

	CHECK(len && text[len - 1] == '\n');
	for (char *line = text, *end; *line; line = end + 1) {
		end = strchr(line, '\n');
		*end = '\0';
		if (line[0] == '#')
			parse_comment(line);
		else
			parse_sample(line);
	}
}

static const char *value_of(const char *series)
{
	for (size_t i = 0; i < parsed.samples; i++)
		if (!strcmp(parsed.series[i], series))
			return parsed.values[i];
	FAIL("there is no %s", series);
}

static void check_value(const char *series, const char *value)
{
	if (strcmp(value_of(series), value) != 0)
		FAIL("%s is %s, expected %s", series, value_of(series), value);
}

static void parse_numbers(unsigned clients, uint64_t step)
{
	char *text;

	numbers_fill(&status, clients, step);
	text = status_prometheus(&status);
	CHECK(text);
	parse(text);
	free(text);
	status_free(&status);
}

TEST(metrics_keep_the_grammar,
     "Each metric has its help, its type and its samples in one block; names and labels are of the grammar.")
{
	parse_numbers(9, 1000);
	for (size_t i = 0; i < parsed.count; i++)
		CHECK(parsed.metrics[i].has_samples);
	CHECK(parsed.count > 20);
}

TEST(metrics_say_what_the_status_says, "Numbers arrive under their names, times in seconds.")
{
	parse_numbers(3, 100);
	check_value("userfault_start_time_seconds", "1790000000.123456789");
	check_value("userfault_clients", "3");
	check_value("userfault_workers", "4");
	check_value("userfault_worker_restarts_total", "2");
	check_value("userfault_handovers_total{result=\"accepted\"}", "8");
	check_value("userfault_handovers_total{result=\"refused\"}", "3");
	check_value("userfault_cache_budget_bytes", "2147483648");
	check_value("userfault_cache_hits_total", "70000");
	check_value("userfault_cache_misses_total", "30000");
	check_value("userfault_store_read_bytes_total{store=\"table\"}", "1677721601");
	check_value("userfault_store_failures_total{store=\"table\"}", "2");
	check_value("userfault_client_faults_total{client=\"2\",name=\"batch-2\"}", "200002");
	check_value("userfault_client_outstanding_faults{client=\"2\",name=\"batch-2\"}", "2");
	check_value("userfault_client_regions{client=\"2\",name=\"batch-2\"}", "3");
	check_value("userfault_client_managed_bytes{client=\"2\",name=\"batch-2\"}", "1073741824");
	check_value("userfault_client_resolved_faults_total{client=\"2\",name=\"batch-2\",source=\"cache\"}", "25000");
	check_value("userfault_client_events_total{client=\"2\",name=\"batch-2\",event=\"remove\"}", "8000");
	check_value("userfault_client_info{client=\"2\",name=\"batch-2\",pid=\"4002\",uid=\"1002\",engine=\"user\","
	            "store=\"table\",parent=\"0\"}",
	            "1");
}

TEST(metrics_escape_labels,
     "A quote, a backslash, an end of line and what is no UTF-8 in a name stay inside its label.")
{
	char *text;

	strcpy(status_add_client(&status)->name, "a\"b\\c\nd\xff");
	text = status_prometheus(&status);
	parse(text);
	check_value("userfault_client_faults_total{client=\"0\",name=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"}", "0");
	free(text);
	status_free(&status);
}

TEST(histograms_add_up,
     "Buckets of a histogram are cumulative: each counts what is below its bound, and the last is the count.")
{
	static const uint64_t samples[] = {1,    511,     512,         1023,        1024,
	                                   5000, 1000000, 17179869183, 17179869184, UINT64_MAX / 4};
	struct status_client *client = status_add_client(&status);
	char *text;

	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
		hist_add(&client->latency, samples[i]);
	text = status_prometheus(&status);
	parse(text);
#define BUCKET(le) "userfault_client_fault_duration_seconds_bucket{client=\"0\",name=\"\",le=\"" le "\"}"
	check_value(BUCKET("0.000000512"), "2");
	check_value(BUCKET("0.000001024"), "4");
	check_value(BUCKET("0.000008192"), "6");
	check_value(BUCKET("0.001048576"), "7");
	check_value(BUCKET("17.179869184"), "8");
	check_value(BUCKET("+Inf"), "10");
	check_value("userfault_client_fault_duration_seconds_count{client=\"0\",name=\"\"}", "10");
	check_value("userfault_client_fault_duration_seconds_sum{client=\"0\",name=\"\"}", "4611686052.788134341");
	free(text);
	status_free(&status);
}

TEST(metrics_whatever_the_locale, "A decimal comma of the locale's does not get into the metrics.")
{
	char *before, *after;

	numbers_fill(&status, 2, 50);
	before = status_prometheus(&status);
	/* Where there is no such locale the two are the same in any case. */
	setlocale(LC_ALL, "de_DE.UTF-8");
	after = status_prometheus(&status);
	CHECK(!strcmp(before, after));
	free(before);
	free(after);
	status_free(&status);
}

/*
 * Names and paths.
 */

TEST(long_names_are_cut_between_characters, "A name that is too long is cut, and not in the middle of a character.")
{
	char name[STATUS_NAME], text[128] = "";

	for (size_t before = 0; before < 4; before++) {
		memset(text, 'x', sizeof(text) - 1);
		memcpy(text + STATUS_NAME - 1 - before, "\xf0\x9f\x98\x80", 4);
		status_set_name(name, text);
		CHECK_EQ(strlen(name), STATUS_NAME - 1 - before);
	}
	memset(text, 0xff, sizeof(text) - 1);
	status_set_name(name, text);
	CHECK_EQ(strlen(name), STATUS_NAME - 1);
	status_set_name(name, "short");
	CHECK(!strcmp(name, "short"));
}

TEST(utf8_is_told_from_other_bytes, "Only the shortest way to write a character counts, and no surrogate.")
{
	static const char *const good[] = {
		"a", "\xc2\x80", "\xe0\xa0\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
	static const char *const bad[] = {"\x80",
	                                  "\xc1\xbf",
	                                  "\xe0\x9f\xbf",
	                                  "\xed\xa0\x80",
	                                  "\xf0\x8f\xbf\xbf",
	                                  "\xf4\x90\x80\x80",
	                                  "\xf8\x88\x80\x80\x80",
	                                  "\xe2\x82",
	                                  "\xff",
	                                  "\xc3"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK_EQ(utf8_length(good[i]), strlen(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(utf8_length(bad[i]), 0);
}

TEST(paths_of_root_and_users,
     "Root's sockets are in /run whatever the environment says; a user's are in his runtime folder.")
{
	char path[256];

	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	if (geteuid() == 0) {
		CHECK_EQ(path_control(path, sizeof(path)), 0);
		CHECK(!strcmp(path, "/run/userfault/control"));
		CHECK_EQ(seteuid(65534), 0);
	}
	CHECK_EQ(path_control(path, sizeof(path)), 0);
	CHECK(!strcmp(path, "/run/user/7/userfault/control"));
	CHECK_EQ(path_control(path, 10), -ENAMETOOLONG);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	CHECK_EQ(path_runtime(path, sizeof(path)), 0);
	CHECK(!strcmp(path, "/run/userfault"));
	memset(path, 'x', 104);
	path[0] = '/';
	path[104] = '\0';
	setenv("XDG_RUNTIME_DIR", path, 1);
	CHECK_EQ(path_control(path, sizeof(path)), -ENAMETOOLONG);
}
