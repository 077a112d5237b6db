// How likely a model finds a text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/engine/engine.h"

namespace c2r {

struct Score {
  double log_likelihood = 0;    // natural logarithm, summed over the scored tokens
  std::int64_t num_tokens = 0;  // that were scored
  bool is_greedy = true;        // each of them was the likeliest one

  void add(const Score& other);
  /// @returns exp(-log_likelihood / num_tokens); NaN without tokens
  double perplexity() const;
  bool operator==(const Score&) const = default;
};

struct ScoreRequest {
  std::vector<TokenId> tokens;
  // Tokens [first_scored, tokens.size()) are scored, each given all before it. At least 1, since
  // the first token has nothing before it.
  std::int64_t first_scored = 1;

  /// Whether a token is scored. A request of no or one token has nothing to score.
  bool has_scored_tokens() const { return first_scored < std::ssize(tokens); }
  bool operator==(const ScoreRequest&) const = default;
};

/// What score() and score_all() check first.
/// @throws Error(kInvalidArgument) if a token is not in the vocabulary, there are more than the
/// model
///         has positions for, or `first_scored` is not in [1, tokens.size()]; without tokens 1 is
///         allowed
void check_request(const ScoreRequest& request, const ModelConfig& config);

/// Scores one request on this rank. Its passes are collective, see engine.h.
/// @throws as check_request(); Error(kInvalidFile) if a logit is not finite; as Exchange::wait()
Score score(Engine& engine, const ScoreRequest& request);

using NextScoreRequest = std::function<std::optional<ScoreRequest>()>;
using ScoreObserver = std::function<void(const Score& score)>;

/// Scores one request after another. Collective: requests are distributed to the ranks in turn, and
/// those without scored tokens are not sent. Only rank 0 calls `next`, and `on_score` once for each
/// request, in the order of requests.
///
/// @param next the next request, or nothing to stop
/// @param progress counts scored tokens; their total is not known. Used on rank 0
/// @returns the sum of all scores on rank 0, of no tokens elsewhere
/// @throws as score(); what `next` throws
Score score_all(Engine& engine, const NextScoreRequest& next, const ScoreObserver& on_score,
                Progress& progress);

}  // namespace c2r
