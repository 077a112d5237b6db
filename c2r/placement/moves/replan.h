// Replans a placement that runs: few experts move, and copies and imbalance fall the most.
//
//   std::vector<c2r::RunningLayer> layers;  // made while tokens come in: the warm state
//   for (...) layers.emplace_back(sets, cluster, objective, running);
//   const auto placements = c2r::replan(layers, /*max_moves=*/1024, /*num_threads=*/2);
//
// Each step exchanges the contents of two slots of different ranks: of all such exchanges the one
// after which the energy of the objective is the least. While every token stays with the slots that
// serve it, each exchange is judged in constant time (partition_level.h); tokens that choose the
// fewest ranks afterwards make no more copies than that.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

namespace internal {
struct RunningState;
}

/// A placement after one more exchange.
struct ReplanStep {
  std::int32_t slot_a = 0,
               slot_b = 0;     // running slots, numbered rank by rank, whose contents change places
  std::int64_t num_moved = 0;  // num_moved_experts() from the running placement until here
  double energy = 0;           // the objective and its bounds as copies of all tokens
};

/// One layer with the placement that it runs with and the tokens that it serves.
class RunningLayer {
 public:
  /// @param objective of kCopies or kImbalance; linear_objective() makes one of kTime
  /// @param is_fixed_to_nodes experts stay on their node, as group-limited routing needs
  /// @throws Error(kInvalidArgument) if the sets, the cluster or the placement are not valid or not
  ///         for each other, or for the goal kTime
  ///
  /// Cost: serves each set twice; memory of some 50 bytes a choice of a distinct set and
  /// slots x (slots + ep_size) x 8 bytes for all slots, on several nodes twice.
  RunningLayer(const TokenSets& sets, const Cluster& cluster, const PlacementObjective& objective,
               const Placement& running, bool is_fixed_to_nodes = false);
  RunningLayer(RunningLayer&&) noexcept;
  RunningLayer& operator=(RunningLayer&&) noexcept;
  ~RunningLayer();

  const Placement& running() const;
  const Cluster& cluster() const;
  /// @returns the energy of the running placement, as ReplanStep::energy
  double energy() const;

  /// @param max_moves the most experts that may move
  /// @returns steps of falling energy, until no exchange lowers it or the next one moves too many
  ///
  /// Cost: O(slots^2) for all slots; then, for each step, O(slots^2 / ep_size) and the sets of two
  /// slots. Where the largest load has a price or copies a bound, O(slots^2) for each step.
  std::vector<ReplanStep> steps(std::int64_t max_moves) const;

 private:
  std::unique_ptr<internal::RunningState> state_;
};

/// Shares the moves among the layers: each time those steps of one layer are made that lower the
/// energy the most for each expert that moves.
/// @param max_moves of all layers together
/// @returns the new placement of each layer. [num_layers]
/// @throws Error(kInvalidArgument) if max_moves is negative
///
/// Cost: RunningLayer::steps() of each layer, up to four times an equal share of the moves.
std::vector<Placement> replan(std::span<const RunningLayer> layers, std::int64_t max_moves,
                              int num_threads);

/// Approximates the predicted time of a layer by copies + weight x (imbalance - 1): the work of the
/// busiest rank, added to copies that are spread evenly over the links.
/// @param objective of kTime, with layer_time
/// @returns an objective of kCopies; any other objective as it is
/// @throws Error(kInvalidArgument) if kTime lacks layer_time or the cluster's device_flop_per_s
PlacementObjective linear_objective(const PlacementObjective& objective, const Cluster& cluster,
                                    std::int64_t top_k);

}  // namespace c2r
