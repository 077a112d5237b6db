// Tables that estimate in constant time what a change of a placement with replicas does to copies.
//
// While every token stays with the slots that serve it, the slots are the items of a partition into
// ranks, and tables like those of partition_level.h give the effect of an exchange of two slots.
// For groups that are ranks, or nodes:
//   near(s, g)       tokens of slot s that group g serves by another slot, too
//   alone_with(s, t) tokens of the slots s and t in which s is the only slot of its group
//   gain(e, g)       tokens of expert e that visit g, and whose slot for e is alone in another
//   group
// Exchanging slot a of group A and slot b of group B changes the copies by
//   near(a, A) - near(a, B) + near(b, B) - near(b, A) + alone_with(a, b) + alone_with(b, a)
// Serving tokens anew afterwards can only lower that.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"

namespace c2r {

/// The tables above for one kind of group. A slot never changes its group: what it holds changes.
class GroupTables {
 public:
  /// @param group_of [num_slots]
  GroupTables(std::int32_t num_experts, std::vector<std::int32_t> group_of,
              std::int32_t num_groups);

  /// Adds tokens that chose `experts` and are served by `slots` in the same order; a negative
  /// weight takes them away. Cost: O(top_k^2).
  void add(std::span<const std::uint16_t> experts, std::span<const std::int32_t> slots,
           std::int64_t weight);
  void clear();

  std::int32_t group_of(std::int32_t slot) const { return at(group_of_, slot); }
  /// @returns the change of the copies if two slots of different groups exchange what they hold
  std::int64_t swap_delta(std::int32_t a, std::int32_t b) const {
    return move_delta(a, group_of(b)) + move_delta(b, group_of(a)) + alone_with_(a, b) +
           alone_with_(b, a);
  }
  /// @returns the change of the copies if group `to` serves the tokens of a slot of another group
  std::int64_t move_delta(std::int32_t slot, std::int32_t to) const {
    return near_(slot, group_of(slot)) - near_(slot, to);
  }
  /// @returns the tokens that need a group less if a slot of `group` serves `expert` as well
  std::int64_t gain(std::int32_t expert, std::int32_t group) const { return gain_(expert, group); }

 private:
  std::vector<std::int32_t> group_of_;  // [num_slots]
  Matrix<std::int64_t> near_;           // [num_slots, num_groups]
  Matrix<std::int64_t> alone_with_;     // [num_slots, num_slots]
  Matrix<std::int64_t> gain_;           // [num_experts, num_groups]
  // Scratch of add(): the groups of a set, and how many of its slots are in each, else 0.
  std::vector<std::int32_t> visited_, num_inside_;  // [<= top_k], [num_groups]
};

/// The tables for ranks and, if there are several, nodes; and the loads of slots. Slots are
/// numbered rank by rank.
class ServedTables {
 public:
  /// Memory: 8 bytes for each pair of slots, on several nodes twice.
  ServedTables(const Cluster& cluster, const Placement& placement, std::int32_t num_scenarios);

  /// The slot holds `expert` from now on. What was added before it changed can still be taken away.
  void place(std::int32_t expert, std::int32_t slot) { slot_of_(expert, rank_of(slot)) = slot; }
  /// Adds tokens, served by one rank an expert; a sign of -1 takes them away.
  /// @param scenario_weights [num_scenarios]
  void add(std::span<const std::uint16_t> experts, std::span<const std::uint16_t> ranks,
           std::int64_t weight, std::span<const std::int64_t> scenario_weights, std::int64_t sign);
  void clear();

  std::int32_t rank_of(std::int32_t slot) const { return ranks_.group_of(slot); }
  /// @returns the slot that holds `expert` on `rank`, which hosts it
  std::int32_t slot_of(std::int32_t expert, std::int32_t rank) const {
    return slot_of_(expert, rank);
  }
  /// @returns the tokens that a slot serves. [num_scenarios]
  std::span<const std::int64_t> loads(std::int32_t slot) const {
    return std::span(loads_).subspan(std::size_t(slot) * num_scenarios_, num_scenarios_);
  }

  struct Copies {
    std::int64_t rank = 0, node = 0;
  };
  /// @returns the change of the copies if two slots of different ranks exchange what they hold
  Copies swap_delta(std::int32_t a, std::int32_t b) const;
  /// @returns the change of the copies if `rank` serves all tokens of a slot of another rank
  Copies move_delta(std::int32_t slot, std::int32_t rank) const;
  /// @returns how many copies fewer there are if `rank` hosts `expert` as well
  Copies gain(std::int32_t expert, std::int32_t rank) const;

 private:
  Cluster cluster_;
  std::size_t num_scenarios_ = 1;
  GroupTables ranks_;
  std::optional<GroupTables> nodes_;
  Matrix<std::int32_t> slot_of_;     // [num_experts, ep_size], the last slot of an expert on a rank
  std::vector<std::int64_t> loads_;  // [num_slots, num_scenarios]
  std::vector<std::int32_t> slots_;  // [<= top_k], scratch
};

}  // namespace c2r
