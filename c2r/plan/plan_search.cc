// Searches the placements of a plan, and a bound on imbalance that holds on unseen tokens, or takes
// those of a baseline.
#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/moves/replan.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/plan_search_internal.h"
#include "c2r/plan/prediction/time_left.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r::internal {
namespace {

// The most columns that PlanRequest::proves lists.
constexpr double kProvingColumns = 2e7;

// A bound for unseen tokens leaves at least so much of the room above 1: what is estimated below
// that comes from too few sequences, and costs copies without evening other tokens.
constexpr double kLeastUnseenShare = 0.25;

// What the plan's predictions assume of a runtime.
TrafficModel traffic_of_predictions(const PlanRequest& request) {
  const PredictRequest predicted{.traffic = default_traffic(request.cluster)};
  return request.engine ? for_engine(*request.engine, predicted).traffic : predicted.traffic;
}

// The search serves token sets in an order of its own; a runtime, and with it every prediction,
// serves tokens in theirs, which gives ranks with replicas other loads. Judges by the latter.
// @throws Error(kTimeout) if the progress is stopped
void judge_in_order(const RoutedTokens& tokens, const PlanRequest& request,
                    const PlacementObjective& objective, Progress& progress,
                    std::vector<OptimizedPlacement>& layers) {
  const auto replicates = [](const OptimizedPlacement& layer) {
    return has_replicas(layer.placement);
  };
  if (std::ranges::none_of(layers, replicates)) return;
  std::vector<Placement> placements;
  placements.reserve(layers.size());
  for (const OptimizedPlacement& layer : layers) placements.push_back(layer.placement);
  const auto reach =
      reach_of(tokens, placements, traffic_of_predictions(request), request.num_threads, progress);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (!replicates(layers[layer])) continue;
    set_imbalance(imbalance(rank_choices(reach[layer])), objective, layers[layer]);
  }
}

// The load of each rank, for a search that is to be judged as above; none if the progress is
// stopped.
std::vector<double> loads_in_order(const RoutedTokens& tokens, std::int64_t layer,
                                   const Placement& placement, const TrafficModel& traffic,
                                   const Progress& progress) {
  Reach reach;
  try {
    progress.throw_if_stopped();
    reach = reach_of_layer(tokens, layer, placement, traffic, progress);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kTimeout) return {};
    throw;
  }
  std::vector<double> loads;
  for (const std::int64_t choices : rank_choices(reach)) {
    loads.push_back(double(choices) / double(reach.denominator));
  }
  return loads;
}

// Keeps the running placement of each layer whose search has found nothing better.
// @throws Error(kTimeout) if the progress is stopped
void keep_running(const RoutedTokens& tokens, const PlanRequest& request,
                  const PlacementObjective& objective, Progress& progress,
                  std::vector<OptimizedPlacement>& layers) {
  std::vector<OptimizedPlacement> running(layers.size());
  parallel_for(std::ssize(layers), request.num_threads, [&](std::int64_t l, int) {
    progress.throw_if_stopped();
    const auto layer = std::size_t(l);
    running[layer] = measure_placement(token_sets_of(tokens, l), request.cluster, objective,
                                       at(request.from->plan.layers, l).placement);
  });
  if (tokens.scenarios.empty()) judge_in_order(tokens, request, objective, progress, running);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer].quality() < running[layer].quality()) continue;
    running[layer].copy_cost_bound = layers[layer].copy_cost_bound;
    running[layer].value_bound = layers[layer].value_bound;
    running[layer].is_proved_optimal = layers[layer].is_proved_optimal;
    running[layer].is_proved_infeasible = layers[layer].is_proved_infeasible;
    running[layer].is_cut_short = layers[layer].is_cut_short;
    layers[layer] = std::move(running[layer]);
  }
}

