// Grouped-query attention with rotary positions over sequences of different lengths.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "c2r/experts/grouped_gemm.h"
#include "c2r/model/config.h"
#include "c2r/model/weights.h"

namespace c2r {

/// @throws Error(kInvalidArgument) unless the model has positions for a sequence of `num_tokens`
void check_length(std::int64_t num_tokens, const ModelConfig& config);

/// @throws Error(kInvalidArgument) if a token is not in [0, vocab_size)
void check_tokens(std::span<const TokenId> tokens, const ModelConfig& config);

/// The keys and values of one sequence in all layers. Both are stored as weights of GroupedGemm:
/// keys [num_positions, head_dim], whose product with queries gives scores, and values [head_dim,
/// num_positions], whose product with probabilities gives the output.
class KvCache {
 public:
  /// @param capacity the largest number of tokens
  /// Memory: 2 x num_layers x num_kv_heads x head_dim x capacity elements, of bf16 for
  /// Arithmetic::kBf16 and of f32 for Arithmetic::kF32.
  /// @throws as check_length()
  KvCache(const ModelConfig& config, Arithmetic arithmetic, std::int64_t capacity);

  /// @returns whether the cache is for models of these dimensions
  bool is_for(const ModelConfig& config) const;
  std::int64_t capacity() const { return capacity_; }
  /// @returns the number of tokens in the cache, which is the position of the next token
  std::int64_t num_tokens() const { return num_tokens_; }
  /// Removes the tokens from position `num_tokens` on.
  /// @throws Error(kInvalidArgument) unless 0 <= num_tokens <= num_tokens()
  void truncate(std::int64_t num_tokens);

  /// @returns the size of a token in save(): 2 x num_layers x num_kv_heads x head_dim elements
  std::int64_t token_bytes() const;
  /// @returns the keys and values of all tokens in the cache, to go on with the sequence elsewhere.
  ///          [num_tokens() x token_bytes()]
  std::vector<std::byte> save() const;
  /// Fills a cache without tokens with what save() has returned for the same model and arithmetic.
  /// @throws Error(kInvalidArgument) if this cache has tokens, or the bytes are not those of up to
  ///         capacity() tokens
  void restore(std::span<const std::byte> saved);

 private:
  friend class Attention;
  friend class Decoder;

  // The keys, [capacity, head_dim], and the values, [head_dim, capacity], of one head.
  MutableRowsView keys(std::int64_t layer, std::int64_t kv_head) {
    return {keys_.data() + head_begin(layer, kv_head), type_, capacity_, head_dim_, head_dim_};
  }
  MutableRowsView values(std::int64_t layer, std::int64_t kv_head) {
    return {values_.data() + head_begin(layer, kv_head), type_, head_dim_, capacity_, capacity_};
  }
  void store(std::int64_t layer, std::int64_t kv_head, std::int64_t position,
             std::span<const float> key, std::span<const float> value);
  template <class Copy>
  void for_each_run(std::int64_t num_tokens, const Copy& copy) const;
  std::int64_t head_begin(std::int64_t layer, std::int64_t kv_head) const {  // in bytes
    return (layer * num_kv_heads_ + kv_head) * head_dim_ * capacity_ * element_bytes(type_);
  }

  ElementType type_;
  std::int64_t num_kv_heads_, head_dim_, capacity_, num_tokens_ = 0;
  std::vector<std::byte> keys_;    // [num_layers][num_kv_heads][capacity][head_dim]
  std::vector<std::byte> values_;  // [num_layers][num_kv_heads][head_dim][capacity]
};

/// New tokens of one sequence, which are the rows [first_row, first_row + num_tokens) of a batch.
struct Segment {
  KvCache* cache = nullptr;
  std::int64_t first_row = 0, num_tokens = 0;
};

class Attention {
 public:
  /// @param config,gemm must outlive this object
  Attention(const ModelConfig& config, GroupedGemm& gemm);
  ~Attention();

  /// Computes the attention of one layer. A token attends to the tokens of its sequence up to
  /// itself. The keys and values of the new tokens are stored in the caches, whose num_tokens()
  /// stays as it is, so that the next layer begins at the same position.
  /// @param x [num_rows, hidden], the normalized inputs; overwritten with the outputs
  /// @throws Error(kInvalidArgument) if a segment does not fit `x` or its cache, or shapes do not
  ///         agree
  void run(const AttentionWeights& weights, std::int64_t layer, std::span<const Segment> segments,
           MatrixView<float> x);

 private:
  struct HeadTask;
  struct Scratch;
  void prepare_row(const AttentionWeights& weights, std::int64_t row, std::int64_t position);
  void attend(const HeadTask& task, std::int64_t layer, Scratch& scratch);

  const ModelConfig& config_;
  GroupedGemm& gemm_;
  std::vector<float> inverse_frequencies_;         // [head_dim / 2]
  Matrix<float> q_, k_, v_;                        // [num_rows, heads * head_dim]
  std::vector<std::unique_ptr<Scratch>> scratch_;  // [num_threads]
};

/// Root mean square normalization in place: x = x / sqrt(mean(x^2) + eps) * weight.
/// @throws Error(kInvalidArgument) if `x` and `weight` differ in size
void rms_norm(std::span<float> x, std::span<const float> weight, float eps);

}  // namespace c2r
