// Computes a model's Pareto front: moves along the convex hulls of the layers' fronts in ascending
// order of their price.
#include "c2r/placement/model_front.h"

#include <algorithm>
#include <tuple>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// One layer's move from its point before `to` on the hull to `to`.
struct FrontStep {
  std::size_t layer = 0, to = 0;
  double copies = 0, imbalance = 0;  // more of the one, less of the other

  double price() const { return copies / imbalance; }
};

// The moves along the lower convex hull of the layer's points, the cheapest first.
void add_steps(std::size_t layer, std::span<const OptimizedPlacement> front,
               std::vector<FrontStep>& steps) {
  std::size_t from = 0;
  while (from + 1 < front.size()) {
    FrontStep best;
    for (std::size_t to = from + 1; to < front.size(); ++to) {
      const FrontStep step{layer, to, front[to].copy_cost - front[from].copy_cost,
                           front[from].imbalance - front[to].imbalance};
      if (best.to == 0 || step.price() <= best.price()) best = step;
    }
    steps.push_back(best);
    from = best.to;
  }
}

}  // namespace

std::vector<ModelFrontPoint> model_front(std::span<const std::vector<OptimizedPlacement>> layers,
                                         std::size_t max_points) {
  C2R_REQUIRE(max_points >= 2, kInvalidArgument, "a front needs at least 2 points, not {}",
              max_points);
  ModelFrontPoint point{.chosen = std::vector<std::size_t>(layers.size()), .mean_imbalance = 0};
  std::vector<FrontStep> steps;
  const auto num_layers = static_cast<double>(layers.size());
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    C2R_REQUIRE(!layers[layer].empty(), kInvalidArgument, "layer {} has an empty front", layer);
    point.mean_copy_cost += layers[layer][0].copy_cost / num_layers;
    point.mean_imbalance += layers[layer][0].imbalance / num_layers;
    add_steps(layer, layers[layer], steps);
  }
  std::ranges::sort(steps, {},
                    [](const FrontStep& s) { return std::tuple(s.price(), s.layer, s.to); });

  std::vector<ModelFrontPoint> points = {point};
  const std::size_t num_steps = steps.size(), intervals = std::min(num_steps, max_points - 1);
  for (std::size_t done = 0; done < num_steps; ++done) {
    const FrontStep& step = steps[done];
    point.chosen[step.layer] = step.to;
    point.mean_copy_cost += step.copies / num_layers;
    point.mean_imbalance -= step.imbalance / num_layers;
    if ((done + 1) * intervals / num_steps > done * intervals / num_steps) points.push_back(point);
  }
  return points;
}

}  // namespace c2r
