// The router's decision for one batch of tokens in one MoE layer.
#pragma once

#include <cstdint>

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

}  // namespace c2r
