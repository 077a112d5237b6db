// Lower bounds on the copies and on the imbalance of any placement.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Bounds on the copies of any placement of some token sets.
class CopyBounds {
 public:
  /// @param index must outlive this object
  ///
  /// Cost: O(choices x top_k + num_experts^2 log num_experts).
  explicit CopyBounds(const SetIndex& index);

  /// @returns a number of copies that no placement in `num_groups` groups of `slots_per_group`
  ///          slots is below, with at most one replica of an expert in a group and tokens served in
  ///          any way: the larger of two bounds, which copy_bounds.cc proves
  double copies(std::int32_t num_groups, std::int32_t slots_per_group) const;

 private:
  double by_slots(std::int32_t slots_per_group) const;
  double by_companions(std::int64_t num_replica_slots, std::int32_t slots_per_group) const;
  double most_saved(std::int32_t e, std::int64_t num_replicas, std::int32_t slots_per_group) const;

  const SetIndex* index_;
  std::int64_t max_size_ = 1;                       // experts of a token
  std::vector<std::vector<std::int64_t>> largest_;  // pair counts of each expert, descending
};

/// @returns a max / mean load that no placement in such groups is below; 1 with replicas, which may
///          split any load
double imbalance_bound(const SetIndex& index, std::int32_t num_groups,
                       std::int32_t slots_per_group);

}  // namespace c2r
