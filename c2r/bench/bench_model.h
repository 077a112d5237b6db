// Times a model's prompts and steps with random tokens, and counts what they multiply and read.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/engine/engine.h"

namespace c2r {

struct ModelBenchRequest {
  std::int64_t prompt_tokens = 512;
  std::int64_t num_steps = 16;  // of decoding, from an empty cache
  std::vector<std::int64_t> batch_sizes = {1, 8};
  std::int32_t num_rounds = 3;
  std::uint64_t seed = 0;  // of the tokens, which are the same in every round
};

/// One way of running the model. Logits are computed for the last token of each sequence.
struct ModelBenchPhase {
  std::string_view name;        // "prefill", of one sequence, or "decode"
  std::int64_t batch_size = 0;  // sequences that run together
  std::int64_t num_tokens = 0;  // of a round, in all sequences
  std::vector<double> seconds;  // of each round
  // Of a round: two for each weight and value that are multiplied, and those of attention.
  std::int64_t flop = 0;
  // Of a round: what each pass reads once, experts that no token chose left out.
  std::int64_t weight_bytes = 0;
};

struct PhaseRates {
  double tokens_per_s = 0;  // of the round with the median time, as the next two
  double flop_per_s = 0;
  double weight_bytes_per_s = 0;
  double slowest_tokens_per_s = 0, fastest_tokens_per_s = 0;  // of any round
};

/// @throws Error(kInvalidArgument) if no round was timed
PhaseRates rates_of(const ModelBenchPhase& phase);

/// Runs a prefill to warm up, and then all phases in turn in each round.
///
/// Collective: rank 0 runs the sequences and the others serve their experts to them; only rank 0
/// gets results. What is counted is all ranks' together.
/// @param model the engine's
/// @param progress counts the runs of all phases
/// @throws Error(kInvalidArgument) if a size is less than 1 or does not fit the model's positions
std::vector<ModelBenchPhase> bench_model(Engine& engine, const Model& model,
                                         const ModelBenchRequest& request, Progress& progress);

/// What bench_model() checks first. @throws as bench_model()
void check_request(const ModelBenchRequest& request, const ModelConfig& config);

}  // namespace c2r
