// Times one MoE layer on several ranks in several ways, alternately in one run.
//
// Shapes are those of real models, weights are random, choices are given. Every rank brings a
// batch; a way of running the layer (a placement, a copy mode, chunks) is a variant. Variants take
// turns in each round, since the speed of a machine varies between runs. A round starts when all
// ranks are there and lasts until the slowest is done.
//
// Before anything is timed, each variant runs once with every phase apart: the rows that it sends
// must be those that the volume model predicts, and its results those of one process.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/bench/layer_problem.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/core/progress.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/transport/transport.h"

namespace c2r {

struct LayerBenchOptions {
  LayerShape shape;
  bool has_experts = true;  // false: rows come back as they are; only the exchange is timed
  Arithmetic arithmetic = Arithmetic::kBf16;
  std::int32_t num_rounds = 5;
};

inline constexpr std::size_t kNumPhases = 9;
/// Of PipelineTimes. [kNumPhases]
std::span<const std::string_view> phase_names();
/// Whether experts are computed in a phase, routed or shared ones; the others are exchange.
bool computes_experts(std::size_t phase);

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
/// @throws Error(kTransport) if a variant sends or computes something wrong;
///         Error(kInvalidArgument) if the batch is not of the shape; as Exchange::wait()
std::vector<VariantResult> bench_layer(Transport& transport, ThreadPool& pool,
                                       const LayerBenchOptions& options,
                                       const RandomExperts* experts, const LayerBatch& batch,
                                       std::span<const LayerVariant> variants, Progress& progress);

}  // namespace c2r
