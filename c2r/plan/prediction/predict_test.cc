// Tests of predictions: a worked waterfall, and predictions from pair counts.
#include "c2r/plan/prediction/predict.h"

#include <gtest/gtest.h>

#include <cmath>

#include "c2r/core/testing.h"
#include "c2r/import/import.h"
#include "c2r/placement/baselines/baselines.h"
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

RoutedTokens all_of(const Trace& trace) {
  return {.trace = &trace, .ranges = ranges_of(trace, SequencePart::kAll), .name = "all"};
}

std::vector<std::string> names_of(const std::vector<WaterfallStep>& steps) {
  std::vector<std::string> names;
  for (const WaterfallStep& step : steps) names.push_back(step.prediction.placement);
  return names;
}

double copies(const WaterfallStep& step) {
  return step.prediction.copies_per_token[0];
}

using Names = std::vector<std::string>;

TEST(PredictWaterfall, TellsWhatEachStepSaves) {
  const Trace trace = crossing_pairs();
  const Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  NoProgress progress;
  const auto steps = predict_waterfall(plan, all_of(trace), nullptr,
                                       {.traffic = {.cluster = plan.cluster}}, 1, progress);
  ASSERT_EQ(names_of(steps), (Names{"per-expert", "deduplication", "placement"}));
  EXPECT_EQ(copies(steps[0]), 2);
  EXPECT_EQ(steps[0].prediction.wire_copies_per_token[0], 1);  // half of the copies stay at home
  EXPECT_EQ(copies(steps[1]), 2);
  EXPECT_EQ(copies(steps[2]), 1);
  EXPECT_EQ(steps[2].prediction.wire_copies_per_token[0], 0.5);
  EXPECT_EQ(steps[2].prediction.imbalance[0], 1);
  EXPECT_EQ(steps[2].prediction.num_tokens, 4);
  EXPECT_EQ(steps[2].volumes[0].total_copies(), 4 * 2);  // from each of two homes
  EXPECT_EQ(steps[2].volumes[0].denominator, 2);
}

// Tokens 0 1, 0 2 and 0 3 (twice): expert 0 is on both ranks, beside 1 and 2, and beside 3.
TEST(PredictWaterfall, TellsReplicasFromPlacement) {
  const auto path = testing::temporary_path("trace.safetensors");
  TraceWriter writer(path, {.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1, 2}},
                     false);
  std::vector<ExpertId> ids;
  for (const int other : {1, 2, 3, 3}) {
    ids.insert(ids.end(), {ExpertId{0}, ExpertId{other}});
  }
  for (const int layer : {0, 1}) writer.append(layer, ids, {}, "test");
  writer.finish();
  const Trace trace(path);
  Plan plan = plan_with(make_placement(4, {{0, 1}, {2, 3}}));
  plan.layers.push_back({.layer_index = 2, .placement = make_placement(4, {{0, 1, 2}, {0, 3, 1}})});
  NoProgress progress;
  PredictRequest request{
      .traffic = {.cluster = plan.cluster, .replica_rule = ReplicaRule::kFewestRanks}};
  auto steps = predict_waterfall(plan, all_of(trace), nullptr, request, 1, progress);
  ASSERT_EQ(names_of(steps), (Names{"per-expert", "deduplication", "placement", "replicas"}));
  EXPECT_EQ(steps[2].prediction.copies_per_token[0], steps[3].prediction.copies_per_token[0])
      << "the first layer has no replicas";
  EXPECT_EQ(steps[2].prediction.copies_per_token[1], 1.5) << "one slot of 0 serves all";
  EXPECT_EQ(steps[3].prediction.copies_per_token[1], 1);

  request.traffic.copy_mode = CopyMode::kPerExpert;
  steps = predict_waterfall(plan, all_of(trace), nullptr, request, 1, progress);
  EXPECT_EQ(names_of(steps), (Names{"per-expert", "placement", "replicas"}));
  request.traffic.copy_mode = CopyMode::kAllGather;
  steps = predict_waterfall(plan, all_of(trace), nullptr, request, 1, progress);
  EXPECT_EQ(names_of(steps)[1], "all-gather");
}

