// SPDX-License-Identifier: MIT
/* UFFDIO_API: the handshake, and that nothing works before it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define NO_SUCH_FEATURE ((uint64_t)1 << 63)

static void check_zeroed(const struct uffdio_api *api)
{
	CHECK_EQ(api->api, 0);
	CHECK_EQ(api->features, 0);
	CHECK_EQ(api->ioctls, 0);
}

TEST(api_returns_available_features, "features: a bitmask of all the available features, whatever was asked for.")
{
	struct uffdio_api none = {.api = UFFD_API}, some = {.api = UFFD_API};
	struct uf *uf = object_raw(O_NONBLOCK);

	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &none), 0);
	CHECK_EQ(none.api, UFFD_API);
	uf = object_raw(O_NONBLOCK);
	some.features = none.features & (UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_UNMAP);
	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &some), 0);
	CHECK_EQ(some.features, none.features);
}

TEST(api_returns_generic_ioctls, "ioctls: the generic ioctl(2) operations available: API, REGISTER, UNREGISTER.")
{
	struct uffdio_api api = {.api = UFFD_API};

	CHECK_EQ(uf_ioctl(object_raw(O_NONBLOCK), UFFDIO_API, &api), 0);
	CHECK(api.ioctls & (uint64_t)1 << _UFFDIO_API);
	CHECK(api.ioctls & (uint64_t)1 << _UFFDIO_REGISTER);
	CHECK(api.ioctls & (uint64_t)1 << _UFFDIO_UNREGISTER);
}

TEST(api_ioctls_is_output_only, "ioctls: Available ioctl() operations (output).")
{
	struct uffdio_api api = {.api = UFFD_API, .ioctls = ~(uint64_t)0};

	CHECK_EQ(uf_ioctl(object_raw(O_NONBLOCK), UFFDIO_API, &api), 0);
	CHECK(api.ioctls != ~(uint64_t)0);
}

TEST(api_offers_missing_pages_of_shmem, "UFFD_FEATURE_MISSING_SHMEM is set if shared memory can be registered.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	int expected = offered() & UFFD_FEATURE_MISSING_SHMEM ? 0 : -EINVAL;

	CHECK_EQ(uf_register(object(0), memory.at, memory.len, UFFDIO_REGISTER_MODE_MISSING, NULL), expected);
}

TEST(api_offers_missing_pages_of_hugetlbfs, "UFFD_FEATURE_MISSING_HUGETLBFS is set if hugetlbfs can be registered.")
{
	struct memory memory = memory_map(MEMORY_HUGE_ANON, 1);
	int expected = offered() & UFFD_FEATURE_MISSING_HUGETLBFS ? 0 : -EINVAL;

	CHECK_EQ(uf_register(object(0), memory.at, memory.len, UFFDIO_REGISTER_MODE_MISSING, NULL), expected);
}

TEST(api_memory_types_need_no_asking, "Linux registers shared memory although the feature was not set in UFFDIO_API.")
{
	struct memory memory = memory_map(MEMORY_MEMFD, 1);
	struct uf *uf = object_raw(O_NONBLOCK);

	need(UFFD_FEATURE_MISSING_SHMEM);
	CHECK_EQ(enable(uf, 0), 0);
	registered(uf, memory.at, memory.len, UFFDIO_REGISTER_MODE_MISSING);
}

TEST(api_wrong_version, "EINVAL The API version requested in the api field is not supported by this kernel.")
{
	static const uint64_t versions[] = {0, UFFD_API - 1, UFFD_API + 1, ~(uint64_t)0};

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		struct uffdio_api api = {.api = versions[i], .ioctls = 1};

		CHECK_EQ(uf_ioctl(object_raw(O_NONBLOCK), UFFDIO_API, &api), -EINVAL);
		check_zeroed(&api);
	}
}

TEST(api_unknown_feature, "EINVAL ... the features field asks for what cannot be had; the structure is zeroed out.")
{
	struct uffdio_api api = {.api = UFFD_API, .features = NO_SUCH_FEATURE, .ioctls = 1};

	CHECK_EQ(uf_ioctl(object_raw(O_NONBLOCK), UFFDIO_API, &api), -EINVAL);
	check_zeroed(&api);
}

TEST(api_takes_offered_features, "From 4.11 on the features field asks for features, and supported ones are granted.")
{
	uint64_t offer = offered();

	/* What came after MOVE may be granted in company only. */
	for (unsigned bit = 0; (uint64_t)1 << bit <= UFFD_FEATURE_MOVE; bit++) {
		uint64_t feature = offer & (uint64_t)1 << bit;
		int err = feature ? enable(object_raw(O_NONBLOCK), feature) : 0;

		if (feature != UFFD_FEATURE_EVENT_FORK || err != -EPERM)
			CHECK_EQ(err, 0);
	}
}

