// Tests of resampled predictions: against predictions of traces that are written out, and the
// intervals of savings.
#include "c2r/plan/prediction/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::make_placement;

// Tokens of two layers, in sequences that start at `starts`.
struct Recorded {
  Matrix<ExpertId> first, second;
  std::vector<std::int64_t> starts;

  Trace trace() const {
    const MatrixView<const ExpertId> layers[] = {first, second};
    const TraceHeader header{.num_experts = 8, .top_k = 3, .layer_indices = {2, 3}};
    return {header, layers, starts};
  }
};

Recorded random_recording(std::span<const std::int64_t> lengths, std::mt19937_64& rng) {
  const std::int64_t num_tokens = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  Recorded recorded{.first = {num_tokens, 3}, .second = {num_tokens, 3}, .starts = {}};
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    std::ranges::copy(testing::random_choices(8, 3, rng), recorded.first.row(t).begin());
    std::ranges::copy(testing::random_choices(8, 3, rng), recorded.second.row(t).begin());
  }
  std::int64_t start = 0;
  for (const std::int64_t length : lengths) {
    recorded.starts.push_back(start);
    start += length;
  }
  return recorded;
}

// A resample as a recording of its own: the tokens of each block as often as it was drawn.
Recorded written_out(const Recorded& recorded, const SequenceBlocks& blocks,
                     std::span<const std::int64_t> draws) {
  std::vector<std::int64_t> tokens;
  for (std::size_t block = 0; block < draws.size(); ++block) {
    for (std::int64_t time = 0; time < draws[block]; ++time) {
      for (const TokenRange& range : blocks.blocks[block]) {
        for (std::int64_t t = range.begin; t < range.end; ++t) tokens.push_back(t);
      }
    }
  }
  Recorded result{
      .first = {std::ssize(tokens), 3}, .second = {std::ssize(tokens), 3}, .starts = {0}};
  for (std::int64_t t = 0; t < std::ssize(tokens); ++t) {
    const std::int64_t from = tokens[std::size_t(t)];
    std::ranges::copy(recorded.first.row(from), result.first.row(t).begin());
    std::ranges::copy(recorded.second.row(from), result.second.row(t).begin());
  }
  return result;
}

PredictRequest timed_request(bool reads_weights) {
  Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  cluster.device_flop_per_s = 1e12;
  cluster.memory_bytes_per_s = 1e9;
  return {.traffic = {.cluster = cluster, .copy_mode = CopyMode::kPerNode},
          .layer_time = LayerTimeOptions{.format = {.hidden = 64},
                                         .flop_per_choice = 1e6,
                                         .batch_tokens = 50,
                                         .weight_bytes_per_expert = reads_weights ? 1e4 : 0}};
}

RoutedTokens every_token_of(const Trace& trace) {
  return routed_tokens_of(trace, SequencePart::kAll);
}

TEST(BlocksOfSequences, AreWholeSequencesOfTheCountedRanges) {
  std::mt19937_64 rng(0);
  const std::vector<std::int64_t> lengths = {4, 6, 2, 8, 5};
  const Trace trace = random_recording(lengths, rng).trace();
  const SequenceBlocks odd = blocks_of_sequences(trace, ranges_of(trace, SequencePart::kOdd));
  EXPECT_EQ(odd.num_sequences, 2);
  ASSERT_EQ(odd.blocks.size(), 2U);
  EXPECT_EQ(odd.blocks[0], (std::vector<TokenRange>{{4, 10}}));
  EXPECT_EQ(odd.blocks[1], (std::vector<TokenRange>{{12, 20}}));
}

TEST(BlocksOfSequences, AreAsManyAsAllowedAndAboutEquallyLong) {
  std::mt19937_64 rng(0);
  const std::vector<std::int64_t> lengths(1000, 3);
  const Trace trace = random_recording(lengths, rng).trace();
  const SequenceBlocks all = blocks_of_sequences(trace, ranges_of(trace, SequencePart::kAll));
  EXPECT_EQ(all.num_sequences, 1000);
  ASSERT_EQ(std::ssize(all.blocks), kMaxBlocks);
  std::int64_t next = 0;
  for (const auto& block : all.blocks) {
    EXPECT_NEAR(double(num_tokens_in(block)), 3000.0 / kMaxBlocks, 3);
    for (const TokenRange& range : block) {
      EXPECT_EQ(range.begin, next);
      next = range.end;
    }
  }
  EXPECT_EQ(next, 3000);
}

TEST(DrawsOfBlocks, DrawAsManyAsThereAre) {
  const auto draws = draws_of_blocks(5);
  ASSERT_EQ(draws.rows(), kNumResamples);
  for (std::int64_t resample = 0; resample < draws.rows(); ++resample) {
    const auto row = draws.row(resample);
    EXPECT_EQ(std::accumulate(row.begin(), row.end(), std::int64_t{0}), 5);
  }
  EXPECT_EQ(draws, draws_of_blocks(5));
}

