// Exchanges slots of running placements, the best first, and shares the moves among layers.
#include "c2r/placement/moves/replan.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/moves/exchange_descent_internal.h"
#include "c2r/placement/moves/relabel.h"

namespace c2r {
namespace {

// Steps of one layer, of which the first `num_made` are made.
struct LayerSteps {
  std::vector<ReplanStep> steps;
  double energy = 0;  // of the running placement
  std::size_t num_made = 0;

  double energy_now() const { return num_made > 0 ? steps[num_made - 1].energy : energy; }
  std::int64_t moved_now() const { return num_made > 0 ? steps[num_made - 1].num_moved : 0; }
};

struct BestSteps {
  std::size_t layer = 0, num_made = 0;
  std::int64_t num_moves = 0;
  double gain_of_move = 0;
};

// @returns the steps of one layer that lower the energy the most for each expert that moves
std::optional<BestSteps> best_steps(std::span<const LayerSteps> layers, std::int64_t moves_left) {
  std::optional<BestSteps> best;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerSteps& of = layers[layer];
    for (std::size_t made = of.num_made + 1; made <= of.steps.size(); ++made) {
      const std::int64_t moves = of.steps[made - 1].num_moved - of.moved_now();
      if (moves > moves_left) continue;
      const double gain =
          (of.energy_now() - of.steps[made - 1].energy) / double(std::max<std::int64_t>(moves, 1));
      if (!best || gain > best->gain_of_move) best = BestSteps{layer, made, moves, gain};
    }
  }
  return best;
}

// Items change places; the contents of a slot are those of the item that ends there.
Placement after_steps(const Placement& running, std::span<const ReplanStep> steps) {
  std::vector<std::int32_t> place_of(running.slots.all().size());
  std::iota(place_of.begin(), place_of.end(), 0);
  for (const ReplanStep& step : steps) {
    std::swap(at(place_of, step.slot_a), at(place_of, step.slot_b));
  }
  Placement after = running;
  for (std::size_t item = 0; item < place_of.size(); ++item) {
    after.slots.all()[std::size_t(place_of[item])] = running.slots.all()[item];
  }
  return after;
}

}  // namespace

RunningLayer::RunningLayer(const TokenSets& sets, const Cluster& cluster,
                           const PlacementObjective& objective, const Placement& running,
                           bool is_fixed_to_nodes) {
  check_token_sets(sets);
  check_cluster(cluster);
  check_placement(running);
  C2R_REQUIRE(
      running.num_experts == sets.num_experts && running.ep_size() == cluster.ep_size(),
      kInvalidArgument,
      "the running placement is of {} experts on {} ranks, but the tokens are of {} experts "
      "on a cluster of {} ranks",
      running.num_experts, running.ep_size(), sets.num_experts, cluster.ep_size());
  C2R_REQUIRE(objective.goal != Goal::kTime, kInvalidArgument,
              "a running layer needs an objective of copies or imbalance: linear_objective()");
  state_ = std::make_unique<internal::RunningState>(sets, cluster, objective, running,
                                                    is_fixed_to_nodes);
}
RunningLayer::RunningLayer(RunningLayer&&) noexcept = default;
RunningLayer& RunningLayer::operator=(RunningLayer&&) noexcept = default;
RunningLayer::~RunningLayer() = default;

const Placement& RunningLayer::running() const {
  return state_->running;
}

const Cluster& RunningLayer::cluster() const {
  return state_->cluster;
}

double RunningLayer::energy() const {
  return internal::ExchangeDescent(*state_).energy();
}

std::vector<ReplanStep> RunningLayer::steps(std::int64_t max_moves) const {
  internal::ExchangeDescent descent(*state_);
  std::vector<ReplanStep> steps;
  while (const auto step = descent.best_step()) {
    if (step->num_moved > max_moves) break;
    steps.push_back(*step);
  }
  return steps;
}

std::vector<Placement> replan(std::span<const RunningLayer> layers, std::int64_t max_moves,
                              int num_threads) {
  C2R_REQUIRE(max_moves >= 0, kInvalidArgument, "{} experts may move, but must be at least 0",
              max_moves);
  const auto num_layers = std::ssize(layers);
  const std::int64_t most =
      num_layers > 0 ? std::min(max_moves, 4 * (max_moves / num_layers + 1)) : 0;
  std::vector<LayerSteps> found(layers.size());
  parallel_for(num_layers, num_threads, [&](std::int64_t layer, int) {
    const RunningLayer& running = layers[std::size_t(layer)];
    at(found, layer) = {.steps = running.steps(most), .energy = running.energy()};
  });
  std::int64_t moves_left = max_moves;
  while (const auto next = best_steps(found, moves_left)) {
    found[next->layer].num_made = next->num_made;
    moves_left -= next->num_moves;
  }
  std::vector<Placement> placements(layers.size());
  parallel_for(num_layers, num_threads, [&](std::int64_t l, int) {
    const RunningLayer& layer = at(layers, l);
    const LayerSteps& of = at(found, l);
    const auto after = after_steps(layer.running(), std::span(of.steps).first(of.num_made));
    at(placements, l) = with_fewest_moves(layer.running(), after, layer.cluster());
  });
  return placements;
}

PlacementObjective linear_objective(const PlacementObjective& objective, const Cluster& cluster,
                                    std::int64_t top_k) {
  if (objective.goal != Goal::kTime) return objective;
  C2R_REQUIRE(objective.layer_time && cluster.device_flop_per_s, kInvalidArgument,
              "the goal time needs layer_time and a cluster with device_flop_per_s");
  const CopyFormat& format = objective.layer_time->format;
  const double ranks = cluster.ep_size();
  const Link& link = cluster.num_nodes > 1 && cluster.ranks_per_node == 1 ? cluster.inter_node
                                                                          : cluster.intra_node;
  const double bytes =
      double(format.hidden * (format.dispatch_element_bytes + format.combine_element_bytes));
  // Of one token: a copy leaves its rank with the probability (ranks - 1) / ranks, over one of
  // `ranks` links; its choices are spread over the ranks.
  const double copy_s = bytes * (ranks - 1) / ranks / ranks / link.bandwidth_bytes_per_s;
  const double balanced_s =
      double(top_k) / ranks * objective.layer_time->flop_per_choice / *cluster.device_flop_per_s;
  PlacementObjective linear = objective;
  linear.goal = Goal::kCopies;
  linear.layer_time.reset();
  linear.imbalance_weight = copy_s > 0 ? balanced_s / copy_s : 0;
  return linear;
}

}  // namespace c2r
