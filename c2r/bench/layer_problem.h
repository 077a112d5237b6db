// What bench_layer() runs: a layer's shape and weights, the tokens of each rank with their choices,
// and the ways of running the layer that are compared.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/bf16.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/plan/plan.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

struct LayerShape {
  std::string_view name;
  std::int32_t num_experts = 0, top_k = 0;
  std::int64_t hidden = 0, intermediate = 0;
  std::int64_t shared_intermediate = 0;  // 0: no shared expert
};

/// One layer of Qwen1.5-MoE-A2.7B, LLaMA-MoE-3.5B, OLMoE-1B-7B, Mixtral-8x7B and DeepSeek-V3.
std::span<const LayerShape> layer_shapes();
/// @throws Error(kInvalidArgument), listing the names
const LayerShape& layer_shape(std::string_view name);

/// Random bf16 weights of a layer, for ranks of this process to share. They are at most 256 MiB,
/// which no cache holds: experts of larger layers overlap in memory.
class RandomExperts {
 public:
  /// @throws Error(kInvalidArgument) if a size of the shape is not positive
  explicit RandomExperts(const LayerShape& shape);
  RandomExperts(RandomExperts&&) = default;  // a copy would have views of the other's values
  RandomExperts& operator=(RandomExperts&&) = default;

  const ExpertWeights& expert(ExpertId e) const { return experts_[index(e)]; }
  /// The shared expert, if the shape has one.
  const ExpertWeights& shared() const { return experts_.back(); }

 private:
  std::vector<Bf16> values_;
  std::vector<ExpertWeights> experts_;  // [num_experts], and the shared one behind them
};

/// One rank's tokens: those of a trace, or random ones.
struct LayerBatch {
  Matrix<float> x;             // [num_tokens, hidden], values that bf16 can hold
  Matrix<ExpertId> topk_idx;   // [num_tokens, top_k]
  Matrix<float> topk_weights;  // [num_tokens, top_k]
};

/// Random rows, and weights that fall with the place among the choices.
LayerBatch make_layer_batch(Matrix<ExpertId> topk_idx, std::int64_t hidden, std::uint64_t seed);

/// One way of running the layer.
struct LayerVariant {
  std::string name;
  Placement placement;
  DispatchOptions dispatch;
  std::optional<std::int32_t> num_chunks;  // none: from the rounds to warm up
  /// Whether the shared expert is computed while the first chunk travels, or before it leaves.
  bool overlaps_shared = true;
};

struct LayerProblemOptions {
  std::string shape;               // a name of layer_shapes()
  std::int64_t num_tokens = 1024;  // of each rank
  const Trace* trace = nullptr;  // its choices, experts and top-k replace the shape's; null: random
  SequencePart part = SequencePart::kAll;  // of the trace
  const Plan* plan = nullptr;              // its placement and cluster; null: contiguous, one node
  std::int64_t layer = 0;                  // of the trace and of the plan, from 0
  std::optional<Cluster> cluster;          // instead of the plan's
  DispatchOptions dispatch;                // but for the cluster
  std::optional<std::int32_t> num_chunks;  // none: from the rounds to warm up
  std::uint64_t seed = 0;                  // of random choices
  bool has_experts = true;                 // false: no weights are made, only exchanges are timed
  bool has_ablation = false;               // also the variants that leave out one ingredient each
};

/// What all ranks know before they start.
struct LayerProblem {
  LayerShape shape;
  std::string routing;  // where choices are from, in words
  Cluster cluster;
  std::vector<LayerVariant> variants;  // what was asked for first, the baseline last
  std::optional<RandomExperts> experts;
};

/// The variants are what was asked for, the same without one ingredient each if there is an
/// ablation, and the baseline: a copy for every choice, contiguous experts, and nothing overlapped.
/// @param options its trace and plan must outlive the call only
/// @throws Error(kInvalidArgument) if a name is unknown, the cluster has another number of ranks,
///         the plan or the trace lacks the layer, or the plan has another number of experts
LayerProblem make_layer_problem(const LayerProblemOptions& options, std::int32_t ep_size);

/// The choices of a rank's tokens [num_tokens, top_k]: of the trace, those of the sequences whose
/// home is the rank by homes_of_sequences(); without a trace, every set of experts is equally
/// likely.
/// @throws Error(kInvalidArgument) if the trace has fewer tokens for the rank
Matrix<ExpertId> choices_of_rank(const LayerProblemOptions& options, const LayerProblem& problem,
                                 RankId rank);

}  // namespace c2r
