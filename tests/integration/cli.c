// SPDX-License-Identifier: MIT
/* The command `userfault`, and `userfault probe` in both of its forms. */
#include <errno.h>
#include <string.h>

#include <jansson.h>
#include <userfault/uffd.h>

#include "command.h"
#include "conditions.h"
#include "support/test.h"

#define USERFAULT from_env("USERFAULT")
#define REFUSE    from_env("REFUSE_USERFAULTFD")

static unsigned count_lines(const char *text)
{
	unsigned count = 0;

	for (; *text; text++)
		count += *text == '\n';
	return count;
}

/* Wrong arguments: status 2, nothing on the standard output, and one line that names what is wrong. */
static void check_usage_error(const struct result *result, const char *named)
{
	CHECK_EQ(result->status, 2);
	CHECK(!result->out[0]);
	CHECK_EQ(count_lines(result->err), 1);
	if (!strstr(result->err, named))
		FAIL("'%s' does not name '%s'", result->err, named);
}

TEST(wrong_arguments, "Wrong arguments are named in one line on the standard error, and the exit status is 2.")
{
	check_usage_error(RUN(USERFAULT), "no command");
	check_usage_error(RUN(USERFAULT, "prove"), "unknown command 'prove'");
	check_usage_error(RUN(USERFAULT, "--prove"), "unknown option '--prove'");
	check_usage_error(RUN(USERFAULT, ""), "unknown command ''");
	check_usage_error(RUN(USERFAULT, "--version", "now"), "unexpected argument 'now'");
	check_usage_error(RUN(USERFAULT, "help", "me"), "unexpected argument 'me'");
	check_usage_error(RUN(USERFAULT, "probe", "here"), "unexpected argument 'here'");
	check_usage_error(RUN(USERFAULT, "probe", "--jso"), "unknown option '--jso'");
	check_usage_error(RUN(USERFAULT, "probe", "--json", "--xml"), "unknown option '--xml'");
}

TEST(refused_options_are_named_once,
     "Every command names an option that it does not know, or that lacks its value, in one line.")
{
	static const char *const commands[] = {"probe", "report", "run", "serve", "stat", "top"};
	static const struct {
		const char *command, *option;
	} lacking[] = {{"report", "--output"}, {"report", "-o"},     {"run", "--engine"},  {"run", "--map"},
	               {"serve", "--store"},   {"serve", "-s"},      {"serve", "--grace"}, {"stat", "--control"},
	               {"top", "--control"},   {"top", "--interval"}};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		check_usage_error(RUN(USERFAULT, commands[i], "--bogus"), "unknown option '--bogus'");
		check_usage_error(RUN(USERFAULT, commands[i], "--bogus=5"), "unknown option '--bogus=5'");
		check_usage_error(RUN(USERFAULT, commands[i], "-Z"), "unknown option '-Z'");
	}
	for (size_t i = 0; i < sizeof(lacking) / sizeof(lacking[0]); i++)
		check_usage_error(RUN(USERFAULT, lacking[i].command, lacking[i].option), lacking[i].option);
	check_usage_error(RUN(USERFAULT, "serve", "--no-sandbox", "-ZY"), "unknown option '-Z'");
	check_usage_error(RUN(USERFAULT, "stat", "-j"), "unknown option '-j'");
	check_usage_error(RUN(USERFAULT, "stat", "--json=5"), "option '--json=5' takes no value");
}

/* Each of these libc's functions take for a number, or a part of it. */
TEST(numbers_are_digits,
     "A number or a size with a sign, a blank, another base or something behind it is a wrong argument.")
{
	static const char *const wrong[] = {
		"", " 5", "+5", "-5", "5 ", "0x5", "5e0", "5.5", "99999999999999999999999", "five", " -5"};
	static const char *const options[] = {
		"--budget",      "--workers", "--max-clients",      "--max-clients-of-user",
		"--max-regions", "--grace",   "--handover-timeout", "--allow-uid"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			check_usage_error(RUN(USERFAULT, "serve", options[k], wrong[i]), options[k]);
		if (strcmp(wrong[i], "5.5") != 0)
			check_usage_error(RUN(USERFAULT, "top", "--interval", wrong[i]), "--interval");
	}
	check_usage_error(RUN(USERFAULT, "top", "--interval", "nan"), "--interval");
	check_usage_error(RUN(USERFAULT, "serve", "--budget", "5m"), "--budget");
	check_usage_error(RUN(USERFAULT, "serve", "--budget", "9223372036854775808"), "--budget");
	check_usage_error(RUN(USERFAULT, "serve", "--workers", "0"), "--workers");
}

