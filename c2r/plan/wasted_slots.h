// Slots that are wasted, because another slot of their rank holds the same expert.
//
// DeepSeek's EPLB may put two replicas of an expert on one rank. An engine loads both, but tokens
// reach the rank for the expert once, so a Placement has an empty slot in place of the second.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/placement.h"

namespace c2r {

/// A slot that is empty in a Placement, and the expert that an engine has in it.
struct WastedSlot {
  RankId rank{};
  std::int32_t slot = 0;  // of the rank, from 0
  ExpertId expert = kNoExpert;

  bool operator==(const WastedSlot&) const = default;
};

/// Empties each slot whose expert an earlier slot of the same rank holds.
/// @param slots [ep_size, slots_per_rank], as an engine has them
/// @returns the slots that were emptied, in the order of ranks and slots
std::vector<WastedSlot> empty_wasted_slots(Matrix<ExpertId>& slots);

/// Puts the experts of wasted slots back, which check_wasted_slots() must accept.
/// @returns the slots as an engine has them. [ep_size, slots_per_rank]
Matrix<ExpertId> with_wasted_slots(const Placement& placement, std::span<const WastedSlot> wasted);

/// Checks a placement whose empty slots are the wasted ones and no others.
/// @throws Error(kInvalidArgument) as check_slots(), and, naming rank and slot, if a slot is empty
///         and not wasted, or is called wasted but is not empty or of an expert that no other slot
///         of its rank holds, or if the wasted slots do not ascend
void check_wasted_slots(const Placement& placement, std::span<const WastedSlot> wasted);

}  // namespace c2r
