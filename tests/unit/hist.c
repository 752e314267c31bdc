// SPDX-License-Identifier: MIT
#include "base/hist.h"
#include "support/test.h"

static struct hist hist, other;

TEST(empty_histogram_has_no_quantiles, "A histogram without samples answers 0.")
{
	CHECK_EQ(hist_quantile(&hist, 0.5), 0);
}

TEST(quantiles_are_right_to_three_percent, "A quantile is right to about 3 %, at every magnitude.")
{
	for (uint64_t scale = 1; scale < (uint64_t)1 << 50; scale *= 7) {
		uint64_t p50, p99;

		hist = (struct hist){0};
		for (uint64_t i = 1; i <= 1000; i++)
			hist_add(&hist, i * scale);
		p50 = hist_quantile(&hist, 0.5);
		p99 = hist_quantile(&hist, 0.99);
		CHECK(p50 >= 485 * scale && p50 <= 516 * scale);
		CHECK(p99 >= 960 * scale && p99 <= 1000 * scale);
		CHECK_EQ(hist_quantile(&hist, 1.0), 1000 * scale);
		CHECK_EQ(hist.count, 1000);
		CHECK_EQ(hist.sum, 500500 * scale);
	}
}

TEST(buckets_have_no_gaps, "A bucket begins where the one before it ends.")
{
	for (unsigned bucket = 0; bucket <= hist_bucket(UINT64_MAX); bucket++) {
		CHECK_EQ(hist_bucket(hist_start(bucket)), bucket);
		if (bucket)
			CHECK_EQ(hist_bucket(hist_start(bucket) - 1), bucket - 1);
	}
}

TEST(small_values_are_exact, "Values below 16 ns have a bucket each.")
{
	for (uint64_t i = 0; i < 16; i++)
		hist_add(&hist, i);
	for (uint64_t i = 0; i < 16; i++)
		CHECK_EQ(hist_quantile(&hist, (double)i / 16), i);
}

TEST(largest_value_has_a_bucket, "No duration is out of range.")
{
	hist_add(&hist, UINT64_MAX);
	hist_add(&hist, UINT64_MAX - 1);
	CHECK_EQ(hist.bucket[HIST_BUCKETS - 1], 0);
	CHECK(hist_quantile(&hist, 0.5) > UINT64_MAX / 32 * 31);
}

TEST(merging_adds_up, "Two histograms are added bucket by bucket.")
{
	for (unsigned i = 0; i < 100; i++) {
		hist_add(&hist, 100);
		hist_add(&other, 100000);
	}
	hist_merge(&hist, &other);
	CHECK_EQ(hist.count, 200);
	CHECK_EQ(hist.max, 100000);
	CHECK_EQ(hist.sum, 100 * 100 + 100 * 100000);
	CHECK(hist_quantile(&hist, 0.25) < 110);
	CHECK(hist_quantile(&hist, 0.75) > 97000);
}