TEST(version, "--version prints the name and the version, and nothing else.")
{
	const struct result *result = RUN(USERFAULT, "--version");

	CHECK_EQ(result->status, 0);
	CHECK(!strcmp(result->out, "userfault " UF_VERSION "\n"));
	CHECK(!result->err[0]);
}

TEST(help, "help, --help and -h print the same list of commands.")
{
	static char help[sizeof(((struct result *)0)->out)];
	const struct result *result = RUN(USERFAULT, "help");

	CHECK_EQ(result->status, 0);
	CHECK(strstr(result->out, "\n  probe "));
	strcpy(help, result->out);
	result = RUN(USERFAULT, "--help");
	CHECK(result->status == 0 && !strcmp(result->out, help));
	result = RUN(USERFAULT, "-h");
	CHECK(result->status == 0 && !strcmp(result->out, help));
	result = RUN(USERFAULT, "probe", "--help");
	CHECK(result->status == 0 && strstr(result->out, "usage: userfault probe [--json]"));
}

static void check_write_error(const struct result *result)
{
	CHECK_EQ(result->status, 1);
	CHECK(!strcmp(result->err, "userfault: cannot write to the standard output: No space left on device\n"));
}

TEST(output_that_does_not_arrive, "A failed write to the standard output is an error, whatever was to be printed.")
{
	check_write_error(RUN_TO("/dev/full", USERFAULT, "probe"));
	check_write_error(RUN_TO("/dev/full", USERFAULT, "probe", "--json"));
	check_write_error(RUN_TO("/dev/full", USERFAULT, "help"));
	check_write_error(RUN_TO("/dev/full", USERFAULT, "--version"));
}

static json_t *parse(const char *text)
{
	json_error_t error;
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);

	if (!root)
		FAIL("not JSON: line %d: %s", error.line, error.text);
	return root;
}

static json_t *get(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	if (!value)
		FAIL("no key '%s'", key);
	return value;
}

static const char *get_string(json_t *object, const char *key)
{
	json_t *value = get(object, key);

	if (!json_is_string(value))
		FAIL("'%s' is not a string", key);
	return json_string_value(value);
}

/* The names in the array are those of the bits in the mask, in their order. */
static void check_names(json_t *names, uint64_t mask, const char *(*name_of)(unsigned))
{
	size_t count = 0;
	char other[16];

	CHECK(json_is_array(names));
	for (unsigned bit = 0; bit < 64; bit++) {
		const char *name = name_of(bit);

		if (!(mask >> bit & 1))
			continue;
		snprintf(other, sizeof(other), "bit %u", bit);
		CHECK(!strcmp(json_string_value(json_array_get(names, count)), name[0] ? name : other));
		count++;
	}
	CHECK_EQ(json_array_size(names), count);
}

static void check_ranges(json_t *ranges, const struct uf_probe_way *way)
{
	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++) {
		json_t *modes = get(ranges, uf_memory_name(memory));

		for (int mode = 0; mode < UF_MODE_COUNT; mode++) {
			json_t *names = get(modes, uf_mode_name(mode));

			if (way->range_ioctls[memory][mode])
				check_names(names, way->range_ioctls[memory][mode], uf_ioctl_name);
			else
				CHECK(json_is_null(names));
		}
	}
}

static const char *const way_keys[UF_WAY_COUNT] = {"syscall", "device", "user_mode", "user_engine"};

static void check_way(json_t *object, const struct uf_probe_way *found, enum uf_way way)
{
	CHECK_EQ(json_is_true(get(object, "works")), !found->error);
	if (found->error) {
		CHECK(!strcmp(get_string(object, "error"), strerrorname_np(-found->error)));
		CHECK(!strcmp(get_string(object, "reason"), uf_obstacle_text(way, found->obstacle)));
		CHECK(!strcmp(get_string(object, "remedy"), uf_obstacle_remedy(way, found->obstacle)));
		return;
	}
	CHECK_EQ(json_is_true(get(object, "kernel_faults")), found->kernel_faults);
	CHECK_EQ(json_is_true(get(object, "fork_events")), found->fork_events);
	CHECK_EQ((uint64_t)json_integer_value(get(get(object, "features"), "mask")), found->features);
	check_names(get(get(object, "features"), "names"), found->features, uf_feature_name);
	check_names(get(object, "ioctls"), found->ioctls, uf_ioctl_name);
	check_ranges(get(object, "ranges"), found);
}

