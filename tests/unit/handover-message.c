// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "handover/message.h"
#include "support/test.h"

static struct handover_message message;
static char cause[256];

static int parse(const char *text)
{
	memset(cause, 0, sizeof(cause));
	return handover_parse(&message, text, strlen(text), cause, sizeof(cause));
}

/* Refused, and the cause has these words in it. */
static void refused(const char *text, const char *words)
{
	if (parse(text) != -EINVAL)
		FAIL("not refused: %s", text);
	if (!strstr(cause, words))
		FAIL("%s: the cause is '%s', without '%s'", text, cause, words);
	CHECK(!message.regions);
}

#define REGION(rest) "[{\"base_host_virt_addr\":65536,\"size\":8192,\"offset\":4096" rest "}]"

TEST(array_as_firecracker_sends_it,
     "An array of regions, each with page_size and page_size_kib in bytes, is taken as it is.")
{
	CHECK_EQ(parse("[{\"base_host_virt_addr\":140737353613312,\"size\":134217728,\"offset\":0,\"page_size\":4096,"
	               "\"page_size_kib\":4096},{\"base_host_virt_addr\":139637976727552,\"size\":2097152,"
	               "\"offset\":134217728,\"page_size\":2097152,\"page_size_kib\":2097152}]"),
	         0);
	CHECK_EQ(message.kind, HANDOVER_ARRAY);
	CHECK_EQ(message.count, 2);
	CHECK_EQ(message.regions[0].addr, 140737353613312);
	CHECK_EQ(message.regions[0].size, 134217728);
	CHECK_EQ(message.regions[0].page_size, 4096);
	CHECK_EQ(message.regions[1].offset, 134217728);
	CHECK_EQ(message.regions[1].page_size, 2097152);
	CHECK(!strcmp(message.regions[0].store, "default"));
	CHECK(!message.regions[0].removed_is_store && !message.regions[0].prefetch && !message.name[0]);
	handover_free(&message);
}

TEST(page_size_has_two_names_and_a_default,
     "page_size may be missing, then page_size_kib tells, in bytes; without both it is the system's.")
{
	CHECK_EQ(parse("[{\"base_host_virt_addr\":0,\"size\":2097152,\"offset\":0,\"page_size_kib\":2097152}]"), 0);
	CHECK_EQ(message.regions[0].page_size, 2097152);
	handover_free(&message);
	CHECK_EQ(parse(REGION("")), 0);
	CHECK_EQ(message.regions[0].page_size, page_size);
	handover_free(&message);
	CHECK_EQ(parse(REGION(",\"page_size\":4096,\"page_size_kib\":4")), 0);
	CHECK_EQ(message.regions[0].page_size, 4096);
	handover_free(&message);
}

TEST(unknown_keys_are_ignored, "Keys without a meaning to us are passed over, whatever their values are.")
{
	CHECK_EQ(parse(REGION(",\"new\":{\"deep\":[1,2.5,null,\"x\"]},\"other\":-1")), 0);
	handover_free(&message);
	CHECK_EQ(parse("{\"regions\":" REGION("") ",\"version\":2}"), 0);
	handover_free(&message);
}

TEST(object_carries_our_keys, "An object is our form: a name, and per region store, removed and prefetch.")
{
	CHECK_EQ(parse("{\"name\":\"a guest, no. 1\",\"regions\":" REGION(
			 ",\"store\":\"base \\\"x\\\"\",\"removed\":\"store\",\"prefetch\":true") "}"),
	         0);
	CHECK_EQ(message.kind, HANDOVER_GIVE);
	CHECK(!strcmp(message.name, "a guest, no. 1"));
	CHECK(!strcmp(message.regions[0].store, "base \"x\""));
	CHECK(message.regions[0].removed_is_store && message.regions[0].prefetch);
	handover_free(&message);
	CHECK_EQ(parse("{\"regions\":" REGION(",\"removed\":\"zeros\",\"prefetch\":false") "}"), 0);
	CHECK(!message.regions[0].removed_is_store && !message.regions[0].prefetch);
	handover_free(&message);
}

