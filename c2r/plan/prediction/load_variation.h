// How far the loads of ranks can differ between recordings of the same traffic.
//
// Tokens of one sequence choose alike, so a trace is a sample of sequences, not of tokens. With y_s
// the choices of sequence s that a rank serves and n_s all its choices, the load of the rank over
// the mean is
//   load = ep_size x sum of y_s / sum of n_s
// and its standard error is that of a ratio over S sequences:
//   se = ep_size x sqrt(S / (S - 1) x sum of (y_s - n_s x load / ep_size)^2) / sum of n_s
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "c2r/placement/placement.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

struct LoadVariation {
  std::int64_t num_sequences = 0;
  double standard_error = 0;  // of the load of a rank over the mean; root mean square over all
  // How far loads differ between the first and the second half of the sequences, over what their
  // standard errors explain: about 1 if the order of sequences does not matter.
  double half_difference = 0;

  bool operator==(const LoadVariation&) const = default;
};

/// @param tokens a part of a trace
/// @param placements [num_layers]; the replicas of an expert count equal shares of its load
/// @returns the variation; nothing if there are fewer than 4 sequences with choices, or no trace
///
/// Cost: reads the choices once.
std::optional<LoadVariation> load_variation(const RoutedTokens& tokens,
                                            std::span<const Placement> placements, int num_threads);

/// @param max_imbalance the bound that is to hold on other tokens
/// @param is_estimated whether the bound that was fitted with was estimated from halves of the
///        sequences (BoundOn::kUnseen)
/// @returns one line without a line feed if the sequences are too few for the bound, or grouped so
///          that halves of them say little of others; empty if they will do
std::string sample_warning(const LoadVariation& variation, double max_imbalance, bool is_estimated);

}  // namespace c2r
