// Chooses the chunks of a pass from the times of the longest pass in one chunk.
#include "c2r/engine/ranks/pass_chunks.h"

namespace c2r {

void PassChunks::add(std::int64_t num_tokens, double waited_s, double computed_s) {
  if (num_tokens == 0 || ++num_passes_ == 1 || num_tokens <= 2 * most_measured_) return;
  most_measured_ = num_tokens;
  const auto tokens = static_cast<double>(num_tokens);
  per_token_ = {.waited_s = waited_s / tokens,
                .computed_s = computed_s / tokens,
                .rows_per_expert = rows_per_token_};
}

std::int32_t PassChunks::choose(std::int64_t num_tokens) const {
  if (num_tokens > 2 * most_measured_) return 1;
  const auto tokens = static_cast<double>(num_tokens);
  return choose_num_chunks({.waited_s = tokens * per_token_.waited_s,
                            .computed_s = tokens * per_token_.computed_s,
                            .rows_per_expert = tokens * per_token_.rows_per_expert});
}

}  // namespace c2r
