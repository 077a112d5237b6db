// Finds, checks and restores the slots whose expert their rank holds in another slot, too.
#include "c2r/plan/wasted_slots.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "c2r/core/error.h"

namespace c2r {
namespace {

void check_wasted_slot(const Placement& placement, const WastedSlot& wasted) {
  const auto rank = static_cast<std::int32_t>(wasted.rank);
  C2R_REQUIRE(0 <= rank && rank < placement.ep_size() && 0 <= wasted.slot &&
                  wasted.slot < placement.slots_per_rank(),
              kInvalidArgument,
              "slot {} of rank {} is called wasted, but there are {} ranks of {} slots",
              wasted.slot, rank, placement.ep_size(), placement.slots_per_rank());
  const auto row = placement.slots.row(rank);
  C2R_REQUIRE(row[static_cast<std::size_t>(wasted.slot)] == kNoExpert, kInvalidArgument,
              "slot {} of rank {} is called wasted, but it is in use", wasted.slot, rank);
  C2R_REQUIRE(wasted.expert != kNoExpert && std::ranges::count(row, wasted.expert) > 0,
              kInvalidArgument,
              "slot {} of rank {} is called wasted, but no other slot of the rank holds its expert "
              "{}",
              wasted.slot, rank, static_cast<std::int32_t>(wasted.expert));
}

}  // namespace

std::vector<WastedSlot> empty_wasted_slots(Matrix<ExpertId>& slots) {
  std::vector<WastedSlot> wasted;
  for (std::int64_t rank = 0; rank < slots.rows(); ++rank) {
    const auto row = slots.row(rank);
    for (auto slot = row.begin(); slot != row.end(); ++slot) {
      if (*slot == kNoExpert || std::find(row.begin(), slot, *slot) == slot) continue;
      wasted.push_back({.rank = RankId{static_cast<std::int32_t>(rank)},
                        .slot = static_cast<std::int32_t>(slot - row.begin()),
                        .expert = *slot});
      *slot = kNoExpert;
    }
  }
  return wasted;
}

Matrix<ExpertId> with_wasted_slots(const Placement& placement, std::span<const WastedSlot> wasted) {
  Matrix<ExpertId> slots = placement.slots;
  for (const auto& [rank, slot, expert] : wasted) {
    slots(static_cast<std::int64_t>(rank), slot) = expert;
  }
  return slots;
}

void check_wasted_slots(const Placement& placement, std::span<const WastedSlot> wasted) {
  const auto place = [](const WastedSlot& slot) { return std::tuple(slot.rank, slot.slot); };
  const auto descent = std::ranges::adjacent_find(
      wasted, [&](const WastedSlot& a, const WastedSlot& b) { return place(a) >= place(b); });
  C2R_REQUIRE(
      descent == wasted.end(), kInvalidArgument,
      "wasted slots must ascend by rank and slot, but slot {} of rank {} stands before slot "
      "{} of rank {}",
      descent->slot, static_cast<std::int32_t>(descent->rank), std::next(descent)->slot,
      static_cast<std::int32_t>(std::next(descent)->rank));
  for (const WastedSlot& slot : wasted) check_wasted_slot(placement, slot);
  const Matrix<ExpertId> slots = with_wasted_slots(placement, wasted);
  const auto empty = std::ranges::find(slots.all(), kNoExpert) - slots.all().begin();
  C2R_REQUIRE(empty == std::ssize(slots.all()), kInvalidArgument, "rank {} has an empty slot {}",
              empty / placement.slots_per_rank(), empty % placement.slots_per_rank());
  check_slots(placement);
}

}  // namespace c2r
