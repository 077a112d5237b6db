// The body of dispatch_test.cc, run by every rank that mpirun starts.
#include <gtest/gtest.h>

#include <cstdio>

#include "c2r/dispatch/testing_internal.h"
#include "c2r/transport/mpi/run_mpi.h"

namespace c2r {
namespace {

Transport* world = nullptr;  // of this process, while tests run

std::vector<Cluster> clusters_of_world() {
  const std::int32_t ep_size = world->ep_size();
  std::vector<Cluster> clusters = {{1, ep_size}};
  if (ep_size % 2 == 0) clusters.push_back({2, ep_size / 2});
  return clusters;
}

TEST(DispatchOverMpi, GivesTheReferenceWhereEveryTokenChoosesOneExpert) {
  for (const Cluster& cluster : clusters_of_world()) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      SCOPED_TRACE(testing::to_string(options));
      const auto problem = testing::hot_expert_problem(options, 5);
      const auto expected = testing::expected_sums(problem);
      testing::run_rank(*world, problem, expected);
      testing::run_pipeline(*world, problem, /*num_chunks=*/4, expected);
    }
  }
}

TEST(DispatchOverMpi, GivesTheReferenceBitForBitAndSendsThePredictedVolume) {
  for (const Cluster& cluster : clusters_of_world()) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
        const auto problem = testing::random_problem(options, seed);
        testing::run_rank(*world, problem, testing::expected_sums(problem));
      }
    }
  }
}

}  // namespace
}  // namespace c2r

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  int failed = 0;
  c2r::run_mpi(
      [&](c2r::Transport& transport) {
        c2r::world = &transport;
        failed = RUN_ALL_TESTS();
      },
      std::chrono::seconds(60), [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
  return failed;
}
