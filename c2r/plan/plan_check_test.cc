// Tests of what is said of a plan that is worse than doing nothing, or misses its bound.
#include "c2r/plan/plan_check.h"

#include <gtest/gtest.h>

#include "c2r/plan/make_plan.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

Prediction checked_prediction(std::string name, double copies, std::vector<double> imbalance,
                              double time_s = 0) {
  const std::size_t num_layers = imbalance.size();
  Prediction prediction{.placement = std::move(name),
                        .copies_per_token = std::vector<double>(num_layers, copies),
                        .wire_copies_per_token = std::vector<double>(num_layers, copies / 2),
                        .inter_node_copies_per_token = std::vector<double>(num_layers),
                        .imbalance = std::move(imbalance)};
  if (time_s > 0) prediction.predicted_layer_time_s = std::vector<double>(num_layers, time_s);
  return prediction;
}

const Cluster kTwoRanks = {.ranks_per_node = 2};
const std::vector<std::int32_t> kIndices = {3, 5, 6};

TEST(PlanCheck, ImbalanceIsTheMeanTheWorstAndTheLayersAboveTheBound) {
  const std::vector<double> imbalance = {1.1 * (1 + 1e-12), 1.25, 1.0};
  EXPECT_EQ(layer_imbalance(imbalance, 1.1).over, std::vector<std::int64_t>{1});
  const LayerImbalance free = layer_imbalance(imbalance, std::nullopt);
  EXPECT_NEAR(free.mean, 3.35 / 3, 1e-9);
  EXPECT_EQ(free.worst, 1.25);
  EXPECT_TRUE(free.over.empty());
  EXPECT_EQ(layer_imbalance({}, 1.1), (LayerImbalance{1, 1, 1.1, {}}));
}

TEST(PlanCheck, NamesLayersByTheIndicesOfTheModelAndJoinsThoseThatFollow) {
  const std::vector<std::int32_t> indices = {1, 2, 3, 7, 8, 11};
  const auto text_of = [&](std::vector<std::int64_t> layers) {
    return layers_text(layers, indices);
  };
  EXPECT_EQ(text_of({}), "");
  EXPECT_EQ(text_of({5}), "11");
  EXPECT_EQ(text_of({0, 1, 2, 3, 4}), "1-3, 7-8");
  EXPECT_EQ(text_of({0, 2, 3, 5}), "1, 3, 7, 11");
}

TEST(PlanCheck, TheBoundOfAPlanIsThatOfItsProvenance) {
  Plan plan;
  EXPECT_EQ(max_imbalance_of(plan), std::nullopt);
  plan.provenance.options = {{"effort", 1.0}, {"max_imbalance", 1.05}};
  EXPECT_EQ(max_imbalance_of(plan), 1.05);
  plan.provenance.options = {{"max_imbalance", "none"}};
  EXPECT_EQ(max_imbalance_of(plan), std::nullopt);
}

TEST(PlanCheck, SaysNothingOfAPlanThatIsTheBestAndKeepsItsBound) {
  const Prediction plan = checked_prediction("placement", 1.5, {1.0, 1.1});
  const PlanCheck check =
      check_predictions(plan, {checked_prediction("contiguous", 1.6, {1.0, 1.0})}, kTwoRanks,
                        objective_for(kTwoRanks), 1.1);
  EXPECT_EQ(check.better, std::nullopt);
  EXPECT_TRUE(check.bound->over.empty());
  EXPECT_EQ(warning_text(check, plan, kIndices), "");
}

TEST(PlanCheck, NamesTheLayersOverTheBoundAndTheBaselinesBesideThem) {
  const Prediction plan = checked_prediction("placement", 1.5, {1.0, 1.3, 1.2});
  const PlanCheck check = check_predictions(plan,
                                            {checked_prediction("contiguous", 1.6, {1.0, 1.1, 1.2}),
                                             checked_prediction("eplb", 1.7, {1, 1, 1})},
                                            kTwoRanks, objective_for(kTwoRanks), 1.1);
  EXPECT_EQ(check.bound, (LayerImbalance{3.5 / 3, 1.3, 1.1, {1, 2}}));
  EXPECT_EQ(warning_text(check, plan, kIndices),
            "2 of 3 layers exceed the bound of 1.1 on imbalance on the reported tokens (5-6): mean "
            "1.167, worst 1.300, contiguous 1.100, eplb 1.000; fit on tokens of all that is to be "
            "served, or with a lower bound");
}

