#include "c2r/engine/engine.h"

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"

namespace c2r {

namespace {

std::int64_t checked_chunk(const EngineOptions& options) {
  C2R_REQUIRE(options.chunk_tokens >= 1, kInvalidArgument,
              "chunk_tokens is {}, but must be at least 1", options.chunk_tokens);
  return options.chunk_tokens;
}

}  // namespace

Engine::Engine(const Model& model, const EngineOptions& options)
    : chunk_tokens_(checked_chunk(options)),
      pool_(options.num_threads),
      decoder_(model.config(), model.weights(), options.arithmetic, pool_) {}

Engine::Engine(const Model& model, const EngineOptions& options, Transport& transport,
               const ExpertParallelOptions& expert_parallel)
    : chunk_tokens_(checked_chunk(options)),
      pool_(options.num_threads),
      transport_(&transport),
      experts_(std::make_unique<ExpertParallelExperts>(model.config(), options.arithmetic, pool_,
                                                       transport, expert_parallel)),
      decoder_(model.config(), model.weights(), options.arithmetic, pool_, experts_.get()) {}

KvCache Engine::make_cache(std::int64_t capacity) const {
  return {decoder_.config(), decoder_.arithmetic(), capacity};
}

void Engine::prefill(KvCache& cache, std::span<const TokenId> tokens, const ChunkObserver& on_chunk,
                     const RoutingObserver& on_routing) {
  for (std::int64_t first = 0; first < std::ssize(tokens); first += chunk_tokens_) {
    const auto count = std::min(chunk_tokens_, std::ssize(tokens) - first);
    const SequenceChunk chunk{
        &cache, tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))};
    agree_on_pass(count);
    const auto states = decoder_.forward({&chunk, 1}, on_routing);
    if (on_chunk) on_chunk(first, states);
  }
}

// Whether any rank has tokens for the next pass, given how many are here.
bool Engine::agree_on_pass(std::int64_t num_tokens) {
  if (transport_ == nullptr) return num_tokens > 0;
  all_reduce(*transport_, {&num_tokens, 1}, Reduction::kSum, fmt::format("pass {}", num_passes_++));
  return num_tokens > 0;
}

void Engine::finish_passes() {
  while (agree_on_pass(0)) (void)decoder_.forward({});
}

}  // namespace c2r