TEST(size_is_asked_for_by_name, "An object with `size` asks for the size of that store.")
{
	CHECK_EQ(parse("{\"size\":\"base\"}"), 0);
	CHECK_EQ(message.kind, HANDOVER_SIZE);
	CHECK(!strcmp(message.store, "base"));
	CHECK_EQ(message.count, 0);
	handover_free(&message);
	refused("{\"size\":4096}", "name of a store");
	refused("{\"size\":\"\"}", "name of a store");
	refused("{\"size\":\"base\",\"regions\":[]}", "either");
	refused("{}", "either");
}

TEST(objects_may_have_a_number, "An object has a number from 0 to 2^63 - 1, which is known also when the rest is "
                                "refused; a region's is nothing to us.")
{
	CHECK_EQ(parse("{\"size\":\"base\"}"), 0);
	CHECK(!message.numbered);
	handover_free(&message);
	CHECK_EQ(parse("{\"number\":9223372036854775807,\"size\":\"base\"}"), 0);
	CHECK(message.numbered && message.number == INT64_MAX);
	handover_free(&message);
	refused("{\"regions\":[],\"number\":7}", "no regions");
	CHECK(message.numbered && message.number == 7);
	refused("{\"number\":-1,\"size\":\"base\"}", "'number'");
	CHECK(!message.numbered);
	refused("{\"number\":\"7\",\"size\":\"base\"}", "'number'");
	CHECK_EQ(parse(REGION(",\"number\":true")), 0);
	CHECK(!message.numbered);
	handover_free(&message);
}

TEST(numbers_are_checked, "A number is an integer from 0 to 2^63 - 1, and where one is needed it is there.")
{
	refused("[{\"size\":4096,\"offset\":0}]", "'base_host_virt_addr' is missing");
	refused("[{\"base_host_virt_addr\":0,\"offset\":0}]", "'size' is missing");
	refused("[{\"base_host_virt_addr\":0,\"size\":4096}]", "'offset' is missing");
	refused("[{\"base_host_virt_addr\":-4096,\"size\":4096,\"offset\":0}]", "'base_host_virt_addr'");
	refused("[{\"base_host_virt_addr\":0,\"size\":4096.0,\"offset\":0}]", "'size'");
	refused("[{\"base_host_virt_addr\":0,\"size\":4.096e3,\"offset\":0}]", "'size'");
	refused("[{\"base_host_virt_addr\":0,\"size\":\"4096\",\"offset\":0}]", "'size'");
	refused("[{\"base_host_virt_addr\":0,\"size\":true,\"offset\":0}]", "'size'");
	refused("[{\"base_host_virt_addr\":0,\"size\":4096,\"offset\":null}]", "'offset'");
	refused("[{\"base_host_virt_addr\":9223372036854775808,\"size\":4096,\"offset\":0}]", "not JSON");
	refused(REGION(",\"page_size\":-1"), "'page_size'");
	refused(REGION(",\"page_size_kib\":[]"), "'page_size_kib'");
}

TEST(geometry_is_checked,
     "Sizes are not zero, all are multiples of the page size, that is a power of two, and no sum overflows.")
{
	refused("[{\"base_host_virt_addr\":0,\"size\":0,\"offset\":0}]", "'size' is 0");
	refused("[{\"base_host_virt_addr\":1,\"size\":4096,\"offset\":0}]", "multiples");
	refused("[{\"base_host_virt_addr\":0,\"size\":4097,\"offset\":0}]", "multiples");
	refused("[{\"base_host_virt_addr\":0,\"size\":4096,\"offset\":512}]", "multiples");
	refused("[{\"base_host_virt_addr\":4096,\"size\":2097152,\"offset\":0,\"page_size\":2097152}]", "multiples");
	refused(REGION(",\"page_size\":0"), "power of two");
	refused(REGION(",\"page_size\":2048"), "power of two");
	refused(REGION(",\"page_size\":12288"), "power of two");
	refused(REGION(",\"page_size\":2147483648"), "power of two");
	refused("[{\"base_host_virt_addr\":9223372036854771712,\"size\":4096,\"offset\":0}]", "behind");
	refused("[{\"base_host_virt_addr\":0,\"size\":4096,\"offset\":9223372036854771712}]", "behind");
}

