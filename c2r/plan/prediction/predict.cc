// Counts the volumes of placements on tokens, step by step, and makes predictions of them.
#include "c2r/plan/prediction/predict.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/placement/baselines/balance.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/compare_homes.h"
#include "c2r/plan/homes/token_homes.h"

namespace c2r {

void check_fits(const Plan& plan, const TraceHeader& header, std::string_view name) {
  C2R_REQUIRE(plan.num_experts == header.num_experts && plan.top_k == header.top_k,
              kInvalidArgument,
              "the plan is for {} experts, top-{}, but {} has {} experts, top-{}; it was probably "
              "made for another model",
              plan.num_experts, plan.top_k, name, header.num_experts, header.top_k);
  C2R_REQUIRE(plan.num_layers() == header.num_layers(), kInvalidArgument,
              "the plan has {} layers, but {} has {}", plan.num_layers(), name,
              header.num_layers());
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    C2R_REQUIRE(plan.layers[layer].layer_index == header.layer_indices[layer], kInvalidArgument,
                "the plan's layer {} has index {}, but in {} it is {}", layer,
                plan.layers[layer].layer_index, name, header.layer_indices[layer]);
  }
}

std::vector<Placement> placements_of(const Plan& plan) {
  std::vector<Placement> placements;
  placements.reserve(plan.layers.size());
  for (const PlanLayer& layer : plan.layers) placements.push_back(layer.placement);
  return placements;
}

std::vector<Placement> placements_for(const RoutedTokens& tokens, const Plan& plan) {
  std::vector<Placement> placements = placements_of(plan);
  if (!tokens.has_loads_only()) return placements;
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    placements[layer].slots =
        with_wasted_slots(plan.layers[layer].placement, plan.layers[layer].wasted_slots);
  }
  return placements;
}

std::vector<Placement> contiguous_placements(const TraceHeader& header, const Cluster& cluster) {
  const CollaborationMatrix no_counts(header.num_experts, header.num_experts);
  const std::int32_t ep_size = cluster.ep_size();
  const Placement placement = place_baseline(
      "contiguous", {.counts = no_counts,
                     .has_pairs = false,
                     .cluster = cluster,
                     .slots_per_rank = (header.num_experts + ep_size - 1) / ep_size});
  return std::vector<Placement>(static_cast<std::size_t>(header.num_layers()), placement);
}

WaterfallStep predict_reach(std::string name, const RoutedTokens& tokens,
                            std::span<const Reach> reach_of_layers, const PredictRequest& request) {
  WaterfallStep step;
  for (const Reach& reach : reach_of_layers) {
    step.volumes.push_back(volume_of(reach, request.traffic));
    if (request.layer_time) {
      step.times.push_back(predict_layer_time(step.volumes.back(), request.traffic.cluster,
                                              *request.layer_time, reach.choices_of_expert));
    }
  }
  step.prediction = make_prediction(request.traffic, step.volumes, step.times);
  step.prediction.placement = std::move(name);
  step.prediction.trace = tokens.name;
  return step;
}

namespace {

// What loads alone say: the imbalance, which is exact without replicas.
WaterfallStep step_of_loads(std::string name, const RoutedTokens& tokens,
                            std::span<const Placement> placements, const PredictRequest& request) {
  const CollaborationStatistics& statistics = *tokens.statistics;
  C2R_REQUIRE(!request.layer_time, kInvalidArgument,
              "{} holds loads only: without copies no time can be predicted", tokens.name);
  Prediction prediction{.placement = std::move(name),
                        .trace = tokens.name,
                        .num_tokens = std::ranges::max(statistics.num_tokens),
                        .copy_mode = request.traffic.copy_mode,
                        .replica_rule = request.traffic.replica_rule,
                        .homes = request.traffic.homes,
                        .is_exact = std::ranges::none_of(placements, has_replicas)};
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    const auto loads = expert_loads(statistics.coactivation[layer]);
    prediction.imbalance.push_back(imbalance_of_loads(placements[layer], loads));
  }
  return {.prediction = std::move(prediction), .volumes = {}, .times = {}};
}

// The first step: what savings are measured against.
WaterfallStep base_step(const RoutedTokens& tokens, std::span<const Reach> reach_of_contiguous,
                        const PredictRequest& request) {
  if (!request.base.empty())
    return predict_reach(request.base, tokens, reach_of_contiguous, request);
  PredictRequest per_expert = request;
  per_expert.traffic.copy_mode = CopyMode::kPerExpert;
  return predict_reach("per-expert", tokens, reach_of_contiguous, per_expert);
}

// Adds the step of the placement and, if the plan has replicas, that of the replicas.
void add_plan_steps(const Plan& plan, const RoutedTokens& tokens, const PredictRequest& request,
                    int num_threads, Progress& progress, std::vector<WaterfallStep>& steps) {
  const auto planned = placements_of(plan);
  const auto reach = reach_of(tokens, planned, request.traffic, num_threads, progress);
  const bool replicates = std::ranges::any_of(planned, has_replicas);  // some layers may not
  if (replicates) {
    std::vector<Placement> main_slots;
    for (std::size_t layer = 0; layer < planned.size(); ++layer) {
      main_slots.push_back(keep_main_slots(planned[layer], reach[layer]));
    }
    steps.push_back(predict_reach(
        "placement", tokens, reach_of(tokens, main_slots, request.traffic, num_threads, progress),
        request));
  }
  steps.push_back(predict_reach(replicates ? "replicas" : "placement", tokens, reach, request));
}

