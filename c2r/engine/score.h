// Computes the log-likelihood that a model gives to tokens of a text.
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

  /// @returns whether any token is scored; in a request of at most one token none is
  bool has_scored_tokens() const { return first_scored < std::ssize(tokens); }
  bool operator==(const ScoreRequest&) const = default;
};

/// Checks a request, as score() and score_all() do first.
/// @throws Error(kInvalidArgument) if a token is not in the vocabulary, there are more tokens than
///         the model has positions, or `first_scored` is not in [1, tokens.size()]; without tokens
///         1 is allowed
void check_request(const ScoreRequest& request, const ModelConfig& config);

/// Scores one request on this rank. Its passes are collective, see engine.h.
/// @param log_likelihoods unless it is null, that of each scored token is appended, in their order;
///        in this order they sum to that of the result
/// @returns the score of the request's scored tokens
/// @throws as check_request(); Error(kInvalidFile) if a logit is not finite; as Exchange::wait()
Score score(Engine& engine, const ScoreRequest& request,
            std::vector<double>* log_likelihoods = nullptr);

using NextScoreRequest = std::function<std::optional<ScoreRequest>()>;
/// Called with a request's score, and the log-likelihood of each scored token [num_tokens].
using ScoreObserver =
    std::function<void(const Score& score, std::span<const double> log_likelihoods)>;

/// Scores one request after another. Collective: requests are distributed to the ranks in turn, and
/// those without scored tokens are not sent. Only rank 0 calls `next`, and `on_score` once for each
/// request, in the order of requests.
///
/// @param next returns the next request, or nothing at the end
/// @param progress counts scored tokens; their total is not known. Used on rank 0
/// @returns the sum of all scores on rank 0; on the other ranks a score of no tokens
/// @throws as score(); what `next` throws
Score score_all(Engine& engine, const NextScoreRequest& next, const ScoreObserver& on_score,
                Progress& progress);

}  // namespace c2r
