#include "c2r/plan/predict.h"

#include "c2r/core/error.h"
#include "c2r/placement/baselines.h"

namespace c2r {
namespace {

void check_fits(const Plan& plan, const Trace& trace) {
  const TraceHeader& header = trace.header();
  C2R_REQUIRE(plan.num_experts == header.num_experts && plan.top_k == header.top_k,
              kInvalidArgument,
              "the plan is for {} experts, top-{}, but {} has {} experts, top-{}; it was probably "
              "made for another model",
              plan.num_experts, plan.top_k, trace.path(), header.num_experts, header.top_k);
  C2R_REQUIRE(plan.num_layers() == header.num_layers(), kInvalidArgument,
              "the plan has {} layers, but {} has {}", plan.num_layers(), trace.path(),
              header.num_layers());
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    C2R_REQUIRE(plan.layers[layer].layer_index == header.layer_indices[layer], kInvalidArgument,
                "the plan's layer {} has index {}, but in {} it is {}", layer,
                plan.layers[layer].layer_index, trace.path(), header.layer_indices[layer]);
  }
}

}  // namespace

std::vector<Placement> placements_of(const Plan& plan) {
  std::vector<Placement> placements;
  placements.reserve(plan.layers.size());
  for (const PlanLayer& layer : plan.layers) placements.push_back(layer.placement);
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

Prediction predict(const Trace& trace, std::span<const TokenRange> ranges,
                   std::span<const Placement> placements, const PredictRequest& request,
                   int num_threads, Progress& progress) {
  std::vector<Volume> volumes;
  std::vector<PredictedLayerTime> times;
  for (const Reach& reach :
       count_reach(trace, ranges, placements, request.reach, num_threads, progress)) {
    volumes.push_back(volume_of(reach, request.copy_mode));
    if (request.layer_time) {
      times.push_back(predict_layer_time(volumes.back(), *request.layer_time));
    }
  }
  Prediction prediction = make_prediction(volumes, times);
  prediction.trace = trace.path();
  return prediction;
}

std::vector<Prediction> predict_waterfall(const Plan& plan, const Trace& trace,
                                          std::span<const TokenRange> ranges,
                                          const PredictRequest& request, int num_threads,
                                          Progress& progress) {
  check_fits(plan, trace);
  const auto contiguous = contiguous_placements(trace.header(), request.reach.cluster);
  const auto planned = placements_of(plan);
  const bool has_replicas =
      planned[0].slots.rows() * planned[0].slots.cols() > trace.header().num_experts;

  PredictRequest per_expert = request;
  per_expert.copy_mode = CopyMode::kPerExpert;
  std::vector<Prediction> steps;
  steps.push_back(predict(trace, ranges, contiguous, per_expert, num_threads, progress));
  steps.back().placement = "per-expert";
  steps.push_back(predict(trace, ranges, contiguous, request, num_threads, progress));
  steps.back().placement =
      request.copy_mode == CopyMode::kPerNode ? "one copy per node" : "one copy per rank";
  steps.push_back(predict(trace, ranges, planned, request, num_threads, progress));
  steps.back().placement = has_replicas ? "placement and replicas" : "placement";
  return steps;
}

}  // namespace c2r