// Whether a layer of the new plan may stay as it runs.
bool can_keep_running(const PlanRequest& request, const TraceHeader& header) {
  return request.from && !request.num_groups &&
         std::ranges::all_of(request.from->plan.layers, [&](const PlanLayer& layer) {
           return layer.wasted_slots.empty() &&
                  layer.placement.slots_per_rank() == slots_per_rank_of(request, header);
         });
}

// Several searches with the same options, one after another.
class PlanSearch {
 public:
  PlanSearch(const PlanRequest& request, const PlanHooks& hooks, Progress& progress)
      : request_(request),
        hooks_(hooks),
        progress_(progress),
        started_(std::chrono::steady_clock::now()) {}

  // Judges by the order of the tokens. Scenarios are judged by the search's own order.
  // @returns false if no time was left to judge
  bool judge(const RoutedTokens& tokens, const PlacementObjective& objective,
             std::vector<OptimizedPlacement>& layers) {
    NoProgress silent;
    LimitedProgress limited(silent, started_, request_.seconds, hooks_.stop);
    TimeLeft left(limited);
    left.run("judging", [&] {
      if (tokens.scenarios.empty()) judge_in_order(tokens, request_, objective, limited, layers);
      if (can_keep_running(request_, tokens.header()))
        keep_running(tokens, request_, objective, limited, layers);
    });
    return left.left_out().empty();
  }

  std::vector<OptimizedPlacement> optimize(const RoutedTokens& tokens,
                                           const PlacementObjective& objective) {
    progress_.begin("placing experts");
    const OptimizeOptions how = optimizer_options();
    const TrafficModel traffic = traffic_of_predictions(request_);
    NoProgress silent;
    LimitedProgress limited(silent, LimitedProgress::Clock::now(), how.seconds, hooks_.stop);
    LayerServedLoads served;
    if (judges_in_search(tokens, objective)) {
      served = [&](std::int64_t layer, const Placement& placement) {
        return loads_in_order(tokens, layer, placement, traffic, limited);
      };
    }
    auto layers = optimize_placements(
        tokens.header().num_layers(),
        [&](std::int64_t layer) { return token_sets_of(tokens, layer); }, request_.cluster,
        objective, how, progress_, served);
    is_cut_short_ |= std::ranges::any_of(layers, &OptimizedPlacement::is_cut_short);
    return layers;
  }

