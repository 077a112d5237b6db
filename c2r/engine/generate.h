// Continues texts token by token, many texts in one pass.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/engine/engine.h"

namespace c2r {

struct Sampling {
  float temperature = 0;  // 0: the likeliest token; else logits are divided by it
  float top_p = 1;        // in (0, 1]: among the likeliest that have this probability together
  std::uint64_t seed = 0;
};

/// Draws a token. Ties go to the lower token.
/// @param logits [vocab_size], at least one
/// @returns the token
/// @throws Error(kInvalidFile) if a logit is not finite
/// @throws Error(kInvalidArgument) if an option is out of range
/// Cost: O(n), and with top_p to sort the tokens that it leaves, k of them: O(n + k log k).
TokenId sample(std::span<const float> logits, const Sampling& sampling, std::mt19937_64& rng);

struct GenerateRequest {
  std::span<const TokenId> prompt;  // at least one token
  std::int64_t max_new_tokens = 128;
  Sampling sampling;
  // Called once for each new token, in order; true ends the text with it. Empty: no such end.
  std::function<bool(TokenId)> is_last;
};

/// Checks a request, as generate_all() does before its first pass.
/// @throws Error(kInvalidArgument) if prompt and new tokens do not fit the model's positions, a
///         token is not in the vocabulary, or an option is out of range
void check_request(const GenerateRequest& request, const ModelConfig& config);

/// Is called with each new token as soon as it is known, also with the one that ends a text.
/// @param request the position of the token's request among the requests
/// @param is_last whether it ends the text
using TokenObserver = std::function<void(std::size_t request, TokenId token, bool is_last)>;

/// Continues each prompt until the model ends the text or the text has max_new_tokens new tokens.
///
/// Up to `batch_size` texts get one token each in a pass, so that weights are read once for all of
/// them; when a text ends, the next prompt takes its place. Each text is the same as if it were
/// generated alone.
/// Memory: the keys and values of `batch_size` sequences.
///
/// Collective: rank 0 runs the sequences and the others serve their experts to them. Only rank 0's
/// requests are read, and only rank 0 calls `on_token` and knows the texts.
///
/// @returns the new tokens of each request
/// @throws as check_request(); Error(kInvalidArgument) if batch_size < 1
std::vector<std::vector<TokenId>> generate_all(Engine& engine,
                                               std::span<const GenerateRequest> requests,
                                               std::int64_t batch_size,
                                               const TokenObserver& on_token = {});

/// Is called with each finished text.
/// @param request the position of the text's request among the requests
using TextObserver = std::function<void(std::size_t request, std::span<const TokenId> text)>;

/// As generate_all(), but calls `on_text` once for each request, in the order of requests, as soon
/// as its text and those of all requests before it are finished.
/// @param progress counts new tokens of all texts; their total is not known. Used on rank 0
/// @throws as generate_all()
void generate_in_order(Engine& engine, std::span<const GenerateRequest> requests,
                       std::int64_t batch_size, const TextObserver& on_text, Progress& progress);

/// Continues one prompt.
/// @returns the new tokens on rank 0; nothing on the other ranks
/// @throws as generate_all()
std::vector<TokenId> generate(Engine& engine, const GenerateRequest& request,
                              const std::function<void(TokenId)>& on_token = {});

}  // namespace c2r