TEST(json_says_what_the_library_says, "probe --json is JSON, and its values are those of uf_probe().")
{
	struct uf_probe_result probe = {.size = sizeof(probe)};
	const struct result *result = RUN(USERFAULT, "probe", "--json");
	json_t *root = parse(result->out);

	CHECK_EQ(result->status, 0);
	CHECK(!result->err[0]);
	CHECK_EQ(uf_probe(&probe), 0);
	CHECK_EQ(json_object_size(get(root, "ways")), UF_WAY_COUNT);
	for (int way = 0; way < UF_WAY_COUNT; way++)
		check_way(get(get(root, "ways"), way_keys[way]), &probe.ways[way], way);
	CHECK(!strcmp(get_string(root, "version"), UF_VERSION));
	CHECK(get_string(root, "kernel")[0]);
	CHECK_EQ(json_integer_value(get(root, "page_size")), page_size);
	CHECK_EQ(json_is_true(get(root, "pagemap_scan")), probe.pagemap_scan);
	CHECK_EQ(json_is_true(get(root, "guard_pages")), probe.guard_pages);
	CHECK(json_is_array(get(root, "huge_pages")));
	CHECK_EQ(json_integer_value(get(get(root, "limits"), "unprivileged_userfaultfd")), real_sysctl());
	CHECK(json_integer_value(get(get(root, "limits"), "max_map_count")) > 0);
	get(get(root, "limits"), "memlock");
}

static void check_keys(json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		if (key[strspn(key, "abcdefghijklmnopqrstuvwxyz_")])
			FAIL("'%s' cannot be written after a dot", key);
		check_keys(value);
	}
}

TEST(keys_are_identifiers, "Every key of the JSON is of lower-case letters and underscores.")
{
	check_keys(parse(RUN(USERFAULT, "probe", "--json")->out));
}

TEST(huge_pages_in_json, "Each pool has its size, its pages, how many are free, and one is the default.")
{
	json_t *pool, *root = parse(RUN(USERFAULT, "probe", "--json")->out);
	size_t index;
	int defaults = 0;

	if (!huge_page_size)
		SKIP("this kernel has no huge pages");
	json_array_foreach(get(root, "huge_pages"), index, pool)
	{
		CHECK(json_integer_value(get(pool, "size")) > (json_int_t)page_size);
		CHECK(json_integer_value(get(pool, "free")) <= json_integer_value(get(pool, "total")));
		if (!json_is_true(get(pool, "default")))
			continue;
		defaults++;
		CHECK_EQ(json_integer_value(get(pool, "size")), huge_page_size);
	}
	CHECK_EQ(defaults, 1);
}

/* The word that follows the name of a way. */
static const char *state_of(const char *text, const char *way)
{
	static char state[32];
	char line[64], *found;

	snprintf(line, sizeof(line), "\n  %s ", way);
	found = strstr(text, line);
	if (!found)
		FAIL("no line for %s", way);
	CHECK_EQ(sscanf(found + strlen(line), "%31s", state), 1);
	return state;
}

static void check_forms_agree(json_t *root, const char *text)
{
	json_t *name;
	size_t index;

	CHECK(strstr(text, get_string(root, "kernel")));
	for (int way = 0; way < UF_WAY_COUNT; way++) {
		json_t *object = get(get(root, "ways"), way_keys[way]);

		CHECK_EQ(!strcmp(state_of(text, uf_way_name(way)), "works"), json_is_true(get(object, "works")));
		if (json_is_false(get(object, "works"))) {
			CHECK(strstr(text, get_string(object, "error")));
			continue;
		}
		json_array_foreach(get(get(object, "features"), "names"), index, name)
			CHECK(strstr(text, json_string_value(name)));
	}
	if (json_is_null(get(root, "open")))
		CHECK(strstr(text, "\n  uf_open()    fails with "));
	else
		CHECK(strstr(text, "\n  uf_open()    takes "));
}

static void check_layout(const char *text)
{
	unsigned column = 0;

	for (const char *p = text; *p; p++) {
		CHECK(*p == '\n' || (*p >= ' ' && *p <= '~'));
		CHECK(*p != '\n' || p == text || p[-1] != ' ');
		column = *p == '\n' ? 0 : column + 1;
		if (column > 80)
			FAIL("a line is longer than 80 columns: ...%.40s", p - 40);
	}
}

