// The checks of a policy, and the router: its candidate sets are made once, then blocks of tokens
// go to the widest vectors of the processor.
#include "c2r/routing/policy.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/routing/policy_internal.h"

namespace c2r {
namespace {

void check_scores(const RoutingPolicy& policy, std::int32_t num_experts) {
  C2R_REQUIRE(std::isfinite(policy.scale), kInvalidArgument,
              "the policy's scale is {}, but must be finite", policy.scale);
  const std::span<const float> bias = policy.selection_bias;
  if (bias.empty()) return;
  C2R_REQUIRE(policy.scoring == Scoring::kSigmoid, kInvalidArgument,
              "a selection bias is only defined for sigmoid scores; leave it empty");
  C2R_REQUIRE(std::ssize(bias) == num_experts, kInvalidArgument,
              "the selection bias has {} values, but there are {} experts", bias.size(),
              num_experts);
  for (std::size_t e = 0; e < bias.size(); ++e) {
    C2R_REQUIRE(std::isfinite(bias[e]), kInvalidArgument,
                "the selection bias of expert {} is {}, but must be finite", e, bias[e]);
  }
}

void check_groups(const RoutingPolicy& policy, std::int32_t num_experts) {
  C2R_REQUIRE(policy.num_groups >= 1 && num_experts % policy.num_groups == 0, kInvalidArgument,
              "{} experts cannot be split evenly into {} groups", num_experts, policy.num_groups);
  C2R_REQUIRE(1 <= policy.top_groups && policy.top_groups <= policy.num_groups, kInvalidArgument,
              "top_groups is {}, but must be in [1, {}], the number of groups", policy.top_groups,
              policy.num_groups);
  const std::int32_t group_size = num_experts / policy.num_groups;
  C2R_REQUIRE(policy.top_k <= policy.top_groups * group_size, kInvalidArgument,
              "top_k is {}, but the best {} groups hold only {} experts", policy.top_k,
              policy.top_groups, policy.top_groups * group_size);
  if (policy.group_score == GroupScore::kMax) return;
  C2R_REQUIRE(policy.scoring == Scoring::kSigmoid, kInvalidArgument,
              "the sum of a group's best two is only defined for sigmoid scores; use the maximum");
  C2R_REQUIRE(group_size >= 2, kInvalidArgument,
              "the sum of a group's best two needs 2 experts in each group, but {} experts in {} "
              "groups are {} in each",
              num_experts, policy.num_groups, group_size);
}

// @param position_of scratch, [num_experts]
void check_collaborators(std::span<const ExpertId> list, std::int64_t owner,
                         std::vector<std::int64_t>& position_of) {
  std::ranges::fill(position_of, -1);
  for (std::int64_t i = 0; i < std::ssize(list); ++i) {
    const auto e = static_cast<std::int64_t>(list[static_cast<std::size_t>(i)]);
    C2R_REQUIRE(0 <= e && e < std::ssize(position_of), kInvalidArgument,
                "collaborator {} of expert {} is {}, but experts are 0 to {}", i, owner, e,
                std::ssize(position_of) - 1);
    C2R_REQUIRE(e != owner, kInvalidArgument,
                "expert {} is listed as its own collaborator, at position {} of its first {}",
                owner, i, list.size());
    std::int64_t& position = position_of[static_cast<std::size_t>(e)];
    C2R_REQUIRE(position < 0, kInvalidArgument,
                "expert {} lists collaborator {} twice, at positions {} and {}", owner, e, position,
                i);
    position = i;
  }
}

void check_constraint(const RoutingPolicy& policy, std::int32_t num_experts) {
  if (!policy.constraint) return;
  C2R_REQUIRE(policy.scoring != Scoring::kSigmoid && policy.num_groups == 1, kInvalidArgument,
              "a collaboration constraint is only defined for softmax scores without groups");
  const auto& [top_t, collaborators] = *policy.constraint;
  C2R_REQUIRE(top_t >= 1 && top_t >= policy.top_k - 1, kInvalidArgument,
              "top_t is {}, but must be at least {}, so that top_k = {} experts can be chosen",
              top_t, std::max(1, policy.top_k - 1), policy.top_k);
  C2R_REQUIRE(top_t <= num_experts - 1, kInvalidArgument,
              "top_t is {}, but each of {} experts has only {} others", top_t, num_experts,
              num_experts - 1);
  C2R_REQUIRE(collaborators.rows() == num_experts, kInvalidArgument,
              "there are collaborator lists for {} experts, but {} experts", collaborators.rows(),
              num_experts);
  C2R_REQUIRE(top_t <= collaborators.cols() && collaborators.cols() <= num_experts,
              kInvalidArgument,
              "collaborator lists have {} entries, but must have {} (top_t) to {} (num_experts)",
              collaborators.cols(), top_t, num_experts);
  std::vector<std::int64_t> position_of(static_cast<std::size_t>(num_experts));
  for (std::int64_t e = 0; e < num_experts; ++e) {
    check_collaborators(collaborators.row(e).first(static_cast<std::size_t>(top_t)), e,
                        position_of);
  }
}

}  // namespace

void check_policy(const RoutingPolicy& policy, std::int32_t num_experts) {
  C2R_REQUIRE(1 <= num_experts && num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [1, {}]", num_experts, kMaxExperts);
  const std::int32_t max_top_k = std::min(kMaxTopK, num_experts);
  C2R_REQUIRE(1 <= policy.top_k && policy.top_k <= max_top_k, kInvalidArgument,
              "top_k is {}, but must be in [1, {}]", policy.top_k, max_top_k);
  check_scores(policy, num_experts);
  check_groups(policy, num_experts);
  check_constraint(policy, num_experts);
}

std::vector<std::uint32_t> candidate_sets(const RoutingPolicy& policy, std::int32_t num_experts) {
  if (!policy.constraint) return {};
  const auto words = static_cast<std::size_t>(words_per_expert(num_experts));
  std::vector<std::uint32_t> sets(static_cast<std::size_t>(num_experts) * words);
  for (std::int64_t owner = 0; owner < num_experts; ++owner) {
    const auto set = std::span(sets).subspan(static_cast<std::size_t>(owner) * words, words);
    const auto list = policy.constraint->collaborators.row(owner);
    for (const ExpertId e : list.first(static_cast<std::size_t>(policy.constraint->top_t))) {
      set[index(e) / 32] |= 1u << (index(e) % 32);
    }
  }
  return sets;
}

void check_logits(std::span<const float> row, std::int64_t token) {
  for (std::size_t e = 0; e < row.size(); ++e) {
    C2R_REQUIRE(std::isfinite(row[e]), kInvalidArgument,
                "the logit of token {} for expert {} is {}, but logits must be finite; look for "
                "an overflow in the layers before the router",
                token, e, row[e]);
  }
}

void check_route_shapes(std::int32_t top_k, std::int32_t num_experts,
                        MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                        MatrixView<float> topk_weights) {
  C2R_REQUIRE(logits.cols() == num_experts, kInvalidArgument,
              "the logits are [{}, {}], but the router has {} experts", logits.rows(),
              logits.cols(), num_experts);
  const auto check_shape = [&](const char* name, std::int64_t rows, std::int64_t cols) {
    C2R_REQUIRE(rows == logits.rows() && cols == top_k, kInvalidArgument,
                "{} is [{}, {}], but must be [{}, {}] for these logits", name, rows, cols,
                logits.rows(), top_k);
  };
  check_shape("topk_idx", topk_idx.rows(), topk_idx.cols());
  check_shape("topk_weights", topk_weights.rows(), topk_weights.cols());
}

Router::Router(RoutingPolicy policy, std::int32_t num_experts)
    : policy_(std::move(policy)), num_experts_(num_experts) {
  check_policy(policy_, num_experts_);
  candidates_ = candidate_sets(policy_, num_experts_);
}

Routing Router::route(MatrixView<const float> logits) const {
  Routing routing{.num_experts = num_experts_,
                  .topk_idx = {logits.rows(), policy_.top_k},
                  .topk_weights = {logits.rows(), policy_.top_k}};
  route_into(logits, routing.topk_idx, routing.topk_weights);
  return routing;
}

void Router::route_into(MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                        MatrixView<float> topk_weights) const {
  check_route_shapes(policy_.top_k, num_experts_, logits, topk_idx, topk_weights);

  const bool are_finite = route_with_vectors({.policy = policy_,
                                              .num_experts = num_experts_,
                                              .candidates = candidates_,
                                              .logits = logits.data(),
                                              .num_tokens = logits.rows(),
                                              .topk_idx = topk_idx.data(),
                                              .topk_weights = topk_weights.data()});
  if (are_finite) return;
  for (std::int64_t t = 0; t < logits.rows(); ++t) check_logits(logits.row(t), t);
}

}  // namespace c2r
