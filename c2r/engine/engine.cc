#include "c2r/engine/engine.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {

Engine::Engine(const Model& model, const EngineOptions& options)
    : chunk_tokens_(options.chunk_tokens),
      pool_(options.num_threads),
      decoder_(model.config(), model.weights(), options.arithmetic, pool_) {
  C2R_REQUIRE(options.chunk_tokens >= 1, kInvalidArgument,
              "chunk_tokens is {}, but must be at least 1", options.chunk_tokens);
}

KvCache Engine::make_cache(std::int64_t capacity) const {
  return {decoder_.config(), decoder_.arithmetic(), capacity};
}

void Engine::prefill(KvCache& cache, std::span<const TokenId> tokens, const ChunkObserver& on_chunk,
                     const RoutingObserver& on_routing) {
  for (std::int64_t first = 0; first < std::ssize(tokens); first += chunk_tokens_) {
    const auto count = std::min(chunk_tokens_, std::ssize(tokens) - first);
    const SequenceChunk chunk{
        &cache, tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))};
    const auto states = decoder_.forward({&chunk, 1}, on_routing);
    if (on_chunk) on_chunk(first, states);
  }
}

}  // namespace c2r
