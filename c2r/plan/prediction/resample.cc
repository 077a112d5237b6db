// Counts each block of sequences once, adds up the counts of the drawn blocks, and predicts of the
// sums.
#include "c2r/plan/prediction/resample.h"

#include <algorithm>
#include <atomic>
#include <random>

#include "c2r/core/at.h"
#include "c2r/core/parallel.h"
#include "c2r/core/rng.h"
#include "c2r/placement/cost/reach_parts.h"

namespace c2r {
namespace {

constexpr std::uint64_t kResampleSeed = 1;

// What one block counts in one layer, or the sum of several.
struct BlockCounts {
  Volume volume;
  Matrix<std::int64_t> choices_of_expert;  // [num_experts, ep_size], only if weights are read
};

// How the counts of blocks become a prediction.
struct Resampling {
  const PredictRequest& request;
  const SequenceBlocks& blocks;
  Matrix<std::int64_t> draws;  // [kNumResamples, num_blocks]

  bool has_time() const { return request.layer_time.has_value(); }
  bool reads_weights() const {
    return has_time() && request.layer_time->weight_bytes_per_expert > 0;
  }
};

void add_times(std::int64_t times, std::span<const std::int64_t> counts,
               std::span<std::int64_t> sums) {
  for (std::size_t at = 0; at < sums.size(); ++at) sums[at] += times * counts[at];
}

// Only what predictions need is added up.
void add_drawn(std::int64_t times, const BlockCounts& block, bool has_time, BlockCounts& sum) {
  if (times == 0) return;
  sum.volume.num_tokens += times * block.volume.num_tokens;
  sum.volume.intra_node_copies += times * block.volume.intra_node_copies;
  sum.volume.inter_node_copies += times * block.volume.inter_node_copies;
  if (!has_time) return;
  add_times(times, block.volume.link_copies.all(), sum.volume.link_copies.all());
  add_times(times, block.volume.choices, sum.volume.choices);
  add_times(times, block.choices_of_expert.all(), sum.choices_of_expert.all());
}

std::vector<BlockCounts> counts_of_blocks(const Resampling& resampling, const RoutedTokens& tokens,
                                          std::int64_t layer, std::span<const RankId> homes,
                                          const Placement& placement, const Progress& progress) {
  const TrafficModel& traffic = resampling.request.traffic;
  std::vector<BlockCounts> counts;
  for (Reach& reach : count_reach_of_parts(*tokens.trace, layer, resampling.blocks.blocks, homes,
                                           placement, traffic, &progress)) {
    counts.push_back({.volume = volume_of(reach, traffic), .choices_of_expert = {}});
    if (resampling.reads_weights()) {
      counts.back().choices_of_expert = std::move(reach.choices_of_expert);
    }
  }
  return counts;
}

struct LayerValue {
  double copy_cost = 0, time_s = 0;
};

// What is predicted of one layer in one resample.
LayerValue value_of(const Resampling& resampling, std::span<const BlockCounts> blocks,
                    std::int64_t resample) {
  const bool has_time = resampling.has_time();
  BlockCounts sum{.volume = {.denominator = blocks[0].volume.denominator}, .choices_of_expert = {}};
  if (has_time) {
    const Matrix<std::int64_t>& links = blocks[0].volume.link_copies;
    const Matrix<std::int64_t>& choices = blocks[0].choices_of_expert;
    sum.volume.link_copies = Matrix<std::int64_t>(links.rows(), links.cols());
    sum.volume.choices.assign(blocks[0].volume.choices.size(), 0);
    sum.choices_of_expert = Matrix<std::int64_t>(choices.rows(), choices.cols());
  }
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    add_drawn(resampling.draws(resample, std::int64_t(block)), blocks[block], has_time, sum);
  }
  const Cluster& cluster = resampling.request.traffic.cluster;
  const Volume& volume = sum.volume;
  LayerValue value{.copy_cost = volume.per_token(volume.wire_copies()) +
                                (node_copy_weight(cluster) - 1) *
                                    volume.per_token(volume.inter_node_copies)};
  if (has_time) {
    value.time_s =
        predict_layer_time(volume, cluster, *resampling.request.layer_time, sum.choices_of_expert)
            .predicted_total_s;
  }
  return value;
}

// Means over the layers of values [num_layers, kNumResamples].
std::vector<double> means_of(const Matrix<double>& values) {
  std::vector<double> means(static_cast<std::size_t>(values.cols()));
  for (std::int64_t layer = 0; layer < values.rows(); ++layer) {
    for (std::size_t r = 0; r < means.size(); ++r) {
      means[r] += values(layer, std::int64_t(r)) / static_cast<double>(values.rows());
    }
  }
  return means;
}

Interval saved_interval(std::span<const double> before, std::span<const double> after) {
  std::vector<double> saved;
  for (std::size_t r = 0; r < before.size(); ++r) {
    saved.push_back(before[r] > 0 ? 1 - after[r] / before[r] : 0);
  }
  std::ranges::sort(saved);
  constexpr std::size_t kCut = kNumResamples / 40;  // 2.5 % at each end
  return {saved[kCut], saved[saved.size() - 1 - kCut]};
}

}  // namespace

