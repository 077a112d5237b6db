// Choices that follow from recorded logits: whether a recorded choice is one of them, and what
// device-limited routing would choose.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// @param topk_idx the choices of tokens; kNoExpert is skipped. [num_tokens, top_k]
/// @param logits of the same tokens. [num_tokens, num_experts]
/// @returns the number of tokens with an expert that was not chosen, but has a higher logit than
///          one that was: their router looked at more than the logits
/// @throws Error(kInvalidArgument) if the numbers of tokens differ, or a choice is out of range
std::int64_t count_other_choices(MatrixView<const ExpertId> topk_idx,
                                 MatrixView<const float> logits);

/// Groups of experts of which a token may use the best few, of any sizes: the experts of devices.
struct GroupLimit {
  std::vector<std::int32_t> group_of_expert;  // [num_experts], each in [0, num_groups)
  std::int32_t num_groups = 1, top_groups = 1;
};

/// Device-limited routing (DeepSeek-V2, arXiv 2405.04434, section 2.1.3): a token's experts are the
/// best top_k of those in its `top_groups` best groups, where a group is as good as its best
/// expert. Equal logits go to the lower expert, equal groups to the lower group.
/// RoutingPolicy::num_groups is the same for groups of consecutive experts.
/// @param logits finite. [num_tokens, num_experts]
/// @returns the choices of each token, best first. [num_tokens, top_k]
/// @throws Error(kInvalidArgument) if the limit is not one for num_experts, or its smallest
///         `top_groups` groups together have fewer than top_k experts
///
/// Cost: O(num_tokens * (num_experts log top_k + num_groups log num_groups)).
Matrix<ExpertId> choose_in_best_groups(MatrixView<const float> logits, const GroupLimit& limit,
                                       std::int32_t top_k);

}  // namespace c2r
