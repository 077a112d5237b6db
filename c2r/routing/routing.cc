// The checks of choices that arrive in memory.
#include "c2r/routing/routing.h"

#include <algorithm>
#include <array>

#include "c2r/core/error.h"

namespace c2r {

std::optional<InvalidChoice> find_invalid_choice(MatrixView<const ExpertId> topk_idx,
                                                 std::int32_t num_experts) {
  C2R_REQUIRE(0 <= num_experts && num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [0, {}]", num_experts, kMaxExperts);
  // Where each expert was named last, as token * top_k + column, so that nothing has to be cleared
  // between tokens.
  std::array<std::int64_t, kMaxExperts> last_named;
  std::fill_n(last_named.begin(), num_experts, -1);
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    const std::int64_t row_begin = t * topk_idx.cols();
    for (std::int64_t column = 0; column < topk_idx.cols(); ++column) {
      const ExpertId id = topk_idx(t, column);
      if (id == kNoExpert) continue;
      const auto expert = static_cast<std::int32_t>(id);
      if (expert < 0 || expert >= num_experts) return InvalidChoice{t, column, expert, {}};
      std::int64_t& last = last_named[index(id)];
      if (last >= row_begin) return InvalidChoice{t, column, expert, last - row_begin};
      last = row_begin + column;
    }
  }
  return std::nullopt;
}

void check_topk_idx(MatrixView<const ExpertId> topk_idx, std::int32_t num_experts,
                    std::int64_t top_k) {
  C2R_REQUIRE(topk_idx.cols() == top_k, kInvalidArgument,
              "topk_idx is [{}, {}], but must be [num_tokens, {}]", topk_idx.rows(),
              topk_idx.cols(), top_k);
  const auto invalid = find_invalid_choice(topk_idx, num_experts);
  if (!invalid) return;
  C2R_REQUIRE(invalid->first_column, kInvalidArgument,
              "token {} names expert {} in column {}, but there are {} experts, and -1 for none",
              invalid->token, invalid->expert, invalid->column, num_experts);
  C2R_THROW(kInvalidArgument, "token {} names expert {} twice, in columns {} and {}",
            invalid->token, invalid->expert, *invalid->first_column, invalid->column);
}

}  // namespace c2r