TEST(both_forms_agree, "What people read and what programs read is the same, in 80 columns of plain text.")
{
	json_t *root = parse(RUN(USERFAULT, "probe", "--json")->out);
	const struct result *result = RUN(USERFAULT, "probe");

	CHECK_EQ(result->status, 0);
	check_layout(result->out);
	check_forms_agree(root, result->out);
	CHECK(!strcmp(get_string(root, "open"), "syscall") || strcmp(state_of(result->out, "syscall"), "works"));
}

static void check_obstacle(json_t *root, const char *way, const char *error, const char *obstacle)
{
	json_t *object = get(get(root, "ways"), way);

	CHECK(json_is_false(get(object, "works")));
	CHECK(!strcmp(get_string(object, "error"), error));
	CHECK(!strcmp(get_string(object, "obstacle"), obstacle));
}

TEST(kernel_refuses,
     "Where each way of the kernel is refused, the reasons are given, and the user engine works all the same.")
{
	const struct result *result;
	json_t *root;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	result = RUN(REFUSE, "--", USERFAULT, "probe", "--json");
	CHECK_EQ(result->status, 0);
	CHECK(!result->err[0]);
	root = parse(result->out);
	CHECK(!strcmp(get_string(root, "open"), "user_engine"));
	CHECK(json_is_true(get(get(get(root, "ways"), "user_engine"), "works")));
	check_obstacle(root, "syscall", "EPERM", "seccomp");
	check_obstacle(root, "device", "EPERM", "seccomp");
	check_obstacle(root, "user_mode", "EPERM", "seccomp");

	result = RUN(REFUSE, "--", USERFAULT, "probe");
	CHECK_EQ(result->status, 0);
	check_layout(result->out);
	check_forms_agree(root, result->out);
	CHECK(strstr(result->out, "--security-opt seccomp="));
}

TEST(device_alone, "Where only the device is let through, it is taken.")
{
	const struct result *result;
	json_t *root;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	result = RUN(REFUSE, "--errno", "ENOSYS", "--allow-device", "--", USERFAULT, "probe", "--json");
	CHECK_EQ(result->status, 0);
	root = parse(result->out);
	CHECK(!strcmp(get_string(root, "open"), "device"));
	check_obstacle(root, "syscall", "ENOSYS", "seccomp");
	check_obstacle(root, "user_mode", "ENOSYS", "seccomp");
	CHECK(json_is_true(get(get(get(root, "ways"), "device"), "works")));
}

TEST(kernel_without_userfaultfd, "A kernel without the facility is reported as one, by all ways.")
{
	const struct result *result;
	json_t *root;

	private_dev(0);
	hide_sysctl();
	hide_device_entries();
	result = RUN(REFUSE, "--errno", "ENOSYS", "--", USERFAULT, "probe", "--json");
	CHECK_EQ(result->status, 0);
	root = parse(result->out);
	check_obstacle(root, "syscall", "ENOSYS", "kernel");
	check_obstacle(root, "device", "ENOENT", "kernel");
	check_obstacle(root, "user_mode", "ENOSYS", "kernel");
	CHECK(json_is_null(get(get(root, "limits"), "unprivileged_userfaultfd")));
	CHECK(json_is_null(get(get(root, "limits"), "max_map_count")));

	result = RUN(REFUSE, "--errno", "ENOSYS", "--", USERFAULT, "probe");
	CHECK_EQ(result->status, 0);
	check_layout(result->out);
	check_forms_agree(root, result->out);
}

TEST(unprivileged_user, "To a user without privileges each refusal is explained, with what would lift it.")
{
	const char *userfault = copy_for_nobody(USERFAULT, "userfault");
	const struct result *result;
	json_t *root;

	copy_for_nobody(from_env("USERFAULT_LIBRARY"), "libuserfault.so.0");
	CHECK_EQ(setenv("LD_LIBRARY_PATH", "/mnt", 1), 0);
	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	become_nobody();
	root = parse(RUN(userfault, "probe", "--json")->out);
	check_obstacle(root, "device", "EACCES", "permission");
	CHECK(json_is_true(get(get(get(root, "ways"), "user_mode"), "works")));
	CHECK(json_is_false(get(get(get(root, "ways"), "user_mode"), "fork_events")));
	if (real_sysctl() != 1) {
		check_obstacle(root, "syscall", "EPERM", "sysctl");
		CHECK(!strcmp(get_string(root, "open"), "user_mode"));
	}

	result = RUN(userfault, "probe");
	CHECK_EQ(result->status, 0);
	check_layout(result->out);
	check_forms_agree(root, result->out);
	CHECK(strstr(result->out, "event_fork *"));
}
