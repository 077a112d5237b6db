// Which expert sits in which slot of which rank, for one MoE layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// Every rank has the same number of slots, as every engine wants it. Slots beyond num_experts
/// hold replicas; an expert has at most one slot on a rank.
struct Placement {
  std::int32_t num_experts = 0;
  Matrix<ExpertId>
      slots;  // [ep_size, slots_per_rank]; every expert at least once; kNoExpert = empty

  std::int32_t ep_size() const { return static_cast<std::int32_t>(slots.rows()); }
  std::int32_t slots_per_rank() const { return static_cast<std::int32_t>(slots.cols()); }
  bool operator==(const Placement&) const = default;
};

/// Checks the invariants above.
/// @throws Error(kInvalidArgument), naming the expert or the slot
void check_slots(const Placement& placement);
/// The same, and that no slot is empty: what engines take, and what all but predictions work with.
void check_placement(const Placement& placement);

/// Whether slots are left beyond one for each expert.
bool has_replicas(const Placement& placement);

/// The ranks that host each expert, ascending. [num_experts]
std::vector<std::vector<RankId>> ranks_of_experts(const Placement& placement);

/// The rank of each expert of a placement without replicas. [num_experts]
/// @throws Error(kInvalidArgument), naming the expert, if one is on no rank or on several
std::vector<RankId> rank_of(const Placement& placement);

/// The placement whose rank r holds `experts_of_rank[r]`, in the order given.
/// @param experts_of_rank [ep_size], all of the same length; whether the experts make a valid
///        placement is check_placement()'s business
/// @throws Error(kInvalidArgument), naming the rank, if the lengths differ
Placement placement_of_ranks(std::int32_t num_experts,
                             std::span<const std::vector<std::int32_t>> experts_of_rank);

/// Expert e on rank e / (num_experts / ep_size): what engines do without a placement.
/// @throws Error(kInvalidArgument) if `num_experts` is not a multiple of `ep_size`
Placement place_contiguous(std::int32_t num_experts, std::int32_t ep_size);

}  // namespace c2r
