// Compares choices with logits, and chooses within the best groups of experts.
#include "c2r/routing/logit_choices.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

void check_group_limit(const GroupLimit& limit, std::int64_t num_experts, std::int32_t top_k) {
  C2R_REQUIRE(std::ssize(limit.group_of_expert) == num_experts, kInvalidArgument,
              "there are groups of {} experts, but logits of {}", limit.group_of_expert.size(),
              num_experts);
  C2R_REQUIRE(1 <= limit.top_groups && limit.top_groups <= limit.num_groups, kInvalidArgument,
              "top_groups is {}, but must be in [1, {}], the number of groups", limit.top_groups,
              limit.num_groups);
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(limit.num_groups));
  for (const std::int32_t group : limit.group_of_expert) {
    C2R_REQUIRE(0 <= group && group < limit.num_groups, kInvalidArgument,
                "an expert is in group {}, but there are groups 0 to {}", group,
                limit.num_groups - 1);
    ++at(sizes, group);
  }
  std::ranges::sort(sizes);
  const std::int64_t least =
      std::accumulate(sizes.begin(), sizes.begin() + limit.top_groups, std::int64_t{0});
  C2R_REQUIRE(1 <= top_k && top_k <= least, kInvalidArgument,
              "{} groups may have {} experts together, from which top-{} cannot be chosen",
              limit.top_groups, least, top_k);
}

// Chooses for one token after another, in the same memory.
class GroupChooser {
 public:
  GroupChooser(const GroupLimit& limit, std::int64_t num_experts)
      : limit_(limit),
        best_of_group_(static_cast<std::size_t>(limit.num_groups)),
        groups_(best_of_group_.size()),
        is_open_(best_of_group_.size()),
        candidates_(static_cast<std::size_t>(num_experts)) {}

  void choose(std::span<const float> logits, std::span<ExpertId> chosen) {
    open_best_groups(logits);
    candidates_.clear();
    for (std::size_t e = 0; e < logits.size(); ++e) {
      if (at(is_open_, at(limit_.group_of_expert, e))) {
        candidates_.push_back(ExpertId{static_cast<std::int32_t>(e)});
      }
    }
    std::ranges::partial_sort_copy(candidates_, chosen, [&](ExpertId a, ExpertId b) {
      const float of_a = at(logits, a), of_b = at(logits, b);
      return of_a != of_b ? of_a > of_b : a < b;
    });
  }

 private:
  void open_best_groups(std::span<const float> logits) {
    std::ranges::fill(best_of_group_, -std::numeric_limits<float>::infinity());
    for (std::size_t e = 0; e < logits.size(); ++e) {
      float& best = at(best_of_group_, at(limit_.group_of_expert, e));
      best = std::max(best, logits[e]);
    }
    std::iota(groups_.begin(), groups_.end(), 0);
    std::ranges::sort(groups_, [&](std::int32_t a, std::int32_t b) {
      const float of_a = at(best_of_group_, a), of_b = at(best_of_group_, b);
      return of_a != of_b ? of_a > of_b : a < b;
    });
    std::ranges::fill(is_open_, false);
    for (std::int32_t g = 0; g < limit_.top_groups; ++g) at(is_open_, at(groups_, g)) = true;
  }

  const GroupLimit& limit_;
  std::vector<float> best_of_group_;
  std::vector<std::int32_t> groups_;  // best first
  std::vector<char> is_open_;
  std::vector<ExpertId> candidates_;
};

bool is_other_choice(std::span<const ExpertId> chosen, std::span<const float> logits) {
  float worst_chosen = std::numeric_limits<float>::infinity();
  for (const ExpertId e : chosen) {
    if (e != kNoExpert) worst_chosen = std::min(worst_chosen, at(logits, e));
  }
  for (std::size_t e = 0; e < logits.size(); ++e) {
    if (logits[e] <= worst_chosen) continue;
    const ExpertId expert{static_cast<std::int32_t>(e)};
    if (std::ranges::find(chosen, expert) == chosen.end()) return true;
  }
  return false;
}

}  // namespace

std::int64_t count_other_choices(MatrixView<const ExpertId> topk_idx,
                                 MatrixView<const float> logits) {
  C2R_REQUIRE(topk_idx.rows() == logits.rows(), kInvalidArgument,
              "there are choices of {} tokens, but logits of {}", topk_idx.rows(), logits.rows());
  check_topk_idx(topk_idx, static_cast<std::int32_t>(logits.cols()), topk_idx.cols());
  std::int64_t num_other = 0;
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    num_other += is_other_choice(topk_idx.row(t), logits.row(t)) ? 1 : 0;
  }
  return num_other;
}

Matrix<ExpertId> choose_in_best_groups(MatrixView<const float> logits, const GroupLimit& limit,
                                       std::int32_t top_k) {
  check_group_limit(limit, logits.cols(), top_k);
  Matrix<ExpertId> chosen(logits.rows(), top_k);
  GroupChooser chooser(limit, logits.cols());
  for (std::int64_t t = 0; t < logits.rows(); ++t) chooser.choose(logits.row(t), chosen.row(t));
  return chosen;
}

}  // namespace c2r