  // @returns the bound to fit with, so that the imbalance stays below objective.max_imbalance on
  // tokens like the fitted ones. Every other sequence is fitted and the imbalance measured on the
  // sequences between, and the other way round. Since each placement sees only half of the tokens,
  // the result is too low rather than too high. No other tokens are used.
  double bound_for_unseen(const RoutedTokens& tokens, const PlacementObjective& objective) {
    C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
                "a bound on unseen tokens needs a trace with sequences, but {} has none",
                tokens.name);
    const auto halves = alternate_sequences(*tokens.trace, tokens.ranges);
    C2R_REQUIRE(!halves[1].empty(), kInvalidArgument,
                "a bound on unseen tokens needs two sequences to fit, but {} has one there",
                tokens.trace->path());
    double fitted = 0, unseen = 0;
    for (const std::size_t half : {0u, 1u}) {
      RoutedTokens fitted_half = tokens;
      fitted_half.ranges = halves[half];
      const auto layers = optimize(fitted_half, objective);
      for (const OptimizedPlacement& layer : layers) fitted += layer.imbalance;
      unseen += imbalance_after(*tokens.trace, layers, halves[half], halves[1 - half]);
    }
    const double estimate = *objective.max_imbalance * std::min(1.0, fitted / unseen);
    const double least = 1 + kLeastUnseenShare * (*objective.max_imbalance - 1);
    if (estimate < least && hooks_.warn) {
      hooks_.warn(fmt::format(
          "halves of the {} fitted sequences differ too much to tell which bound gives {:.4g} on "
          "other tokens: by them it would be {:.4f}; fitting with {:.4f}: record more sequences",
          sequences_in(*tokens.trace, tokens.ranges).size(), *objective.max_imbalance, estimate,
          least));
    }
    return std::max(least, estimate);
  }

  std::string ended_by() const {
    if (!is_cut_short_) return "work";
    return hooks_.stop != nullptr && *hooks_.stop ? "interrupt" : "seconds";
  }

 private:
  // The order of the tokens matters to replicas, and the search's rule must be that of the
  // predictions.
  bool judges_in_search(const RoutedTokens& tokens, const PlacementObjective& objective) const {
    return tokens.scenarios.empty() && objective.goal == Goal::kCopies && objective.max_imbalance &&
           !objective.max_copy_cost &&
           traffic_of_predictions(request_).replica_rule == ReplicaRule::kFewestRanks;
  }

  OptimizeOptions optimizer_options() const {
    OptimizeOptions how{.seed = request_.seed,
                        .effort = request_.effort,
                        .stop = hooks_.stop,
                        .redundant_slots_per_rank = request_.redundant_slots_per_rank,
                        .num_groups = request_.num_groups,
                        .num_threads = request_.num_threads};
    const int num_searches = request_.goal.bound_on == BoundOn::kUnseen ? 3 : 1;
    if (request_.seconds) how.seconds = kSearchShare * *request_.seconds / num_searches;
    if (request_.proves) how.max_columns = kProvingColumns;
    return how;
  }

  // @returns the sum over layers of the imbalance on the tokens `counted`, after the tokens
  // `served`, as a prediction counts it
  double imbalance_after(const Trace& trace, std::span<const OptimizedPlacement> layers,
                         std::span<const TokenRange> served,
                         std::span<const TokenRange> counted) const {
    std::vector<double> met(layers.size());
    parallel_for(std::ssize(layers), request_.num_threads, [&](std::int64_t layer, int) {
      ReachCounter counter(layers[std::size_t(layer)].placement, default_traffic(request_.cluster));
      for (const TokenRange& piece : pieces_of(served)) {
        if (counter.has_memory()) {
          counter.serve_before(trace.topk_idx(layer, piece.begin, piece.end), {});
        }
      }
      for (const TokenRange& piece : pieces_of(counted)) {
        counter.add(trace.topk_idx(layer, piece.begin, piece.end), {});
      }
      met[std::size_t(layer)] = imbalance(rank_choices(counter.finish()));
    });
    return std::accumulate(met.begin(), met.end(), 0.0);
  }

  const PlanRequest& request_;
  const PlanHooks& hooks_;
  Progress& progress_;
  std::chrono::steady_clock::time_point started_;
  bool is_cut_short_ = false;
};

// Gives each empty slot the expert with the most load per replica that its rank lacks.
// @param is_fixed_to_nodes only experts that the node of the rank has
void fill_empty_slots(const TokenSets& sets, const Cluster& cluster, bool is_fixed_to_nodes,
                      Placement& placement) {
  std::vector<double> loads(std::size_t(sets.num_experts));
  std::vector<std::int32_t> replicas(loads.size());
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    for (const ExpertId e : sets.experts.row(set)) {
      if (e != kNoExpert) at(loads, e) += double(at(sets.multiplicity, set));
    }
  }
  for (const ExpertId e : placement.slots.all()) {
    if (e != kNoExpert) ++at(replicas, e);
  }
  const std::int64_t slots_of_node = cluster.ranks_per_node * placement.slots.cols();
  for (std::int64_t rank = 0; rank < placement.slots.rows(); ++rank) {
    const auto row = placement.slots.row(rank);
    const auto reachable = is_fixed_to_nodes
                               ? placement.slots.all().subspan(
                                     std::size_t(rank / cluster.ranks_per_node * slots_of_node),
                                     std::size_t(slots_of_node))
                               : placement.slots.all();
    for (ExpertId& slot : row) {
      if (slot != kNoExpert) continue;
      for (std::int32_t e = 0; e < sets.num_experts; ++e) {
        if (std::ranges::count(row, ExpertId{e}) > 0) continue;
        if (std::ranges::count(reachable, ExpertId{e}) == 0) continue;
        if (slot == kNoExpert ||
            at(loads, e) * at(replicas, slot) > at(loads, slot) * at(replicas, e)) {
          slot = ExpertId{e};
        }
      }
      C2R_REQUIRE(slot != kNoExpert, kInvalidArgument,
                  "a wasted slot of rank {} cannot get an expert: the rank holds all of its node",
                  rank);
      ++at(replicas, slot);
    }
  }
}

}  // namespace

