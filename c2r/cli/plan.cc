// `c2r plan`: experts to slots of ranks, from a trace.
#include "c2r/plan/plan.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <iostream>
#include <memory>
#include <numeric>

#include "c2r/cli/app.h"
#include "c2r/cli/output.h"
#include "c2r/cli/plan_goal.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/collaboration/collaborators.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/baselines.h"
#include "c2r/placement/optimize.h"
#include "c2r/plan/predict.h"
#include "c2r/routing/trace_chunks.h"

namespace c2r::cli {
namespace {

constexpr ReplicaRule kRule = ReplicaRule::kFewestRanks;  // what the optimizer assumes

struct PlanOptions {
  std::string trace, cluster, output, fit = "all", method = "optimize";
  GoalOptions goal;
  std::int32_t redundant_slots = 0, top_t = 0, num_groups = 0;
  double effort = 1, seconds = 0;
  std::uint64_t seed = 0;
  bool proves = false;
  int num_threads = 0;
};

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

OptimizeOptions search_options(const PlanOptions& options) {
  OptimizeOptions how{.seed = options.seed,
                      .effort = options.effort,
                      .stop = &should_stop,
                      .redundant_slots_per_rank = options.redundant_slots,
                      .num_threads = options.num_threads};
  const int num_searches = options.goal.bound_on == "unseen" ? 3 : 1;
  if (options.seconds > 0) how.seconds = options.seconds / num_searches;
  if (options.num_groups > 0) how.num_groups = options.num_groups;
  if (options.proves) how.max_columns = 2e7;
  return how;
}

std::vector<OptimizedPlacement> optimized(const PlanOptions& options, const Trace& trace,
                                          std::span<const TokenRange> ranges,
                                          const Cluster& cluster,
                                          const PlacementObjective& objective) {
  ProgressLine progress("placing experts");
  return optimize_placements(
      trace.header().num_layers(),
      [&](std::int64_t layer) { return collect_token_sets(trace, layer, ranges); }, cluster,
      objective, search_options(options), progress);
}

// The sum over layers of the imbalance on `counted`, after `served`, as a prediction counts it.
double imbalance_after(const Trace& trace, std::span<const OptimizedPlacement> layers,
                       const Cluster& cluster, std::span<const TokenRange> served,
                       std::span<const TokenRange> counted, int num_threads) {
  std::vector<double> met(layers.size());
  parallel_for(std::ssize(layers), num_threads, [&](std::int64_t layer, int) {
    ReachCounter counter(layers[std::size_t(layer)].placement, {.cluster = cluster, .rule = kRule});
    for (const TokenRange& piece : pieces_of(served)) {
      if (counter.has_memory()) {
        counter.serve_before(trace.topk_idx(layer, piece.begin, piece.end), {});
      }
    }
    for (const TokenRange& piece : pieces_of(counted)) {
      counter.add(trace.topk_idx(layer, piece.begin, piece.end), {});
    }
    met[std::size_t(layer)] = imbalance(volume_of(counter.finish(), CopyMode::kPerRank).choices);
  });
  return std::accumulate(met.begin(), met.end(), 0.0);
}

// The bound that lets the imbalance stay below objective.max_imbalance on tokens like the fitted
// ones. Every other sequence is fitted and the imbalance measured on those between, and the other
// way round: fitted on half and measured on half, it errs on the safe side. No other tokens are
// looked at.
double bound_for_unseen(const PlanOptions& options, const Trace& trace,
                        std::span<const TokenRange> ranges, const Cluster& cluster,
                        const PlacementObjective& objective) {
  const auto halves = alternate_sequences(trace, ranges);
  C2R_REQUIRE(!halves[1].empty(), kInvalidArgument,
              "--bound-on unseen needs two sequences to fit, but {} has one there", trace.path());
  double fitted = 0, unseen = 0;
  for (const std::size_t half : {0u, 1u}) {
    const auto layers = optimized(options, trace, halves[half], cluster, objective);
    for (const OptimizedPlacement& layer : layers) fitted += layer.imbalance;
    unseen += imbalance_after(trace, layers, cluster, halves[half], halves[1 - half],
                              options.num_threads);
  }
  return std::max(1.0, *objective.max_imbalance * std::min(1.0, fitted / unseen));
}

// `objective` gets the bound that was fitted with.
std::vector<OptimizedPlacement> search(const PlanOptions& options, const Trace& trace,
                                       std::span<const TokenRange> ranges, const Cluster& cluster,
                                       PlacementObjective& objective) {
  const StopOnInterrupt interrupt;
  if (options.goal.bound_on == "unseen") {
    const double asked = *objective.max_imbalance;
    objective.max_imbalance = bound_for_unseen(options, trace, ranges, cluster, objective);
    std::cout << fmt::format(
        "fitting with a bound on imbalance of {:.4f}, for {} on other tokens\n",
        *objective.max_imbalance, asked);
  }
  return optimized(options, trace, ranges, cluster, objective);
}

std::vector<Placement> by_baseline(const PlanOptions& options, const Trace& trace,
                                   std::span<const TokenRange> ranges, const Cluster& cluster) {
  const std::int32_t num_experts = trace.header().num_experts;
  const std::int32_t ep_size = cluster.ep_size();
  return place_layers(
      options.method, count_collaboration(trace, ranges, options.num_threads),
      {.cluster = cluster,
       .slots_per_rank = (num_experts + ep_size - 1) / ep_size + options.redundant_slots,
       .num_groups = std::max(options.num_groups, 1),
       .seed = options.seed});
}

// The constraint's lists come from the fitted tokens, as the placement does.
void add_lists(const Trace& trace, std::span<const TokenRange> ranges, std::int32_t top_t,
               int num_threads, Plan& plan) {
  const TraceHeader& header = trace.header();
  C2R_REQUIRE(std::max(header.top_k - 1, 1) <= top_t && top_t < header.num_experts,
              kInvalidArgument, "--top-t {} is not in [{}, {}]", top_t,
              std::max(header.top_k - 1, 1), header.num_experts - 1);
  plan.top_t = top_t;
  const auto counts = count_collaboration(trace, ranges, num_threads);
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const auto ranked = rank_collaborators(counts[layer]);
    Matrix<ExpertId>& lists = plan.layers[layer].collaborators;
    lists = Matrix<ExpertId>(header.num_experts, top_t);
    for (std::int64_t e = 0; e < ranked.rows(); ++e) {
      std::ranges::copy_n(ranked.row(e).begin(), top_t, lists.row(e).begin());
    }
  }
}

void make_plan(const PlanOptions& options) {
  check_output(options.output, {options.trace, options.cluster});
  const Trace trace(options.trace);
  const Cluster cluster = read_cluster(options.cluster);
  const SequencePart part = parse_sequence_part(options.fit);
  const auto ranges = ranges_of(trace, part);
  C2R_REQUIRE(num_tokens_in(ranges) > 0, kInvalidArgument, "{}: has no tokens in its part '{}'",
              options.trace, options.fit);
  std::vector<OptimizedPlacement> layers;
  std::vector<Placement> placements;
  PlacementObjective objective;
  if (options.method == "optimize") {
    objective = objective_of(options.goal, cluster);
    layers = search(options, trace, ranges, cluster, objective);
    for (const OptimizedPlacement& layer : layers) placements.push_back(layer.placement);
  } else {
    placements = by_baseline(options, trace, ranges, cluster);
  }

  Plan plan = plan_of(trace.header(), cluster, std::move(placements),
                      {.c2r_version = version_text(),
                       .method = options.method,
                       .seed = options.seed,
                       .inputs = {{"trace", options.trace + ", " + options.fit}}});
  if (options.top_t > 0) add_lists(trace, ranges, options.top_t, options.num_threads, plan);

  const PredictRequest request{.reach = {.cluster = cluster, .rule = kRule},
                               .copy_mode = default_copy_mode(cluster)};
  ProgressLine progress("predicting");
  const RoutedTokens reported{.trace = &trace,
                              .ranges = ranges_of(trace, other_part(part)),
                              .name = reported_tokens(options.trace, part)};
  for (WaterfallStep& step :
       predict_waterfall(plan, reported, nullptr, request, options.num_threads, progress)) {
    plan.predictions.push_back(std::move(step.prediction));
  }
  write_plan(plan, options.output);
  std::cout << prediction_table(plan.predictions, std::nullopt);
  if (!layers.empty()) std::cout << reached_text(objective, layers);
  std::cout << fmt::format("{}: {} layers, {} slots on each of {} ranks\n", options.output,
                           plan.num_layers(), plan.layers[0].placement.slots_per_rank(),
                           cluster.ep_size());
}

}  // namespace

