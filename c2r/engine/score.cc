#include "c2r/engine/score.h"

#include <algorithm>
#include <cmath>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// Logits of so many tokens at a time: 64 of a vocabulary of 152,000 are 39 MB.
constexpr std::int64_t kRowsAtOnce = 64;

Score score_row(std::span<const float> logits, TokenId token) {
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float v : logits) sum += std::exp(double{v} - double{max});
  const float logit = logits[index(token)];
  return {.log_likelihood = double{logit} - double{max} - std::log(sum),
          .num_tokens = 1,
          .is_greedy = logit == max};
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

}  // namespace c2r
