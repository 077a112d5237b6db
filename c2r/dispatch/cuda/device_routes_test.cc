// Routes that a device makes are those of the host's row plans, in every mode.
#include "c2r/dispatch/cuda/device_routes.h"

#include <gtest/gtest.h>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/core/testing.h"
#include "c2r/dispatch/cuda/device_routes_testing.h"
#include "c2r/dispatch/cuda/host_route_launcher_testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::ExchangeProblem;
using testing::FakeDevice;
using testing::FakeStream;
using testing::HostRoutes;

HostRoutes make_routes_late(const ExchangeProblem& problem, RankId rank, int ignored_wait = -1) {
  FakeDevice device;
  device.ignore_wait(ignored_wait);
  FakeStream stream(device);
  testing::HostRouteLauncher launcher;
  HostRoutes routes = testing::make_routes_on_device(problem, rank, stream, launcher);
  stream.synchronize();
  return routes;
}

// 4 experts, two on each of two ranks; rank 0 sends t0 -> {3, 0}, t1 -> {2, 3}, t2 -> {none, 1}.
ExchangeProblem worked_problem(CopyMode mode) {
  ExchangeProblem problem{
      .placement = place_contiguous(4, 2),
      .options = {.traffic = {.cluster = {.ranks_per_node = 2}, .copy_mode = mode}},
      .hidden = 1};
  TokenBatch batch{.x = {3, 1}, .topk_idx = {3, 2}, .topk_weights = {3, 2}};
  const ExpertId choices[] = {ExpertId{3}, ExpertId{0}, ExpertId{2},
                              ExpertId{3}, kNoExpert,   ExpertId{1}};
  std::ranges::copy(choices, batch.topk_idx.all().begin());
  for (std::size_t i = 0; i < 6; ++i) batch.topk_weights.all()[i] = float(i);
  problem.batches = {batch, batch};
  return problem;
}

TEST(DeviceRoutes, DoAWorkedExample) {
  const HostRoutes per_rank = make_routes_late(worked_problem(CopyMode::kPerRank), RankId{0});
  EXPECT_EQ(per_rank, (HostRoutes{.send_offsets = {0, 2, 4},
                                  .send_choice_offsets = {0, 2, 5},
                                  .return_offsets = {0, 2, 3, 4},
                                  .send_item = {0, 2, 0, 1},
                                  .send_choice = {1, 5, 0, 2, 3},
                                  .return_row = {0, 2, 3, 1},
                                  .return_weight = {}}));
  const HostRoutes per_expert = make_routes_late(worked_problem(CopyMode::kPerExpert), RankId{0});
  EXPECT_EQ(per_expert, (HostRoutes{.send_offsets = {0, 2, 5},
                                    .send_choice_offsets = {0, 2, 5},
                                    .return_offsets = {0, 2, 4, 5},
                                    .send_item = {0, 2, 1, 0, 1},
                                    .send_choice = {1, 5, 2, 0, 3},
                                    .return_row = {3, 0, 2, 4, 1},
                                    .return_weight = {0, 1, 2, 3, 5}}));
}

class DeviceRoutesOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(DeviceRoutesOn, AreThoseOfTheRowPlansOfTheHost) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      const ExchangeProblem problem = seed == 0 ? testing::hot_expert_problem(options, seed)
                                                : testing::random_route_problem(options, seed);
      run_in_process(GetParam().ep_size(), [&](Transport& transport) {
        EXPECT_EQ(make_routes_late(problem, transport.rank()),
                  testing::make_routes_on_host(problem, transport));
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, DeviceRoutesOn, ::testing::ValuesIn(testing::kFewClusters),
                         testing::kClusterName);

TEST(DeviceRoutes, ShowTheWaitThatIsLeftOut) {
  // The counts would be the poison of pinned memory: negative, so arrays of no such size.
  EXPECT_ANY_THROW((void)make_routes_late(worked_problem(CopyMode::kPerRank), RankId{0}, 0));
}

TEST(DeviceRoutes, RefuseReplicasAndOtherPlacements) {
  FakeDevice device;
  FakeStream stream(device);
  testing::HostRouteLauncher launcher;
  const auto error = [&](const Placement& placement, const DispatchOptions& options) {
    return error_of([&] { DeviceRouteMaker(placement, options, RankId{0}, stream, launcher); });
  };
  const std::vector<std::vector<std::int32_t>> replicated{{0, 1}, {1, 2}};
  const DispatchOptions two{.traffic = {.cluster = {.ranks_per_node = 2}}};
  EXPECT_EQ(error(placement_of_ranks(3, replicated), two),
            "a device makes routes without replicas, but expert 1 has several slots; use "
            "Dispatcher::make_handle()");
  EXPECT_EQ(error(place_contiguous(4, 4), two), "the cluster has 1x2 ranks, but the placement 4");
  EXPECT_EQ(error(place_contiguous(4, 2), {.traffic = {.cluster = {.ranks_per_node = 2},
                                                       .copy_mode = CopyMode::kAllGather}}),
            "tokens are sent per-expert, per-rank or per-node; not all-gather");
}

}  // namespace
}  // namespace c2r
