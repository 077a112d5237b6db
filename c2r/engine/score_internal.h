// What the ways to score requests share: how requests travel, and the scorer of states.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/engine/engine.h"
#include "c2r/engine/ranks/distribute.h"
#include "c2r/engine/score.h"

namespace c2r::internal {

/// @returns a request as it travels: its tokens, then first_scored
WorkItem work_item_of_request(const ScoreRequest& request);
ScoreRequest request_of(std::span<const std::int32_t> item);

/// Scores the tokens of one request by the states of the tokens before them.
class StateScorer {
 public:
  /// @param engine,request must outlive this object
  /// @param log_likelihoods unless it is null, that of each scored token is appended
  StateScorer(Engine& engine, const ScoreRequest& request, std::vector<double>* log_likelihoods)
      : engine_(engine), request_(request), log_likelihoods_(log_likelihoods) {}

  /// @param first the position of the first state in the request
  /// @param states [num_tokens, hidden]; that of token t predicts token t + 1
  /// @throws Error(kInvalidFile) if a logit is not finite
  void add(std::int64_t first, MatrixView<const float> states);

  const Score& total() const { return total_; }

 private:
  Engine& engine_;
  const ScoreRequest& request_;
  std::vector<double>* log_likelihoods_;
  Matrix<float> logits_;
  Score total_;
};

/// The requests that some ranks have scored, in the order of the requests: on rank 0, elsewhere
/// nothing.
struct RoundScores {
  std::vector<Score> scores;
  std::vector<double> log_likelihoods;  // of each scored token of the first, then of the second ...
};

/// Scores a window of requests whose homes the engine's signature chooses, as assign_homes() with
/// PrefixRuns::kInTurn does. The first tokens of each run on the ranks in turn, then their keys and
/// values move to the home, where the rest runs. Collective.
/// @param next as in distribute()
/// @returns nothing after the last request
/// @throws as distribute() and score()
///
/// Cost: in bytes to other ranks KvCache::token_bytes() for each token of a prefix whose sequence
/// moves, and 4 for each token of the sequence.
std::optional<RoundScores> score_window(Engine& engine,
                                        const std::function<std::optional<WorkItem>()>& next);

}  // namespace c2r::internal