// All steps with uniform homes, and then the homes of the signature.
std::vector<WaterfallStep> waterfall_with_homes(const Plan& plan, const RoutedTokens& tokens,
                                                const PredictRequest& request, int num_threads,
                                                Progress& progress) {
  const HomeSignature& signature = signature_of(plan);
  PredictRequest uniform = request;
  uniform.traffic.homes = Homes::kUniform;
  auto steps = predict_waterfall(plan, tokens, nullptr, uniform, num_threads, progress);
  steps.push_back(predict_homes("homes", tokens,
                                followed_homes(signature, tokens, request.home_window),
                                placements_of(plan), uniform, num_threads, progress));
  return steps;
}

}  // namespace

double mean_over_layers(std::span<const double> column) {
  if (column.empty()) return 0;
  return std::accumulate(column.begin(), column.end(), 0.0) / static_cast<double>(column.size());
}

double node_copy_weight(const Cluster& cluster) {
  return cluster.intra_node.bandwidth_bytes_per_s / cluster.inter_node.bandwidth_bytes_per_s;
}

double link_cost_per_token(const Prediction& prediction, const Cluster& cluster) {
  const double between_nodes = mean_over_layers(prediction.inter_node_copies_per_token);
  return mean_over_layers(prediction.wire_copies_per_token) +
         (node_copy_weight(cluster) - 1) * between_nodes;
}

double wire_bytes_per_token(const Prediction& prediction, const CopyFormat& format) {
  return mean_over_layers(prediction.wire_copies_per_token) *
         static_cast<double>(format.dispatch_copy_bytes() + format.combine_copy_bytes());
}

Prediction predict(const Trace& trace, std::span<const TokenRange> ranges,
                   std::span<const Placement> placements, const PredictRequest& request,
                   int num_threads, Progress& progress) {
  const RoutedTokens tokens{
      .trace = &trace, .ranges = {ranges.begin(), ranges.end()}, .name = trace.path()};
  return predict_step("plan", tokens, placements, request, num_threads, progress).prediction;
}

WaterfallStep predict_step(std::string name, const RoutedTokens& tokens,
                           std::span<const Placement> placements, const PredictRequest& request,
                           int num_threads, Progress& progress) {
  if (tokens.has_loads_only()) {
    return step_of_loads(std::move(name), tokens, placements, request);
  }
  return predict_reach(std::move(name), tokens,
                       reach_of(tokens, placements, request.traffic, num_threads, progress),
                       request);
}

WaterfallStep predict_base(const RoutedTokens& tokens, const PredictRequest& request,
                           int num_threads, Progress& progress) {
  const auto contiguous = contiguous_placements(tokens.header(), request.traffic.cluster);
  if (tokens.has_loads_only()) return step_of_loads("contiguous", tokens, contiguous, request);
  const auto reach = reach_of(tokens, contiguous, request.traffic, num_threads, progress);
  return base_step(tokens, reach, request);
}

WaterfallStep predict_constrained(std::string name, const ConstrainedTokens& constrained,
                                  const WaterfallStep& first, const PredictRequest& request,
                                  int num_threads, Progress& progress) {
  C2R_REQUIRE(request.traffic.homes != Homes::kSignature, kInvalidArgument,
              "homes by signature are not counted on constrained tokens; take uniform homes");
  PredictRequest same_batch = request;
  if (same_batch.layer_time && !same_batch.layer_time->batch_tokens) {
    same_batch.layer_time->batch_tokens = first.prediction.num_tokens;
  }
  const auto placements = placements_of(constrained.plan);
  return predict_reach(
      std::move(name), constrained.tokens,
      reach_of(constrained.tokens, placements, request.traffic, num_threads, progress), same_batch);
}

std::vector<WaterfallStep> predict_waterfall(const Plan& plan, const RoutedTokens& tokens,
                                             const ConstrainedTokens* constrained,
                                             const PredictRequest& request, int num_threads,
                                             Progress& progress) {
  check_fits(plan, tokens.header(), tokens.name);
  if (request.traffic.homes == Homes::kSignature) {
    C2R_REQUIRE(constrained == nullptr, kInvalidArgument,
                "homes by signature are not counted on constrained tokens; take uniform homes");
    return waterfall_with_homes(plan, tokens, request, num_threads, progress);
  }
  if (constrained != nullptr) {
    check_fits(constrained->plan, constrained->tokens.header(), constrained->tokens.name);
  }
  const auto contiguous = contiguous_placements(tokens.header(), request.traffic.cluster);
  std::vector<WaterfallStep> steps;
  if (tokens.has_loads_only()) {
    C2R_REQUIRE(constrained == nullptr, kInvalidArgument,
                "{} holds loads only, which do not say what a constraint saves", tokens.name);
    steps.push_back(step_of_loads("contiguous", tokens, contiguous, request));
    steps.push_back(step_of_loads("placement", tokens, placements_for(tokens, plan), request));
    return steps;
  }
  const auto reach = reach_of(tokens, contiguous, request.traffic, num_threads, progress);
  steps.push_back(base_step(tokens, reach, request));
  const bool is_per_expert = request.traffic.copy_mode == CopyMode::kPerExpert;
  if (request.base.empty() && !is_per_expert) {
    const bool is_all_gather = request.traffic.copy_mode == CopyMode::kAllGather;
    steps.push_back(
        predict_reach(is_all_gather ? "all-gather" : "deduplication", tokens, reach, request));
  }
  add_plan_steps(plan, tokens, request, num_threads, progress, steps);
  if (constrained != nullptr) {
    steps.push_back(
        predict_constrained("constraint", *constrained, steps[0], request, num_threads, progress));
  }
  return steps;
}

}  // namespace c2r
