// Searches the placements of a plan, and a bound on imbalance that holds on unseen tokens.
#include <algorithm>
#include <array>
#include <numeric>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/moves/replan.h"
#include "c2r/plan/plan_search_internal.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r::internal {
namespace {

// The most columns that PlanRequest::proves lists.
constexpr double kProvingColumns = 2e7;

// Several searches with the same options, one after another.
class PlanSearch {
 public:
  PlanSearch(const PlanRequest& request, const PlanHooks& hooks, Progress& progress)
      : request_(request), hooks_(hooks), progress_(progress) {}

  std::vector<OptimizedPlacement> optimize(const RoutedTokens& tokens,
                                           const PlacementObjective& objective) {
    progress_.begin("placing experts");
    auto layers = optimize_placements(
        tokens.header().num_layers(),
        [&](std::int64_t layer) { return token_sets_of(tokens, layer); }, request_.cluster,
        objective, optimizer_options(), progress_);
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
    return std::max(1.0, *objective.max_imbalance * std::min(1.0, fitted / unseen));
  }

  std::string ended_by() const {
    if (!is_cut_short_) return "work";
    return hooks_.stop != nullptr && *hooks_.stop ? "interrupt" : "seconds";
  }

 private:
  OptimizeOptions optimizer_options() const {
    OptimizeOptions how{.seed = request_.seed,
                        .effort = request_.effort,
                        .stop = hooks_.stop,
                        .redundant_slots_per_rank = request_.redundant_slots_per_rank,
                        .num_groups = request_.num_groups,
                        .num_threads = request_.num_threads};
    const int num_searches = request_.goal.bound_on == BoundOn::kUnseen ? 3 : 1;
    if (request_.seconds) how.seconds = *request_.seconds / num_searches;
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
  bool is_cut_short_ = false;
};

}  // namespace

FoundPlacements replan_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  Progress& progress) {
  const Plan& running = request.from->plan;
  const std::int64_t num_layers = tokens.header().num_layers();
  FoundPlacements found{.objective = objective_of(request.goal, request.cluster),
                        .ended_by = "work"};
  const PlacementObjective linear =
      linear_objective(found.objective, request.cluster, tokens.header().top_k);
  const bool is_fixed_to_nodes = request.num_groups && request.cluster.num_nodes > 1;
  progress.begin("placing experts");
  std::vector<std::optional<RunningLayer>> made(static_cast<std::size_t>(num_layers));
  std::vector<TokenSets> sets(static_cast<std::size_t>(num_layers));
  parallel_for(num_layers, request.num_threads, [&](std::int64_t l, int) {
    const auto layer = std::size_t(l);
    sets[layer] = token_sets_of(tokens, l);
    made[layer].emplace(sets[layer], request.cluster, linear, running.layers[layer].placement,
                        is_fixed_to_nodes);
  });
  std::vector<RunningLayer> layers;
  layers.reserve(made.size());
  for (auto& layer : made) layers.push_back(*std::move(layer));
  const auto placements = replan(layers, *request.from->max_moves, request.num_threads);
  found.layers.resize(std::size_t(num_layers));
  parallel_for(num_layers, request.num_threads, [&](std::int64_t l, int) {
    const auto layer = std::size_t(l);
    found.layers[layer] =
        measure_placement(sets[layer], request.cluster, found.objective, placements[layer]);
  });
  progress.update(num_layers, num_layers);
  return found;
}

FoundPlacements search_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  const PlanHooks& hooks, Progress& progress) {
  FoundPlacements found{.objective = objective_of(request.goal, request.cluster)};
  PlanSearch search(request, hooks, progress);
  if (request.goal.bound_on == BoundOn::kUnseen) {
    found.objective.max_imbalance = search.bound_for_unseen(tokens, found.objective);
  }
  found.layers = search.optimize(tokens, found.objective);
  found.ended_by = search.ended_by();
  return found;
}

}  // namespace c2r::internal
