// Tests of comparisons: which entries there are, what they are fitted on, and what is refused.
#include "c2r/plan/compare.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/make_plan.h"

namespace c2r {
namespace {

using testing::error_of;

// Four sequences of two tokens each; experts 0 and 2 choose each other, and 1 and 3.
Trace crossing_sequences() {
  Matrix<ExpertId> ids(8, 2);
  for (std::int64_t t = 0; t < 8; ++t) {
    ids(t, 0) = ExpertId{std::int32_t(t % 2)};
    ids(t, 1) = ExpertId{std::int32_t(t % 2 + 2)};
  }
  const MatrixView<const ExpertId> layers[] = {ids};
  const std::int64_t starts[] = {0, 2, 4, 6};
  return {{.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1}}, layers, starts};
}

CompareRequest request_on(SequencePart on, SequencePart fit) {
  return {.predict = {.traffic = {.cluster = {.ranks_per_node = 2}}}, .on = on, .fit = fit};
}

TEST(Compare, SetsAPlanBesideBaselinesAndAFront) {
  const Trace trace = crossing_sequences();
  const NamedPlan plan{
      "p.json", make_plan(trace, {.cluster = {.ranks_per_node = 2}}, SequencePart::kEven).plan};
  CompareRequest request = request_on(SequencePart::kOdd, SequencePart::kEven);
  request.baselines = {"contiguous", "eplb"};
  request.num_front_points = 2;
  request.bounds_copies = true;
  NoProgress progress;
  const Comparison comparison = compare(trace, {&plan, 1}, request, progress);
  std::vector<std::string> names;
  for (const ComparisonEntry& entry : comparison.entries) {
    names.push_back(entry.name + "|" + entry.kind + "|" + entry.fitted_on);
    EXPECT_FALSE(entry.is_fitted);
    EXPECT_EQ(entry.prediction.num_tokens, 4);
    EXPECT_EQ(entry.prediction.trace, "memory, odd");
    EXPECT_EQ(entry.copies_bound, 1);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"contiguous|baseline|-", "eplb|baseline|even",
                                             "p.json|plan|even", "front 1 of 1|front|even"}));
  EXPECT_EQ(comparison.entries[0].prediction.copies_per_token[0], 2);
  EXPECT_EQ(comparison.entries[2].prediction.copies_per_token[0], 1);
  EXPECT_EQ(comparison.entries[3].prediction.copies_per_token[0], 1);
  const std::vector<Plan> front = front_plans(trace, comparison, request);
  ASSERT_EQ(front.size(), 1);
  EXPECT_EQ(front[0].provenance.method, "optimize, front 1 of 1");
  EXPECT_EQ(front[0].layers[0].placement, comparison.entries[3].placements[0]);
}

TEST(Compare, SaysWhereEntriesWereFittedOnReportedTokens) {
  const Trace trace = crossing_sequences();
  const PlanRequest planned{.cluster = {.ranks_per_node = 2}, .method = "eplb"};
  NamedPlan plans[] = {{"same", make_plan(trace, planned, SequencePart::kOdd).plan},
                       {"other", make_plan(trace, planned).plan},
                       {"named", make_plan(trace, planned).plan}};
  plans[1].plan.provenance.inputs[0].hash = "0000000000000000";
  plans[2].plan.provenance.inputs[0].hash.clear();
  NoProgress progress;
  const auto entries =
      compare(trace, plans, request_on(SequencePart::kOdd, SequencePart::kEven), progress).entries;
  EXPECT_TRUE(entries[0].is_fitted);
  EXPECT_FALSE(entries[1].is_fitted);
  EXPECT_EQ(entries[1].fitted_on, "memory, all");
  EXPECT_TRUE(entries[2].is_fitted && entries[2].is_by_name);
}

TEST(Compare, LeavesOutBaselinesThatCannotPlaceAndSaysWhy) {
  const Trace trace = crossing_sequences();
  CompareRequest request = request_on(SequencePart::kAll, SequencePart::kAll);
  request.baselines = {"contiguous", "exhaustive"};
  request.redundant_slots_per_rank = 1;
  NoProgress progress;
  const Comparison comparison = compare(trace, {}, request, progress);
  EXPECT_EQ(comparison.entries.size(), 1u);
  ASSERT_EQ(comparison.left_out.size(), 1u);
  EXPECT_TRUE(comparison.left_out[0].starts_with("exhaustive")) << comparison.left_out[0];
  request.baselines = {"exhaustive"};
  EXPECT_TRUE(error_of([&] {
                (void)compare(trace, {}, request, progress);
              }).starts_with("there is nothing to compare: exhaustive"));
}

TEST(Compare, RefusesWhatCannotBeCompared) {
  const Trace trace = crossing_sequences();
  NoProgress progress;
  const auto error_with = [&](const auto& change, std::span<const NamedPlan> plans = {}) {
    CompareRequest request = request_on(SequencePart::kAll, SequencePart::kAll);
    change(request);
    return error_of([&] { (void)compare(trace, plans, request, progress); });
  };
  const auto nothing = [](CompareRequest&) {};
  EXPECT_EQ(error_with(nothing), "there is nothing to compare");
  EXPECT_EQ(error_with([](CompareRequest& r) { r.num_front_points = 1; }),
            "a front has 1 points, but must have at least 2");
  EXPECT_EQ(error_with([](CompareRequest& r) { r.redundant_slots_per_rank = -1; }),
            "redundant_slots_per_rank is -1, but must be at least 0");
  EXPECT_EQ(error_with([](CompareRequest& r) {
              r.bounds_copies = true, r.predict.traffic.copy_mode = CopyMode::kAllGather;
            }),
            "copies have a bound in the modes per-rank and per-node, not in all-gather");
  NamedPlan plan{"p.json", make_plan(trace, {.cluster = {.ranks_per_node = 4}}).plan};
  EXPECT_EQ(error_with(nothing, {&plan, 1}),
            "p.json is for a cluster of 1x4 ranks, but 1x2 are compared");
  plan.plan = make_plan(trace, {.cluster = {.ranks_per_node = 2}}).plan;
  plan.plan.layers[0].layer_index = 5;
  EXPECT_EQ(error_with(nothing, {&plan, 1}),
            "p.json: the plan's layer 0 has index 5, but in memory it is 1");
}

}  // namespace
}  // namespace c2r