void add_plan(CLI::App& app) {
  auto* const command = app.add_subcommand("plan", "place experts so that tokens reach few ranks");
  auto options = std::make_shared<PlanOptions>();
  command->add_option("trace", options->trace, "the routing trace to fit")->required();
  command->add_option("--cluster", options->cluster, kClusterHelp)
      ->required()
      ->type_name("CLUSTER");
  add_output(*command, options->output, "the plan to write")->required();
  command
      ->add_option("--fit", options->fit,
                   "the sequences to fit: all, even, odd, first-half, second-half; the others are "
                   "reported on")
      ->capture_default_str()
      ->type_name("PART");
  add_goal_options(*command, options->goal);
  command
      ->add_option("--redundant-slots", options->redundant_slots,
                   "slots of each rank for replicas of busy experts")
      ->capture_default_str()
      ->check(in_range(0, 1024))
      ->type_name("N");
  command
      ->add_option("--top-t", options->top_t,
                   "also put the top-T collaborators of the fitted tokens into the plan")
      ->check(in_range(1, 1024))
      ->type_name("T");
  command
      ->add_option("--num-groups", options->num_groups,
                   "group-limited routing: keep each of these groups on one node")
      ->check(in_range(1, 1024))
      ->type_name("N");
  command
      ->add_option(
          "--method", options->method,
          "optimize, or a baseline: contiguous, round-robin, random, eplb, affinity, grace, "
          "exhaustive")
      ->capture_default_str()
      ->type_name("NAME");
  command->add_option("--effort", options->effort, "multiplies the search")
      ->capture_default_str()
      ->type_name("X");
  command->add_flag("--prove", options->proves,
                    "list up to 2e7 possible contents of a rank, not 5e4, to prove the optimum: "
                    "seconds and 0.4 GB a layer and thread for 32 experts on 4 ranks");
  command->add_option("--seconds", options->seconds, "ends the search with the best so far")
      ->type_name("S");
  command->add_option("--seed", options->seed, "of the search")
      ->capture_default_str()
      ->type_name("N");
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r plan trace.safetensors --cluster 1x2 --fit even -o plan.json\n"
      "  c2r plan trace.safetensors --cluster 1x2 --minimize imbalance --max-copies 1.5 -o b.json");
  command->callback([options] { make_plan(*options); });
}

}  // namespace c2r::cli
