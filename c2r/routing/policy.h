// Routing policies: from a router's logits to each token's experts and weights.
//
//   scoring             | weight of a chosen expert                 | models
//   kSoftmax            | softmax over all experts                  | Qwen-MoE, OLMoE, DeepSeek-V2
//     + norm_topk_prob  | the same, divided by its sum over chosen  | Mixtral, Qwen3-MoE
//   kSoftmaxOverChosen  | softmax over the chosen experts           | LLaMA-MoE, GPT-OSS
//   kSigmoid            | sigmoid, chosen on sigmoid + bias         | DeepSeek-V3
//
// What every policy promises, so that results are the same bits on every machine:
//   - The chosen experts are listed best first. Equal scores go to the lower expert, equal group
//     scores to the lower group; -0 equals +0.
//   - Softmax keeps the order of the logits, so its choice is made on the logits themselves. Where
//     rounding merges the probabilities of two different logits, the larger logit still wins.
//   - exp is this library's own (c2r/core/exp.h), more precise than its rounded argument, and
//     e^-87.3 where it would be less. The softmax's denominator is the sum of exp(logit - largest
//     logit): expert e is added to partial sum e % 16 in ascending order of e, then neighbours are
//     added, 16 -> 8 -> 4 -> 2 -> 1. Sums over the chosen experts run best first. A weight is the
//     exp or sigmoid times the rounded quotient scale / divisor. Nothing but exp's steps is fused.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/routing/routing.h"

namespace c2r {

enum class Scoring { kSoftmax, kSoftmaxOverChosen, kSigmoid };

/// What ranks a group of experts: its best expert's score (DeepSeek-V2), or the sum of the scores
/// of its best two (DeepSeek-V3).
enum class GroupScore { kMax, kSumOfBestTwo };

/// Collaboration-constrained routing (C2R, arXiv 2504.01337): a token's best expert is chosen
/// freely, the others are the best among the first `top_t` collaborators of that expert. With
/// top_t = top_k - 1 the best expert alone decides; the logits only order the others.
struct CollaborationConstraint {
  std::int32_t top_t = 0;          // in [max(1, top_k - 1), num_experts - 1]
  Matrix<ExpertId> collaborators;  // [num_experts, top_t .. num_experts], row e: e's, best first
};

struct RoutingPolicy {
  Scoring scoring = Scoring::kSoftmax;
  std::int32_t top_k = 1;
  // Divide the weights by their sum. No effect with kSoftmaxOverChosen, whose weights sum to 1
  // already; with kSoftmax the common denominator cancels, so that it is computed, to the bit, as
  // kSoftmaxOverChosen.
  bool norm_topk_prob = false;
  float scale = 1;  // every weight is multiplied by it last: routed_scaling_factor and the like

  // [num_experts] or empty: added to the sigmoid for choosing, never for weighing. kSigmoid only.
  std::vector<float> selection_bias;

  // Experts [g * n, (g + 1) * n) form group g, n = num_experts / num_groups. Only the experts of
  // the `top_groups` best groups can be chosen.
  std::int32_t num_groups = 1, top_groups = 1;
  GroupScore group_score = GroupScore::kMax;  // kSumOfBestTwo: kSigmoid only

  std::optional<CollaborationConstraint> constraint;  // not with kSigmoid or groups
};

/// Checks that `policy` can route over `num_experts` experts.
/// @throws Error(kInvalidArgument) naming the field, the expert and the allowed values
void check_policy(const RoutingPolicy& policy, std::int32_t num_experts);

/// A checked policy, ready to route. Holds no mutable state: threads may share one.
class Router {
 public:
  /// @throws Error(kInvalidArgument) as check_policy()
  Router(RoutingPolicy policy, std::int32_t num_experts);

  const RoutingPolicy& policy() const { return policy_; }
  std::int32_t num_experts() const { return num_experts_; }

  /// Routes each row of `logits` [num_tokens, num_experts] on its own.
  /// @throws Error(kInvalidArgument) if the width is wrong or a logit is not finite, naming the
  ///         first such token and expert
  ///
  /// Cost: one thread; with AVX2 some 2 to 4 times the time of reading the logits from memory,
  /// more for few experts (policy_bench.cc). Tokens are routed 16 at a time with AVX-512, 8 with
  /// AVX2, 4 with NEON (not tested), else one by one; fewer cost as much. Allocates its result.
  Routing route(MatrixView<const float> logits) const;

  /// The same into the caller's memory, both [num_tokens, top_k]. Allocates nothing. After an
  /// error their contents are unspecified.
  void route_into(MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                  MatrixView<float> topk_weights) const;

 private:
  RoutingPolicy policy_;
  std::int32_t num_experts_;
  // [num_experts, words_per_expert], bit b of word w of row e: expert 32 w + b is a candidate once
  // e is the best. Empty without a constraint.
  std::vector<std::uint32_t> candidates_;
};

}  // namespace c2r
