// The optimizer over one layer or many: decides which searches a goal needs, and the effort of
// each.
#include "c2r/placement/optimize.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/search/layer_search.h"
#include "c2r/placement/search/search_energy.h"

namespace c2r {
namespace {

// Called first by whatever takes options.
SearchLimits limits_for(const OptimizeOptions& options) {
  constexpr double kMostSeconds = 1e9;  // 30 years: the clock's 2^63 ns are 292
  C2R_REQUIRE(options.effort > 0, kInvalidArgument, "the effort is {}, but must be above 0",
              options.effort);
  SearchLimits limits{.stop = options.stop};
  if (options.seconds) {
    C2R_REQUIRE(*options.seconds > 0, kInvalidArgument, "{} seconds for a search must be above 0",
                *options.seconds);
    limits.deadline = std::chrono::steady_clock::now() +
                      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                          std::chrono::duration<double>(std::min(*options.seconds, kMostSeconds)));
  }
  return limits;
}

// Placements from the fewest copies to the best balance, all within objective.max_imbalance if that
// can be.
std::vector<OptimizedPlacement> points_of_front(const TokenSets& sets, const Cluster& cluster,
                                                const PlacementObjective& objective,
                                                const OptimizeOptions& options,
                                                const SearchLimits& limits, int num_points) {
  PlacementObjective asked = objective;
  asked.imbalance_weight = 0;
  asked.max_copy_cost.reset();
  asked.goal = Goal::kCopies;
  std::vector<OptimizedPlacement> points = {search_layer(sets, cluster, asked, options, limits)};
  asked.goal = Goal::kImbalance;
  points.push_back(search_layer(sets, cluster, asked, options, limits));
  const double worst = points[0].imbalance, best = points[1].imbalance;
  asked.goal = Goal::kCopies;
  for (int point = 1; point + 1 < num_points; ++point) {
    // Even in the logarithm: near perfect balance small steps matter.
    const double share = static_cast<double>(point) / (num_points - 1);
    asked.max_imbalance = worst * std::pow(best / worst, share);
    points.push_back(search_layer(sets, cluster, asked, options, limits));
  }
  return points;
}

// The time of a layer is the work of its busiest rank and the copies on its busiest link. Fewest
// copies under the right bound on imbalance keep both low: a coarse front finds that bound.
OptimizedPlacement fastest_placement(const TokenSets& sets, const Cluster& cluster,
                                     const PlacementObjective& objective,
                                     const OptimizeOptions& options, const SearchLimits& limits) {
  constexpr int kPoints = 6;
  OptimizeOptions coarse = options;
  coarse.effort /= kPoints;
  auto points = points_of_front(sets, cluster, objective, coarse, limits, kPoints);
  const double least_copy_cost = points[0].copy_cost_bound;
  const auto timed = [&](const Placement& placement) {
    return measure_placement(sets, cluster, objective, placement);
  };
  for (OptimizedPlacement& point : points) point = timed(point.placement);
  OptimizedPlacement best = *std::ranges::min_element(points, {}, &OptimizedPlacement::quality);
  PlacementObjective within = objective;
  within.goal = Goal::kCopies;
  within.imbalance_weight = 0;
  within.max_imbalance = best.imbalance;
  auto again = timed(search_layer(sets, cluster, within, options, limits).placement);
  if (again.quality() < best.quality()) best = std::move(again);
  best.copy_cost_bound = std::max(best.copy_cost_bound, least_copy_cost);
  return best;
}

// The best balance that max_copy_cost allows. Annealing for balance knows no copies where pairs
// stand in for tokens, so the fewest copies under bounds on imbalance are found as well: between
// the last bound that was affordable and the last that was not.
OptimizedPlacement balanced_placement(const TokenSets& sets, const Cluster& cluster,
                                      const PlacementObjective& objective,
                                      const OptimizeOptions& options, const SearchLimits& limits) {
  constexpr int kSteps = 6;
  OptimizeOptions coarse = options;
  // Together as much as the first search. With replicas, a search with less effort needs more
  // copies than one with all of it, so that none would be affordable.
  if (options.redundant_slots_per_rank == 0) coarse.effort /= kSteps;
  coarse.max_columns = 0;  // optima within these bounds need no proof
  PlacementObjective asked = objective;
  asked.goal = Goal::kCopies;
  asked.imbalance_weight = 0;
  asked.max_copy_cost.reset();
  OptimizedPlacement best = search_layer(sets, cluster, objective, options, limits);
  double low = best.imbalance_bound, high = 0;
  for (int step = 0; step < kSteps && !limits.reached() && !best.is_proved_optimal; ++step) {
    if (step > 0) asked.max_imbalance = std::sqrt(low * high);
    const auto fewest = search_layer(sets, cluster, asked, coarse, limits);
    auto met = measure_placement(sets, cluster, objective, fewest.placement);
    const bool is_affordable = met.copy_cost <= *objective.max_copy_cost * (1 + kRounding);
    if (step == 0 || is_affordable) {
      high = met.imbalance;
    } else {
      low = *asked.max_imbalance;
    }
    if (met.quality() < best.quality()) best = std::move(met);
    if (step == 0 && !is_affordable) break;  // a better balance costs still more
    if (best.meets_bounds) high = std::min(high, best.imbalance);
  }
  return best;
}

OptimizedPlacement solve(const TokenSets& sets, const Cluster& cluster,
                         const PlacementObjective& objective, const OptimizeOptions& options,
                         const SearchLimits& limits, const ServedLoads& served) {
  check_token_sets(sets);
  check_cluster(cluster);
  C2R_REQUIRE(
      !served || (objective.goal == Goal::kCopies && objective.max_imbalance &&
                  !objective.max_copy_cost && sets.multiplicity_in.cols() <= 1),
      kInvalidArgument,
      "loads in another order of the tokens are for few copies within a bound on imbalance, "
      "without scenarios");
  const bool is_time = objective.goal == Goal::kTime;
  C2R_REQUIRE(!is_time || (objective.layer_time && !objective.max_copy_cost), kInvalidArgument,
              "minimizing the predicted time needs layer_time and takes no max_copy_cost");
  const bool is_balance = objective.goal == Goal::kImbalance && objective.max_copy_cost;
  auto result = is_time      ? fastest_placement(sets, cluster, objective, options, limits)
                : is_balance ? balanced_placement(sets, cluster, objective, options, limits)
                             : search_layer(sets, cluster, objective, options, limits, served);
  result.is_cut_short = limits.reached() && !result.is_proved_optimal;  // in any of its searches
  return result;
}

// More than a short search takes on some tens of ranks. On a thousand it ends that search, where
// its first round alone takes longer.
constexpr std::chrono::milliseconds kSketchTime{100};

// A search that a limit ends early in its heat, or before it began, is behind even a short one.
OptimizedPlacement solve_or_sketch(const TokenSets& sets, const Cluster& cluster,
                                   const PlacementObjective& objective,
                                   const OptimizeOptions& options, const SearchLimits& limits,
                                   const ServedLoads& served) {
  const bool has_begun = !limits.reached();
  OptimizedPlacement searched;
  if (has_begun) searched = solve(sets, cluster, objective, options, limits, served);
  if (has_begun && !searched.is_cut_short) return searched;
  OptimizeOptions brief = options;
  brief.effort = std::min(options.effort, 0.02);
  brief.max_columns = 0;
  auto sketched = solve(sets, cluster, objective, brief,
                        {.deadline = std::chrono::steady_clock::now() + kSketchTime}, served);
  sketched.is_cut_short = !sketched.is_proved_optimal;
  return has_begun && searched.quality() <= sketched.quality() ? searched : sketched;
}

}  // namespace

