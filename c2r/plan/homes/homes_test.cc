// Tests of aligned labels, of signatures and of homes that follow them.
#include <gtest/gtest.h>

#include <numeric>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/homes/testing_internal.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/prediction/predict.h"
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

TEST(Homes, LabelsForHomesKeepMoreVisitsAtHomeThanAlignedOnes) {
  const auto at_home = [](std::span<const Matrix<double>> visits,
                          std::span<const std::vector<RankId>> label_of) {
    // Without a bound on balance the best home of a sequence is the label that it visits most.
    double sum = 0;
    for (std::int64_t s = 0; s < visits[0].rows(); ++s) {
      std::vector<double> of_label(std::size_t(visits[0].cols()));
      for (std::size_t layer = 0; layer < visits.size(); ++layer) {
        for (std::int64_t r = 0; r < std::ssize(of_label); ++r) {
          of_label[index(label_of[layer][std::size_t(r)])] += visits[layer](s, r);
        }
      }
      sum += std::ranges::max(of_label);
    }
    return sum;
  };
  double aligned_sum = 0, chosen_sum = 0, best_sum = 0;
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    std::vector<Matrix<double>> visits(2, Matrix<double>(60, 3));
    for (auto& layer : visits) {
      for (double& count : layer.all()) count = double(uniform_below(9, rng));
    }
    const std::vector<std::int64_t> lengths(60, 8);
    const Cluster cluster{.ranks_per_node = 3};
    const auto aligned = aligned_labels(visits, cluster);
    double best = 0;
    for (const auto& second : labels_of_three()) {
      best = std::max(best, at_home(visits, std::vector{labels_of_three()[0], second}));
    }
    aligned_sum += at_home(visits, aligned);
    chosen_sum += at_home(visits, labels_for_homes(visits, lengths, cluster, aligned));
    best_sum += best;
  }
  EXPECT_GE(chosen_sum, aligned_sum);
  EXPECT_GT(chosen_sum, 0.97 * best_sum);
  EXPECT_LE(chosen_sum, best_sum);
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
  const auto& rows = made.homes->rows;
  ASSERT_EQ(rows.size(), 4u);  // uniform, prefix, earlier turn, all tokens
  std::vector<double> wire;
  for (const HomesRow& row : rows) {
    wire.push_back(mean_over_layers(row.prediction.wire_copies_per_token));
    EXPECT_LE(row.imbalance, 1.1) << row.name;
    EXPECT_EQ(row.prediction.imbalance, plain.predictions.back().imbalance) << row.name;
  }
  EXPECT_EQ(wire[0], mean_over_layers(plain.predictions.back().wire_copies_per_token));
  EXPECT_LT(wire[1], 0.95 * wire[0]);
  EXPECT_LT(wire[2], 0.8 * wire[0]);
  EXPECT_LT(wire[3], wire[2]);
  const auto odd = routed_tokens_of(trace, SequencePart::kOdd);
  for (const auto& [prefix, row] :
       {std::pair(PrefixRuns::kInTurn, 1u), {PrefixRuns::kAtHome, 2u}}) {
    const auto homes = assign_homes(*made.plan.homes->signature, odd, prefix, 0);
    EXPECT_NEAR(wire[row], testing::counted_wire(trace, homes, made.plan), 1e-12);
  }
  EXPECT_EQ(parse_plan(plan_to_text(made.plan), "p"), made.plan);
}

TEST(Homes, AreTheLastStepOfAWaterfall) {
  const Trace trace = topical_trace(4, 60);
  const PlanRequest made{.cluster = {.ranks_per_node = 4}, .home_tokens = 4};
  const Plan plan = make_plan(trace, made).plan;
  const auto tokens = routed_tokens_of(trace, SequencePart::kAll);
  PredictRequest request{.traffic = default_traffic(plan.cluster), .home_window = 16};
  NoProgress progress;
  const auto uniform = predict_waterfall(plan, tokens, nullptr, request, 1, progress);
  request.traffic.homes = Homes::kSignature;
  const auto steps = predict_waterfall(plan, tokens, nullptr, request, 1, progress);
  ASSERT_EQ(steps.size(), uniform.size() + 1);
  for (std::size_t s = 0; s < uniform.size(); ++s) {
    EXPECT_EQ(steps[s].prediction, uniform[s].prediction);
  }
  EXPECT_EQ(steps.back().prediction.placement, "homes");
  EXPECT_EQ(steps.back().prediction.homes, Homes::kSignature);
  EXPECT_EQ(steps.back().volumes[0].denominator, 1);
  const auto homes = assign_homes(*plan.homes->signature, tokens, PrefixRuns::kInTurn, 16);
  EXPECT_NEAR(mean_over_layers(steps.back().prediction.wire_copies_per_token),
              testing::counted_wire(trace, homes, plan), 1e-12);
  Plan without = plan;
  without.homes.reset();
  EXPECT_EQ(
      error_of([&] { (void)predict_waterfall(without, tokens, nullptr, request, 1, progress); }),
      "the plan has no signature of homes; make it with --homes signature");
}

TEST(Homes, EveryWindowIsSpreadEvenly) {
  const Trace trace = topical_trace(3, 400);
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .home_tokens = 4};
  const auto signature = *make_plan(trace, request).plan.homes->signature;
  const auto tokens = routed_tokens_of(trace, SequencePart::kAll);
  for (const PrefixRuns prefix : {PrefixRuns::kInTurn, PrefixRuns::kAtHome}) {
    const auto homes = assign_homes(signature, tokens, prefix, 40);
    EXPECT_LE(homes.window_imbalance, 1.15);
    EXPECT_LE(homes.imbalance, homes.window_imbalance);
    EXPECT_EQ(homes.chosen.size(), 400);
    for (std::size_t s = 0; s < 400; ++s) {
      EXPECT_EQ(homes.first[s],
                prefix == PrefixRuns::kAtHome ? homes.chosen[s] : RankId{std::int32_t(s % 4)});
    }
  }
  EXPECT_EQ(assign_homes(signature, tokens, PrefixRuns::kAtHome, 256).chosen,
            assign_homes(signature, tokens, PrefixRuns::kAtHome, 0).chosen);
}

TEST(Homes, RefuseWhatHasNoSequencesOrAnotherModel) {
  const Trace trace = topical_trace(1, 1);
  PlanRequest request{.cluster = {.ranks_per_node = 2}, .home_tokens = 4};
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "homes by signature need two sequences to fit, but memory has 1 there");
  const HomeSignature signature{.layer_index = 9, .num_tokens = 1, .weights = {2, 16}};
  const RoutedTokens tokens = routed_tokens_of(trace, SequencePart::kAll);
  EXPECT_EQ(error_of([&] { assign_homes(signature, tokens, PrefixRuns::kInTurn, 0); }),
            "the signature is of layer 9 with 16 experts, which memory does not have");
  EXPECT_EQ(error_of([&] { assign_homes(Matrix<double>(2, 2), tokens, 0, 0); }),
            "there are scores of 2 sequences, but 1 in memory, all");
}

}  // namespace
}  // namespace c2r
