// How likely a model finds a text.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/engine/engine.h"

namespace c2r {

struct Score {
  double log_likelihood = 0;    // natural logarithm, summed over the scored tokens
  std::int64_t num_tokens = 0;  // that were scored
  bool is_greedy = true;        // each of them was the likeliest one

  void add(const Score& other);
  double perplexity() const;  // exp(-log_likelihood / num_tokens)
};

/// The log-likelihood of tokens [first_scored, end), each given all before it.
/// @throws Error(kInvalidArgument) if `first_scored` is not in [1, tokens.size()]: the first token
///         has nothing before it
Score score(Engine& engine, std::span<const TokenId> tokens, std::int64_t first_scored);

}  // namespace c2r
