// Times one MoE layer on several ranks in several ways, alternately in one run.
//
// Shapes are those of real models, weights are random, choices are given. Every rank brings a
// batch; a way of running the layer (a placement, a copy mode, chunks) is a variant. Variants take
// turns in each round, since nothing that two runs have in common, least of all the machine, is
// equally fast. A round starts when all ranks are there and lasts until the slowest is done.
//
// Before anything is timed, each variant runs once with every phase apart: the rows that it sends
// must be those that the volume model predicts, and its results those of one process.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/bf16.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/core/progress.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/transport/transport.h"

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

/// Random bf16 weights of a layer, for ranks of this process to share. More than 256 MiB of them
/// would tell nothing more, since no cache holds that: experts of larger layers overlap in memory.
class RandomExperts {
 public:
  explicit RandomExperts(const LayerShape& shape);

  const ExpertWeights& expert(ExpertId e) const { return experts_[index(e)]; }
  const ExpertWeights& shared() const { return experts_.back(); }  // if the shape has one

 private:
  std::vector<Bf16> values_;
  std::vector<ExpertWeights> experts_;  // and the shared one
};

/// One rank's tokens: those of a trace, or random ones.
struct LayerBatch {
  Matrix<float> x;             // [num_tokens, hidden], values that bf16 can hold
  Matrix<ExpertId> topk_idx;   // [num_tokens, top_k]
  Matrix<float> topk_weights;  // the same
};

/// Random rows, and weights that fall with the place among the choices.
LayerBatch make_layer_batch(Matrix<ExpertId> topk_idx, std::int64_t hidden, std::uint64_t seed);

struct LayerVariant {
  std::string name;
  Placement placement;
  DispatchOptions dispatch;
  std::optional<std::int32_t> num_chunks;  // none: from the rounds to warm up
  /// Whether the shared expert is computed while the first chunk travels, or before it leaves.
  bool overlaps_shared = true;
};

struct LayerBenchOptions {
  LayerShape shape;
  bool has_experts = true;  // false: rows come back as they are; only the exchange is timed
  Arithmetic arithmetic = Arithmetic::kBf16;
  std::int32_t num_rounds = 5;
};

inline constexpr std::size_t kNumPhases = 9;
/// Of PipelineTimes. [kNumPhases]
std::span<const std::string_view> phase_names();

/// Of one variant, the same on every rank.
struct VariantResult {
  // Per round and (src, dst). [ep_size, ep_size]
  Matrix<std::int64_t> metadata_bytes, dispatch_bytes, combine_bytes;
  std::int64_t max_rows = 0;  // that a rank computes, of the busiest
  std::int32_t num_chunks = 1;
  std::vector<double> seconds;          // [num_rounds], until the slowest rank was done
  std::vector<double> compute_seconds;  // [num_rounds], the same work without any exchange
  Matrix<double> phase_seconds;         // [ep_size, kNumPhases], medians over the rounds
};

/// Collective. @param experts,batch of this rank; experts are not used without has_experts
/// @param pool of this rank
/// @param progress counts the runs of this rank, of all variants
/// @returns one result for each variant
/// @throws Error(kTransport) if a variant sends or computes something wrong, and as
/// Exchange::wait()
std::vector<VariantResult> bench_layer(Transport& transport, ThreadPool& pool,
                                       const LayerBenchOptions& options,
                                       const RandomExperts* experts, const LayerBatch& batch,
                                       std::span<const LayerVariant> variants, Progress& progress);

/// Of an odd number the middle, else the mean of the two in the middle; 0 of none.
double median(std::vector<double> values);

}  // namespace c2r
