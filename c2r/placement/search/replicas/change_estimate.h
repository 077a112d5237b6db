// The change of the energy by a change of a placement with replicas, estimated in constant time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"

namespace c2r {

/// Estimates as if every token stayed with the slots that serve it, which is near the truth where
/// few experts have replicas. A search serves tokens only for changes that pass.
class ChangeEstimate {
 public:
  /// @param state with tables(); must outlive this object
  explicit ChangeEstimate(const ReplicaState& state) : state_(state) {}

  /// @param loads by which the energy judges. [num_scenarios, ep_size]
  /// @returns the change of the energy if two slots of different ranks exchange what they hold
  double of_swap(const SearchEnergy& energy, std::span<const std::int64_t> loads, std::int32_t a,
                 std::int32_t b);
  /// @returns the change of the energy if a slot gets `expert` instead of one that has another
  ///          replica. The other replica that costs the fewest copies serves the slot's tokens, and
  ///          the tokens that the slot wins come from the busiest slot of `expert`.
  double of_change(const SearchEnergy& energy, std::span<const std::int64_t> loads,
                   std::int32_t slot, std::int32_t expert);

 private:
  struct Shift {
    std::size_t place = 0;  // in loads
    std::int64_t load = 0;
  };

  void shift(std::size_t scenario, std::int32_t rank, std::int64_t load);
  double change(const SearchEnergy& energy, std::span<const std::int64_t> loads,
                const ServedTables::Copies& copies) const;

  const ReplicaState& state_;
  std::vector<Shift> shifts_;  // at most one for each place
};

}  // namespace c2r