TEST(regions_do_not_overlap, "Regions of one message that share a page are refused; neighbours are not.")
{
	refused("[{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":0},"
	        "{\"base_host_virt_addr\":0,\"size\":4096,\"offset\":0},"
	        "{\"base_host_virt_addr\":12288,\"size\":4096,\"offset\":0}]",
	        "regions 0 and 2 overlap");
	CHECK_EQ(parse("[{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":0},"
	               "{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0}]"),
	         0);
	CHECK_EQ(message.regions[0].addr, 8192);
	handover_free(&message);
}

TEST(names_are_printable, "Names have 1 to 64 bytes of printable ASCII, and what is quoted in a cause is printable.")
{
	char text[512], name[80];

	memset(name, 'n', sizeof(name));
	snprintf(text, sizeof(text), "{\"size\":\"%.64s\"}", name);
	CHECK_EQ(parse(text), 0);
	handover_free(&message);
	snprintf(text, sizeof(text), "{\"size\":\"%.65s\"}", name);
	refused(text, "name of a store");
	refused("{\"size\":\"a\\nb\"}", "name of a store");
	refused("{\"size\":\"a\\u0000b\"}", "not JSON");
	refused("{\"size\":\"\xc3\xa4\"}", "name of a store");
	refused("{\"name\":\"a\\u001b[2J\",\"regions\":" REGION("") "}", "'name'");
	refused(REGION(",\"store\":7"), "'store'");
	refused(REGION(",\"removed\":\"nothing\""), "'removed'");
	refused(REGION(",\"removed\":false"), "'removed'");
	refused(REGION(",\"prefetch\":1"), "'prefetch'");
	refused("[\x1b\x80]", "not JSON");
	for (const char *c = cause; *c; c++)
		CHECK(*c >= ' ' && *c <= '~');
}

TEST(other_shapes_are_refused, "No regions, or what is no region, is an error.")
{
	refused("[]", "no regions");
	refused("{\"regions\":[]}", "no regions");
	refused("{\"regions\":{}}", "not an array");
	refused("[4096]", "not an object");
	refused("[[]]", "not an object");
	refused("[}", "not JSON");
	refused("{\"size\":\"a\",\"size\":\"b\"}", "not JSON");
}

/* `count` regions of a page each, in a buffer that is good until the next call. */
static const char *many(size_t count)
{
	static char text[HANDOVER_MESSAGE_MAX];
	size_t used = 0;

	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(
			text + used, sizeof(text) - used,
			"%c{\"base_host_virt_addr\":%zu,\"size\":4096,\"offset\":0,\"page_size\":4096,"
			"\"page_size_kib\":4096,\"store\":\"default\",\"removed\":\"store\",\"prefetch\":true}",
			i ? ',' : '[', (count - i) * 4096);
	snprintf(text + used, sizeof(text) - used, "]");
	return text;
}

TEST(counts_are_limited, "A message has up to 4096 regions, with all keys, and not one more.")
{
	struct handover_scan scan = {0};
	const char *text = many(HANDOVER_REGIONS_MAX);

	CHECK_EQ(handover_next(&scan, &message, text, strlen(text), cause, sizeof(cause)), strlen(text));
	CHECK_EQ(message.count, HANDOVER_REGIONS_MAX);
	CHECK_EQ(message.regions[0].addr, (uint64_t)HANDOVER_REGIONS_MAX * 4096);
	handover_free(&message);
	refused(many(HANDOVER_REGIONS_MAX + 1), "4096 regions");
}