TEST(api_twice, "EINVAL The userfaultfd has already been enabled by a previous UFFDIO_API operation; zeroed as well.")
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uf *uf = object_raw(O_NONBLOCK);

	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &api), 0);
	api = (struct uffdio_api){.api = UFFD_API, .ioctls = 1};
	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &api), -EINVAL);
	check_zeroed(&api);
	/* It stays enabled. */
	registered(uf, anon(1), page_size, UFFDIO_REGISTER_MODE_MISSING);
}

TEST(api_can_be_retried, "A refused UFFDIO_API leaves the object as it was: not enabled, and a better one enables it.")
{
	struct uf *uf = object_raw(O_NONBLOCK);

	CHECK_EQ(enable(uf, NO_SUCH_FEATURE), -EINVAL);
	CHECK_EQ(poll_now(uf), POLLERR);
	CHECK_EQ(enable(uf, 0), 0);
	CHECK_EQ(poll_now(uf), 0);
}

TEST(api_bad_argp, "EFAULT argp does not point to a valid memory address.")
{
	struct uf *uf = object_raw(O_NONBLOCK);
	struct uffdio_api *readonly = (void *)anon(1);

	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, NULL), -EFAULT);
	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, unmapped(1)), -EFAULT);
	/* The answer cannot be written either, and then the object is not enabled. */
	readonly->api = UFFD_API;
	CHECK_EQ(mprotect(readonly, page_size, PROT_READ), 0);
	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, readonly), -EFAULT);
	CHECK_EQ(enable(uf, 0), 0);
}

/* Without CAP_SYS_PTRACE in the effective set. */
static void drop_ptrace(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	CHECK_EQ(syscall(SYS_capget, &head, data), 0);
	data[0].effective &= ~(1u << CAP_SYS_PTRACE);
	CHECK_EQ(syscall(SYS_capset, &head, data), 0);
}

TEST(api_fork_events_need_ptrace, "EPERM EVENT_FORK without CAP_SYS_PTRACE, although the bit is offered; zeroed.")
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
	struct uf *uf;

	need(UFFD_FEATURE_EVENT_FORK);
	uf = object_raw(O_NONBLOCK);
	drop_ptrace();
	if (on_the_kernel()) {
		CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &api), -EPERM);
		check_zeroed(&api);
		CHECK_EQ(enable(uf, 0), 0);
	} else {
		CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &api), 0);
	}
}

TEST(api_layout_events_need_no_capability, "EVENT_REMAP, EVENT_REMOVE and EVENT_UNMAP are granted to everyone.")
{
	uint64_t events = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
	struct uf *uf;

	need(events);
	uf = object_raw(O_NONBLOCK);
	drop_ptrace();
	CHECK_EQ(enable(uf, events), 0);
}

TEST(before_api_every_request_fails, "EINVAL (For all operations except UFFDIO_API.)  Not yet enabled.")
{
	struct uf *uf = object_raw(O_NONBLOCK);
	struct memory memory = memory_map(MEMORY_ANON, 1);

	for (size_t i = 0; all_requests[i]; i++) {
		struct scene scene = {.request = all_requests[i], .uf = uf, .memory = memory, .src = filled(1)};

		scene_fill(&scene, 0, 1, 0);
		CHECK_EQ(scene_issue(&scene), -EINVAL);
		/* That it is not enabled comes before everything else about the request. */
		CHECK_EQ(uf_ioctl(uf, all_requests[i]->nr, NULL), -EINVAL);
	}
}

