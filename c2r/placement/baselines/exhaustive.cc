// place_exhaustive(): searches all partitions into equal groups, depth first. Each partition occurs
// once: experts are assigned in order, and the lowest expert without a group opens a new group.
#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/placement/baselines/baselines_internal.h"

namespace c2r {
namespace {

class PartitionSearch {
 public:
  PartitionSearch(MatrixView<const std::int64_t> counts, std::int32_t num_groups)
      : counts_(counts),
        group_size_(static_cast<std::size_t>(counts.rows() / num_groups)),
        groups_(static_cast<std::size_t>(num_groups)) {}

  /// The groups with most pairs inside; of equals the one whose group numbers are first in order.
  std::vector<std::vector<std::int32_t>> run() {
    descend(0, 0);
    return best_groups_;
  }

 private:
  void descend(std::int32_t expert, std::int64_t pairs_inside) {
    if (expert == counts_.rows()) {
      if (pairs_inside > best_pairs_) best_pairs_ = pairs_inside, best_groups_ = groups_;
      return;
    }
    for (auto& group : groups_) {
      if (group.size() == group_size_) continue;
      const bool opens_group = group.empty();
      std::int64_t gain = 0;
      for (const std::int32_t other : group) gain += counts_(expert, other);
      group.push_back(expert);
      descend(expert + 1, pairs_inside + gain);
      group.pop_back();
      if (opens_group) break;  // another empty group would give the same partition
    }
  }

  MatrixView<const std::int64_t> counts_;
  std::size_t group_size_;
  std::vector<std::vector<std::int32_t>> groups_, best_groups_;
  std::int64_t best_pairs_ = -1;
};

}  // namespace

Placement internal::place_exhaustive(const BaselineProblem& problem) {
  return placement_of_ranks(problem.num_experts(),
                            PartitionSearch(problem.counts, problem.cluster.ep_size()).run());
}

}  // namespace c2r
