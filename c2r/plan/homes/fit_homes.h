// Chooses the numbers of ranks in each layer and a signature, so that sequences find more of their
// experts on their home rank.
//
// Which rank of a layer is called rank r is free: fan-out and loads stay as they are. Labels are
// aligned if the sequences that prefer rank r in one layer prefer rank r in the others, too. With
//   v(s, l, r)  tokens of sequence s that visit rank r in layer l, less the mean over ranks
// alignment maximizes sum over s and r of (sum over l of v(s, l, label_l(r)))^2, layer by layer, by
// assignment, until no layer changes. Then homes and labels are chosen in turn: homes for the
// labels, spread evenly by prices, and for these homes the labels with which most tokens visit the
// home of their sequence, until no layer changes.
//
// The signature is linear: for the choices of a prefix in one layer it estimates, by ridge
// regression over the fitted sequences, which share of its tokens each rank will serve in all
// layers, less a price of each rank with which sequences spread evenly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// The tokens of a sequence whose choices a signature looks at, where nothing else is said. More of
/// them choose a better home, but for fewer tokens (docs/placement.md has the numbers).
inline constexpr std::int64_t kSignatureTokens = 32;

struct FittedHomes {
  std::vector<std::vector<RankId>> label_of;  // [num_layers][ep_size], for relabelled()
  HomeSignature signature;                    // for the relabelled placements
};

/// @param tokens a part of a trace with at least 2 sequences
/// @param placements [num_layers]; replicas are chosen by the rule fewest-ranks
/// @param num_tokens of the prefix that the signature looks at; at least 1
/// @throws Error(kInvalidArgument) if the tokens are no trace or of one sequence, or the placements
///         do not fit
///
/// Cost: ReplicaChooser::choose() for each token and layer; memory of num_layers x num_sequences x
/// ep_size doubles; num_experts^3 operations in each layer.
FittedHomes fit_homes(const RoutedTokens& tokens, std::span<const Placement> placements,
                      const Cluster& cluster, std::int64_t num_tokens, int num_threads,
                      Progress& progress);

/// Aligns labels over layers, as above.
/// @param visits of each layer: [num_sequences, ep_size]
/// @returns [num_layers][ep_size]
std::vector<std::vector<RankId>> aligned_labels(std::span<const Matrix<double>> visits,
                                                const Cluster& cluster);

/// Chooses homes for the labels and labels for the homes in turn, as above, and keeps the best.
/// @param visits as above
/// @param num_tokens of each sequence. [num_sequences]
/// @param label_of where it begins. [num_layers][ep_size]
/// @returns labels with which at least as many tokens visit the homes of their sequences, where
///          these are spread evenly. [num_layers][ep_size]
std::vector<std::vector<RankId>> labels_for_homes(std::span<const Matrix<double>> visits,
                                                  std::span<const std::int64_t> num_tokens,
                                                  const Cluster& cluster,
                                                  std::vector<std::vector<RankId>> label_of);

/// @param sequences as tokens [begin, end)
/// @param placements [num_layers]; replicas are chosen by the rule fewest-ranks
/// @returns of each sequence the share of its tokens that visit each rank: the mean over layers.
///          [num_sequences, ep_size]
///
/// Cost: ReplicaChooser::choose() for each token and layer.
Matrix<double> visited_shares(const Trace& trace, std::span<const TokenRange> sequences,
                              std::span<const Placement> placements, const Cluster& cluster,
                              int num_threads);

/// Sequences that begin in `ranges`, as tokens [begin, end).
std::vector<TokenRange> sequences_in(const Trace& trace, std::span<const TokenRange> ranges);

/// @returns the tokens of each sequence
std::vector<std::int64_t> lengths_of(std::span<const TokenRange> sequences);

}  // namespace c2r
