// Tests of plans that are made from the plan that runs.
#include "c2r/plan/plan_moves.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;

// Tokens that prefer some of 8 experts, in 2 layers and 4 sequences.
Trace moving_trace(unsigned seed) {
  std::mt19937_64 rng(seed);
  std::vector<Matrix<ExpertId>> layers(2, Matrix<ExpertId>(160, 2));
  for (Matrix<ExpertId>& layer : layers) {
    for (std::int64_t t = 0; t < 160; ++t) {
      const auto first = std::int32_t(uniform_below(8, rng) & uniform_below(8, rng));
      layer(t, 0) = ExpertId{first};
      layer(t, 1) = ExpertId{(first + 3 + std::int32_t(uniform_below(2, rng))) % 8};
    }
  }
  const std::vector<MatrixView<const ExpertId>> views(layers.begin(), layers.end());
  const std::int64_t starts[] = {0, 40, 80, 120};
  return Trace({.model = "m", .num_experts = 8, .top_k = 2, .layer_indices = {0, 1}}, views,
               starts);
}

// Tokens of four subjects, which mostly choose every fourth of 16 experts.
Trace trace_of_subjects() {
  std::mt19937_64 rng(1);
  Matrix<ExpertId> tokens(600, 3);
  for (std::int64_t t = 0; t < tokens.rows(); ++t) {
    const auto row = tokens.row(t);
    for (std::size_t chosen = 0; chosen < row.size();) {
      const auto expert = std::int32_t(uniform_below(16, rng));
      const bool is_wanted = expert % 4 == t % 4 || uniform_below(4, rng) == 0;
      if (is_wanted && std::ranges::count(row.first(chosen), ExpertId{expert}) == 0) {
        row[chosen++] = ExpertId{expert};
      }
    }
  }
  const MatrixView<const ExpertId> view = tokens;
  return Trace({.num_experts = 16, .top_k = 3, .layer_indices = {0}}, std::span(&view, 1));
}

TEST(PlanMoves, AFullReplanIsTheNewPlanWithOtherLabels) {
  const Trace trace = moving_trace(1);
  const PlanRequest request{.cluster = {.ranks_per_node = 4}};
  const Plan fresh = make_plan(trace, request).plan;
  const Plan running = make_plan(moving_trace(2), request).plan;
  PlanRequest again = request;
  again.from = RunningPlan{.plan = running, .name = "old.json"};
  const MadePlan made = make_plan(trace, again);
  EXPECT_EQ(made.plan.predictions.back().copies_per_token,
            fresh.predictions.back().copies_per_token);
  EXPECT_EQ(made.plan.predictions.back().imbalance, fresh.predictions.back().imbalance);
  std::int64_t moved = 0, moved_as_found = 0;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const Placement& old = running.layers[layer].placement;
    moved += num_moved_experts(old, made.plan.layers[layer].placement);
    moved_as_found += num_moved_experts(old, fresh.layers[layer].placement);
    EXPECT_EQ(made.plan.layers[layer].placement, made.search->layers[layer].placement);
  }
  EXPECT_EQ(made.moves->num_moved, moved);
  EXPECT_LE(moved, moved_as_found);
  // A plan that runs already takes no move.
  again.from->plan = fresh;
  EXPECT_EQ(make_plan(trace, again).moves->num_moved, 0);
}

TEST(PlanMoves, LayersThatTheSearchDoesNotImproveStayAsTheyRun) {
  const Trace trace = trace_of_subjects();
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .redundant_slots_per_rank = 1};
  request.goal.max_imbalance = 1.2;
  const Plan running = make_plan(trace, request).plan;
  request.effort = 1e-6;
  const Plan fresh = make_plan(trace, request).plan;
  EXPECT_GT(mean_over_layers(fresh.predictions.back().copies_per_token),
            mean_over_layers(running.predictions.back().copies_per_token))
      << "the case is not in this test";
  request.from = RunningPlan{.plan = running, .name = "old.json"};
  const MadePlan made = make_plan(trace, request);
  EXPECT_EQ(made.plan.layers, running.layers);
  EXPECT_EQ(made.moves->num_moved, 0);
  EXPECT_EQ(made.plan.predictions.back().copies_per_token,
            running.predictions.back().copies_per_token);
}

TEST(PlanMoves, ABoundOnMovesIsKept) {
  const Trace trace = moving_trace(1);
  PlanRequest request{.cluster = {.ranks_per_node = 4}};
  request.from = RunningPlan{.plan = make_plan(moving_trace(2), request).plan, .name = "old.json"};
  request.goal.max_imbalance = 1.5;
  double cost_before = 1e9;
  for (const std::int64_t max_moves : {0, 4, 100}) {
    request.from->max_moves = max_moves;
    const MadePlan made = make_plan(trace, request);
    EXPECT_LE(made.moves->num_moved, max_moves);
    EXPECT_EQ(made.plan.provenance.ended_by, "work");
    if (max_moves == 0) {
      EXPECT_EQ(made.plan.layers, request.from->plan.layers);
    }
    const double cost = made.search->mean_value + 10 * double(made.search->num_missed_bounds);
    EXPECT_LE(cost, cost_before + 1e-9);
    cost_before = cost;
  }
}

