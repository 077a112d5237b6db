#include "c2r/cli/plan_search.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <iostream>
#include <numeric>

#include "c2r/cli/app.h"
#include "c2r/cli/progress_line.h"
#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r::cli {
namespace {

// Ctrl-C ends the search, not the command: the best plan so far is written.
std::atomic<bool> should_stop = false;

class StopOnInterrupt {
 public:
  StopOnInterrupt() : previous_(std::signal(SIGINT, [](int) { should_stop = true; })) {}
  StopOnInterrupt(const StopOnInterrupt&) = delete;
  StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;
  ~StopOnInterrupt() { std::signal(SIGINT, previous_); }

 private:
  void (*previous_)(int);
};

// One search after another for the same tokens and cluster.
class PlanSearch {
 public:
  PlanSearch(const SearchOptions& options, const Trace& trace, const Cluster& cluster)
      : options_(options), trace_(trace), cluster_(cluster) {}

  std::vector<OptimizedPlacement> optimize(std::span<const TokenRange> ranges,
                                           const PlacementObjective& objective) {
    ProgressLine progress("placing experts");
    auto layers = optimize_placements(
        trace_.header().num_layers(),
        [&](std::int64_t layer) { return collect_token_sets(trace_, layer, ranges); }, cluster_,
        objective, optimizer_options(), progress);
    is_cut_short_ |= std::ranges::any_of(layers, &OptimizedPlacement::is_cut_short);
    return layers;
  }

  // The bound that lets the imbalance stay below objective.max_imbalance on tokens like the fitted
  // ones. Every other sequence is fitted and the imbalance measured on those between, and the other
  // way round: fitted on half and measured on half, it errs on the safe side. No other tokens are
  // looked at.
  double bound_for_unseen(std::span<const TokenRange> ranges, const PlacementObjective& objective) {
    const auto halves = alternate_sequences(trace_, ranges);
    C2R_REQUIRE(!halves[1].empty(), kInvalidArgument,
                "--bound-on unseen needs two sequences to fit, but {} has one there",
                trace_.path());
    double fitted = 0, unseen = 0;
    for (const std::size_t half : {0u, 1u}) {
      const auto layers = optimize(halves[half], objective);
      for (const OptimizedPlacement& layer : layers) fitted += layer.imbalance;
      unseen += imbalance_after(layers, halves[half], halves[1 - half]);
    }
    return std::max(1.0, *objective.max_imbalance * std::min(1.0, fitted / unseen));
  }

  std::string ended_by() const {
    if (!is_cut_short_) return "work";
    return should_stop ? "interrupt" : "seconds";
  }

 private:
  OptimizeOptions optimizer_options() const {
    OptimizeOptions how{.seed = options_.seed,
                        .effort = options_.effort,
                        .stop = &should_stop,
                        .redundant_slots_per_rank = options_.redundant_slots,
                        .num_threads = options_.num_threads};
    const int num_searches = options_.goal.bound_on == "unseen" ? 3 : 1;
    if (options_.seconds) how.seconds = *options_.seconds / num_searches;
    if (options_.num_groups > 0) how.num_groups = options_.num_groups;
    if (options_.proves) how.max_columns = 2e7;
    return how;
  }

  // The sum over layers of the imbalance on `counted`, after `served`, as a prediction counts it.
  double imbalance_after(std::span<const OptimizedPlacement> layers,
                         std::span<const TokenRange> served,
                         std::span<const TokenRange> counted) const {
    std::vector<double> met(layers.size());
    parallel_for(std::ssize(layers), options_.num_threads, [&](std::int64_t layer, int) {
      ReachCounter counter(layers[std::size_t(layer)].placement,
                           {.cluster = cluster_, .rule = kPlannedRule});
      for (const TokenRange& piece : pieces_of(served)) {
        if (counter.has_memory()) {
          counter.serve_before(trace_.topk_idx(layer, piece.begin, piece.end), {});
        }
      }
      for (const TokenRange& piece : pieces_of(counted)) {
        counter.add(trace_.topk_idx(layer, piece.begin, piece.end), {});
      }
      met[std::size_t(layer)] = imbalance(volume_of(counter.finish(), CopyMode::kPerRank).choices);
    });
    return std::accumulate(met.begin(), met.end(), 0.0);
  }

  const SearchOptions& options_;
  const Trace& trace_;
  const Cluster& cluster_;
  bool is_cut_short_ = false;
};

}  // namespace

CLI::Option* add_effort(CLI::App& command, double& effort, const std::string& help) {
  return command.add_option("--effort", effort, help)
      ->check(number_in(1e-6, 1e6))
      ->capture_default_str()
      ->type_name("X");
}

void add_search_options(CLI::App& command, SearchOptions& options) {
  add_goal_options(command, options.goal);
  add_effort(command, options.effort, "multiplies the search");
  command.add_flag(
      "--prove", options.proves,
      "list up to 2e7 possible contents of a rank, not 5e4, to prove the optimum: "
      "2 s of CPU time and up to 0.3 GB for each layer at work, with 32 experts on 4 ranks");
  command.add_option("--seconds", options.seconds, "ends the search with the best so far")
      ->check(number_in(1e-3, 1e9))
      ->type_name("S");
}

void refuse_search_options(const CLI::App& command, const std::string& method) {
  for (const char* const name :
       {"--minimize", "--max-imbalance", "--bound-on", "--max-copies", "--imbalance-weight",
        "--hidden", "--intermediate", "--overlap", "--effort", "--prove", "--seconds"}) {
    C2R_REQUIRE(command.count(name) == 0, kInvalidArgument,
                "{} is for --method optimize; {} does not ask for it", name, method);
  }
}

SearchResult search_placements(const SearchOptions& options, const Trace& trace,
                               std::span<const TokenRange> ranges, const Cluster& cluster) {
  const StopOnInterrupt interrupt;
  SearchResult result{.objective = objective_of(options.goal, cluster)};
  PlanSearch search(options, trace, cluster);
  if (options.goal.bound_on == "unseen") {
    const double asked = *result.objective.max_imbalance;
    result.objective.max_imbalance = search.bound_for_unseen(ranges, result.objective);
    std::cout << fmt::format(
        "fitting with a bound on imbalance of {:.4f}, for {} on other tokens\n",
        *result.objective.max_imbalance, asked);
  }
  result.layers = search.optimize(ranges, result.objective);
  result.ended_by = search.ended_by();
  return result;
}

std::vector<PlanOption> resolved_options(const SearchOptions& options,
                                         const PlacementObjective& objective) {
  auto resolved = resolved_goal(options.goal, objective);
  resolved.push_back({"effort", options.effort});
  if (options.seconds) resolved.push_back({"seconds", *options.seconds});
  if (options.proves) resolved.push_back({"prove", 1.0});
  if (options.num_groups > 0) resolved.push_back({"num_groups", double(options.num_groups)});
  return resolved;
}

}  // namespace c2r::cli
