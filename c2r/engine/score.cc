#include "c2r/engine/score.h"

#include <algorithm>
#include <cmath>

#include "c2r/core/error.h"
#include "c2r/engine/deal.h"
#include "c2r/engine/finite_internal.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

// Logits of so many tokens at a time: 64 of a vocabulary of 152,000 are 39 MB.
constexpr std::int64_t kRowsAtOnce = 64;

Score score_row(std::span<const float> logits, TokenId token) {
  require_finite(logits);
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float v : logits) sum += std::exp(double{v} - double{max});
  const float logit = logits[index(token)];
  return {.log_likelihood = double{logit} - double{max} - std::log(sum),
          .num_tokens = 1,
          .is_greedy = logit == max};
}

// A request as it travels: its tokens, then first_scored.
Piece piece_of(const ScoreRequest& request) {
  Piece piece = c2r::piece_of(request.tokens);
  piece.push_back(static_cast<std::int32_t>(request.first_scored));
  return piece;
}

ScoreRequest request_of(std::span<const std::int32_t> piece) {
  return {.tokens = tokens_of(piece.first(piece.size() - 1)), .first_scored = piece.back()};
}

}  // namespace

void Score::add(const Score& other) {
  log_likelihood += other.log_likelihood;
  num_tokens += other.num_tokens;
  is_greedy = is_greedy && other.is_greedy;
}

double Score::perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(num_tokens));
}

Score score(Engine& engine, std::span<const TokenId> tokens, std::int64_t first_scored) {
  C2R_REQUIRE(1 <= first_scored && first_scored <= std::ssize(tokens), kInvalidArgument,
              "tokens are scored from position {} on, but it must be in [1, {}]", first_scored,
              tokens.size());
  Score total;
  if (first_scored == std::ssize(tokens)) return total;
  KvCache cache = engine.make_cache(std::ssize(tokens) - 1);
  Matrix<float> logits;
  engine.prefill(cache, tokens.first(tokens.size() - 1),
                 [&](std::int64_t first, MatrixView<const float> states) {
                   // The state of token t predicts token t + 1.
                   std::int64_t row = std::max<std::int64_t>(0, first_scored - 1 - first);
                   while (row < states.rows()) {
                     const std::int64_t end = std::min(states.rows(), row + kRowsAtOnce);
                     logits.reshape(end - row, engine.config().vocab_size);
                     engine.decoder().logits(states.rows(row, end), logits);
                     for (std::int64_t r = row; r < end; ++r) {
                       total.add(score_row(logits.row(r - row),
                                           tokens[static_cast<std::size_t>(first + r + 1)]));
                     }
                     row = end;
                   }
                 });
  return total;
}

void score_all(Engine& engine, const std::function<std::optional<ScoreRequest>()>& next,
               const std::function<void(const Score& score)>& on_score) {
  const auto next_piece = [&]() -> std::optional<Piece> {
    const auto request = next();
    if (!request) return std::nullopt;
    return piece_of(*request);
  };
  Transport* const transport = engine.transport();
  while (const auto piece = deal(transport, next_piece)) {
    std::vector<Score> scores;  // of this rank, then of the round
    if (!piece->empty()) {
      const ScoreRequest request = request_of(*piece);
      scores.push_back(score(engine, request.tokens, request.first_scored));
    }
    engine.finish_passes();
    if (transport != nullptr) {
      const auto parts = gather<Score>(*transport, scores, "scores");
      scores.clear();
      for (const auto& part : parts) scores.insert(scores.end(), part.begin(), part.end());
    }
    for (const Score& one : scores) on_score(one);
  }
}

}  // namespace c2r
