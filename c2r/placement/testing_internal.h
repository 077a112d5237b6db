// Random placements and choices for the tests of this module and of those above it.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <numeric>
#include <random>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/at.h"
#include "c2r/core/rng.h"
#include "c2r/import/import.h"
#include "c2r/placement/placement.h"

namespace c2r::testing {

/// Clusters for tests that run once for each: one node of 1 to 8 ranks, and several nodes.
inline constexpr Cluster kManyClusters[] = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 8},
                                            {2, 2}, {2, 4}, {4, 2}, {3, 1}};
inline constexpr Cluster kFewClusters[] = {{1, 1}, {1, 3}, {2, 2}, {2, 4}};
/// Names the test of a cluster, as in "2x4".
inline constexpr auto kClusterName = [](const auto& test) {
  return fmt::format("{}x{}", test.param.num_nodes, test.param.ranks_per_node);
};

/// A placement from the experts of each rank, checked.
inline Placement make_placement(std::int32_t num_experts,
                                std::initializer_list<std::initializer_list<int>> ranks) {
  const std::vector<std::vector<std::int32_t>> experts_of_rank(ranks.begin(), ranks.end());
  const Placement placement = placement_of_ranks(num_experts, experts_of_rank);
  check_placement(placement);
  return placement;
}

/// Every expert once on a random rank, and up to `redundant_slots` slots a rank beyond what that
/// needs, filled with random experts that the rank does not hold yet.
inline Placement random_placement(std::int32_t num_experts, std::int32_t ep_size,
                                  int redundant_slots, std::mt19937_64& rng) {
  const int slots =
      std::min(num_experts, (num_experts + ep_size - 1) / ep_size +
                                int(uniform_below(std::uint64_t(redundant_slots) + 1, rng)));
  std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
  std::iota(order.begin(), order.end(), 0);
  shuffle(std::span(order), rng);
  std::vector<std::vector<std::int32_t>> ranks(static_cast<std::size_t>(ep_size));
  for (std::size_t i = 0; i < order.size(); ++i) ranks[i % ranks.size()].push_back(order[i]);
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    while (std::ssize(ranks[r]) < slots) {
      const auto e = std::int32_t(uniform_below(std::uint64_t(num_experts), rng));
      if (std::find(ranks[r].begin(), ranks[r].end(), e) == ranks[r].end()) ranks[r].push_back(e);
    }
  }
  const Placement placement = placement_of_ranks(num_experts, ranks);
  check_placement(placement);
  return placement;
}

/// Up to `top_k` distinct experts in random order, some of them masked.
inline std::vector<ExpertId> random_choices(std::int32_t num_experts, std::int32_t top_k,
                                            std::mt19937_64& rng) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
  std::iota(order.begin(), order.end(), 0);
  shuffle(std::span(order), rng);
  std::vector<ExpertId> choices;
  for (std::int32_t k = 0; k < top_k; ++k) {
    const bool is_masked = k >= num_experts || uniform_below(8, rng) == 0;
    choices.push_back(is_masked ? kNoExpert : ExpertId{at(order, k)});
  }
  return choices;
}

/// The official matrices, with the loads on their diagonals.
inline std::vector<CollaborationMatrix> read_official_counts(const std::filesystem::path& path) {
  return import_statistics({.format = "coactivation", .inputs = {path}, .top_k = 2}).coactivation;
}

/// Each token of a top-2 layer is in two loads.
inline std::int64_t tokens_of_top_2(const CollaborationMatrix& counts) {
  std::int64_t loads = 0;
  for (std::int64_t e = 0; e < counts.rows(); ++e) loads += counts(e, e);
  return loads / 2;
}

}  // namespace c2r::testing
