// The router's decision for one batch of tokens in one MoE layer.
#pragma once

#include <cstdint>
#include <optional>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

struct Routing {
  std::int32_t num_experts = 0;
  Matrix<ExpertId> topk_idx;   // [num_tokens, top_k], distinct within a row; kNoExpert = masked
  Matrix<float> topk_weights;  // [num_tokens, top_k], 0 where masked

  std::int64_t num_tokens() const { return topk_idx.rows(); }
  std::int64_t top_k() const { return topk_idx.cols(); }
};

/// The limits within which every policy, trace and statistic of this library works.
inline constexpr std::int32_t kMaxExperts = 1024;
inline constexpr std::int32_t kMaxTopK = 32;
inline constexpr std::int32_t kMaxLayers = 1024;  // MoE layers of a model
inline constexpr std::int32_t kMaxLayerIndex = 65535;

/// A choice that breaks the rules of `topk_idx`.
struct InvalidChoice {
  std::int64_t token = 0, column = 0;
  std::int32_t expert = 0;
  // Where the same token names the same expert before; none if the expert is out of range.
  std::optional<std::int64_t> first_column;
};

/// Finds the first choice of `topk_idx` [num_tokens, top_k], row by row, that is neither kNoExpert
/// nor in [0, num_experts), or that names an expert which the same token has already named.
/// @param num_experts in [0, kMaxExperts]
/// @returns nothing if all choices are valid
/// @throws Error(kInvalidArgument) if num_experts is out of range
///
/// Cost: O(num_experts + num_tokens * top_k), one thread, no allocation.
std::optional<InvalidChoice> find_invalid_choice(MatrixView<const ExpertId> topk_idx,
                                                 std::int32_t num_experts);

/// Checks choices that a caller hands over in memory: their width, and each as above.
/// @param top_k columns that `topk_idx` must have
/// @throws Error(kInvalidArgument), naming the first token, column and value at fault
///
/// Cost: as find_invalid_choice().
void check_topk_idx(MatrixView<const ExpertId> topk_idx, std::int32_t num_experts,
                    std::int64_t top_k);

}  // namespace c2r
