// Tests of how the placements of a plan are mended where the order of tokens exceeds the bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/core/rng.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

// One layer of 16 experts, top-3. Four subjects come one after the other, each of which prefers a
// quarter of the experts: so the ranks that served early tokens are not those that the search,
// which knows all tokens, would have spared.
Trace trace_of_changing_subjects(std::uint64_t seed) {
  Matrix<ExpertId> tokens(6000, 3);
  for (std::int64_t t = 0; t < tokens.rows(); ++t) {
    std::mt19937_64 rng(mix_bits(seed * 100'000 + std::uint64_t(t)));
    const std::int64_t subject = t * 4 / tokens.rows();
    const auto row = tokens.row(t);
    for (std::size_t chosen = 0; chosen < row.size();) {
      const auto expert = std::int32_t(uniform_below(16, rng));
      const bool is_wanted = expert % 4 == subject || uniform_below(4, rng) == 0;
      const auto so_far = row.first(chosen);
      if (is_wanted && std::ranges::count(so_far, ExpertId{expert}) == 0) {
        row[chosen++] = ExpertId{expert};
      }
    }
  }
  const MatrixView<const ExpertId> view = tokens;
  return Trace({.num_experts = 16, .top_k = 3, .layer_indices = {0}}, std::span(&view, 1));
}

TEST(MakePlan, MendsLayersThatTheOrderOfTokensPutsAboveTheBound) {
  constexpr double kBound = 1.03;
  double found_excess = 0, mended_excess = 0, found_copies = 0, mended_copies = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(seed);
    const Trace trace = trace_of_changing_subjects(seed);
    PlanRequest request{.cluster = {.ranks_per_node = 4},
                        .redundant_slots_per_rank = 1,
                        .seed = seed,
                        .effort = 0.4};
    request.goal.max_imbalance = kBound;
    const MadePlan made = make_plan(trace, request);
    const std::vector<TokenRange> all = {{0, trace.num_tokens()}};
    const auto found = optimize_placement(
        collect_token_sets(trace, 0, all), request.cluster, objective_of(request),
        {.seed = seed, .effort = 0.4, .redundant_slots_per_rank = 1});
    NoProgress progress;
    const Prediction before = predict(trace, all, std::vector{found.placement},
                                      {.traffic = default_traffic(request.cluster)}, 1, progress);
    const Prediction& after = made.plan.predictions.back();
    found_excess += std::max(0.0, before.imbalance[0] - kBound);
    mended_excess += std::max(0.0, after.imbalance[0] - kBound);
    found_copies += before.copies_per_token[0];
    mended_copies += after.copies_per_token[0];
    EXPECT_LE(after.imbalance[0], std::max(kBound, before.imbalance[0]) * (1 + 1e-9));
  }
  EXPECT_GT(found_excess, 0.05) << "the case is not in this test";
  EXPECT_LT(mended_excess, 0.3 * found_excess);
  EXPECT_LT(mended_copies, 1.1 * found_copies);
}

}  // namespace
}  // namespace c2r
