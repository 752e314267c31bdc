// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fnmatch.h>
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measured.h"

static FILE *open_file(const struct measured *measured, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", measured->folder, name);
	return fopen(path, "re");
}

static int add_fact(struct measured *measured, char *line)
{
	char *value = strchr(line, '\t');
	struct fact *facts;

	if (!value)
		return -EBADMSG;
	*value++ = '\0';
	facts = reallocarray(measured->facts, measured->fact_count + 1, sizeof(*facts));
	if (!facts)
		return -ENOMEM;
	facts[measured->fact_count++] = (struct fact){line, value};
	measured->facts = facts;
	return 0;
}

static int read_facts(struct measured *measured)
{
	FILE *file = open_file(measured, "facts");
	size_t size = 0;
	ssize_t len;
	char *rest;
	int err = 0;

	if (!file)
		return -errno;
	len = getdelim(&measured->text, &size, '\0', file);
	fclose(file);
	if (len < 0)
		return -EBADMSG;
	for (char *line = strtok_r(measured->text, "\n", &rest); line && !err; line = strtok_r(NULL, "\n", &rest))
		err = add_fact(measured, line);
	return err;
}

static int by_answer(const void *a, const void *b)
{
	const struct request *one = a, *other = b;

	return (one->answered > other->answered) - (one->answered < other->answered);
}

static int read_requests(struct measured *measured)
{
	FILE *file = open_file(measured, "requests");
	struct request request, *larger;
	size_t room = 0;
	int err = 0, got = 0;

	if (!file)
		return -errno;
	while (!err && (got = fscanf(file, "%" SCNu64 " %" SCNu64, &request.answered, &request.took)) == 2) {
		if (measured->request_count == room) {
			room = room ? 2 * room : 1 << 16;
			larger = reallocarray(measured->requests, room, sizeof(*larger));
			if (!larger) {
				err = -ENOMEM;
				break;
			}
			measured->requests = larger;
		}
		measured->requests[measured->request_count++] = request;
	}
	if (!err && (got != EOF || !measured->request_count))
		err = -EBADMSG;
	fclose(file);
	if (!err)
		qsort(measured->requests, measured->request_count, sizeof(*measured->requests), by_answer);
	return err;
}

int measured_open(struct measured *measured, const char *folder)
{
	int err;

	*measured = (struct measured){.folder = folder};
	err = read_facts(measured);
	return err ? err : read_requests(measured);
}

void measured_close(struct measured *measured)
{
	free(measured->text);
	free(measured->facts);
	free(measured->requests);
}

const char *fact_text(const struct measured *measured, const char *name, const char *otherwise)
{
	for (size_t i = measured->fact_count; i--;)
		if (!strcmp(measured->facts[i].name, name))
			return measured->facts[i].value;
	return otherwise;
}

double fact_number(const struct measured *measured, const char *name)
{
	const char *text = fact_text(measured, name, "");
	char *end;
	double number = strtod(text, &end);

	return end == text || *end ? NAN : number;
}

size_t fact_times(const struct measured *measured, const char *name)
{
	size_t times = 0;

	for (size_t i = 0; i < measured->fact_count; i++)
		times += !strcmp(measured->facts[i].name, name);
	return times;
}

static int add_recording(struct recordings *recordings, const char *folder, const char *name)
{
	struct recording_data *list = reallocarray(recordings->list, recordings->count + 1, sizeof(*list));
	char path[PATH_MAX];
	int err;

	if (!list)
		return -ENOMEM;
	recordings->list = list;
	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= PATH_MAX)
		return -ENAMETOOLONG;
	err = recording_read(&list[recordings->count], path);
	if (!err)
		recordings->count++;
	return err;
}

int recordings_read(struct recordings *recordings, const struct measured *measured, const char *name)
{
	char path[PATH_MAX];
	struct dirent *entry;
	int err = 0;
	DIR *dir;

	*recordings = (struct recordings){0};
	if (snprintf(path, sizeof(path), "%s/%s", measured->folder, name) >= PATH_MAX)
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while (!err && (entry = readdir(dir)))
		if (!fnmatch("*.recording", entry->d_name, 0))
			err = add_recording(recordings, path, entry->d_name);
	closedir(dir);
	return err;
}

void recordings_free(struct recordings *recordings)
{
	for (size_t i = 0; i < recordings->count; i++)
		recording_free(&recordings->list[i]);
	free(recordings->list);
}
