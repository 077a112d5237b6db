// A decoder: embeddings, layers of attention and experts, logits. One for all families.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/model/attention.h"
#include "c2r/model/config.h"
#include "c2r/model/moe_layer.h"
#include "c2r/model/routed_experts.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// New tokens of one sequence.
struct SequenceSlice {
  KvCache* cache = nullptr;
  std::span<const TokenId> tokens;  // at least one, each below vocab_size
};

/// Sees the routing of each MoE layer in turn; rows are the batch's tokens.
using RoutingObserver = std::function<void(std::int64_t moe_layer, const Routing& routing)>;

class Decoder {
 public:
  /// @param config,weights,pool must outlive this object
  /// @param experts compute what tokens choose, and must outlive this object; null: this process
  Decoder(const ModelConfig& config, const ModelWeights& weights, Arithmetic arithmetic,
          ThreadPool& pool, RoutedExperts* experts = nullptr);
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const ModelConfig& config() const { return config_; }
  Arithmetic arithmetic() const { return gemm_.arithmetic(); }

  /// Appends the tokens to their caches; without any it does what expert-parallel ranks do together
  /// all the same. A token's result depends on its sequence alone: the same
  /// bits in any batch and however the sequence is cut into slices.
  /// @returns [num_tokens of all slices, hidden], the normalized last states, valid until the next
  ///          call
  /// @throws Error(kInvalidArgument) if a token is out of range or a cache too small; no cache has
  ///         changed then
  MatrixView<const float> forward(std::span<const SequenceSlice> batch,
                                  const RoutingObserver& observer = {});

  /// The logits of some last states. @param states [num_rows, hidden] @param out [num_rows, vocab]
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
  Matrix<float> normalized_;     // [num_tokens, hidden], what a block reads and then writes
};

}  // namespace c2r
