// The fewest ranks that serve one token, and among those the least loaded: exact, by branch and
// bound.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace c2r {

/// Chooses for one token after another; keeps its scratch.
class CoverSolver {
 public:
  explicit CoverSolver(std::int32_t ranks_per_node) : ranks_per_node_(ranks_per_node) {}

  /// Fills `served_by` [k] with a host of each expert, so that few distinct ranks are used: as few
  /// as any choice needs. Ties: the fewest nodes, then the least sum over experts of the load of
  /// their rank, then the first found. An expert that two chosen ranks host goes to the less
  /// loaded, then lower one.
  ///
  /// @param hosts [k], the ranks of each expert, ascending and not empty
  /// @param loads of every rank
  ///
  /// Cost: O(k^2) if no expert has a choice left once the single hosts are visited; else the
  /// product of the replica numbers of those that have, cut off by the best so far. After kMaxSteps
  /// the best so far is taken, which then may not be the fewest.
  std::int32_t solve(std::span<const std::span<const std::uint16_t>> hosts,
                     std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by);

  static constexpr std::int32_t kMaxSteps = 4096;

 private:
  void branch();
  void consider();
  bool is_used(std::uint16_t rank) const;

  std::int32_t num_nodes_used() const;

  std::int32_t ranks_per_node_ = 1;
  std::span<const std::span<const std::uint16_t>> hosts_;
  std::span<const std::int64_t> loads_;
  std::vector<std::uint16_t> used_, best_;
  std::pair<std::int32_t, std::int64_t> best_ties_;  // nodes, load
  std::int32_t steps_ = 0;
};

}  // namespace c2r
