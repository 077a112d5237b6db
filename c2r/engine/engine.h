// A model that runs: on which threads, in which arithmetic, and how prompts are cut.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "c2r/core/parallel.h"
#include "c2r/model/decoder.h"
#include "c2r/model/model.h"

namespace c2r {

struct EngineOptions {
  Arithmetic arithmetic = Arithmetic::kBf16;
  int num_threads = 1;
  // Tokens of one forward pass. More use the weights better, up to some hundreds; memory grows
  // with it, results are the same bits.
  std::int64_t chunk_tokens = 512;
};

class Engine {
 public:
  /// @param model must outlive this object
  /// @throws Error(kInvalidArgument) if an option is out of range
  Engine(const Model& model, const EngineOptions& options);

  const ModelConfig& config() const { return decoder_.config(); }
  Decoder& decoder() { return decoder_; }
  KvCache make_cache(std::int64_t capacity) const;

  /// Called after each chunk, with the last states of its tokens [num_tokens, hidden] and the
  /// position of the first of them in `tokens`.
  using ChunkObserver = std::function<void(std::int64_t first, MatrixView<const float> states)>;

  /// Appends `tokens` to a sequence, chunk by chunk.
  /// @throws Error(kInvalidArgument) if a token is out of range or the cache too small
  void prefill(KvCache& cache, std::span<const TokenId> tokens, const ChunkObserver& on_chunk = {},
               const RoutingObserver& on_routing = {});

 private:
  std::int64_t chunk_tokens_;
  ThreadPool pool_;
  Decoder decoder_;
};

}  // namespace c2r