TEST(PredictWaterfall, EndsWithTheConstraint) {
  const Trace trace = crossing_pairs();
  Plan plan = plan_with(make_placement(4, {{0, 1}, {2, 3}}));
  plan.cluster.device_flop_per_s = 1;
  NoProgress progress;
  const RoutedTokens all = all_of(trace);
  // The "constrained" recording is one token of the four: as bad, and a batch of one.
  const RoutedTokens constrained{.trace = &trace, .ranges = {{0, 1}}, .name = "constrained"};
  const PredictRequest request{
      .traffic = {.cluster = plan.cluster},
      .layer_time = LayerTimeOptions{.format = {.hidden = 1}, .flop_per_choice = 1}};
  const ConstrainedTokens same_plan{.tokens = constrained, .plan = plan};
  auto steps = predict_waterfall(plan, all, &same_plan, request, 1, progress);
  ASSERT_EQ(names_of(steps), (Names{"per-expert", "deduplication", "placement", "constraint"}));
  EXPECT_EQ(steps[3].prediction.trace, "constrained");
  EXPECT_EQ(steps[3].prediction.num_tokens, 1);
  EXPECT_EQ(copies(steps[3]), 2);
  EXPECT_EQ(steps[3].prediction.predicted_layer_time_s, steps[2].prediction.predicted_layer_time_s)
      << "times are of equally many tokens";

  // The plan that puts together what this token chose: the other steps stay as they are.
  const Plan made_for_it = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  const ConstrainedTokens own_plan{.tokens = constrained, .plan = made_for_it};
  const double placed = copies(steps[2]);
  steps = predict_waterfall(plan, all, &own_plan, request, 1, progress);
  EXPECT_EQ(copies(steps[2]), placed);
  EXPECT_EQ(copies(steps[3]), 1);
  Plan of_another_model = made_for_it;
  of_another_model.num_experts = 6;
  const ConstrainedTokens wrong{.tokens = constrained, .plan = of_another_model};
  EXPECT_THROW(predict_waterfall(plan, all, &wrong, request, 1, progress), Error);
}

TEST(PredictWaterfall, CountsPairsLikeTokensWhereTopKIsTwo) {
  const Trace trace = crossing_pairs();
  const Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  NoProgress progress;
  CollaborationStatistics statistics = count_collaboration(trace, 1, progress);
  const PredictRequest request{.traffic = {.cluster = plan.cluster}};
  const auto expected = predict_waterfall(plan, all_of(trace), nullptr, request, 1, progress);
  const RoutedTokens pairs{.statistics = &statistics, .name = "pairs"};
  const auto found = predict_waterfall(plan, pairs, nullptr, request, 1, progress);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t s = 0; s < found.size(); ++s) EXPECT_EQ(found[s].volumes, expected[s].volumes);
  statistics.has_pairs = false;
  EXPECT_FALSE(
      predict_waterfall(plan, pairs, nullptr, request, 1, progress)[0].prediction.has_copies());
}

TEST(PredictWaterfall, CountsOnlyTheTokensAskedFor) {
  const Trace trace = crossing_pairs();
  const Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  NoProgress progress;
  const auto steps =
      predict_waterfall(plan, {.trace = &trace, .ranges = {{0, 1}}, .name = "first"}, nullptr,
                        {.traffic = {.cluster = plan.cluster}}, 1, progress);
  EXPECT_EQ(steps[2].prediction.num_tokens, 1);
  EXPECT_EQ(steps[2].prediction.imbalance[0], 2);  // one token, all on one of two ranks
}

TEST(RoutedTokensOf, NameTheirSource) {
  Matrix<ExpertId> ids(2, 2);
  ids(0, 1) = ids(1, 1) = ExpertId{1};
  const MatrixView<const ExpertId> layers[] = {ids};
  const TraceHeader header{.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1}};
  const std::int64_t starts[] = {0, 1};
  const Trace trace(header, layers, starts);
  const RoutedTokens odd = routed_tokens_of(trace, SequencePart::kOdd);
  EXPECT_EQ(odd.name, "memory, odd");
  ASSERT_EQ(odd.ranges.size(), 1);
  EXPECT_EQ(odd.ranges[0].begin, 1);
  CollaborationStatistics statistics = empty_statistics(header);
  EXPECT_EQ(error_of([&] { (void)routed_tokens_of(statistics, "s"); }), "s has no tokens");
  statistics.num_tokens = {3};
  EXPECT_EQ(routed_tokens_of(statistics, "s").name, "s, pair counts");
  EXPECT_EQ(routed_tokens_of(statistics, "s").statistics, &statistics);
  statistics.has_pairs = false;
  EXPECT_EQ(routed_tokens_of(statistics, "s").name, "s, loads");
  EXPECT_TRUE(routed_tokens_of(statistics, "s").has_loads_only());
  EXPECT_EQ(error_of([&] { (void)token_sets_of_pairs(statistics, "s"); }),
            "s holds loads only, which do not say which experts are chosen together");
}

