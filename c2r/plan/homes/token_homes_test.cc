// Tests of homes by token ids: weights and scores by their definition, and what they save.
#include "c2r/plan/homes/token_homes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/plan/homes/testing_internal.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

using testing::error_of;

// Sequences of 4 subjects: a token is mostly one of the 10 ids of its subject, and an id mostly
// chooses two of the 4 experts of its subject in each of 2 layers. Ids are multiples of 3.
// @param num_strays of 10 tokens those with experts of any subject; 10: ids say nothing
// @param has_ids whether the trace says what the tokens are
Trace trace_with_subject_ids(unsigned seed, std::int64_t num_sequences,
                             std::uint64_t num_strays = 2, bool has_ids = true) {
  std::mt19937_64 rng(seed);
  std::vector<std::vector<ExpertId>> choices(2);
  std::vector<std::int64_t> starts;
  std::vector<TokenId> ids;
  for (std::int64_t s = 0; s < num_sequences; ++s) {
    starts.push_back(std::ssize(ids));
    const auto subject = std::int32_t(uniform_below(4, rng));
    const auto length = std::int64_t(6 + uniform_below(20, rng));
    for (std::int64_t t = 0; t < length; ++t) {
      const bool is_common = uniform_below(3, rng) == 0;
      const auto of_subject = is_common ? std::int32_t(uniform_below(4, rng)) : subject;
      ids.push_back(TokenId{3 * (10 * of_subject + std::int32_t(uniform_below(10, rng)))});
      for (auto& layer : choices) {
        const bool strays = uniform_below(10, rng) < num_strays;
        const auto group = strays ? std::int32_t(uniform_below(4, rng)) : of_subject;
        const auto expert = std::int32_t(uniform_below(4, rng));
        layer.push_back(ExpertId{4 * group + expert});
        layer.push_back(ExpertId{4 * group + (expert + 1) % 4});
      }
    }
  }
  const auto num_tokens = std::ssize(ids);
  std::vector<MatrixView<const ExpertId>> views;
  for (const auto& layer : choices) views.emplace_back(layer.data(), num_tokens, 2);
  if (!has_ids) ids.clear();
  return Trace({.model = "m", .num_experts = 16, .top_k = 2, .layer_indices = {1, 2}}, views,
               starts, "m", ids);
}

constexpr Cluster kFourRanks{.ranks_per_node = 4};

// The definition in token_homes.h, without prices and for all ids. Placements have no replicas.
struct ReferenceWeights {
  std::map<TokenId, std::vector<double>> estimate;
  std::map<TokenId, double> num_tokens;
};

ReferenceWeights reference_weights(const Trace& trace, std::span<const Placement> placements) {
  const std::int64_t num_tokens = trace.num_tokens();
  const auto ids = trace.token_ids(0, num_tokens);
  Matrix<double> shares(num_tokens, 4);
  std::vector<double> mean(4);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::size_t layer = 0; layer < placements.size(); ++layer) {
      const auto topk_idx = trace.topk_idx(std::int64_t(layer), t, t + 1);
      std::set<RankId> ranks;
      for (const ExpertId e : topk_idx.row(0)) {
        ranks.insert(rank_of(placements[layer])[std::size_t(e)]);
      }
      for (const RankId rank : ranks) shares(t, std::int64_t(rank)) += 0.5;
    }
    for (std::size_t r = 0; r < 4; ++r) mean[r] += shares(t, std::int64_t(r)) / double(num_tokens);
  }
  ReferenceWeights reference;
  std::map<TokenId, std::vector<double>> sums;
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const TokenId id = ids[std::size_t(t)];
    reference.num_tokens[id] += 1;
    auto& sum = sums[id];
    sum.resize(4);
    for (std::size_t r = 0; r < 4; ++r) sum[r] += shares(t, std::int64_t(r)) - mean[r];
  }
  double within = 0, of_ids = 0, squared = 0;
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const TokenId id = ids[std::size_t(t)];
    for (std::size_t r = 0; r < 4; ++r) {
      const double of_id = sums[id][r] / reference.num_tokens[id];
      within += std::pow(shares(t, std::int64_t(r)) - mean[r] - of_id, 2);
      of_ids += of_id * of_id;
    }
  }
  const double num_ids = double(sums.size()), all = double(num_tokens);
  for (const auto& [id, n] : reference.num_tokens) squared += n * n;
  within /= all - num_ids;
  const double between =
      (of_ids / (num_ids - 1) - within) / ((all - squared / all) / (num_ids - 1));
  for (auto& [id, sum] : sums) {
    for (double& value : sum) value /= reference.num_tokens[id] + within / between;
    reference.estimate[id] = sum;
  }
  return reference;
}

