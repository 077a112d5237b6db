// How likely a model finds a text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/engine/engine.h"

namespace c2r {

struct Score {
  double log_likelihood = 0;    // natural logarithm, summed over the scored tokens
  std::int64_t num_tokens = 0;  // that were scored
  bool is_greedy = true;        // each of them was the likeliest one

  void add(const Score& other);
  double perplexity() const;  // exp(-log_likelihood / num_tokens)
  bool operator==(const Score&) const = default;
};

struct ScoreRequest {
  std::vector<TokenId> tokens;
  std::int64_t first_scored = 1;
};

/// The log-likelihood of tokens [first_scored, end), each given all before it.
/// @throws Error(kInvalidArgument) if `first_scored` is not in [1, tokens.size()]: the first token
///         has nothing before it
Score score(Engine& engine, std::span<const TokenId> tokens, std::int64_t first_scored);

/// Scores one request after another. Collective: requests are dealt to the ranks in turn; only rank
/// 0 calls `next`, and `on_score` for each in their order.
/// @throws as score()
void score_all(Engine& engine, const std::function<std::optional<ScoreRequest>()>& next,
               const std::function<void(const Score& score)>& on_score);

}  // namespace c2r
