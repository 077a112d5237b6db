// Tests of aligned labels, of signatures and of homes that follow them.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/predict.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;

// Sequences of topics: a topic prefers the experts [4 topic, 4 topic + 4) of 16, renamed in each of
// 3 layers.
Trace topical_trace(unsigned seed, std::int64_t num_sequences) {
  std::mt19937_64 rng(seed);
  std::vector<std::vector<std::int32_t>> renamed(3, std::vector<std::int32_t>(16));
  std::mt19937_64 names(7);
  for (auto& names_of_layer : renamed) {
    std::iota(names_of_layer.begin(), names_of_layer.end(), 0);
    shuffle(std::span(names_of_layer), names);
  }
  std::vector<std::vector<ExpertId>> choices(3);
  std::vector<std::int64_t> starts;
  std::int64_t num_tokens = 0;
  for (std::int64_t s = 0; s < num_sequences; ++s) {
    starts.push_back(num_tokens);
    const auto topic = std::int32_t(uniform_below(4, rng));
    const auto length = std::int64_t(4 + uniform_below(12, rng));
    for (std::int64_t t = 0; t < length; ++t, ++num_tokens) {
      for (std::size_t layer = 0; layer < 3; ++layer) {
        const bool strays = uniform_below(5, rng) == 0;
        const auto first = std::int32_t(strays ? uniform_below(16, rng)
                                               : 4 * std::uint64_t(topic) + uniform_below(4, rng));
        const auto second = std::int32_t((first & ~3) | ((first + 1) & 3));
        choices[layer].push_back(ExpertId{renamed[layer][std::size_t(first)]});
        choices[layer].push_back(ExpertId{renamed[layer][std::size_t(second)]});
      }
    }
  }
  std::vector<MatrixView<const ExpertId>> views;
  for (const auto& layer : choices) views.emplace_back(layer.data(), num_tokens, 2);
  return Trace({.model = "m", .num_experts = 16, .top_k = 2, .layer_indices = {1, 2, 4}}, views,
               starts);
}

// All labels of 3 ranks.
std::vector<std::vector<RankId>> labels_of_three() {
  std::vector<std::vector<RankId>> all;
  std::vector<int> order = {0, 1, 2};
  do all.push_back({RankId{order[0]}, RankId{order[1]}, RankId{order[2]}});
  while (std::next_permutation(order.begin(), order.end()));
  return all;
}

// The definition in fit_homes.h.
double alignment(std::span<const Matrix<double>> visits,
                 std::span<const std::vector<RankId>> label_of) {
  double value = 0;
  for (std::int64_t s = 0; s < visits[0].rows(); ++s) {
    std::vector<double> sums(std::size_t(visits[0].cols()));
    for (std::size_t layer = 0; layer < visits.size(); ++layer) {
      double mean = 0;
      for (const double count : visits[layer].row(s)) mean += count / double(sums.size());
      for (std::int64_t r = 0; r < std::ssize(sums); ++r) {
        sums[index(label_of[layer][std::size_t(r)])] += visits[layer](s, r) - mean;
      }
    }
    for (const double sum : sums) value += sum * sum;
  }
  return value;
}

TEST(Homes, AlignedLabelsOfTwoLayersAreTheBestOfAll) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    std::vector<Matrix<double>> visits(2, Matrix<double>(6, 3));
    for (auto& layer : visits) {
      for (double& count : layer.all()) count = double(uniform_below(9, rng));
    }
    double best = 0;
    for (const auto& first : labels_of_three()) {
      for (const auto& second : labels_of_three()) {
        best = std::max(best, alignment(visits, std::vector{first, second}));
      }
    }
    EXPECT_NEAR(alignment(visits, aligned_labels(visits, {.ranks_per_node = 3})), best, 1e-9);
  }
}

TEST(Homes, AlignedLabelsKeepNodesTogether) {
  std::mt19937_64 rng(1);
  std::vector<Matrix<double>> visits(3, Matrix<double>(5, 4));
  for (auto& layer : visits) {
    for (double& count : layer.all()) count = double(uniform_below(9, rng));
  }
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  for (const auto& labels : aligned_labels(visits, cluster)) {
    EXPECT_EQ(cluster.node_of(labels[0]), cluster.node_of(labels[1]));
    EXPECT_EQ(cluster.node_of(labels[2]), cluster.node_of(labels[3]));
  }
}

TEST(Homes, BalancedHomesAreNearTheBestOfAllWithinTheBound) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    Matrix<double> scores(8, 2);
    for (double& score : scores.all()) score = double(uniform_below(100, rng)) / 100;
    std::vector<std::int64_t> lengths;
    for (int s = 0; s < 8; ++s) lengths.push_back(std::int64_t(1 + uniform_below(5, rng)));
    const auto all = double(std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}));
    const auto value_of = [&](std::uint32_t homes) {
      double value = 0, tokens = 0;
      for (std::size_t s = 0; s < 8; ++s) {
        const auto home = std::int64_t((homes >> s) & 1u);
        value += scores(std::int64_t(s), home) * double(lengths[s]);
        tokens += home == 1 ? double(lengths[s]) : 0;
      }
      return std::max(tokens, all - tokens) > 1.2 * all / 2 ? -1 : value;
    };
    double best = -1;
    for (std::uint32_t homes = 0; homes < 256; ++homes) best = std::max(best, value_of(homes));
    std::uint32_t found = 0;
    const auto homes = balanced_homes(scores, lengths, 1.2);
    for (std::size_t s = 0; s < 8; ++s) found |= std::uint32_t(index(homes[s])) << s;
    EXPECT_GE(value_of(found), 0.85 * best);
    EXPECT_LE(value_of(found), best);
  }
}

