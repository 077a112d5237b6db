// Tests of fitted and measured links.
#include "c2r/bench/measure_links.h"

#include <gtest/gtest.h>

#include <mutex>

#include "c2r/core/testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(FitLink, FindsTheLatencyAndTheBandwidthOfExactTimes) {
  std::vector<LinkTime> times;
  for (const double bytes : {1e3, 1e4, 1e5, 1e6}) times.push_back({bytes, 2e-5 + bytes / 5e9});
  const Link link = fit_link(times);
  EXPECT_NEAR(link.latency_s, 2e-5, 1e-11);
  EXPECT_NEAR(link.bandwidth_bytes_per_s, 5e9, 1e3);
}

TEST(FitLink, WeighsErrorsByTheTimes) {
  // The largest time is off by 10 %, which must not decide about the latency.
  const Link link = fit_link(std::vector<LinkTime>{
      {1e3, 2e-5 + 1e3 / 5e9}, {1e5, 2e-5 + 1e5 / 5e9}, {1e9, 1.1 * (2e-5 + 1e9 / 5e9)}});
  EXPECT_NEAR(link.latency_s, 2e-5, 2e-6);
}

TEST(FitLink, RefusesTimesThatDoNotGrow) {
  EXPECT_EQ(error_of([] {
              fit_link(std::vector<LinkTime>{{1e3, 1e-5}, {1e6, 1e-5}});
            }),
            "the times of 2 sizes do not grow with the bytes, so no bandwidth can be fitted; "
            "measure more rounds");
}

TEST(MeasureLinks, GivesEveryRankTheSameLinks) {
  std::mutex mutex;
  std::vector<Hardware> found;
  run_in_process(4, [&](Transport& transport) {
    const Hardware links = measure_links(transport, {.num_nodes = 2, .ranks_per_node = 2}, 3);
    const std::scoped_lock lock(mutex);
    found.push_back(links);
  });
  ASSERT_EQ(found.size(), 4u);
  for (const Hardware& links : found) {
    EXPECT_EQ(links, found[0]);
    EXPECT_GT(links.inter_node.bandwidth_bytes_per_s, 0);
  }
  EXPECT_FALSE(found[0].device_flop_per_s.has_value());
}

TEST(MeasureLinks, NeedsTwoRanksAndTheirShape) {
  run_in_process(1, [](Transport& transport) {
    EXPECT_EQ(error_of([&] { measure_links(transport, {}, 1); }),
              "one rank has no links to measure: take part with at least two");
    EXPECT_EQ(error_of([&] { measure_links(transport, {.ranks_per_node = 2}, 1); }),
              "the cluster has 1x2 ranks, but 1 take part");
  });
}

}  // namespace
}  // namespace c2r