TEST(PlanMoves, PayAfterTheTokensThatSaveAsManyBytesOrSeconds) {
  Plan running = testing::small_plan(), made = running;
  made.layers[0].placement = testing::make_placement(4, {{0, 1}, {2, 3}});  // 1 and 3 change places
  const Prediction before = running.predictions[0];
  Prediction planned = before;
  planned.wire_copies_per_token = {0.25, 0.75};
  PlanMoves moves = moves_of(running, made, before, planned, 0, 1e6);
  EXPECT_EQ(moves.num_moved, 2);
  EXPECT_EQ(moves.num_slots, 8);
  EXPECT_EQ(moves.tokens_to_pay, std::nullopt) << "nobody knows the bytes of a copy";
  moves = moves_of(running, made, before, planned, 100, 1e6);
  EXPECT_DOUBLE_EQ(*moves.move_cost, 2e6);
  EXPECT_DOUBLE_EQ(*moves.saved_per_token, 0.3 * 100 * 4);
  EXPECT_DOUBLE_EQ(*moves.tokens_to_pay, 2e6 / 120);
  EXPECT_EQ(moves_text(moves, planned),
            "2 of 8 slots get another expert (25.0 %); the running plan: 1.300 copies a token, "
            "rank imbalance 1.125 (worst layer 1.250); the new one: 1.300, rank imbalance 1.125 "
            "(worst layer 1.250)\n"
            "loading these experts takes 2 MB on the wire; a step of 8192 tokens saves 0.983 MB on "
            "the wire: the moves pay after 2.035 steps\n");
  Prediction timed = planned, timed_before = before;
  timed_before.predicted_layer_time_s = {0.002, 0.002};
  timed.predicted_layer_time_s = {0.001, 0.002};
  moves = moves_of(running, made, timed_before, timed, 100, 4e8);  // one expert over 400 GB/s
  EXPECT_DOUBLE_EQ(*moves.move_cost, 1e-3);
  EXPECT_DOUBLE_EQ(*moves.saved_per_token, 1e-3 / 10);  // 10 tokens
  EXPECT_DOUBLE_EQ(*moves.tokens_to_pay, 10);
  std::swap(timed.predicted_layer_time_s, timed_before.predicted_layer_time_s);
  moves = moves_of(running, made, timed_before, timed, 100, 4e8);
  EXPECT_TRUE(std::isinf(*moves.tokens_to_pay));
  EXPECT_NE(moves_text(moves, timed).find("never pays"), std::string::npos);
}

// The running plan has a slot in each layer whose expert its rank holds twice.
TEST(PlanMoves, WastedSlotsGetExpertsFirst) {
  const Trace trace = moving_trace(1);
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .redundant_slots_per_rank = 1};
  request.goal.max_imbalance = 100;
  Plan running = make_plan(moving_trace(2), request).plan;
  for (PlanLayer& layer : running.layers) {
    auto& slots = layer.placement.slots;
    std::int64_t rank = 0;
    while (std::ranges::count(slots.all(), slots(rank, 2)) < 2) ++rank;
    slots(rank, 2) = kNoExpert;
    layer.wasted_slots = {
        {.rank = RankId{std::int32_t(rank)}, .slot = 2, .expert = slots(rank, 0)}};
  }
  check_plan(running);
  request.from = RunningPlan{.plan = running, .name = "old.json", .max_moves = 1};
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "old.json has 2 wasted slots, each of which gets an expert before others move: allow "
            "at least 2 moves instead of 1");
  for (const std::int64_t max_moves : {2, 6}) {
    request.from->max_moves = max_moves;
    const MadePlan made = make_plan(trace, request);
    EXPECT_LE(made.moves->num_moved, max_moves);
    EXPECT_GE(made.moves->num_moved, 2);
    EXPECT_LE(mean_over_layers(made.plan.predictions.back().copies_per_token),
              mean_over_layers(made.moves->before.copies_per_token) + 1e-9);
    for (const PlanLayer& layer : made.plan.layers) {
      EXPECT_TRUE(layer.wasted_slots.empty());
      check_placement(layer.placement);
    }
  }
}

TEST(PlanMoves, RefusesAnotherModelClusterOrSlots) {
  const Trace trace = moving_trace(1);
  PlanRequest request{.cluster = {.ranks_per_node = 4}};
  const Plan running = make_plan(trace, request).plan;
  const auto refusal = [&](PlanRequest asked, Plan plan, std::optional<std::int64_t> max_moves) {
    asked.from = RunningPlan{.plan = plan, .name = "old.json", .max_moves = max_moves};
    return error_of([&] { make_plan(trace, asked); });
  };
  Plan other = running;
  other.num_experts = 9;
  EXPECT_EQ(
      refusal(request, other, {}),
      "old.json: the plan is for 9 experts, top-2, but the trace has 8 experts, top-2; it was "
      "probably made for another model");
  PlanRequest two = request;
  two.cluster.ranks_per_node = 2;
  EXPECT_EQ(refusal(two, running, {}),
            "old.json is for a cluster of 1x4 ranks, but the new plan is for 1x2");
  PlanRequest more = request;
  more.redundant_slots_per_rank = 1;
  EXPECT_EQ(refusal(more, running, {}), "no error");
  EXPECT_EQ(refusal(more, running, 3),
            "old.json has 2 slots on each rank in layer 0, but the new plan has 3: with a bound on "
            "moves both have the same");
  EXPECT_EQ(refusal(request, running, -1), "-1 experts may move, but must be at least 0");
  request.goal.bound_on = BoundOn::kUnseen;
  EXPECT_EQ(refusal(request, running, 3),
            "a bound on moves takes no bound on unseen tokens, only on the fitted ones");
}

}  // namespace
}  // namespace c2r
