#include "c2r/plan/predict.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;

// Experts 0 and 2 choose each other, and 1 and 3: contiguous placement is as bad as can be.
Trace crossing_pairs() {
  const auto path = testing::temporary_path("trace.safetensors");
  TraceWriter writer(path, {.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1}},
                     false);
  const std::vector<ExpertId> ids = {ExpertId{0}, ExpertId{2}, ExpertId{1}, ExpertId{3},
                                     ExpertId{2}, ExpertId{0}, ExpertId{3}, ExpertId{1}};
  writer.append(0, ids, {}, "test");
  writer.finish();
  return Trace(path);
}

Plan plan_with(const Placement& placement) {
  return {.model = "m",
          .num_experts = 4,
          .top_k = 2,
          .cluster = {.ranks_per_node = 2},
          .layers = {{.layer_index = 1, .placement = placement}}};
}

TEST(PredictWaterfall, TellsWhatEachStepSaves) {
  const Trace trace = crossing_pairs();
  const Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  NoProgress progress;
  const auto steps = predict_waterfall(plan, trace, ranges_of(trace, SequencePart::kAll),
                                       {.reach = {.cluster = plan.cluster}}, 1, progress);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].placement, "per-expert");
  EXPECT_EQ(steps[0].copies_per_token[0], 2);
  EXPECT_EQ(steps[0].wire_copies_per_token[0], 1);  // half of the copies stay at home
  EXPECT_EQ(steps[1].placement, "one copy per rank");
  EXPECT_EQ(steps[1].copies_per_token[0], 2);
  EXPECT_EQ(steps[2].placement, "placement");
  EXPECT_EQ(steps[2].copies_per_token[0], 1);
  EXPECT_EQ(steps[2].wire_copies_per_token[0], 0.5);
  EXPECT_EQ(steps[2].imbalance[0], 1);
  EXPECT_EQ(steps[2].num_tokens, 4);
}

TEST(PredictWaterfall, CountsOnlyTheTokensAskedFor) {
  const Trace trace = crossing_pairs();
  const Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  NoProgress progress;
  const auto steps = predict_waterfall(plan, trace, {{TokenRange{0, 1}}},
                                       {.reach = {.cluster = plan.cluster}}, 1, progress);
  EXPECT_EQ(steps[2].num_tokens, 1);
  EXPECT_EQ(steps[2].imbalance[0], 2);  // one token, all on one of two ranks
}

TEST(PredictWaterfall, RefusesAPlanForAnotherModel) {
  const Trace trace = crossing_pairs();
  NoProgress progress;
  const auto error_with = [&](const Plan& plan) {
    return error_of([&] {
      predict_waterfall(plan, trace, {}, {.reach = {.cluster = plan.cluster}}, 1, progress);
    });
  };
  Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  plan.top_k = 1;
  EXPECT_EQ(error_with(plan), "the plan is for 4 experts, top-1, but " + trace.path() +
                                  " has 4 experts, top-2; it was probably made for another model");
  plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  plan.layers[0].layer_index = 0;
  EXPECT_EQ(error_with(plan),
            "the plan's layer 0 has index 0, but in " + trace.path() + " it is 1");
}

}  // namespace
}  // namespace c2r
