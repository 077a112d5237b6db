// The decoder of all model families: embeddings, layers of attention and experts, logits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/model/attention.h"
#include "c2r/model/config.h"
#include "c2r/model/moe/moe_layer.h"
#include "c2r/model/moe/routed_experts.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// New tokens of one sequence.
struct SequenceSlice {
  KvCache* cache = nullptr;
  std::span<const TokenId> tokens;  // at least one, each in [0, vocab_size)
};

/// Called with the routing of each MoE layer in turn. The rows are the tokens of the batch.
using RoutingObserver = std::function<void(std::int64_t moe_layer, const Routing& routing)>;

class Decoder {
 public:
  /// @param config,weights,pool must outlive this object
  /// @param experts computes the routed experts and must outlive this object; null: this process
  ///        does
  Decoder(const ModelConfig& config, const ModelWeights& weights, Arithmetic arithmetic,
          ThreadPool& pool, RoutedExperts* experts = nullptr);
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const ModelConfig& config() const { return config_; }
  Arithmetic arithmetic() const { return gemm_.arithmetic(); }

  /// Computes the new tokens of a batch and appends them to their caches. The result of a token
  /// depends on its sequence alone: it is the same bits in any batch and for any division of the
  /// sequence into slices. With experts on several ranks this is collective, and an empty batch
  /// takes part, too.
  /// @returns [num_tokens of all slices, hidden], the normalized last hidden states, valid until
  ///          the next call
  /// @throws Error(kInvalidArgument) if a token is out of range, or if a cache is missing, too
  ///         small, in two slices, or made for another model; no cache has changed then
  MatrixView<const float> forward(std::span<const SequenceSlice> batch,
                                  const RoutingObserver& observer = {});

  /// Computes logits.
  /// @param states [num_rows, hidden], rows that forward() returned
  /// @param out [num_rows, vocab_size]
  /// @throws Error(kInvalidArgument) if shapes do not agree
  void logits(MatrixView<const float> states, MatrixView<float> out);

 private:
  void embed(std::span<const SequenceSlice> batch);
  void normalize(std::span<const float> weight);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  GroupedGemm gemm_;
  ExpertMlps mlps_;  // of layers without experts
  LocalExperts local_experts_;
  MoeLayer moe_;
  Attention attention_;
  std::vector<Router> routers_;  // [num_moe_layers]
  Matrix<float> residual_;       // [num_tokens, hidden]
  Matrix<float> normalized_;     // [num_tokens, hidden], input and then output of a block
};

}  // namespace c2r
