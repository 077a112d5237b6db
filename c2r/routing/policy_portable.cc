// The portable path of the router, which routes tokens one by one without vectors.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>

#include "c2r/core/error.h"
#include "c2r/core/exp.h"
#include "c2r/routing/policy_internal.h"

namespace c2r {
namespace {

// Larger = better: the score's bits, made to compare as integers, above the complement of its
// place, so that equal scores go to the lower place.
using RankKey = std::int64_t;

RankKey rank_key(float score, std::int32_t place) {
  const auto bits = std::bit_cast<std::int32_t>(score + 0.0f);  // turns -0 into +0
  const std::int32_t ordered = bits ^ ((bits >> 31) & 0x7fffffff);
  return (std::int64_t{ordered} << 32) | (0x7fffffff - place);
}

std::int32_t place_of(RankKey key) {
  return 0x7fffffff - static_cast<std::int32_t>(key & 0x7fffffff);
}

// A list of keys that lives on the stack.
class RankKeys {
 public:
  void add(RankKey key) { keys_[static_cast<std::size_t>(size_++)] = key; }
  // Moves the best to the front, in order, and writes their places.
  void best(std::span<std::int32_t> places) {
    const auto end = keys_.begin() + size_, middle = keys_.begin() + std::ssize(places);
    C2R_ASSERT(middle <= end);
    std::partial_sort(keys_.begin(), middle, end, std::greater());
    std::transform(keys_.begin(), middle, places.begin(), place_of);
  }

 private:
  std::array<RankKey, kMaxExperts> keys_{};
  std::int64_t size_ = 0;
};

float group_score(const RoutingPolicy& policy, std::span<const float> group) {
  float best = group[0], second = -INFINITY;
  for (const float score : group.subspan(1)) {
    second = std::max(second, std::min(best, score));
    best = std::max(best, score);
  }
  return policy.group_score == GroupScore::kMax ? best : best + second;
}

void choose_in_groups(const RoutingPolicy& policy, std::span<const float> scores,
                      std::span<std::int32_t> chosen) {
  RankKeys groups, experts;
  const auto size = static_cast<std::int32_t>(scores.size()) / policy.num_groups;
  const auto group_size = static_cast<std::size_t>(size);
  for (std::int32_t g = 0; g < policy.num_groups; ++g) {
    const auto group = scores.subspan(static_cast<std::size_t>(g) * group_size, group_size);
    groups.add(rank_key(group_score(policy, group), g));
  }
  std::array<std::int32_t, kMaxExperts> best_groups;
  const auto open = std::span(best_groups).first(static_cast<std::size_t>(policy.top_groups));
  groups.best(open);
  for (const std::int32_t g : open) {
    for (std::int32_t e = g * size; e < (g + 1) * size; ++e) {
      experts.add(rank_key(scores[static_cast<std::size_t>(e)], e));
    }
  }
  experts.best(chosen);
}

float sum_of_exps(std::span<const float> row, float shift) {
  std::array<float, 16> partial{};
  for (std::size_t e = 0; e < row.size(); ++e) {
    partial[e % 16] += exp_of_negative(row[e] - shift);
  }
  for (std::size_t n = 8; n >= 1; n /= 2) {
    for (std::size_t i = 0; i < n; ++i) partial[i] = partial[2 * i] + partial[2 * i + 1];
  }
  return partial[0];
}

void weigh_experts(const RoutingPolicy& policy, std::span<const float> row,
                   std::span<const std::int32_t> chosen, float* weights) {
  const bool is_sigmoid = policy.scoring == Scoring::kSigmoid;
  const float shift = row[static_cast<std::size_t>(chosen[0])];  // the largest logit
  float sum = 0;
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    const float logit = row[static_cast<std::size_t>(chosen[k])];
    weights[k] = is_sigmoid ? sigmoid(logit) : exp_of_negative(logit - shift);
    sum += weights[k];
  }
  if (needs_sum_over_all(policy)) sum = sum_of_exps(row, shift);
  if (is_sigmoid) sum = policy.norm_topk_prob ? sum + 1e-20f : 1.0f;
  for (std::size_t k = 0; k < chosen.size(); ++k) weights[k] *= policy.scale / sum;
}

}  // namespace

void choose_experts(const RouteTask& task, const float* row, std::span<std::int32_t> chosen) {
  const RoutingPolicy& policy = task.policy;
  const std::span logits(row, static_cast<std::size_t>(task.num_experts));
  if (policy.scoring == Scoring::kSigmoid || policy.num_groups > 1) {
    std::array<float, kMaxExperts> scores;
    for (std::size_t e = 0; e < logits.size(); ++e) {
      scores[e] = policy.scoring == Scoring::kSigmoid ? sigmoid(logits[e]) : logits[e];
      if (!policy.selection_bias.empty()) scores[e] += policy.selection_bias[e];
    }
    return choose_in_groups(policy, std::span(scores).first(logits.size()), chosen);
  }
  RankKeys all;
  for (std::int32_t e = 0; e < task.num_experts; ++e) all.add(rank_key(row[e], e));
  if (!policy.constraint) return all.best(chosen);

  all.best(chosen.first(1));
  RankKeys candidates;
  const auto& [top_t, collaborators] = *policy.constraint;
  for (const ExpertId e : collaborators.row(chosen[0]).first(static_cast<std::size_t>(top_t))) {
    candidates.add(rank_key(logits[index(e)], static_cast<std::int32_t>(e)));
  }
  candidates.best(chosen.subspan(1));
}

bool route_portably(const RouteTask& task) {
  const std::int64_t top_k = task.policy.top_k;
  std::array<std::int32_t, kMaxTopK> buffer;
  const auto chosen = std::span(buffer).first(static_cast<std::size_t>(top_k));
  for (std::int64_t t = 0; t < task.num_tokens; ++t) {
    const std::span row(task.logits + t * task.num_experts,
                        static_cast<std::size_t>(task.num_experts));
    if (!std::ranges::all_of(row, [](float logit) { return std::isfinite(logit); })) return false;
    choose_experts(task, row.data(), chosen);
    std::ranges::transform(chosen, task.topk_idx + t * top_k,
                           [](std::int32_t e) { return ExpertId{e}; });
    weigh_experts(task.policy, row, chosen, task.topk_weights + t * top_k);
  }
  return true;
}

}  // namespace c2r
