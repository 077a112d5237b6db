// What a placement costs on token sets, by an objective: copies, imbalance or predicted time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/quality.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

enum class Goal {
  kCopies,     // copy cost + imbalance_weight x (imbalance - 1), per token
  kImbalance,  // the imbalance; a thousandth of the copy cost per token breaks near-ties
  kTime,       // the layer's predicted time
};

/// What is minimized, within which bounds. Copy cost = rank_copy_cost x copies + node_copy_cost x
/// node copies.
struct PlacementObjective {
  double rank_copy_cost = 1;            // of each distinct rank of a token
  double node_copy_cost = 0;            // of each distinct node
  double imbalance_weight = 0;          // for kCopies
  std::optional<double> max_imbalance;  // max / mean load over ranks; a bound
  std::optional<double> max_copy_cost;  // per token; a bound, not for kTime
  Goal goal = Goal::kCopies;
  // For kTime, which needs the cluster's device_flop_per_s. Tokens come from uniform homes, all in
  // one batch unless batch_tokens says otherwise. Weights are not read.
  std::optional<LayerTimeOptions> layer_time;
  std::optional<CopyMode> copy_mode;  // for kTime; without it default_copy_mode()
};

/// @returns an objective whose copy costs are in proportion to the time on each level's links: a
///          copy within a node costs 1. On one node, and where every node is one rank, all links
///          are the same, and every copy costs 1
PlacementObjective objective_for(const Cluster& cluster);

/// A placement and what it costs on the tokens that it was optimized for, counted anew.
struct OptimizedPlacement {
  Placement placement;
  double copies_per_token = 0, node_copies_per_token = 0;
  double copy_cost = 0;  // per token, by the objective
  double imbalance = 1;
  bool meets_bounds = true;           // false: no placement was found that exceeds them by less
  double violation = 0;               // how far the bounds are exceeded; 0 where they are met
  bool is_cut_short = false;          // `seconds` or `stop` ended the search
  bool is_proved_optimal = false;     // value is the least within the bounds
  bool is_proved_infeasible = false;  // no placement of these slots meets the bounds
  double copy_cost_bound = 0;         // no placement of these slots within the bounds costs less
  double imbalance_bound = 1;         // no placement of these slots has less
  // The goal's value here, and what no placement of these slots within the bounds can be below.
  // Seconds for kTime.
  double value = 0, value_bound = 0;

  Quality quality() const { return {violation, value}; }
};

/// The (token, expert) choices that each rank serves when the tokens come in another order than in
/// the search: with replicas, loads depend on it. Called with a placement for the same tokens.
/// @returns [ep_size], whose sum is the number of choices; empty if there is no time to count
using ServedLoads = std::function<std::vector<double>(const Placement&)>;

/// Takes the imbalance of a measured placement from loads that were counted elsewhere, and what
/// follows from it for `objective`. `violation` becomes the excess of the imbalance over its bound;
/// that of the copy cost keeps its unit.
void set_imbalance(double imbalance, const PlacementObjective& objective,
                   OptimizedPlacement& measured);

/// @returns what `placement` costs on `sets`, copy_cost_bound and meets_bounds included
/// @throws Error(kInvalidArgument) if the sets, the cluster or the placement are not valid or not
///         for each other, or if kTime lacks layer_time or the cluster's device_flop_per_s
OptimizedPlacement measure_placement(const TokenSets& sets, const Cluster& cluster,
                                     const PlacementObjective& objective,
                                     const Placement& placement);

}  // namespace c2r
