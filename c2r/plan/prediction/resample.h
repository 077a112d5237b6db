// How much predictions depend on which sequences were recorded: intervals over resampled sequences.
//
// A trace is a sample of the sequences that an engine serves. Sequences are cut into blocks of
// whole sequences that follow each other, since neighbours are often alike. A resample draws as
// many blocks as there are, with replacement (the block bootstrap of Kuensch, 1989), and is counted
// like a trace. The spread of a prediction over resamples is what other recordings of the same
// traffic would have given.
//
//   const auto saved = resample_savings(tokens, placements_of(plan), request, 1, progress);
//   if (saved) fmt::print("{} to {}\n", saved->copies.least, saved->copies.most);
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

inline constexpr std::int64_t kMaxBlocks = 64;
inline constexpr std::int64_t kNumResamples = 200;
/// Below so many sequences, intervals are too narrow, since they only know what was recorded.
inline constexpr std::int64_t kFewSequences = 100;

/// The middle 95 % of the values of resamples.
struct Interval {
  double least = 0, most = 0;

  bool operator==(const Interval&) const = default;
};

/// The sequences of some tokens in blocks, of about as many tokens each.
struct SequenceBlocks {
  std::int64_t num_sequences = 0;               // with tokens
  std::vector<std::vector<TokenRange>> blocks;  // at most kMaxBlocks, in order; none is empty
};

/// @param ranges as ranges_of() returns them
SequenceBlocks blocks_of_sequences(const Trace& trace, std::span<const TokenRange> ranges);

/// @returns how often each resample draws each block: always the same for as many blocks.
///          [kNumResamples, num_blocks]
Matrix<std::int64_t> draws_of_blocks(std::int64_t num_blocks);

/// What is predicted of each resample: means over layers. [kNumResamples]
struct ResampledPrediction {
  std::int64_t num_sequences = 0, num_blocks = 0;
  std::vector<double> copy_cost;     // link_cost_per_token()
  std::vector<double> layer_time_s;  // empty unless times are predicted

  bool operator==(const ResampledPrediction&) const = default;
};

/// @param placements [num_layers]
/// @returns the predictions of the resamples; nothing unless the tokens are of a trace and of at
///          least two sequences, and with homes by a signature, which depend on the order of
///          sequences
/// @throws as predict_step()
///
/// Cost: count_reach(), which does not grow with the number of resamples; and for each layer and
/// resample at most kMaxBlocks additions of copies and, where times are predicted, of a matrix
/// [ep_size, ep_size] (with weight_bytes_per_expert also [num_experts, ep_size]): 2 s of one
/// processor for times of 58 layers on 64 ranks. Memory for each thread: kMaxBlocks such matrices.
std::optional<ResampledPrediction> resample_prediction(const RoutedTokens& tokens,
                                                       std::span<const Placement> placements,
                                                       const PredictRequest& request,
                                                       int num_threads, Progress& progress);

/// The same of what savings are measured against: the placements and the traffic of predict_base().
std::optional<ResampledPrediction> resample_base(const RoutedTokens& tokens,
                                                 const PredictRequest& request, int num_threads,
                                                 Progress& progress);

/// What a placement saves of another's copies and time, as shares.
struct SavedIntervals {
  std::int64_t num_sequences = 0, num_blocks = 0;
  Interval copies;               // of link_cost_per_token()
  std::optional<Interval> time;  // of the predicted time of a layer

  bool operator==(const SavedIntervals&) const = default;
};

/// @returns the intervals of 1 - after / before, which is computed in each resample; nothing if one
///          of the two is missing
std::optional<SavedIntervals> saved_intervals(const std::optional<ResampledPrediction>& before,
                                              const std::optional<ResampledPrediction>& after);

/// @returns what the placements save of resample_base()
/// @throws as predict_step()
///
/// Cost: resample_prediction() twice.
std::optional<SavedIntervals> resample_savings(const RoutedTokens& tokens,
                                               std::span<const Placement> placements,
                                               const PredictRequest& request, int num_threads,
                                               Progress& progress);

}  // namespace c2r
