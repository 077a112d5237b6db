// Makes the problems of layer benchmarks: shapes of real models, random weights and rows, choices
// of a trace or random ones, and the variants that are compared.
#include "c2r/bench/layer_problem.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <random>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/placement/cost/reach.h"

namespace c2r {
namespace {

constexpr LayerShape kShapes[] = {{"qwen1.5-moe", 60, 4, 2048, 1408, 5632},
                                  {"llama-moe", 8, 2, 4096, 1376, 0},
                                  {"olmoe", 64, 8, 2048, 1024, 0},
                                  {"mixtral-8x7b", 8, 2, 4096, 14336, 0},
                                  {"deepseek-v3", 256, 8, 7168, 2048, 2048}};

Cluster cluster_of(const LayerProblemOptions& options, std::int32_t ep_size) {
  Cluster cluster{.ranks_per_node = ep_size};
  if (options.plan != nullptr) cluster = options.plan->cluster;
  if (options.cluster) cluster = *options.cluster;
  C2R_REQUIRE(cluster.ep_size() == ep_size, kInvalidArgument,
              "the cluster has {}x{} ranks, but {} are running", cluster.num_nodes,
              cluster.ranks_per_node, ep_size);
  return cluster;
}

Placement placement_of(const LayerProblemOptions& options, const LayerShape& shape,
                       std::int32_t ep_size) {
  if (options.plan == nullptr) return place_contiguous(shape.num_experts, ep_size);
  const Plan& plan = *options.plan;
  C2R_REQUIRE(0 <= options.layer && options.layer < plan.num_layers() &&
                  plan.num_experts == shape.num_experts,
              kInvalidArgument,
              "the plan is for {} layers of {} experts, but layer {} of {} was asked for",
              plan.num_layers(), plan.num_experts, options.layer, shape.num_experts);
  return plan.layers[std::size_t(options.layer)].placement;
}

// What was asked for, the same without one ingredient each, and the baseline.
std::vector<LayerVariant> variants_of(const LayerProblemOptions& options,
                                      const LayerProblem& problem) {
  const std::int32_t ep_size = problem.cluster.ep_size();
  LayerVariant asked{.name = "as asked",
                     .placement = placement_of(options, problem.shape, ep_size),
                     .dispatch = options.dispatch,
                     .num_chunks = options.num_chunks};
  asked.dispatch.traffic.cluster = problem.cluster;
  const Placement contiguous = place_contiguous(problem.shape.num_experts, ep_size);
  std::vector<LayerVariant> variants{asked};
  const auto add = [&](const char* name) -> LayerVariant& {
    variants.push_back(asked);
    variants.back().name = name;
    return variants.back();
  };
  if (options.has_ablation) {
    LayerVariant& in_turn = add("without overlap");
    in_turn.num_chunks = 1, in_turn.overlaps_shared = in_turn.dispatch.separates_own = false;
    add("without placement").placement = contiguous;
    add("without local sums").dispatch.sums_before_return = false;
    add("without deduplication").dispatch.traffic.copy_mode = CopyMode::kPerExpert;
  }
  LayerVariant& baseline = add("baseline");
  baseline.placement = contiguous;
  baseline.dispatch.traffic.copy_mode = CopyMode::kPerExpert;
  baseline.num_chunks = 1, baseline.overlaps_shared = baseline.dispatch.separates_own = false;
  return variants;
}

Matrix<ExpertId> choices_of_trace(const LayerProblemOptions& options, std::int32_t ep_size,
                                  RankId rank) {
  const Trace& trace = *options.trace;
  const auto ranges = ranges_of(trace, options.part);
  const auto homes =
      homes_of_sequences(trace.sequence_starts(), trace.num_tokens(), ep_size, ranges);
  Matrix<ExpertId> choices(options.num_tokens, trace.header().top_k);
  std::int64_t num_found = 0;
  for (const auto& [begin, end] : ranges) {
    for (std::int64_t t = begin; t < end && num_found < options.num_tokens; ++t) {
      if (homes[std::size_t(t)] != rank) continue;
      std::ranges::copy(trace.topk_idx(options.layer, t, t + 1).row(0),
                        choices.row(num_found++).begin());
    }
  }
  C2R_REQUIRE(num_found == options.num_tokens, kInvalidArgument,
              "{}: has {} tokens for rank {}, but {} a rank were asked for", trace.path(),
              num_found, index(rank), options.num_tokens);
  return choices;
}

// Every set of experts equally likely.
Matrix<ExpertId> random_choices(const LayerShape& shape, std::int64_t num_tokens,
                                std::uint64_t seed, RankId rank) {
  std::mt19937_64 rng(mix_bits(seed) + index(rank));
  std::vector<std::int32_t> experts(std::size_t(shape.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  Matrix<ExpertId> choices(num_tokens, shape.top_k);
  for (std::int64_t t = 0; t < choices.rows(); ++t) {
    for (std::int64_t k = 0; k < shape.top_k; ++k) {
      const auto other = std::size_t(k) + uniform_below(experts.size() - std::size_t(k), rng);
      std::swap(experts[std::size_t(k)], experts[other]);
      choices(t, k) = ExpertId{experts[std::size_t(k)]};
    }
  }
  return choices;
}

}  // namespace

std::span<const LayerShape> layer_shapes() {
  return kShapes;
}

const LayerShape& layer_shape(std::string_view name) {
  const auto* const found = std::ranges::find(kShapes, name, &LayerShape::name);
  if (found != std::end(kShapes)) return *found;
  std::vector<std::string_view> names;
  for (const LayerShape& shape : kShapes) names.push_back(shape.name);
  refuse_name("a layer is", names, name);
}

RandomExperts::RandomExperts(const LayerShape& shape) {
  C2R_REQUIRE(shape.num_experts > 0 && shape.hidden > 0 && shape.intermediate > 0 &&
                  shape.shared_intermediate >= 0,
              kInvalidArgument,
              "a layer of {} experts, hidden {}, intermediate {} and shared {} has no weights",
              shape.num_experts, shape.hidden, shape.intermediate, shape.shared_intermediate);
  const std::int64_t largest = std::max(shape.intermediate, shape.shared_intermediate);
  const std::int64_t expert_values = 3 * shape.hidden * shape.intermediate;
  constexpr std::int64_t kMaxValues = std::int64_t{128} << 20;
  const std::int64_t num_values =
      std::max(3 * shape.hidden * largest, std::min(shape.num_experts * expert_values, kMaxValues));
  values_.resize(std::size_t(num_values));
  // Magnitudes of 2^-7 to 2^-6 with random signs and digits.
  std::uint64_t state = 1;
  for (Bf16& value : values_) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = Bf16{static_cast<std::uint16_t>(((state >> 33) & 0x807fU) | 0x3c00U)};
  }
  const auto add = [&](std::int64_t at, std::int64_t intermediate) {
    const std::int64_t matrix = shape.hidden * intermediate;
    const auto view = [&](std::int64_t m, std::int64_t outputs, std::int64_t inputs) {
      const auto bytes = std::as_bytes(
          std::span(values_).subspan(std::size_t(at + m * matrix), std::size_t(matrix)));
      return RowsView(bytes, ElementType::kBf16, outputs, inputs);
    };
    experts_.push_back({.gate = view(0, intermediate, shape.hidden),
                        .up = view(1, intermediate, shape.hidden),
                        .down = view(2, shape.hidden, intermediate)});
  };
  for (std::int64_t e = 0; e < shape.num_experts; ++e) {
    add(e * expert_values % (num_values - expert_values + 1) / 64 * 64, shape.intermediate);
  }
  if (shape.shared_intermediate > 0) add(0, shape.shared_intermediate);
}

LayerBatch make_layer_batch(Matrix<ExpertId> topk_idx, std::int64_t hidden, std::uint64_t seed) {
  LayerBatch batch{.x = {topk_idx.rows(), hidden},
                   .topk_weights = {topk_idx.rows(), topk_idx.cols()}};
  batch.topk_idx = std::move(topk_idx);
  std::uint64_t state = mix_bits(seed);
  for (float& v : batch.x.all()) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    v = to_float(to_bf16(static_cast<float>(static_cast<double>(state >> 11) * 0x1p-52 - 1)));
  }
  for (std::int64_t t = 0; t < batch.topk_weights.rows(); ++t) {
    for (std::int64_t k = 0; k < batch.topk_weights.cols(); ++k) {
      batch.topk_weights(t, k) = 1 / float(k + 2);
    }
  }
  return batch;
}

LayerProblem make_layer_problem(const LayerProblemOptions& options, std::int32_t ep_size) {
  C2R_REQUIRE(options.num_tokens >= 0, kInvalidArgument, "num_tokens is {}, but must be at least 0",
              options.num_tokens);
  LayerProblem problem{.shape = layer_shape(options.shape), .routing = "uniformly random choices"};
  if (options.trace != nullptr) {
    const TraceHeader& header = options.trace->header();
    C2R_REQUIRE(0 <= options.layer && options.layer < header.num_layers(), kInvalidArgument,
                "{}: has {} layers, but layer {} was asked for", options.trace->path(),
                header.num_layers(), options.layer);
    problem.shape.num_experts = header.num_experts;
    problem.shape.top_k = header.top_k;
    problem.routing = fmt::format("layer {} of {}, {} sequences", options.layer, header.model,
                                  name_of(options.part));
  }
  problem.cluster = cluster_of(options, ep_size);
  problem.variants = variants_of(options, problem);
  if (options.has_experts) problem.experts.emplace(problem.shape);
  return problem;
}

Matrix<ExpertId> choices_of_rank(const LayerProblemOptions& options, const LayerProblem& problem,
                                 RankId rank) {
  if (options.trace != nullptr) return choices_of_trace(options, problem.cluster.ep_size(), rank);
  return random_choices(problem.shape, options.num_tokens, options.seed, rank);
}

}  // namespace c2r