static ssize_t scan_all(const char *text, size_t len)
{
	struct handover_scan scan = {0};

	return handover_scan(&scan, text, len, cause, sizeof(cause));
}

TEST(end_is_found_wherever_the_text_is_cut,
     "Every beginning of a message asks for more, the whole has its length, and what follows is not looked at.")
{
	static const char text[] = " \n{\"name\":\"]}\\\\\\\"}\",\"regions\":" REGION(
		",\"x\":[{},[\"{\"]]") "}{\"size\":";
	size_t end = sizeof(text) - 1 - strlen("{\"size\":");

	for (size_t len = 0; len < end; len++)
		CHECK_EQ(scan_all(text, len), 0);
	for (size_t len = end; len < sizeof(text); len++)
		CHECK_EQ(scan_all(text, len), end);
	CHECK_EQ(parse("{\"name\":\"]}\\\\\\\"}\",\"regions\":" REGION("") "}"), 0);
	handover_free(&message);
}

TEST(trickled_text_is_looked_at_once,
     "However a message is cut into pieces, each byte of it is scanned once, and it is parsed once.")
{
	const char *text = many(1000);
	const size_t len = strlen(text);
	struct handover_scan scan = {0};

	for (size_t i = 1; i < len; i++) {
		CHECK_EQ(handover_next(&scan, &message, text, i, cause, sizeof(cause)), 0);
		CHECK_EQ(scan.seen, i);
	}
	CHECK_EQ(handover_next(&scan, &message, text, len, cause, sizeof(cause)), len);
	CHECK_EQ(message.count, 1000);
	CHECK_EQ(scan.seen, 0);
	handover_free(&message);
}

TEST(messages_follow_one_another, "Several messages may be in one piece of text.")
{
	static const char text[] = "{\"size\":\"a\"}\n{\"size\":\"b\"}\n[";
	struct handover_scan scan = {0};
	ssize_t first = handover_next(&scan, &message, text, strlen(text), cause, sizeof(cause)), second;

	CHECK_EQ(first, 12);
	CHECK(!strcmp(message.store, "a"));
	handover_free(&message);
	second = handover_next(&scan, &message, text + first, strlen(text) - (size_t)first, cause, sizeof(cause));
	CHECK_EQ(second, 13);
	CHECK(!strcmp(message.store, "b"));
	handover_free(&message);
	CHECK_EQ(handover_next(&scan, &message, text + 25, 2, cause, sizeof(cause)), 0);
}

TEST(what_can_be_no_message_is_refused_early,
     "Other text, deep nesting, too many values and too long a message are refused without waiting for their end.")
{
	static char text[HANDOVER_MESSAGE_MAX + 1];

	CHECK_EQ(scan_all("GET / HTTP/1.1", 14), -EINVAL);
	CHECK_EQ(scan_all("]", 1), -EINVAL);
	CHECK_EQ(scan_all("\"", 1), -EINVAL);
	CHECK_EQ(scan_all("\0", 1), -EINVAL);
	memset(text, '[', sizeof(text));
	CHECK_EQ(scan_all(text, 100), -EINVAL);
	memset(text + 1, ',', sizeof(text) - 1);
	CHECK_EQ(scan_all(text, sizeof(text)), -EINVAL);
	memset(text + 1, '1', sizeof(text) - 1);
	CHECK_EQ(scan_all(text, sizeof(text) - 1), 0);
	CHECK_EQ(scan_all(text, sizeof(text)), -E2BIG);
	memset(text, ' ', sizeof(text));
	CHECK_EQ(scan_all(text, sizeof(text) - 1), 0);
	CHECK_EQ(scan_all(text, sizeof(text)), -E2BIG);
}