TEST(ResamplePrediction, IsThePredictionOfTheResampleWrittenOut) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const std::vector<std::int64_t> lengths = {5, 9, 3, 7, 11};
    const Recorded recorded = random_recording(lengths, rng);
    const Trace trace = recorded.trace();
    const std::vector<Placement> placements = {testing::random_placement(8, 4, 0, rng),
                                               testing::random_placement(8, 4, 0, rng)};
    const PredictRequest request = timed_request(seed % 2 == 0);
    NoProgress progress;
    const auto found = resample_prediction(every_token_of(trace), placements, request, 2, progress);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->num_sequences, 5);
    const auto blocks = blocks_of_sequences(trace, ranges_of(trace, SequencePart::kAll));
    const auto draws = draws_of_blocks(std::ssize(blocks.blocks));
    for (std::int64_t resample = 0; resample < kNumResamples; resample += 37) {
      const Trace drawn = written_out(recorded, blocks, draws.row(resample)).trace();
      const Prediction expected =
          predict_step("", every_token_of(drawn), placements, request, 1, progress).prediction;
      const auto r = std::size_t(resample);
      EXPECT_DOUBLE_EQ(found->copy_cost[r], link_cost_per_token(expected, request.traffic.cluster));
      EXPECT_DOUBLE_EQ(found->layer_time_s[r], mean_over_layers(expected.predicted_layer_time_s));
    }
  }
}

TEST(ResamplePrediction, NeedsATraceOfSeveralSequences) {
  std::mt19937_64 rng(0);
  const std::vector<std::int64_t> lengths = {20};
  const Trace trace = random_recording(lengths, rng).trace();
  const std::vector<Placement> placements(2, place_contiguous(8, 4));
  NoProgress progress;
  const PredictRequest request = timed_request(false);
  EXPECT_FALSE(resample_prediction(every_token_of(trace), placements, request, 1, progress));
  const CollaborationStatistics statistics{.header = trace.header(), .num_tokens = {20, 20}};
  const RoutedTokens counts{.statistics = &statistics, .name = "counts"};
  EXPECT_FALSE(resample_prediction(counts, placements, request, 1, progress));
}

// Sequences of ten tokens. In a good sequence tokens choose 0 1 2, which the plan puts on one rank;
// in a bad one 0 3 6, which it spreads over three.
Trace good_and_bad(std::int64_t num_good, std::int64_t num_bad) {
  const std::int64_t num_sequences = num_good + num_bad;
  Recorded recorded{
      .first = {10 * num_sequences, 3}, .second = {10 * num_sequences, 3}, .starts = {}};
  for (std::int64_t t = 0; t < recorded.first.rows(); ++t) {
    const bool is_good = t / 10 % num_sequences < num_good;
    for (std::int32_t k = 0; k < 3; ++k) {
      recorded.first(t, k) = recorded.second(t, k) = ExpertId{is_good ? k : 3 * k};
    }
  }
  for (std::int64_t s = 0; s < num_sequences; ++s) recorded.starts.push_back(10 * s);
  return recorded.trace();
}

std::optional<SavedIntervals> saved_by_a_plan(const Trace& trace) {
  const PredictRequest request{.traffic = {.cluster = {.ranks_per_node = 4}}};
  // All of a good sequence on one rank, where contiguous experts take two.
  const Placement planned = make_placement(8, {{0, 1, 2}, {3, 4, 5}, {6, 7, 1}, {5, 2, 4}});
  const Placement contiguous = place_contiguous(8, 4);
  NoProgress progress;
  const auto resample = [&](const Placement& placement) {
    const std::vector<Placement> placements(2, placement);
    return resample_prediction(every_token_of(trace), placements, request, 1, progress);
  };
  return saved_intervals(resample(contiguous), resample(planned));
}

TEST(SavedIntervals, AreAPointWhereAllSequencesAreAlike) {
  const auto saved = saved_by_a_plan(good_and_bad(20, 0));
  ASSERT_TRUE(saved.has_value());
  EXPECT_EQ(saved->num_sequences, 20);
  EXPECT_DOUBLE_EQ(saved->copies.least, 0.5);
  EXPECT_DOUBLE_EQ(saved->copies.most, 0.5);
  EXPECT_FALSE(saved->time.has_value());
}

TEST(SavedIntervals, AreWideWhereFewSequencesDiffer) {
  const auto few = saved_by_a_plan(good_and_bad(5, 5));
  const auto many = saved_by_a_plan(good_and_bad(32, 32));
  // Half of the tokens: copies on the wire 1.5 and 0.75 of good ones, 2.25 of bad ones.
  const double expected = 1 - (0.75 + 2.25) / (1.5 + 2.25);
  for (const auto& saved : {few, many}) {
    ASSERT_TRUE(saved.has_value());
    EXPECT_LT(saved->copies.least, expected);
    EXPECT_GT(saved->copies.most, expected);
  }
  const auto width = [](const Interval& interval) { return interval.most - interval.least; };
  EXPECT_GT(width(few->copies), 1.5 * width(many->copies));
}

}  // namespace
}  // namespace c2r
