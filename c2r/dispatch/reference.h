// The reference of dispatch, experts and combine: the same results, computed in one process.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/dispatch.h"

namespace c2r {

/// The tokens of one rank, routed.
struct TokenBatch {
  Matrix<float> x;             // [num_tokens, hidden]
  Matrix<ExpertId> topk_idx;   // [num_tokens, top_k]
  Matrix<float> topk_weights;  // [num_tokens, top_k]
  std::int64_t first_token = 0;
};

/// Computes an expert's output for one row.
using ExpertFunction =
    std::function<void(ExpertId expert, std::span<const float> x, std::span<float> y)>;

/// The result of each token of each rank, with the roundings and in the order of sums that
/// dispatch.h describes; dispatch and combine give the same bits.
/// @param batches [ep_size], the first ones of a dispatcher: no earlier tokens are remembered
/// @returns [ep_size], of [num_tokens, hidden]
std::vector<Matrix<float>> reference_exchange(std::span<const TokenBatch> batches,
                                              const Placement& placement,
                                              const DispatchOptions& options,
                                              const ExpertFunction& expert);

}  // namespace c2r
