// Chooses the numbers of ranks in each layer and a signature, so that sequences find more of their
// experts on their home rank.
//
// Which rank of a layer is called rank r is free: fan-out and loads stay as they are. Labels are
// aligned if the sequences that prefer rank r in one layer prefer rank r in the others, too. With
//   v(s, l, r)  tokens of sequence s that visit rank r in layer l, less the mean over ranks
// alignment maximizes sum over s and r of (sum over l of v(s, l, label_l(r)))^2, layer by layer, by
// assignment, until no layer changes.
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

/// The tokens of a sequence whose choices a signature looks at, where nothing else is said.
inline constexpr std::int64_t kSignatureTokens = 128;

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

/// Sequences that begin in `ranges`, as tokens [begin, end).
std::vector<TokenRange> sequences_in(const Trace& trace, std::span<const TokenRange> ranges);

/// @returns the tokens of each sequence
std::vector<std::int64_t> lengths_of(std::span<const TokenRange> sequences);

}  // namespace c2r
