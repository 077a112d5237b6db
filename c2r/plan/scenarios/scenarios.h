// Scenarios: groups of the fitted sequences that stand for kinds of traffic, in each of which a
// plan is to be good.
//
// A text says how sequences are grouped:
//   "first-half,second-half"   parts of the trace, which together are the fitted sequences
//   "8"                        so many groups of neighbours with about as many tokens each: for
//                              recordings in the order of time or sorted by subject
//   "clusters:8"               so many groups of sequences that choose alike, found by k-means on
//                              the choices of a few layers: for recordings in any order
//   "traces"                   one for each trace, where several are fitted together
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/plan/plan.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

inline constexpr std::int64_t kMaxScenarios = 64;

struct Scenario {
  std::string name;                // "first-half", "3 of 8", "cluster 3 of 8", the path of a trace
  std::vector<TokenRange> ranges;  // ascending; no other scenario has these tokens
};

/// What a plan is predicted to do in one scenario of its fitted tokens, beside two baselines.
struct ScenarioReport {
  std::string name;
  Prediction plan, contiguous;
  std::optional<Prediction> eplb;  // where EPLB can place the experts
};

/// @param fitted ascending and disjoint: the sequences that are grouped
/// @param traces the tokens of each trace that `trace` was joined from; one range for a single one
/// @returns the scenarios, which together are the fitted tokens
/// @throws Error(kInvalidArgument) if the text is none of the above, if there are fewer than 2 or
///         more than kMaxScenarios, or if one has no tokens or the parts are not the fitted tokens
///
/// Cost: clusters read the choices of eight layers once; the others only the starts of sequences.
std::vector<Scenario> scenarios_of(const Trace& trace, std::span<const TokenRange> fitted,
                                   std::span<const TokenRange> traces, std::string_view text);

}  // namespace c2r