TEST(TokenWeights, AreThoseOfTheDefinition) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE(seed);
    const Trace trace = trace_with_subject_ids(seed, 12);
    const auto placements = contiguous_placements(trace.header(), kFourRanks);
    NoProgress progress;
    const auto weights = fit_token_weights(routed_tokens_of(trace, SequencePart::kAll), placements,
                                           kFourRanks, progress);
    const auto reference = reference_weights(trace, placements);
    std::size_t num_kept = 0;
    for (const auto& [id, n] : reference.num_tokens) num_kept += n >= 4 ? 1 : 0;
    ASSERT_EQ(weights.ids.size(), num_kept);
    EXPECT_LT(num_kept, reference.num_tokens.size());  // some ids are too rare
    for (std::int64_t k = 0; k < weights.weights.rows(); ++k) {
      const auto& expected = reference.estimate.at(weights.ids[std::size_t(k)]);
      for (std::size_t r = 0; r < 4; ++r) {
        // Both are rounded to 1e-5.
        EXPECT_NEAR(weights.weights(k, std::int64_t(r)) - weights.of_others[r], expected[r],
                    1.01e-5);
      }
    }
  }
}

TEST(TokenWeights, AreNearZeroWhereIdsSayNothing) {
  const auto largest = [](std::uint64_t num_strays) {
    const Trace trace = trace_with_subject_ids(3, 30, num_strays);
    NoProgress progress;
    const auto weights =
        fit_token_weights(routed_tokens_of(trace, SequencePart::kAll),
                          contiguous_placements(trace.header(), kFourRanks), kFourRanks, progress);
    double most = 0;
    for (std::int64_t k = 0; k < weights.weights.rows(); ++k) {
      for (std::int64_t r = 0; r < 4; ++r) {
        most = std::max(most, std::abs(weights.weights(k, r) - weights.of_others[std::size_t(r)]));
      }
    }
    return most;
  };
  EXPECT_GT(largest(2), 0.4);
  EXPECT_LT(largest(10), 0.1);
}

TEST(TokenWeights, AreOfSoManyIdsThatAPlanStaysSmall) {
  // 4100 ids on 16 ranks, each 4 times; ids up to 3 always choose another expert.
  std::vector<ExpertId> choices;
  std::vector<TokenId> ids;
  std::mt19937_64 rng(1);
  for (std::int32_t id = 0; id < 4100; ++id) {
    for (int t = 0; t < 4; ++t) {
      ids.push_back(TokenId{id});
      const auto expert = std::uint64_t(id) % 16;
      choices.push_back(ExpertId{std::int32_t(id < 4 ? uniform_below(16, rng) : expert)});
    }
  }
  const std::vector<MatrixView<const ExpertId>> views = {{choices.data(), std::ssize(ids), 1}};
  const Trace trace({.num_experts = 16, .top_k = 1, .layer_indices = {0}}, views, {}, "m", ids);
  const Cluster cluster{.ranks_per_node = 16};
  NoProgress progress;
  const auto weights =
      fit_token_weights(routed_tokens_of(trace, SequencePart::kAll),
                        contiguous_placements(trace.header(), cluster), cluster, progress);
  ASSERT_EQ(std::ssize(weights.ids), kMaxTokenWeights / 16);
  EXPECT_EQ(weights.ids.front(), TokenId{4});
  EXPECT_EQ(weights.ids.back(), TokenId{4099});
}

