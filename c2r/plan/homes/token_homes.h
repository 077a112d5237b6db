// Homes by token ids alone: which ranks a token will visit, as far as its id says so. A request
// router knows the ids of a prompt before any rank has run it.
//
// Let v(t, r) be the share of layers in which token t visits rank r, less the mean over all fitted
// tokens. Each id w has a preference a(w, r), and a token of the id has v = a(w, r) + noise. Over
// ids a has the variance `between`, and noise has the variance `within`, both added up over ranks
// and estimated from the fitted tokens by a one-way analysis of variance. With n tokens of id w,
//   weight(w, r) = sum over these tokens of v(t, r) / (n + within / between)
// is then the linear estimate of a(w, r) with the least squared error: an id that was seen rarely
// counts less. Scores are means over the tokens of a sequence, less a price of each rank with which
// the fitted sequences spread evenly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// A table has at most so many weights, which are some 0.6 MB of the plan's file: 8192 ids on 8
/// ranks. Those ids are kept whose weights explain most of the fitted tokens.
inline constexpr std::int64_t kMaxTokenWeights = 65536;
/// An id that the fitted tokens have less often has no weights of its own.
inline constexpr std::int64_t kLeastTokensOfId = 4;

/// @throws Error(kInvalidArgument) unless the tokens are a trace with token ids
void check_has_token_ids(const RoutedTokens& tokens);

/// @param tokens a part of a trace with token ids
/// @param placements [num_layers]; replicas are chosen by the rule fewest-ranks
/// @throws Error(kInvalidArgument) if the tokens are no trace or have no ids, or the placements do
///         not fit
///
/// Cost: ReplicaChooser::choose() for each token and layer; memory of ep_size doubles for each
/// distinct id.
TokenWeights fit_token_weights(const RoutedTokens& tokens, std::span<const Placement> placements,
                               const Cluster& cluster, Progress& progress);

/// @param ids of the first tokens of a sequence, as many as are known
/// @returns the score of the sequence for each rank: the mean of the weights; all 0 without tokens.
///          [ep_size]
///
/// Cost: a binary search for each token.
std::vector<double> token_scores(const TokenWeights& weights, std::span<const TokenId> ids);

/// Assigns sequences by their token ids, so that all their tokens run at their homes.
/// @param num_tokens of a sequence, from its beginning, whose ids are known
/// @param window as in assign_homes()
/// @throws Error(kInvalidArgument) if the tokens are no trace or have no ids
AssignedHomes assign_homes_by_ids(const TokenWeights& weights, const RoutedTokens& tokens,
                                  std::int64_t num_tokens, std::int64_t window);

/// Assigns sequences as `c2r score` does with this signature: by the ids of all their tokens if it
/// has token weights, else with PrefixRuns::kInTurn.
/// @throws as assign_homes() and assign_homes_by_ids()
AssignedHomes followed_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                             std::int64_t window);

}  // namespace c2r