// 3 tokens chose 0 and 1, 2 chose 2 alone, 1 chose none.
TEST(TokenSetsOfPairs, AreTheTokensOfTop2) {
  const TraceHeader header{.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1}};
  CollaborationStatistics statistics = empty_statistics(header);
  statistics.num_tokens = {6};
  auto& counts = statistics.coactivation[0];
  counts(0, 0) = counts(1, 1) = counts(0, 1) = counts(1, 0) = 3;
  counts(2, 2) = 2;
  const ModelTokenSets sets = token_sets_of_pairs(statistics, "s");
  EXPECT_EQ(sets.layers[0].num_tokens, 6);
  EXPECT_EQ(sets.layers[0].multiplicity, (std::vector<std::int64_t>{3, 2}));
  EXPECT_EQ(sets.layers[0].experts(1, 0), ExpertId{2});
  EXPECT_EQ(sets.layers[0].experts(1, 1), kNoExpert);
  EXPECT_EQ(tokens_of(sets).name, "s");
  counts(0, 1) = counts(1, 0) = 4;
  EXPECT_EQ(error_of([&] { (void)token_sets_of_pairs(statistics, "s"); }),
            "s: layer 0: expert 0 is in more pairs than it has tokens, which top-2 does not allow");
  statistics.header.top_k = 3;
  EXPECT_EQ(token_sets_of_pairs(statistics, "s").layers[0].num_tokens, 4) << "one for each pair";
}

// Loads 6, 2, 1, 3 on two ranks: 8 against 4 in order, 7 against 5 in the plan.
TEST(PredictWaterfall, KnowsTheImbalanceOfLoadsAndNoCopies) {
  const TraceHeader header{.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {1}};
  CollaborationStatistics statistics = empty_statistics(header, /*has_pairs=*/false);
  statistics.num_tokens = {6};
  for (std::int64_t e = 0; e < 4; ++e) {
    statistics.coactivation[0](e, e) = std::vector<std::int64_t>{6, 2, 1, 3}[std::size_t(e)];
  }
  const Plan plan =
      plan_of(header, {.ranks_per_node = 2}, {make_placement(4, {{0, 2}, {1, 3}})}, {});
  NoProgress progress;
  const auto steps = predict_waterfall(plan, routed_tokens_of(statistics, "s"), nullptr,
                                       {.traffic = default_traffic(plan.cluster)}, 1, progress);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].prediction.placement, "contiguous");
  EXPECT_EQ(steps[0].prediction.imbalance, std::vector<double>{8 / 6.0});
  EXPECT_EQ(steps[1].prediction.imbalance, std::vector<double>{7 / 6.0});
  EXPECT_TRUE(steps[1].prediction.is_exact);
  EXPECT_FALSE(steps[1].prediction.has_copies());
  EXPECT_EQ(error_of([&] {
              predict_waterfall(
                  plan, routed_tokens_of(statistics, "s"), nullptr,
                  {.traffic = default_traffic(plan.cluster), .layer_time = LayerTimeOptions{}}, 1,
                  progress);
            }),
            "s, loads holds loads only: without copies no time can be predicted");
}