SequenceBlocks blocks_of_sequences(const Trace& trace, std::span<const TokenRange> ranges) {
  const auto starts = trace.sequence_starts();
  std::vector<TokenRange> sequences;
  for (const TokenRange& range : ranges) {
    for (std::int64_t begin = range.begin; begin < range.end;) {
      const auto next = std::ranges::upper_bound(starts, begin);
      const std::int64_t end = next == starts.end() ? range.end : std::min(range.end, *next);
      sequences.push_back({begin, end});
      begin = end;
    }
  }
  SequenceBlocks result{.num_sequences = std::ssize(sequences), .blocks = {}};
  const std::int64_t total = num_tokens_in(ranges);
  const std::int64_t num_blocks = std::min(kMaxBlocks, result.num_sequences);
  std::int64_t done = 0, last_block = -1;
  for (const TokenRange& sequence : sequences) {
    // By the middle of the sequence; where all are alike, each block gets as many.
    const std::int64_t middle = done + (sequence.end - sequence.begin) / 2;
    const std::int64_t block = middle * num_blocks / total;
    if (block != last_block) result.blocks.emplace_back();
    result.blocks.back().push_back(sequence);
    last_block = block;
    done += sequence.end - sequence.begin;
  }
  return result;
}

Matrix<std::int64_t> draws_of_blocks(std::int64_t num_blocks) {
  std::mt19937_64 rng(kResampleSeed);
  Matrix<std::int64_t> draws(kNumResamples, num_blocks);
  for (std::int64_t resample = 0; resample < kNumResamples; ++resample) {
    for (std::int64_t drawn = 0; drawn < num_blocks; ++drawn) {
      ++draws(resample, std::int64_t(uniform_below(std::uint64_t(num_blocks), rng)));
    }
  }
  return draws;
}

std::optional<ResampledPrediction> resample_prediction(const RoutedTokens& tokens,
                                                       std::span<const Placement> placements,
                                                       const PredictRequest& request,
                                                       int num_threads, Progress& progress) {
  const TrafficModel& traffic = request.traffic;
  if (tokens.trace == nullptr || traffic.homes == Homes::kSignature) return std::nullopt;
  const Trace& trace = *tokens.trace;
  const SequenceBlocks blocks = blocks_of_sequences(trace, tokens.ranges);
  const auto num_blocks = std::ssize(blocks.blocks);
  if (num_blocks < 2) return std::nullopt;
  const Resampling resampling{
      .request = request, .blocks = blocks, .draws = draws_of_blocks(num_blocks)};
  std::vector<RankId> homes;
  if (traffic.homes == Homes::kSequences) {
    homes = homes_of_sequences(trace.sequence_starts(), trace.num_tokens(),
                               traffic.cluster.ep_size(), tokens.ranges);
  }
  const auto num_layers = std::ssize(placements);
  Matrix<double> costs(num_layers, kNumResamples), times(num_layers, kNumResamples);
  std::atomic<std::int64_t> num_done = 0;
  parallel_for(num_layers, num_threads, [&](std::int64_t layer, int thread) {
    const auto counts =
        counts_of_blocks(resampling, tokens, layer, homes, at(placements, layer), progress);
    for (std::int64_t resample = 0; resample < kNumResamples; ++resample) {
      progress.throw_if_stopped();
      const LayerValue value = value_of(resampling, counts, resample);
      costs(layer, resample) = value.copy_cost;
      times(layer, resample) = value.time_s;
    }
    const std::int64_t done = ++num_done;
    if (thread == 0) progress.update(done, num_layers);
  });
  progress.update(num_layers, num_layers);
  ResampledPrediction result{.num_sequences = blocks.num_sequences,
                             .num_blocks = num_blocks,
                             .copy_cost = means_of(costs),
                             .layer_time_s = {}};
  if (request.layer_time) result.layer_time_s = means_of(times);
  return result;
}

std::optional<SavedIntervals> saved_intervals(const std::optional<ResampledPrediction>& before,
                                              const std::optional<ResampledPrediction>& after) {
  if (!before || !after) return std::nullopt;
  SavedIntervals saved{.num_sequences = after->num_sequences,
                       .num_blocks = after->num_blocks,
                       .copies = saved_interval(before->copy_cost, after->copy_cost),
                       .time = {}};
  if (!before->layer_time_s.empty() && !after->layer_time_s.empty()) {
    saved.time = saved_interval(before->layer_time_s, after->layer_time_s);
  }
  return saved;
}

std::optional<ResampledPrediction> resample_base(const RoutedTokens& tokens,
                                                 const PredictRequest& request, int num_threads,
                                                 Progress& progress) {
  PredictRequest base = request;
  if (base.base.empty()) base.traffic.copy_mode = CopyMode::kPerExpert;
  return resample_prediction(tokens,
                             contiguous_placements(tokens.header(), request.traffic.cluster), base,
                             num_threads, progress);
}

std::optional<SavedIntervals> resample_savings(const RoutedTokens& tokens,
                                               std::span<const Placement> placements,
                                               const PredictRequest& request, int num_threads,
                                               Progress& progress) {
  const auto before = resample_base(tokens, request, num_threads, progress);
  if (!before) return std::nullopt;
  return saved_intervals(before,
                         resample_prediction(tokens, placements, request, num_threads, progress));
}

}  // namespace c2r
