// Compares ways to choose the homes of sequences under one plan: what each sends on the wire.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// One way to choose homes.
struct HomesRow {
  // "uniform"; "prefix", whose own tokens run on the ranks in turn; "earlier turn", where the
  // experts of the prefix are known before; if the signature has token weights, "first token ids",
  // by the ids of the prefix, and "all token ids"; "all tokens", an oracle that knows every visit.
  std::string name;
  Prediction prediction;        // of all layers
  double imbalance = 1;         // tokens of a home over the mean
  double window_imbalance = 1;  // the same, the worst of the windows

  bool operator==(const HomesRow&) const = default;
};

struct HomesComparison {
  std::int64_t num_tokens = 0;  // of the prefix
  std::int64_t window = 0;      // sequences that are assigned together
  std::vector<HomesRow> rows;   // as above, in this order
};

/// @param plan with a signature
/// @param tokens a part of a trace
/// @param window as in assign_homes()
/// @throws Error(kInvalidArgument) if the plan has no signature, or the tokens are no trace, or
///         have no ids that the signature needs
///
/// Cost: reach_of(), and three times count_reach_of_homes(), five times with token weights.
HomesComparison compare_homes(const Plan& plan, const RoutedTokens& tokens,
                              const PredictRequest& request, std::int64_t window, int num_threads,
                              Progress& progress);

/// @returns the signature of the plan
/// @throws Error(kInvalidArgument) if it has none
const HomeSignature& signature_of(const Plan& plan);

}  // namespace c2r
