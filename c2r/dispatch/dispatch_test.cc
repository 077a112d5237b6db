#include "c2r/dispatch/dispatch.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/dispatch/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::ExchangeProblem;
using testing::random_problem;

void check(const ExchangeProblem& problem) {
  const auto expected = testing::expected_sums(problem);
  const Volume volume = testing::predicted_volume(problem);
  run_in_process(problem.options.cluster.ep_size(), [&](Transport& transport) {
    testing::run_rank(transport, problem, expected, volume);
  });
}

class Dispatch : public ::testing::TestWithParam<Cluster> {};

TEST_P(Dispatch, GivesTheReferenceBitForBitAndSendsThePredictedVolume) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      check(random_problem(options, seed));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, Dispatch,
                         ::testing::Values(Cluster{1, 1}, Cluster{1, 2}, Cluster{1, 3},
                                           Cluster{1, 4}, Cluster{1, 8}, Cluster{2, 2},
                                           Cluster{2, 4}, Cluster{4, 2}, Cluster{3, 1}),
                         [](const auto& test) {
                           return fmt::format("{}x{}", test.param.num_nodes,
                                              test.param.ranks_per_node);
                         });

}  // namespace
}  // namespace c2r
