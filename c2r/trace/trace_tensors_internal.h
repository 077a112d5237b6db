// Names and types of a trace's tensors, and the checks that its reader and its writer share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/routing/routing.h"

namespace c2r::internal {

// 255 is the mark for "none", so 8 bits hold the ids of at most 255 experts.
inline bool is_stored_in_u8(std::int32_t num_experts) {
  return num_experts <= 255;
}

inline constexpr const char* kTokenIdsName = "token_ids";

inline std::string idx_name(std::int64_t layer) {
  return fmt::format("layers.{}.topk_idx", layer);
}
inline std::string weights_name(std::int64_t layer) {
  return fmt::format("layers.{}.topk_weights", layer);
}

inline std::string logits_name(std::int64_t layer) {
  return fmt::format("layers.{}.logits", layer);
}

// Refuses what is to be written; `place` says where the caller has it from.
inline void check_appended(MatrixView<const ExpertId> topk_idx, std::int32_t num_experts,
                           std::string_view place) {
  const auto invalid = find_invalid_choice(topk_idx, num_experts);
  if (!invalid) return;
  C2R_REQUIRE(invalid->first_column, kInvalidFile,
              "{}, token {}: expert {} is not in [0, {}], the range of {} experts", place,
              invalid->token, invalid->expert, num_experts - 1, num_experts);
  C2R_THROW(kInvalidFile, "{}, token {}: names expert {} twice", place, invalid->token,
            invalid->expert);
}

// Refuses an id that is in no vocabulary; `first_token` is that of the first id.
inline void check_token_ids(std::span<const TokenId> ids, std::string_view place,
                            std::int64_t first_token) {
  const auto negative = std::ranges::find_if(ids, [](TokenId id) { return id < TokenId{0}; });
  C2R_REQUIRE(negative == ids.end(), kInvalidFile,
              "{}, token {}: the token id is {}, but must not be negative", place,
              first_token + (negative - ids.begin()), static_cast<std::int32_t>(*negative));
}

template <class Stored>
std::vector<Stored> stored_ids(std::span<const ExpertId> ids) {
  std::vector<Stored> converted(ids.size());
  // kNoExpert, -1, becomes the type's largest value.
  std::ranges::transform(ids, converted.begin(),
                         [](ExpertId id) { return static_cast<Stored>(id); });
  return converted;
}

}  // namespace c2r::internal