OptimizedPlacement optimize_placement(const TokenSets& sets, const Cluster& cluster,
                                      const PlacementObjective& objective,
                                      const OptimizeOptions& options, const ServedLoads& served) {
  return solve(sets, cluster, objective, options, limits_for(options), served);
}

std::vector<OptimizedPlacement> optimize_placements(
    std::int64_t num_layers, const std::function<TokenSets(std::int64_t layer)>& load_layer,
    const Cluster& cluster, const PlacementObjective& objective, const OptimizeOptions& options,
    Progress& progress, const LayerServedLoads& served) {
  std::vector<OptimizedPlacement> results(static_cast<std::size_t>(num_layers));
  const SearchLimits all = limits_for(options);
  std::mutex mutex;
  std::int64_t num_started = 0, num_done = 0;
  parallel_for(num_layers, options.num_threads, [&](std::int64_t layer, int) {
    const SearchLimits limits = [&] {
      const std::lock_guard lock(mutex);
      return all.share_of_one(std::chrono::steady_clock::now(), num_layers - num_started++,
                              options.num_threads);
    }();
    ServedLoads of_layer;
    if (served) of_layer = [&](const Placement& placement) { return served(layer, placement); };
    at(results, layer) =
        solve_or_sketch(load_layer(layer), cluster, objective, options, limits, of_layer);
    const std::lock_guard lock(mutex);
    progress.update(++num_done, num_layers);
  });
  return results;
}

std::vector<OptimizedPlacement> pareto_front(const TokenSets& sets, const Cluster& cluster,
                                             const PlacementObjective& objective,
                                             const OptimizeOptions& options, int num_points) {
  C2R_REQUIRE(num_points >= 2, kInvalidArgument, "a front needs at least 2 points, not {}",
              num_points);
  check_token_sets(sets);
  check_cluster(cluster);
  std::vector<OptimizedPlacement> met =
      points_of_front(sets, cluster, objective, options, limits_for(options), num_points);
  for (OptimizedPlacement& point : met) {  // those that the front itself set are none
    point.meets_bounds =
        !objective.max_imbalance || point.imbalance <= *objective.max_imbalance * (1 + kRounding);
  }
  return without_dominated(std::move(met));
}

std::vector<OptimizedPlacement> without_dominated(std::vector<OptimizedPlacement> points) {
  std::ranges::stable_sort(points, {},
                           [](const auto& p) { return std::pair(p.copy_cost, p.imbalance); });
  std::vector<OptimizedPlacement> front;
  for (OptimizedPlacement& point : points) {
    if (front.empty() || point.imbalance < front.back().imbalance)
      front.push_back(std::move(point));
  }
  return front;
}

}  // namespace c2r