TEST(TokenScores, AreTheMeanOfTheWeights) {
  TokenWeights weights{
      .ids = {TokenId{2}, TokenId{7}}, .weights = {2, 2}, .of_others = {0.5, -0.5}};
  weights.weights(0, 0) = 1;
  weights.weights(1, 1) = 2;
  const auto scores = [&](std::initializer_list<int> numbers) {
    std::vector<TokenId> ids;
    for (const int number : numbers) ids.push_back(TokenId{number});
    return token_scores(weights, ids);
  };
  EXPECT_EQ(scores({2}), (std::vector<double>{1, 0}));
  EXPECT_EQ(scores({2, 7, 7, 3}), (std::vector<double>{1.5 / 4, 3.5 / 4}));
  EXPECT_EQ(scores({0, 8}), (std::vector<double>{0.5, -0.5}));
  EXPECT_EQ(scores({}), (std::vector<double>{0, 0}));
}

PlanRequest request_by_ids() {
  return {.cluster = kFourRanks, .home_tokens = 4, .has_token_weights = true};
}

TEST(HomesByIds, SaveCopiesOnSequencesThatWereNotFitted) {
  const Trace trace = trace_with_subject_ids(2, 200);
  const MadePlan made = make_plan(trace, request_by_ids(), SequencePart::kEven);
  ASSERT_TRUE(made.homes);
  std::map<std::string, double> wire;
  for (const HomesRow& row : made.homes->rows) {
    wire[row.name] = mean_over_layers(row.prediction.wire_copies_per_token);
    EXPECT_LE(row.imbalance, 1.1) << row.name;
  }
  ASSERT_EQ(wire.size(), 6);
  EXPECT_LT(wire["first token ids"], 0.9 * wire["uniform"]);
  EXPECT_LT(wire["all token ids"], wire["first token ids"]);
  EXPECT_LE(wire["all tokens"], 1.001 * wire["all token ids"]);
  const auto& weights = *made.plan.homes->signature->token_weights;
  const auto odd = routed_tokens_of(trace, SequencePart::kOdd);
  EXPECT_NEAR(wire["first token ids"],
              testing::counted_wire(trace, assign_homes_by_ids(weights, odd, 4, 0), made.plan),
              1e-12);
  EXPECT_NEAR(wire["all token ids"],
              testing::counted_wire(trace, assign_homes_by_ids(weights, odd, 100, 0), made.plan),
              1e-12);
  EXPECT_EQ(parse_plan(plan_to_text(made.plan), "p"), made.plan);
}

TEST(HomesByIds, AreWhatASignatureWithTokenWeightsFollows) {
  const Trace trace = trace_with_subject_ids(4, 60);
  const Plan plan = make_plan(trace, request_by_ids()).plan;
  const auto tokens = routed_tokens_of(trace, SequencePart::kAll);
  PredictRequest request{.traffic = default_traffic(plan.cluster), .home_window = 16};
  request.traffic.homes = Homes::kSignature;
  NoProgress progress;
  const auto steps = predict_waterfall(plan, tokens, nullptr, request, 1, progress);
  const auto homes = assign_homes_by_ids(*plan.homes->signature->token_weights, tokens,
                                         std::numeric_limits<std::int64_t>::max(), 16);
  EXPECT_EQ(homes.first, homes.chosen);
  EXPECT_LE(homes.window_imbalance, 1.3);
  EXPECT_NEAR(mean_over_layers(steps.back().prediction.wire_copies_per_token),
              testing::counted_wire(trace, homes, plan), 1e-12);
}

TEST(HomesByIds, NeedTokenIds) {
  const std::string message =
      "homes by token ids need a trace with them, but m has none; `c2r profile --token-ids` "
      "records them";
  const Trace without = trace_with_subject_ids(1, 20, 2, false);
  EXPECT_EQ(error_of([&] { make_plan(without, request_by_ids()); }), message);
  const auto weights = *make_plan(trace_with_subject_ids(1, 20), request_by_ids())
                            .plan.homes->signature->token_weights;
  const RoutedTokens tokens{.trace = &without, .ranges = {{0, without.num_tokens()}}, .name = "m"};
  EXPECT_EQ(error_of([&] { assign_homes_by_ids(weights, tokens, 4, 0); }), message);
  PlanRequest request = request_by_ids();
  request.home_tokens.reset();
  EXPECT_EQ(error_of([&] { make_plan(without, request); }),
            "token weights are a part of the signature of homes, which is not asked for");
}

}  // namespace
}  // namespace c2r
