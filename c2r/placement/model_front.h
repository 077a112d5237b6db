// The Pareto front of a whole model, out of those of its layers.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "c2r/placement/optimize.h"

namespace c2r {

/// A placement of every layer that no other mix of the layers' points beats in both means.
struct ModelFrontPoint {
  std::vector<std::size_t> chosen;  // [num_layers], an index into the layer's front
  double mean_copy_cost = 0, mean_imbalance = 1;
};

/// Mixes the layers' points. The layers run one after the other, so costs and imbalances add up.
/// The first mix has the fewest copies of every layer. Each next mix moves one layer to a later
/// point of its front: the layer and the point with the least
///   price = (copy_cost after - before) / (imbalance before - after).
/// These mixes are exactly those that minimize copies + w x imbalance for some w.
///
/// @param layers [num_layers], each as pareto_front() returns it, not empty
/// @param max_points so many of the mixes are kept, the first and the last among them; at least 2
/// @returns the kept mixes in ascending order of mean_copy_cost
/// @throws Error(kInvalidArgument) if a front is empty or max_points is less than 2
///
/// Cost: O(P log P) for P points of all layers together.
std::vector<ModelFrontPoint> model_front(std::span<const std::vector<OptimizedPlacement>> layers,
                                         std::size_t max_points);

}  // namespace c2r
