// Assigns sequences to home ranks by a plan's signature, evenly, and counts what that saves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/predict.h"
#include "c2r/plan/routed_tokens.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// @param sequences each as tokens [begin, end)
/// @param num_tokens of a sequence, from its beginning
/// @returns how often its first tokens chose each expert, divided by these tokens.
///          [num_sequences, num_experts]
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
Matrix<double> prefix_shares(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> sequences, std::int64_t num_tokens);

/// @returns the score of each sequence for each rank: home_of() takes the largest. [num_sequences,
///          ep_size]
/// @throws Error(kInvalidArgument) if the trace has no such layer
Matrix<double> home_scores(const HomeSignature& signature, const Trace& trace,
                           std::span<const TokenRange> sequences);

/// @param scores [num_sequences, ep_size], of a token
/// @param num_tokens of each sequence. [num_sequences]
/// @returns prices of the ranks, with which no rank gets more than max_imbalance times the mean
///          tokens if each sequence takes the rank with the largest score less its price, or nearly
///          so. [ep_size]
std::vector<double> even_prices(const Matrix<double>& scores,
                                std::span<const std::int64_t> num_tokens, double max_imbalance);

/// Assigns sequences that are known together, as a batch is.
/// @param max_imbalance tokens of a rank over the mean; where whole sequences do not allow it, as
///        near as single moves and exchanges of sequences come
/// @returns homes whose scores times tokens add up to much: prices first, then moves and exchanges
///          that cost the least for the tokens that they take from ranks with too many.
///          [num_sequences]
std::vector<RankId> balanced_homes(const Matrix<double>& scores,
                                   std::span<const std::int64_t> num_tokens, double max_imbalance);

/// The homes of a part of a trace.
struct AssignedHomes {
  std::vector<RankId> of_token;     // [num_tokens of the trace]; rank 0 outside the part
  std::vector<RankId> of_sequence;  // of the part
  double imbalance = 1;             // tokens of a rank over the mean
  double window_imbalance = 1;      // the same, the worst of the windows
};

/// The tokens of ranks that a batch may have above the mean.
inline constexpr double kHomeImbalance = 1.02;

/// Assigns the sequences of `tokens` window by window, so that not only all of them together are
/// spread evenly but also those that run at the same time.
/// @param window sequences that are assigned together; 0: all of them
/// @throws Error(kInvalidArgument) if the tokens are no trace or the signature does not fit it
AssignedHomes assign_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                           std::int64_t window);

/// Counts the copies of `placements` on tokens whose homes are known.
/// @param home_of_token [num_tokens of the trace]
/// @returns a prediction with the homes kSignature, whatever those of `request`
/// @throws Error(kInvalidArgument) if the tokens are no trace, or the homes are of other tokens
///
/// Cost: count_reach().
Prediction predict_with_homes(const RoutedTokens& tokens, std::span<const RankId> home_of_token,
                              std::span<const Placement> placements, const PredictRequest& request,
                              int num_threads, Progress& progress);

}  // namespace c2r
