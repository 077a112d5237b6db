// Search for a placement without replicas: simulated annealing over swaps of two experts.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

struct PartitionProblem {
  const SetIndex* index = nullptr;
  Cluster cluster;
  std::int32_t num_items = 0;  // experts and redundant slots: a multiple of the ranks
  SearchEnergy energy;
  // A swap is of two ranks of one domain; with a single domain, of any two ranks. [ep_size]
  std::vector<std::int32_t> domain_of_rank;
  // Of each item, the items that hold the other replicas of its expert: they must stay on other
  // ranks, and all replicas together on as many nodes as they are. [num_items], or empty: none
  std::vector<std::vector<std::int32_t>> other_replicas;
};

struct PartitionEffort {
  std::int64_t work = 0;  // swaps evaluated + 2 x sets visited by swaps made; some 10 ns each
  // In units of the mean number of tokens of an expert.
  double start_temperature = 0.08, end_temperature = 0.008;
  // The load penalty rises to its full height from this part of it. Low starts find better
  // placements where the bound is loose, but may miss it altogether where it is tight.
  double start_penalty = 1;
  std::uint64_t seed = 0;
};

/// Improves an assignment. Deterministic, unless a limit ends it.
/// @param rank_of [num_items], in which every rank must occur equally often
/// @returns the best assignment met, `rank_of` included: of those that violate the bounds least,
///          the one of the least energy
std::vector<std::int32_t> anneal_partition(const PartitionProblem& problem,
                                           const PartitionEffort& effort,
                                           const SearchLimits& limits,
                                           std::vector<std::int32_t> rank_of);

/// The same on the pair surrogate, whose swaps cost O(num_items) and not O(sets).
/// @param pairs pair_counts() of the problem's index, padded to num_items
std::vector<std::int32_t> anneal_pairs(const PartitionProblem& problem,
                                       const Matrix<std::int64_t>& pairs,
                                       const PartitionEffort& effort, const SearchLimits& limits,
                                       std::vector<std::int32_t> rank_of);

/// The copies and loads of a partition, counted anew.
struct PartitionCost {
  std::int64_t rank_copies = 0, node_copies = 0;
  std::vector<std::int64_t> loads;  // [num_scenarios, ep_size]
};
PartitionCost partition_cost(const PartitionProblem& problem,
                             const std::vector<std::int32_t>& rank_of);

}  // namespace c2r