TEST(before_api_read_fails, "When first opened the userfaultfd must be enabled: read(2) gives EINVAL before.")
{
	struct uffd_msg msg;

	CHECK_EQ(uf_read(object_raw(O_NONBLOCK), &msg, 1), -EINVAL);
	CHECK_EQ(uf_read(object_raw(0), &msg, 1), -EINVAL);
}

TEST(before_api_poll_fails, "Be sure to test for all errors including (pollfd[0].revents & POLLERR).")
{
	CHECK_EQ(poll_now(object_raw(O_NONBLOCK)), POLLERR);
}

TEST(unknown_request, "A request that does not exist is EINVAL, enabled or not.")
{
	struct uf *uf = object_raw(O_NONBLOCK);
	unsigned long unknown = _IOWR(UFFDIO, 0x2f, struct uffdio_range);
	struct uffdio_range range = {0};

	CHECK_EQ(uf_ioctl(uf, unknown, &range), -EINVAL);
	CHECK_EQ(enable(uf, 0), 0);
	CHECK_EQ(uf_ioctl(uf, unknown, &range), -EINVAL);
}

TEST(open_tells_enabled_features, "uf_features(): the features that are enabled, not those on offer.")
{
	struct uf_options opts = options(0);
	struct uf *uf;

	need(UFFD_FEATURE_EXACT_ADDRESS | UFFD_FEATURE_THREAD_ID);
	opts.required = UFFD_FEATURE_THREAD_ID;
	opts.wanted = UFFD_FEATURE_EXACT_ADDRESS | NO_SUCH_FEATURE;
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK_EQ(uf_features(uf), UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS);
	CHECK(uf_ioctls(uf) & 1 << _UFFDIO_REGISTER);
}

TEST(open_requires_features, "-EOPNOTSUPP: a descriptor can be had, but none with all of `required`.")
{
	struct uf_options opts = options(NO_SUCH_FEATURE);
	struct uf *uf = NULL;

	CHECK_EQ(object_open(&uf, &opts), -EOPNOTSUPP);
	CHECK(!uf);
}

TEST(open_drops_wanted_fork_events, "EVENT_FORK among the wanted features is dropped silently where it is denied.")
{
	struct uf_options opts = options(0);
	struct uf *uf;

	opts.wanted = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMOVE;
	need(opts.wanted);
	drop_ptrace();
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK_EQ(uf_features(uf), on_the_kernel() ? (uint64_t)UFFD_FEATURE_EVENT_REMOVE : opts.wanted);
}

TEST(open_requires_fork_events, "-EPERM: EVENT_FORK required without CAP_SYS_PTRACE.")
{
	struct uf_options opts = options(UFFD_FEATURE_EVENT_FORK);
	struct uf *uf;

	need(opts.required);
	drop_ptrace();
	CHECK_EQ(object_open(&uf, &opts), on_the_kernel() ? -EPERM : 0);
}

TEST(open_flags_of_the_descriptor, "O_CLOEXEC | O_NONBLOCK is the default; BLOCKING and INHERIT lift one each.")
{
	struct uf_options opts = options(0);
	struct uf *uf;

	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK(fcntl(uf_fd(uf), F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(uf_fd(uf), F_GETFD) & FD_CLOEXEC);
	opts.flags = UF_OPEN_BLOCKING;
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK(!(fcntl(uf_fd(uf), F_GETFL) & O_NONBLOCK));
	CHECK(fcntl(uf_fd(uf), F_GETFD) & FD_CLOEXEC);
	opts.flags = UF_OPEN_INHERIT;
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK(fcntl(uf_fd(uf), F_GETFL) & O_NONBLOCK);
	CHECK(!(fcntl(uf_fd(uf), F_GETFD) & FD_CLOEXEC));
}
