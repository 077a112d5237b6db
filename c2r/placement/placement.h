// Which expert sits in which slot of which rank, for one MoE layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// Every rank has the same number of slots, as every engine wants it. The slots of all ranks beyond
/// num_experts are redundant and hold replicas; an expert has at most one slot on a rank.
struct Placement {
  std::int32_t num_experts = 0;
  // [ep_size, slots_per_rank], every expert at least once; kNoExpert = an empty slot
  Matrix<ExpertId> slots;

  std::int32_t ep_size() const { return static_cast<std::int32_t>(slots.rows()); }
  std::int32_t slots_per_rank() const { return static_cast<std::int32_t>(slots.cols()); }
  bool operator==(const Placement&) const = default;
};

/// Checks the invariants above, and that there are at most kMaxExperts experts (routing.h).
/// @throws Error(kInvalidArgument), naming the expert or the slot
void check_slots(const Placement& placement);

/// Checks the same, and that no slot is empty: engines take such placements only, and everything
/// but predictions works with such only.
/// @throws as check_slots()
void check_placement(const Placement& placement);

/// @returns whether an expert has several slots; empty slots do not count
bool has_replicas(const Placement& placement);

/// @returns the ranks that host each expert, ascending. [num_experts]
std::vector<std::vector<RankId>> ranks_of_experts(const Placement& placement);

/// @returns the rank of each expert of a placement without replicas. [num_experts]
/// @throws Error(kInvalidArgument), naming the expert, if one is on no rank or on several
std::vector<RankId> rank_of(const Placement& placement);

/// @param experts_of_rank [ep_size], all of the same length; not checked further
///        (check_placement() does)
/// @returns the placement whose rank r holds `experts_of_rank[r]`, in the order given
/// @throws Error(kInvalidArgument), naming the rank, if the lengths differ
Placement placement_of_ranks(std::int32_t num_experts,
                             std::span<const std::vector<std::int32_t>> experts_of_rank);

/// @returns expert e on rank e / (num_experts / ep_size), as engines place without a plan
/// @throws Error(kInvalidArgument) if `num_experts` is not a multiple of `ep_size`
Placement place_contiguous(std::int32_t num_experts, std::int32_t ep_size);

}  // namespace c2r
