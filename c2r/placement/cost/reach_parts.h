// Counts the reach of one layer part by part, so that parts can be weighted and added up.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "c2r/placement/cost/reach.h"

namespace c2r {

/// The homes of the tokens of a piece; may use the memory of `scratch`. Empty for Homes::kUniform.
using HomesOfPiece =
    std::function<std::span<const RankId>(const TokenRange& piece, std::vector<RankId>& scratch)>;

/// Counts the tokens of one layer in parts that are served one after the other. Tokens of the trace
/// outside of all parts are served before, as in count_reach(). So the sum of the results is what
/// count_reach() counts of all parts together, whatever the replica rule.
///
/// @param parts disjoint, in the order in which they are served
/// @returns the counts of each part. [num_parts]
/// @throws Error(kInvalidArgument) if the placement is not for the trace's experts
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
/// @throws Error(kTimeout) if the progress is stopped; null: it never is
///
/// Cost: ReachCounter::add() once for each token; memory of one Reach for each part.
std::vector<Reach> count_reach_of_parts(const Trace& trace, std::int64_t layer,
                                        std::span<const std::vector<TokenRange>> parts,
                                        const HomesOfPiece& homes_of, const Placement& placement,
                                        const TrafficModel& traffic,
                                        const Progress* progress = nullptr);

/// @returns the same of tokens with given homes
/// @param homes [num_tokens of the trace]; empty for Homes::kUniform
std::vector<Reach> count_reach_of_parts(const Trace& trace, std::int64_t layer,
                                        std::span<const std::vector<TokenRange>> parts,
                                        std::span<const RankId> homes, const Placement& placement,
                                        const TrafficModel& traffic,
                                        const Progress* progress = nullptr);

}  // namespace c2r
