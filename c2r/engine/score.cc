// Computes log-likelihoods from logits, and gathers those of all ranks in the order of requests.
#include "c2r/engine/score.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

#include "c2r/core/error.h"
#include "c2r/engine/ranks/distribute.h"
#include "c2r/engine/score_internal.h"
#include "c2r/transport/collectives.h"

namespace c2r {

using internal::RoundScores;

namespace {

// Logits of so many tokens at a time: 64 of a vocabulary of 152,000 are 39 MB.
constexpr std::int64_t kRowsAtOnce = 64;

// @param logits finite
Score score_row(std::span<const float> logits, TokenId token) {
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float v : logits) sum += std::exp(double{v} - double{max});
  const float logit = logits[index(token)];
  return {.log_likelihood = double{logit} - double{max} - std::log(sum),
          .num_tokens = 1,
          .is_greedy = logit == max};
}

// The requests of rank 0 that have no score yet, in their order. Those without scored tokens are
// not sent to any rank; their score is reported when all before them are known.
class PendingRequests {
 public:
  PendingRequests(const NextScoreRequest& next, const ModelConfig& config,
                  const ScoreObserver& on_score)
      : next_(next), config_(config), on_score_(on_score) {}

  // The next request to send.
  std::optional<WorkItem> next_work_item() {
    while (const auto request = next_()) {
      check_request(*request, config_);
      is_scored_.push_back(request->has_scored_tokens());
      if (is_scored_.back()) return internal::work_item_of_request(*request);
    }
    return std::nullopt;
  }

  // Takes the score of the next request that was sent.
  void add(const Score& score, std::span<const double> log_likelihoods) {
    report_unscored();
    is_scored_.pop_front();
    report(score, log_likelihoods);
    report_unscored();
  }

  // Reports the requests without scored tokens that are next.
  void report_unscored() {
    for (; !is_scored_.empty() && !is_scored_.front(); is_scored_.pop_front()) report({}, {});
  }

 private:
  void report(const Score& score, std::span<const double> log_likelihoods) {
    if (on_score_) on_score_(score, log_likelihoods);
  }

  const NextScoreRequest& next_;
  const ModelConfig& config_;
  const ScoreObserver& on_score_;
  std::deque<bool> is_scored_;
};

template <class T>
void append_parts(const std::vector<std::vector<T>>& parts, std::vector<T>& all) {
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
}

// The scores of one round on rank 0, elsewhere nothing.
RoundScores scores_of_round(Engine& engine, const WorkItem& item) {
  RoundScores mine;
  if (!item.empty()) {
    mine.scores.push_back(score(engine, internal::request_of(item), &mine.log_likelihoods));
  }
  engine.finish_passes();
  if (engine.transport() == nullptr) return mine;
  Transport& transport = *engine.transport();
  RoundScores all;
  append_parts(gather<Score>(transport, mine.scores, "scores"), all.scores);
  append_parts(gather<double>(transport, mine.log_likelihoods, "log-likelihoods"),
               all.log_likelihoods);
  std::int64_t num_tokens = 0;
  for (const Score& one : all.scores) num_tokens += one.num_tokens;
  C2R_REQUIRE(num_tokens == std::ssize(all.log_likelihoods), kTransport,
              "ranks scored {} tokens, but sent {} log-likelihoods", num_tokens,
              all.log_likelihoods.size());
  return all;
}

// The scores of the next requests, of one round or of one window.
std::optional<RoundScores> next_scores(Engine& engine,
                                       const std::function<std::optional<WorkItem>()>& next) {
  if (engine.home_signature() != nullptr) return internal::score_window(engine, next);
  const auto item = distribute(engine.transport(), next);
  if (!item) return std::nullopt;
  return scores_of_round(engine, *item);
}

}  // namespace

namespace internal {

WorkItem work_item_of_request(const ScoreRequest& request) {
  WorkItem item = work_item_of(request.tokens);
  item.push_back(static_cast<std::int32_t>(request.first_scored));
  return item;
}

ScoreRequest request_of(std::span<const std::int32_t> item) {
  return {.tokens = tokens_of(item.first(item.size() - 1)), .first_scored = item.back()};
}

void StateScorer::add(std::int64_t first, MatrixView<const float> states) {
  std::int64_t row = std::max<std::int64_t>(0, request_.first_scored - 1 - first);
  while (row < states.rows()) {
    const std::int64_t end = std::min(states.rows(), row + kRowsAtOnce);
    logits_.reshape(end - row, engine_.config().vocab_size);
    engine_.decoder().logits(states.rows(row, end), logits_);
    for (std::int64_t r = row; r < end; ++r) {
      engine_.check_logits(logits_.row(r - row));
      const auto t = static_cast<std::size_t>(first + r + 1);
      const Score one = score_row(logits_.row(r - row), request_.tokens[t]);
      total_.add(one);
      if (log_likelihoods_ != nullptr) log_likelihoods_->push_back(one.log_likelihood);
    }
    row = end;
  }
}

}  // namespace internal

void Score::add(const Score& other) {
  log_likelihood += other.log_likelihood;
  num_tokens += other.num_tokens;
  is_greedy = is_greedy && other.is_greedy;
}

double Score::perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(num_tokens));
}

void check_request(const ScoreRequest& request, const ModelConfig& config) {
  const auto& [tokens, first_scored] = request;
  const std::int64_t last_first = std::max<std::int64_t>(1, std::ssize(tokens));
  C2R_REQUIRE(1 <= first_scored && first_scored <= last_first, kInvalidArgument,
              "tokens are scored from position {} on, but it must be in [1, {}]", first_scored,
              last_first);
  check_tokens(tokens, config);
  // The last token is only predicted, so it needs no position.
  if (request.has_scored_tokens()) check_length(std::ssize(tokens) - 1, config);
}

Score score(Engine& engine, const ScoreRequest& request, std::vector<double>* log_likelihoods) {
  check_request(request, engine.config());
  if (!request.has_scored_tokens()) return {};
  const std::span<const TokenId> tokens = request.tokens;
  KvCache cache = engine.make_cache(std::ssize(tokens) - 1);
  internal::StateScorer scorer(engine, request, log_likelihoods);
  engine.prefill(
      cache, tokens.first(tokens.size() - 1),
      [&](std::int64_t first, MatrixView<const float> states) { scorer.add(first, states); });
  return scorer.total();
}

Score score_all(Engine& engine, const NextScoreRequest& next, const ScoreObserver& on_score,
                Progress& progress) {
  PendingRequests pending(next, engine.config(), on_score);
  Score total;
  while (const auto round = next_scores(engine, [&] { return pending.next_work_item(); })) {
    std::span<const double> rest = round->log_likelihoods;
    for (const Score& one : round->scores) {
      total.add(one);
      progress.update(total.num_tokens, 0);
      const auto num_tokens = static_cast<std::size_t>(one.num_tokens);
      pending.add(one, rest.first(num_tokens));
      rest = rest.subspan(num_tokens);
    }
  }
  pending.report_unscored();
  return total;
}

}  // namespace c2r
