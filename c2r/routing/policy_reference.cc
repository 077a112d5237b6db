#include "c2r/routing/policy_reference.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/routing/exp_internal.h"
#include "c2r/routing/policy_internal.h"

namespace c2r {
namespace {

std::size_t size(std::int32_t n) {
  return static_cast<std::size_t>(n);
}

// The place of the largest of `scores` among those allowed, the first of equals.
std::size_t best_of(std::span<const float> scores, std::span<const char> is_allowed) {
  std::size_t best = scores.size();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (is_allowed[i] && (best == scores.size() || scores[i] > scores[best])) best = i;
  }
  C2R_ASSERT(best < scores.size());
  return best;
}

// What experts are chosen by: the logit, or the sigmoid with its bias.
std::vector<float> choice_scores(const RoutingPolicy& policy, std::span<const float> logits) {
  std::vector<float> scores(logits.begin(), logits.end());
  if (policy.scoring != Scoring::kSigmoid) return scores;
  for (std::size_t e = 0; e < scores.size(); ++e) {
    scores[e] = sigmoid(logits[e]);
    if (!policy.selection_bias.empty()) scores[e] += policy.selection_bias[e];
  }
  return scores;
}

// Which experts are in the best `top_groups` groups.
std::vector<char> in_best_groups(const RoutingPolicy& policy, std::span<const float> scores) {
  if (policy.num_groups == 1) return std::vector<char>(scores.size(), true);
  const std::size_t group_size = scores.size() / size(policy.num_groups);
  std::vector<float> group_scores;
  for (std::size_t g = 0; g < size(policy.num_groups); ++g) {
    const auto group = scores.subspan(g * group_size, group_size);
    std::vector<float> sorted(group.begin(), group.end());
    std::ranges::sort(sorted, std::greater());
    const bool is_sum = policy.group_score == GroupScore::kSumOfBestTwo;
    group_scores.push_back(is_sum ? sorted[0] + sorted[1] : sorted[0]);
  }
  std::vector<char> is_open(group_scores.size(), true), is_allowed(scores.size(), false);
  for (std::int32_t i = 0; i < policy.top_groups; ++i) {
    const std::size_t g = best_of(group_scores, is_open);
    is_open[g] = false;
    for (std::size_t e = g * group_size; e < (g + 1) * group_size; ++e) is_allowed[e] = true;
  }
  return is_allowed;
}

std::vector<std::size_t> choose(const RoutingPolicy& policy, std::span<const float> logits) {
  const std::vector<float> scores = choice_scores(policy, logits);
  std::vector<char> is_allowed = in_best_groups(policy, scores);
  std::vector<std::size_t> chosen;
  while (std::ssize(chosen) < policy.top_k) {
    const std::size_t best = best_of(scores, is_allowed);
    if (chosen.empty() && policy.constraint) {
      is_allowed.assign(scores.size(), false);
      const auto list = policy.constraint->collaborators.row(static_cast<std::int64_t>(best));
      for (const ExpertId e : list.first(size(policy.constraint->top_t))) {
        is_allowed[index(e)] = true;
      }
    }
    is_allowed[best] = false;
    chosen.push_back(best);
  }
  return chosen;
}

// The sum of exp(logit - shift) over all experts, in the order that policy.h prescribes.
float reference_sum_of_exps(std::span<const float> logits, float shift) {
  std::array<float, 16> partial{};
  for (std::size_t e = 0; e < logits.size(); ++e) {
    partial[e % 16] += exp_of_negative(logits[e] - shift);
  }
  for (std::size_t n = 8; n >= 1; n /= 2) {
    for (std::size_t i = 0; i < n; ++i) partial[i] = partial[2 * i] + partial[2 * i + 1];
  }
  return partial[0];
}

std::vector<float> weigh(const RoutingPolicy& policy, std::span<const float> logits,
                         const std::vector<std::size_t>& chosen) {
  const float largest = *std::ranges::max_element(logits);
  std::vector<float> weights;
  float sum_over_chosen = 0;
  for (const std::size_t e : chosen) {
    const bool is_sigmoid = policy.scoring == Scoring::kSigmoid;
    weights.push_back(is_sigmoid ? sigmoid(logits[e]) : exp_of_negative(logits[e] - largest));
    sum_over_chosen += weights.back();
  }
  float divisor = 1;
  if (policy.scoring == Scoring::kSigmoid) {
    if (policy.norm_topk_prob) divisor = sum_over_chosen + 1e-20f;
  } else if (policy.scoring == Scoring::kSoftmaxOverChosen || policy.norm_topk_prob) {
    divisor = sum_over_chosen;
  } else {
    divisor = reference_sum_of_exps(logits, largest);
  }
  for (float& weight : weights) weight *= policy.scale / divisor;
  return weights;
}

}  // namespace

Routing route_reference(const RoutingPolicy& policy, MatrixView<const float> logits) {
  const auto num_experts = static_cast<std::int32_t>(logits.cols());
  check_policy(policy, num_experts);
  Routing routing{.num_experts = num_experts,
                  .topk_idx = {logits.rows(), policy.top_k},
                  .topk_weights = {logits.rows(), policy.top_k}};
  for (std::int64_t t = 0; t < logits.rows(); ++t) {
    check_logits(logits.row(t), t);
    const std::vector<std::size_t> chosen = choose(policy, logits.row(t));
    const std::vector<float> weights = weigh(policy, logits.row(t), chosen);
    for (std::int64_t k = 0; k < policy.top_k; ++k) {
      const auto at = static_cast<std::size_t>(k);
      routing.topk_idx(t, k) = ExpertId{static_cast<std::int32_t>(chosen[at])};
      routing.topk_weights(t, k) = weights[at];
    }
  }
  return routing;
}

}  // namespace c2r
