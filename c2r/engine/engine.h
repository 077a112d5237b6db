// Runs a model's forward passes on the threads of one process, or on one rank of several.
//
// On several ranks each rank runs sequences of its own, while the experts of every layer are spread
// over all ranks. So a forward pass is collective: before each pass the ranks agree on whether any
// of them has tokens left, and a rank without tokens takes part with none. A rank that has run its
// sequences calls finish_passes(), which returns on all ranks at once. profile(), score_all() and
// generate_all() are collective as well, and say what they need from each rank.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "c2r/core/parallel.h"
#include "c2r/engine/ranks/pass_chunks.h"
#include "c2r/model/decoder.h"
#include "c2r/model/model.h"
#include "c2r/model/moe/expert_parallel.h"
#include "c2r/plan/plan.h"
#include "c2r/transport/transport.h"

namespace c2r {

struct EngineOptions {
  Arithmetic arithmetic = Arithmetic::kBf16;
  int num_threads = 1;
  // The largest number of tokens of one forward pass. Weights are read once for a pass, so passes
  // of up to some hundreds of tokens are faster; memory grows with the number. Results are the same
  // bits.
  std::int64_t max_pass_tokens = 512;
};

class Engine {
 public:
  /// Makes an engine that has all experts in this process.
  /// @param model must outlive this object
  /// @throws Error(kInvalidArgument) if an option is out of range
  Engine(const Model& model, const EngineOptions& options);

  /// Makes an engine that is one rank of several.
  /// @param model,transport must outlive this object
  /// @throws Error(kInvalidArgument) if an option is out of range or a placement is for other
  ///         experts or ranks
  Engine(const Model& model, const EngineOptions& options, Transport& transport,
         const ExpertParallelOptions& expert_parallel);

  const ModelConfig& config() const { return decoder_.config(); }
  Decoder& decoder() { return decoder_; }
  KvCache make_cache(std::int64_t capacity) const;

  /// @returns the transport to the other ranks; null if all experts are in this process
  Transport* transport() { return transport_; }
  /// @returns whether this is the rank that has the input and takes the results
  bool is_first_rank() const { return transport_ == nullptr || transport_->rank() == RankId{0}; }

  /// Lets score_all() choose the homes of sequences by a signature, on several ranks.
  /// @throws Error(kInvalidArgument) if the signature is of another layer, or of other experts or
  ///         ranks
  void follow_homes(const HomeSignature& signature);
  /// @returns the signature that is followed; null without one
  const HomeSignature* home_signature() const {
    return home_signature_ ? &*home_signature_ : nullptr;
  }
  /// @returns which of the MoE layers the signature looks at
  std::int64_t home_layer() const { return home_layer_; }

  /// Called after each pass, with the last states of its tokens [num_tokens, hidden] and the
  /// position of the first of them in `tokens`.
  using PassObserver = std::function<void(std::int64_t first, MatrixView<const float> states)>;

  /// Appends `tokens` to a sequence, in passes of up to max_pass_tokens.
  /// @throws Error(kInvalidArgument) if a token is out of range or the cache too small; on several
  ///         ranks also as Exchange::wait()
  void prefill(KvCache& cache, std::span<const TokenId> tokens, const PassObserver& on_pass = {},
               const RoutingObserver& on_routing = {});

  /// Runs one pass, which appends the slices to their sequences.
  /// @returns as Decoder::forward()
  /// @throws as Decoder::forward(); if weights that are not finite are the cause, as
  ///         Checkpoint::check_finite(); on several ranks also as Exchange::wait()
  MatrixView<const float> forward(std::span<const SequenceSlice> batch,
                                  const RoutingObserver& on_routing = {});

  /// Checks logits before they are used.
  /// @throws Error(kInvalidFile) if one is not finite, naming the weight that is not either, if any
  void check_logits(std::span<const float> logits) const;

  /// @returns the tokens that this rank has appended to sequences so far
  std::int64_t num_tokens() const { return num_tokens_; }
  /// @returns as ExpertParallelExperts::sent_row_bytes(); empty if all experts are in this process
  std::span<const std::int64_t> sent_row_bytes() const;

  /// Takes part in the passes of other ranks until no rank has tokens left. Collective.
  /// @throws as Exchange::wait()
  void finish_passes();

 private:
  bool agree_on_pass(std::int64_t num_tokens);
  void choose_chunks(std::int64_t num_tokens, double waited_s, double computed_s);

  const Checkpoint* checkpoint_;
  std::int64_t max_pass_tokens_;
  ThreadPool pool_;
  Transport* transport_ = nullptr;
  std::unique_ptr<ExpertParallelExperts> experts_;  // null if all is in this process
  Decoder decoder_;
  std::optional<HomeSignature> home_signature_;
  std::int64_t home_layer_ = 0;
  std::int64_t num_passes_ = 0;
  std::int64_t num_tokens_ = 0;       // of this rank
  std::int64_t last_tokens_ = 0;      // of the rank with most, in the last pass
  std::optional<PassChunks> chunks_;  // none: the options give the number of chunks
};

}  // namespace c2r
