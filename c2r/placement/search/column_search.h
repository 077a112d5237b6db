// Exact optima of placements without replicas, where the possible rank contents can be listed.
//
// A placement is a choice of ep_size disjoint *columns*: sets of slots_per_rank experts, each with
// the tokens that visit a rank of just these experts as its cost. That is set partitioning, whose
// linear relaxation is tight here: on gpt-oss-20b at 8 ranks (35,960 columns) within 0.3 % of the
// optimum.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

struct ColumnProblem {
  const SetIndex* index = nullptr;
  std::int32_t ep_size = 1;
  double max_load = std::numeric_limits<double>::infinity();  // of a rank, in choices
  std::int64_t max_steps = 500'000'000;  // columns looked at by the branch and bound
};

struct ColumnResult {
  // No placement within max_load has fewer copies. Infinite if there is none at all.
  double bound = 0;
  bool is_proved = false;             // rank_of is optimal
  std::vector<std::int32_t> rank_of;  // the better of the one given and the one found
};

/// @returns how many columns there are, before those above max_load are left out
double num_columns(std::int32_t num_experts, std::int32_t slots_per_rank);

/// Bounds the copies by Lagrangian duality and then searches for better placements than the best
/// known one, by branch and bound over the columns that could be part of one.
///
/// @param known a placement, [num_experts]; used as it is only if it is within max_load
/// @throws Error(kInvalidArgument) unless num_experts <= 64 and a multiple of ep_size
/// @returns the result; `known` without a bound if a limit ends the search before all columns are
///          listed
///
/// Cost: O(num_columns x (sets + 500 x slots_per_rank)) and num_columns x (16 + slots_per_rank)
/// bytes, before the branching, which takes some 3 ns a step.
ColumnResult search_columns(const ColumnProblem& problem, const SearchLimits& limits,
                            std::vector<std::int32_t> known);

}  // namespace c2r
