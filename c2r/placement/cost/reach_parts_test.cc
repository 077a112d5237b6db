// Tests that the counts of parts add up to the count of all of them.
#include "c2r/placement/cost/reach_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

// `num_sequences` sequences of 7 tokens in one layer.
Trace random_sequences(std::int32_t num_experts, std::int64_t num_sequences, std::mt19937_64& rng) {
  Matrix<ExpertId> ids(7 * num_sequences, 3);
  for (std::int64_t t = 0; t < ids.rows(); ++t) {
    std::ranges::copy(testing::random_choices(num_experts, 3, rng), ids.row(t).begin());
  }
  std::vector<std::int64_t> starts;
  for (std::int64_t s = 0; s < num_sequences; ++s) starts.push_back(7 * s);
  const MatrixView<const ExpertId> layers[] = {ids};
  return {{.num_experts = num_experts, .top_k = 3, .layer_indices = {0}}, layers, starts};
}

void add(std::span<const std::int64_t> counts, std::span<std::int64_t> sums) {
  std::ranges::transform(sums, counts, sums.begin(), std::plus());
}

Reach sum_of(std::span<const Reach> parts) {
  Reach sum = parts[0];
  for (const Reach& part : parts.subspan(1)) {
    add(part.num_tokens, sum.num_tokens);
    add(part.choices_on_rank.all(), sum.choices_on_rank.all());
    add(part.tokens_on_rank.all(), sum.tokens_on_rank.all());
    add(part.tokens_on_node.all(), sum.tokens_on_node.all());
    add(part.choices_of_expert.all(), sum.choices_of_expert.all());
  }
  return sum;
}

class StoppedProgress final : public Progress {
 public:
  void begin(std::string_view) override {}
  void update(std::int64_t, std::int64_t) override {}
  bool is_stopped() const override { return true; }
};

TEST(CountReachOfParts, EndsWhenTheProgressIsStopped) {
  std::mt19937_64 rng(1);
  const Trace trace = random_sequences(8, 6, rng);
  const Placement placement = testing::random_placement(8, 4, 2, rng);
  const TrafficModel traffic{.cluster = {.ranks_per_node = 4}};
  const std::vector<TokenRange> all = {{0, 42}};
  StoppedProgress stopped;
  try {
    count_reach(trace, all, std::vector{placement}, traffic, 1, stopped);
    FAIL() << "was counted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kTimeout);
  }
  EXPECT_NO_THROW(count_reach_of_parts(trace, 0, std::span(&all, 1), std::span<const RankId>(),
                                       placement, traffic));
}

TEST(CountReachOfParts, AddsUpToTheCountOfAll) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const Placement placement = testing::random_placement(8, 4, seed % 2 == 0 ? 2 : 0, rng);
    const Trace trace = random_sequences(8, 6, rng);
    const TrafficModel traffic{
        .cluster = {.num_nodes = 2, .ranks_per_node = 2},
        .replica_rule = seed % 3 == 0 ? ReplicaRule::kRandom : ReplicaRule::kFewestRanks,
        .homes = seed % 5 == 0 ? Homes::kSequences : Homes::kUniform};
    // Sequences 1, 2, 4 and 5; 0 and 3 are only served before.
    const std::vector<std::vector<TokenRange>> parts = {
        {{7, 14}}, {{14, 21}, {28, 30}}, {{30, 42}}};
    const std::vector<TokenRange> all = {{7, 21}, {28, 42}};
    std::vector<RankId> homes;
    if (traffic.homes == Homes::kSequences) {
      homes = homes_of_sequences(trace.sequence_starts(), trace.num_tokens(), 4, all);
    }
    NoProgress progress;
    const auto counted = count_reach_of_parts(trace, 0, parts, homes, placement, traffic);
    ASSERT_EQ(counted.size(), 3U);
    EXPECT_EQ(sum_of(counted), count_reach(trace, all, {&placement, 1}, traffic, 1, progress)[0]);
    const auto& homes_of_second = counted[1].num_tokens;
    EXPECT_EQ(std::accumulate(homes_of_second.begin(), homes_of_second.end(), std::int64_t{0}),
              9 * counted[1].denominator);
  }
}

}  // namespace
}  // namespace c2r
