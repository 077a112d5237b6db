// The definition of every routing policy, one token and one choice at a time.
#include "c2r/routing/policy_reference.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/exp.h"
#include "c2r/routing/policy_internal.h"

namespace c2r {
namespace {

std::size_t size(std::int32_t n) {
  return static_cast<std::size_t>(n);
}

// Less than any score.
constexpr float kNotAllowed = -std::numeric_limits<float>::infinity();

// The scores that experts are chosen by: the logit, or the sigmoid with its bias.
std::vector<float> choice_scores(const RoutingPolicy& policy, std::span<const float> logits) {
  std::vector<float> scores(logits.begin(), logits.end());
  if (policy.scoring != Scoring::kSigmoid) return scores;
  for (std::size_t e = 0; e < scores.size(); ++e) {
    scores[e] = sigmoid(logits[e]);
    if (!policy.selection_bias.empty()) scores[e] += policy.selection_bias[e];
  }
  return scores;
}

// Forbids the experts that are not in the best `top_groups` groups.
void keep_best_groups(const RoutingPolicy& policy, std::span<float> scores) {
  const std::size_t group_size = scores.size() / size(policy.num_groups);
  std::vector<float> group_scores;
  for (std::size_t g = 0; g < size(policy.num_groups); ++g) {
    const auto group = scores.subspan(g * group_size, group_size);
    std::vector<float> sorted(group.begin(), group.end());
    std::ranges::sort(sorted, std::greater());
    const bool is_sum = policy.group_score == GroupScore::kSumOfBestTwo;
    group_scores.push_back(is_sum ? sorted[0] + sorted[1] : sorted[0]);
  }
  std::vector<std::size_t> order(group_scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater(), [&](std::size_t g) { return group_scores[g]; });
  for (const std::size_t g : std::span(order).subspan(size(policy.top_groups))) {
    std::ranges::fill(scores.subspan(g * group_size, group_size), kNotAllowed);
  }
}

// Forbids the experts that are not among the top-T collaborators of `best`.
void keep_collaborators(const CollaborationConstraint& constraint, std::size_t best,
                        std::vector<float>& scores) {
  const auto list = constraint.collaborators.row(static_cast<std::int64_t>(best));
  std::vector<float> kept(scores.size(), kNotAllowed);
  for (const ExpertId e : list.first(size(constraint.top_t))) kept[index(e)] = scores[index(e)];
  scores = kept;
}

std::vector<std::size_t> choose(const RoutingPolicy& policy, std::span<const float> logits) {
  std::vector<float> scores = choice_scores(policy, logits);
  if (policy.num_groups > 1) keep_best_groups(policy, scores);
  std::vector<std::size_t> chosen;
  while (std::ssize(chosen) < policy.top_k) {
    const auto best_score = std::ranges::max_element(scores);  // the first of equals
    C2R_ASSERT(*best_score != kNotAllowed);
    const auto best = static_cast<std::size_t>(best_score - scores.begin());
    if (chosen.empty() && policy.constraint) keep_collaborators(*policy.constraint, best, scores);
    scores[best] = kNotAllowed;
    chosen.push_back(best);
  }
  return chosen;
}

// The sum of the first half plus the sum of the second half, each computed in the same way.
// @param numbers as many as a power of two
float sum_of_neighbours(std::span<const float> numbers) {
  if (numbers.size() == 1) return numbers[0];
  const std::size_t half = numbers.size() / 2;
  return sum_of_neighbours(numbers.first(half)) + sum_of_neighbours(numbers.last(half));
}

// The sum of exp(logit - shift) over all experts, in the order that policy.h prescribes.
float reference_sum_of_exps(std::span<const float> logits, float shift) {
  std::array<float, 16> partial{};
  for (std::size_t e = 0; e < logits.size(); ++e) {
    partial[e % 16] += exp_of_negative(logits[e] - shift);
  }
  return sum_of_neighbours(partial);
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