TEST(PlanCheck, TheLeastTimeIsTheBestWhereTimesArePredicted) {
  const Prediction plan = checked_prediction("placement", 1.5, {1.0}, 0.002);
  const PlanCheck check = check_predictions(plan,
                                            {checked_prediction("contiguous", 1.6, {1.2}, 0.0018),
                                             checked_prediction("eplb", 1.6, {1.1}, 0.0019)},
                                            kTwoRanks, objective_for(kTwoRanks), std::nullopt);
  EXPECT_EQ(check.better, "contiguous");
  EXPECT_EQ(warning_text(check, plan, kIndices),
            "contiguous is better than the plan on the reported tokens: 1.600 copies, rank "
            "imbalance 1.200 (worst layer 1.200), 1.8 ms; the plan: 1.500 copies, rank imbalance "
            "1.000 (worst layer 1.000), 2 ms; fit on tokens of all that is to be served, or with a "
            "lower bound");
}

TEST(PlanCheck, FewerCopiesCountOnlyWithinTheBoundOrTheBalanceOfThePlan) {
  const Prediction plan = checked_prediction("placement", 1.5, {1.05});
  const auto better_than_plan = [&](double copies, double imbalance) {
    return check_predictions(plan, {checked_prediction("eplb", copies, {imbalance})}, kTwoRanks,
                             objective_for(kTwoRanks), 1.1)
        .better.has_value();
  };
  EXPECT_TRUE(better_than_plan(1.4, 1.1));
  EXPECT_FALSE(better_than_plan(1.4, 1.2));
  EXPECT_FALSE(better_than_plan(1.5, 1.0));
}

TEST(PlanCheck, ABalanceCountsOnlyWithAsFewCopiesForTheGoalImbalance) {
  PlacementObjective objective = objective_for(kTwoRanks);
  objective.goal = Goal::kImbalance;
  const Prediction plan = checked_prediction("placement", 1.5, {1.05});
  const auto better_than_plan = [&](double copies, double imbalance) {
    return check_predictions(plan, {checked_prediction("eplb", copies, {imbalance})}, kTwoRanks,
                             objective, std::nullopt)
        .better.has_value();
  };
  EXPECT_TRUE(better_than_plan(1.5, 1.04));
  EXPECT_FALSE(better_than_plan(1.6, 1.0));
  EXPECT_FALSE(better_than_plan(1.4, 1.05));
}

// The first half of the tokens chooses experts 0 and 1 together, and 2 and 3; the second half only
// 0 and 1. So the placement of the first half has all loads of the second on one rank.
TEST(PlanCheck, MakePlanWarnsOfTrafficThatHasChanged) {
  Matrix<ExpertId> choices(40, 2);
  for (std::int64_t t = 0; t < 40; ++t) {
    const int first = t < 20 && t % 2 == 0 ? 2 : 0;
    choices(t, 0) = ExpertId{first}, choices(t, 1) = ExpertId{first + 1};
  }
  const MatrixView<const ExpertId> view = choices;
  const std::int64_t starts[] = {0, 20};
  const Trace trace({.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {0}},
                    std::span(&view, 1), starts);
  Cluster cluster = kTwoRanks;
  cluster.device_flop_per_s = 1e12;
  PlanRequest request{.cluster = cluster};
  request.goal = {.max_imbalance = 1.1, .hidden = 64, .intermediate = 64};
  const MadePlan made = make_plan(trace, request, SequencePart::kFirstHalf);
  ASSERT_TRUE(made.check);
  EXPECT_EQ(made.check->bound->worst, 2);
  EXPECT_EQ(made.check->baselines[0].placement, "contiguous");
  EXPECT_EQ(made.check->baselines[1].placement, "eplb");
  for (const Prediction& step : made.plan.predictions) {
    EXPECT_EQ(step.predicted_layer_time_s.size(), 1) << step.placement;
  }
  EXPECT_NE(warning_text(*made.check, made.plan.predictions.back(), layer_indices_of(made.plan)),
            "");
  // On the tokens that it is fitted on, the search itself says which bounds it misses.
  EXPECT_EQ(make_plan(trace, request).check->bound, std::nullopt);
}

}  // namespace
}  // namespace c2r