// Engines choose among slots, so two of three slots of an expert on one rank serve two thirds of
// it.
TEST(PredictWaterfall, CountsAShareForEachSlotWhereOnlyLoadsAreKnown) {
  const TraceHeader header{.model = "m", .num_experts = 3, .top_k = 1, .layer_indices = {1}};
  CollaborationStatistics statistics = empty_statistics(header, /*has_pairs=*/false);
  statistics.num_tokens = {10};
  for (std::int64_t e = 0; e < 3; ++e) {
    statistics.coactivation[0](e, e) = std::vector<std::int64_t>{6, 1, 3}[std::size_t(e)];
  }
  const std::vector<std::vector<std::int32_t>> twice = {{0, 0, 1}, {0, 2, 1}};
  const Plan plan = plan_of(header, {.ranks_per_node = 2}, {placement_of_ranks(3, twice)}, {});
  EXPECT_EQ(plan.layers[0].wasted_slots,
            (std::vector<WastedSlot>{{.rank = RankId{0}, .slot = 1, .expert = ExpertId{0}}}));
  check_plan(plan);
  NoProgress progress;
  const RoutedTokens tokens = routed_tokens_of(statistics, "s");
  const auto steps = predict_waterfall(plan, tokens, nullptr,
                                       {.traffic = default_traffic(plan.cluster)}, 1, progress);
  EXPECT_DOUBLE_EQ(steps[1].prediction.imbalance[0], (2 + 3 + 0.5) / 5);
  EXPECT_EQ(placements_for(RoutedTokens{}, plan), placements_of(plan)) << "of a trace: empty";
}

TEST(PredictWaterfall, RefusesAPlanForAnotherModel) {
  const Trace trace = crossing_pairs();
  NoProgress progress;
  const auto error_with = [&](const Plan& plan) {
    return error_of([&] {
      predict_waterfall(plan, all_of(trace), nullptr, {.traffic = {.cluster = plan.cluster}}, 1,
                        progress);
    });
  };
  Plan plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  plan.top_k = 1;
  EXPECT_EQ(error_with(plan),
            "the plan is for 4 experts, top-1, but all has 4 experts, top-2; it was probably made "
            "for another model");
  plan = plan_with(make_placement(4, {{0, 2}, {1, 3}}));
  plan.layers[0].layer_index = 0;
  EXPECT_EQ(error_with(plan), "the plan's layer 0 has index 0, but in all it is 1");
}

// The published answers for LLaMA-MoE on 2 ranks (k = 2, so that pair counts are exact): without
// placement or constraint 1.585, placed for T = 2 and routed with T = 2 1.178.
TEST(PredictWaterfallOnRealData, ReproducesThePublishedConstraint) {
  const auto counts_of = [](const std::string& matrix) {
    return testing::real_data(fmt::format("c2r-official/llama_moe_3_5b_2_8_{}_i64.npy", matrix));
  };
  C2R_SKIP_WITHOUT(counts_of("base"));
  const auto base =
      import_statistics({.format = "coactivation", .inputs = {counts_of("base")}, .top_k = 2});
  const auto top_2 =
      import_statistics({.format = "coactivation", .inputs = {counts_of("topt_2")}, .top_k = 2});
  Plan plan{.model = "m", .num_experts = 8, .top_k = 2, .cluster = {.ranks_per_node = 2}};
  for (std::size_t layer = 0; layer < top_2.coactivation.size(); ++layer) {
    plan.layers.push_back(
        {.layer_index = top_2.header.layer_indices[layer],
         .placement = place_baseline(
             "exhaustive",
             {.counts = top_2.coactivation[layer], .cluster = plan.cluster, .slots_per_rank = 4})});
  }
  const RoutedTokens unconstrained{.statistics = &base, .name = "base"};
  const RoutedTokens constrained{.statistics = &top_2, .name = "t2"};
  NoProgress progress;
  const ConstrainedTokens same_plan{.tokens = constrained, .plan = plan};
  const auto steps = predict_waterfall(plan, unconstrained, &same_plan,
                                       {.traffic = {.cluster = plan.cluster}}, 1, progress);
  std::vector<double> means;
  for (const WaterfallStep& step : steps) {
    EXPECT_TRUE(step.prediction.is_exact);
    double sum = 0;
    for (const double layer_copies : step.prediction.copies_per_token) sum += layer_copies;
    means.push_back(std::round(1000 * sum / double(plan.num_layers())));
  }
  EXPECT_EQ(means[0], 2000);
  EXPECT_EQ(means[1], 1585);
  EXPECT_EQ(means[3], 1178);
}

}  // namespace
}  // namespace c2r
