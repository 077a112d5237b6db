// Declarations that the portable and the vector path of the router share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// Tokens to route by a checked policy.
struct RouteTask {
  const RoutingPolicy& policy;
  std::int32_t num_experts = 0;
  std::span<const std::uint32_t> candidates;  // as Router::candidates_
  const float* logits = nullptr;              // [num_tokens, num_experts]
  std::int64_t num_tokens = 0;
  ExpertId* topk_idx = nullptr;   // [num_tokens, top_k]
  float* topk_weights = nullptr;  // [num_tokens, top_k]
};

/// 32-bit words in one expert's set of candidates.
constexpr std::int64_t words_per_expert(std::int32_t num_experts) {
  return (num_experts + 31) / 32;
}

/// Whether the weights are divided by a sum over all experts, not only over the chosen ones.
constexpr bool needs_sum_over_all(const RoutingPolicy& policy) {
  return policy.scoring == Scoring::kSoftmax && !policy.norm_topk_prob;
}

/// @returns what Router::candidates_ holds
std::vector<std::uint32_t> candidate_sets(const RoutingPolicy& policy, std::int32_t num_experts);

/// @throws Error(kInvalidArgument) unless logits are [num_tokens, num_experts], and ids and weights
///         [num_tokens, top_k]
void check_route_shapes(std::int32_t top_k, std::int32_t num_experts,
                        MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                        MatrixView<float> topk_weights);

/// @throws Error(kInvalidArgument) naming `token` and the first expert whose logit is not finite
void check_logits(std::span<const float> row, std::int64_t token);

/// Chooses one token's experts, best first, on any processor. The portable path does so for every
/// token, the vector path for tokens whose sort keys are too close to decide.
/// @param row [num_experts], finite
/// @param chosen [top_k]
///
/// Cost: O(num_experts) time for small top_k, no allocation.
void choose_experts(const RouteTask& task, const float* row, std::span<std::int32_t> chosen);

/// Routes all tokens one by one, on any processor.
/// @returns false if a logit is not finite
bool route_portably(const RouteTask& task);

/// The same with the widest vectors that this processor has.
bool route_with_vectors(const RouteTask& task);

}  // namespace c2r
