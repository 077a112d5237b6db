#include "c2r/engine/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// Tokens, likeliest first, of which the first few have the probability top_p together.
std::vector<std::int32_t> nucleus(std::span<const double> weights, double top_p) {
  std::vector<std::int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  const double wanted = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [&](std::int32_t t) { return weights[static_cast<std::size_t>(t)]; });
  double sum = 0;
  const auto end = std::ranges::find_if(order, [&](std::int32_t t) {
    const bool is_enough = sum >= wanted;
    sum += weights[static_cast<std::size_t>(t)];
    return is_enough;
  });
  order.erase(end, order.end());
  return order;
}

std::vector<TokenId> generate_here(Engine& engine, const GenerateRequest& request,
                                   const std::function<void(TokenId)>& on_token) {
  const auto& [prompt, max_new_tokens, sampling] = request;
  check_request(request, engine.config());
  const auto& eos = engine.config().eos_ids;
  KvCache cache = engine.make_cache(std::ssize(prompt) + max_new_tokens - 1);
  Matrix<float> logits(1, engine.config().vocab_size);
  const auto keep_last = [&](std::int64_t, MatrixView<const float> states) {
    engine.decoder().logits(states.rows(states.rows() - 1, states.rows()), logits);
  };
  std::mt19937_64 rng(sampling.seed);
  std::vector<TokenId> text;
  engine.prefill(cache, prompt, keep_last);
  for (;;) {
    const TokenId token = sample(logits.row(0), sampling, rng);
    text.push_back(token);
    if (on_token) on_token(token);
    if (std::ssize(text) == max_new_tokens || std::ranges::count(eos, token) > 0) return text;
    engine.prefill(cache, {&token, 1}, keep_last);
  }
}

}  // namespace

TokenId sample(std::span<const float> logits, const Sampling& sampling, std::mt19937_64& rng) {
  const auto best = std::ranges::max_element(logits);
  if (sampling.temperature == 0) return TokenId{static_cast<std::int32_t>(best - logits.begin())};
  std::vector<double> weights(logits.size());
  std::ranges::transform(logits, weights.begin(), [&](float v) {
    return std::exp((double{v} - double{*best}) / double{sampling.temperature});
  });
  std::vector<std::int32_t> order;
  if (sampling.top_p < 1) {
    order = nucleus(weights, sampling.top_p);
  } else {
    order.resize(weights.size());
    std::iota(order.begin(), order.end(), 0);
  }
  double total = 0;
  for (const std::int32_t t : order) total += weights[static_cast<std::size_t>(t)];
  double left = total * (static_cast<double>(rng() >> 11) * 0x1p-53);  // in [0, total)
  for (const std::int32_t t : order) {
    left -= weights[static_cast<std::size_t>(t)];
    if (left < 0) return TokenId{t};
  }
  return TokenId{order.back()};  // rounding
}

void check_request(const GenerateRequest& request, const ModelConfig& config) {
  const auto& [prompt, max_new_tokens, sampling] = request;
  C2R_REQUIRE(!prompt.empty(), kInvalidArgument, "the prompt has no token");
  C2R_REQUIRE(max_new_tokens >= 1, kInvalidArgument, "max_new_tokens is {}, but must be at least 1",
              max_new_tokens);
  C2R_REQUIRE(sampling.temperature >= 0 && std::isfinite(sampling.temperature), kInvalidArgument,
              "the temperature is {}, but must be at least 0", sampling.temperature);
  C2R_REQUIRE(0 < sampling.top_p && sampling.top_p <= 1, kInvalidArgument,
              "top_p is {}, but must be in (0, 1]", sampling.top_p);
  check_length(std::ssize(prompt) + max_new_tokens - 1, config);
}

std::vector<TokenId> generate(Engine& engine, const GenerateRequest& request,
                              const std::function<void(TokenId)>& on_token) {
  std::vector<TokenId> text;
  if (engine.is_first_rank()) text = generate_here(engine, request, on_token);
  engine.finish_passes();
  return text;
}

}  // namespace c2r