TEST(Homes, WithoutABoundHomesAreThoseOfTheSignature) {
  const Trace trace = topical_trace(1, 20);
  const auto tokens = routed_tokens_of(trace, SequencePart::kAll);
  const auto placements = contiguous_placements(trace.header(), {.ranks_per_node = 4});
  NoProgress progress;
  const auto fitted = fit_homes(tokens, placements, {.ranks_per_node = 4}, 5, 2, progress);
  const auto sequences = sequences_in(trace, tokens.ranges);
  ASSERT_EQ(sequences.size(), 20);
  const auto scores = home_scores(fitted.signature, trace, sequences);
  const auto& indices = trace.header().layer_indices;
  const auto layer = std::ranges::find(indices, fitted.signature.layer_index) - indices.begin();
  const auto homes = balanced_homes(scores, std::vector<std::int64_t>(20, 1), 1e9);
  for (std::size_t s = 0; s < 20; ++s) {
    EXPECT_EQ(homes[s], home_of(fitted.signature,
                                trace.topk_idx(layer, sequences[s].begin, sequences[s].end)));
  }
}

// Copies that leave their home rank, by the definition.
double counted_wire(const Trace& trace, std::span<const TokenRange> ranges, const Plan& plan,
                    std::span<const RankId> home_of_token) {
  double copies = 0;
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const auto ranks = rank_of(plan.layers[layer].placement);
    for (const TokenRange& range : ranges) {
      const auto topk_idx = trace.topk_idx(std::int64_t(layer), range.begin, range.end);
      for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
        std::set<RankId> reached;
        for (const ExpertId e : topk_idx.row(t)) reached.insert(ranks[index(e)]);
        reached.erase(home_of_token[std::size_t(range.begin + t)]);
        copies += double(reached.size());
      }
    }
  }
  return copies / double(num_tokens_in(ranges)) / double(plan.layers.size());
}

TEST(Homes, APlanWithASignatureSavesCopiesOnSequencesThatItHasNotSeen) {
  const Trace trace = topical_trace(2, 200);
  PlanRequest request{.cluster = {.ranks_per_node = 4}};
  const Plan plain = make_plan(trace, request, SequencePart::kEven).plan;
  request.home_tokens = 4;
  const MadePlan made = make_plan(trace, request, SequencePart::kEven);
  // Labels change nothing but the labels.
  EXPECT_EQ(made.plan.predictions, plain.predictions);
  EXPECT_EQ(made.search->layers[0].placement, made.plan.layers[0].placement);
  ASSERT_TRUE(made.homes);
  const double uniform = mean_over_layers(plain.predictions.back().wire_copies_per_token);
  const double by_signature = mean_over_layers(made.homes->prediction.wire_copies_per_token);
  EXPECT_LT(by_signature, 0.8 * uniform);
  EXPECT_EQ(made.homes->prediction.imbalance, plain.predictions.back().imbalance);
  EXPECT_LE(made.homes->imbalance, 1.1);
  const auto odd = routed_tokens_of(trace, SequencePart::kOdd);
  const auto homes = assign_homes(*made.plan.homes->signature, odd, 0);
  EXPECT_NEAR(by_signature, counted_wire(trace, odd.ranges, made.plan, homes.of_token), 1e-12);
  EXPECT_EQ(parse_plan(plan_to_text(made.plan), "p"), made.plan);
}

TEST(Homes, EveryWindowIsSpreadEvenly) {
  const Trace trace = topical_trace(3, 400);
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .home_tokens = 4};
  const auto signature = *make_plan(trace, request).plan.homes->signature;
  const auto tokens = routed_tokens_of(trace, SequencePart::kAll);
  const auto homes = assign_homes(signature, tokens, 40);
  EXPECT_LE(homes.window_imbalance, 1.1);
  EXPECT_LE(homes.imbalance, homes.window_imbalance);
  EXPECT_EQ(homes.of_sequence.size(), 400);
  EXPECT_EQ(assign_homes(signature, tokens, 400).of_sequence,
            assign_homes(signature, tokens, 0).of_sequence);
}

TEST(Homes, RefuseWhatHasNoSequencesOrAnotherModel) {
  const Trace trace = topical_trace(1, 1);
  PlanRequest request{.cluster = {.ranks_per_node = 2}, .home_tokens = 4};
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "homes by signature need two sequences to fit, but memory has 1 there");
  const HomeSignature signature{.layer_index = 9, .num_tokens = 1, .weights = {2, 16}};
  EXPECT_EQ(
      error_of([&] { assign_homes(signature, routed_tokens_of(trace, SequencePart::kAll), 0); }),
      "the signature is of layer 9 with 16 experts, which memory does not have");
  const RoutedTokens tokens = routed_tokens_of(trace, SequencePart::kAll);
  NoProgress progress;
  EXPECT_EQ(error_of([&] {
              predict_with_homes(tokens, {}, contiguous_placements(trace.header(), request.cluster),
                                 {}, 1, progress);
            }),
            "there are 0 homes, but not as many tokens in memory, all");
}

}  // namespace
}  // namespace c2r
