// Continuing a text, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "c2r/engine/engine.h"

namespace c2r {

struct Sampling {
  float temperature = 0;  // 0: the likeliest token; else logits are divided by it
  float top_p = 1;        // in (0, 1]: among the likeliest that have this probability together
  std::uint64_t seed = 0;
};

/// A token drawn from `logits`. Ties go to the lower token.
/// Cost: O(n) without top_p, O(n log n) with it.
TokenId sample(std::span<const float> logits, const Sampling& sampling, std::mt19937_64& rng);

struct GenerateRequest {
  std::span<const TokenId> prompt;  // at least one token
  std::int64_t max_new_tokens = 128;
  Sampling sampling;
};

/// What generate() checks first.
/// @throws Error(kInvalidArgument) if prompt and new tokens do not fit the model's positions, or an
///         option is out of range
void check_request(const GenerateRequest& request, const ModelConfig& config);

/// Continues the prompt until the model ends the text or max_new_tokens are there.
///
/// Collective: rank 0 runs the sequence and the others serve their experts to it. Only rank 0's
/// request is read, and only rank 0 calls `on_token` and knows the text.
///
/// @param on_token sees each new token as it is known; the one that ends the text too
/// @returns the new tokens
/// @throws as check_request()
std::vector<TokenId> generate(Engine& engine, const GenerateRequest& request,
                              const std::function<void(TokenId)>& on_token = {});

}  // namespace c2r
