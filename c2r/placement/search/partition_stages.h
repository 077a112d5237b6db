// Search for a placement without replicas in stages: hot on a sample of the token sets, then cooler
// on larger samples.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/placement/search/partition_search.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Anneals several problems on the same token sets.
class PartitionStages {
 public:
  /// @param index must outlive this object, and so must `limits`
  PartitionStages(const SetIndex& index, const SearchLimits& limits);

  /// @param problem on the index
  /// @param work in the unit of PartitionEffort
  /// @returns an assignment, which is not worse than `start`
  ///
  /// Cost: `work`, twice if the bound on the load is missed, and some passes over the sets.
  std::vector<std::int32_t> anneal(const PartitionProblem& problem, std::int64_t work,
                                   std::uint64_t seed, const std::vector<std::int32_t>& start);

  /// Anneals on pair counts alone, for a caller that looks at tokens later.
  std::vector<std::int32_t> anneal_on_pairs(const PartitionProblem& problem, std::int64_t work,
                                            std::uint64_t seed,
                                            const std::vector<std::int32_t>& start);

 private:
  std::vector<std::int32_t> annealed_whole(const PartitionProblem& problem, std::int64_t work,
                                           std::uint64_t seed,
                                           const std::vector<std::int32_t>& start) const;
  std::vector<std::int32_t> best_of_hot_starts(const PartitionProblem& problem, double work,
                                               double num_sets, std::uint64_t seed,
                                               const std::vector<std::int32_t>& start);
  std::vector<std::int32_t> cooled(const PartitionProblem& problem, double work, double num_sets,
                                   std::uint64_t seed, std::vector<std::int32_t> rank_of) const;

  const Matrix<std::int64_t>& pairs_of(const PartitionProblem& problem);

  const SetIndex& index_;
  const SearchLimits& limits_;
  double sets_per_expert_ = 0;  // on average
  Matrix<std::int64_t> pairs_;  // empty until they are needed
};

/// @returns the order of an assignment among others of the same problem
Quality partition_quality(const PartitionProblem& problem,
                          const std::vector<std::int32_t>& rank_of);

}  // namespace c2r
