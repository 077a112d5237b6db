#include "c2r/engine/profile.h"

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/routing/trace.h"

namespace c2r {
namespace {

// Runs one window and appends what its tokens chose.
void record(Engine& engine, std::span<const TokenId> window, TraceWriter& writer) {
  KvCache cache = engine.make_cache(std::ssize(window));
  writer.start_sequence();
  engine.prefill(cache, window, {}, [&](std::int64_t moe_layer, const Routing& routing) {
    writer.append(moe_layer, routing.topk_idx.all(), routing.topk_weights.all(), "the model");
  });
}

}  // namespace

ProfileResult profile(Engine& engine, const NextSequence& next, const ProfileRequest& request,
                      Progress& progress) {
  const ModelConfig& config = engine.config();
  C2R_REQUIRE(1 <= request.window && request.window <= config.max_positions, kInvalidArgument,
              "the window is {}, but the model has positions for 1 to {} tokens", request.window,
              config.max_positions);
  TraceWriter writer(request.output,
                     {.model = request.model_name,
                      .num_experts = config.num_experts,
                      .top_k = config.top_k,
                      .layer_indices = config.moe_layers},
                     /*has_weights=*/true);
  ProfileResult result;
  const std::int64_t max_tokens = request.max_tokens.value_or(INT64_MAX);
  while (result.num_tokens < max_tokens) {
    const auto sequence = next();
    if (!sequence) break;
    std::span<const TokenId> rest = *sequence;
    while (!rest.empty() && result.num_tokens < max_tokens) {
      const auto count = static_cast<std::size_t>(
          std::min({request.window, std::ssize(rest), max_tokens - result.num_tokens}));
      record(engine, rest.first(count), writer);
      rest = rest.subspan(count);
      result.num_tokens += static_cast<std::int64_t>(count);
      ++result.num_sequences;
      progress.update(result.num_tokens, request.max_tokens.value_or(0));
    }
  }
  C2R_REQUIRE(result.num_tokens > 0, kInvalidArgument, "there is no token to profile");
  writer.finish();
  return result;
}

}  // namespace c2r