std::int32_t slots_per_rank_of(const PlanRequest& request, const TraceHeader& header) {
  const std::int32_t ep_size = request.cluster.ep_size();
  return (header.num_experts + ep_size - 1) / ep_size + request.redundant_slots_per_rank;
}

std::vector<Placement> placements_by_baseline(const PlanTokens& tokens, const PlanRequest& request,
                                              const PlanHooks& hooks, Progress& progress) {
  progress.begin("placing experts");
  std::vector<std::string> notes;
  auto placements = place_layers(request.method, pair_counts_of(tokens.fitted, request.num_threads),
                                 {.has_pairs = !tokens.fitted.has_loads_only(),
                                  .cluster = request.cluster,
                                  .slots_per_rank = slots_per_rank_of(request, tokens.header()),
                                  .num_groups = request.num_groups.value_or(1),
                                  .seed = request.seed},
                                 progress, &notes);
  for (const std::string& note : notes) {
    if (hooks.warn) hooks.warn(note);
  }
  return placements;
}

FoundPlacements replan_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  Progress& progress) {
  const Plan& running = request.from->plan;
  const std::int64_t num_layers = tokens.header().num_layers();
  FoundPlacements found{.objective = objective_of(request), .ended_by = "work"};
  const PlacementObjective linear =
      linear_objective(found.objective, request.cluster, tokens.header().top_k);
  const bool is_fixed_to_nodes = request.num_groups && request.cluster.num_nodes > 1;
  progress.begin("placing experts");
  std::vector<std::optional<RunningLayer>> made(static_cast<std::size_t>(num_layers));
  std::vector<TokenSets> sets(static_cast<std::size_t>(num_layers));
  parallel_for(num_layers, request.num_threads, [&](std::int64_t l, int) {
    const auto layer = std::size_t(l);
    sets[layer] = token_sets_of(tokens, l);
    Placement placement = running.layers[layer].placement;
    fill_empty_slots(sets[layer], request.cluster, is_fixed_to_nodes, placement);
    made[layer].emplace(sets[layer], request.cluster, linear, placement, is_fixed_to_nodes);
  });
  std::int64_t moves_left = *request.from->max_moves;
  for (const PlanLayer& layer : running.layers) moves_left -= std::ssize(layer.wasted_slots);
  std::vector<RunningLayer> layers;
  layers.reserve(made.size());
  for (auto& layer : made) layers.push_back(*std::move(layer));
  const auto placements = replan(layers, moves_left, request.num_threads);
  found.layers.resize(std::size_t(num_layers));
  parallel_for(num_layers, request.num_threads, [&](std::int64_t l, int) {
    const auto layer = std::size_t(l);
    found.layers[layer] =
        measure_placement(sets[layer], request.cluster, found.objective, placements[layer]);
  });
  judge_in_order(tokens, request, found.objective, progress, found.layers);
  progress.update(num_layers, num_layers);
  return found;
}

FoundPlacements search_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  const PlanHooks& hooks, Progress& progress) {
  FoundPlacements found{.objective = objective_of(request)};
  PlanSearch search(request, hooks, progress);
  if (request.goal.bound_on == BoundOn::kUnseen) {
    found.objective.max_imbalance = search.bound_for_unseen(tokens, found.objective);
  }
  found.layers = search.optimize(tokens, found.objective);
  found.is_judged = search.judge(tokens, found.objective, found.layers);
  found.ended_by = search.ended_by();
  return found;
}

}  // namespace c2r::internal
