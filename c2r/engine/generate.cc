// Draws tokens, and runs the texts of a batch together.
#include "c2r/engine/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/engine/finite_internal.h"

namespace c2r {
namespace {

// The tokens without the many unlikely ones that all together have less than half of the
// probability beyond top_p: the nucleus has none of them.
std::vector<std::int32_t> likely_tokens(std::span<const double> weights, double total,
                                        double top_p) {
  const double least = (1 - top_p) * total / (2 * static_cast<double>(weights.size()));
  std::vector<std::int32_t> tokens;
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (weights[t] >= least) tokens.push_back(static_cast<std::int32_t>(t));
  }
  return tokens;
}

// Tokens, likeliest first, of which the first few have the probability top_p together. Sorts parts,
// each four times as long as the one before, until they are enough.
std::vector<std::int32_t> nucleus(std::span<const double> weights, double top_p) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int32_t> order = likely_tokens(weights, total, top_p);
  const auto is_before = [&](std::int32_t a, std::int32_t b) {
    const double of_a = weights[static_cast<std::size_t>(a)];
    const double of_b = weights[static_cast<std::size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  };
  double sum = 0;
  auto begin = order.begin();
  for (std::ptrdiff_t length = 64; begin != order.end(); length *= 4) {
    const auto end = begin + std::min(length, order.end() - begin);
    if (end != order.end()) std::nth_element(begin, end, order.end(), is_before);
    std::sort(begin, end, is_before);
    for (; begin != end; ++begin) {
      if (sum >= top_p * total) {
        order.erase(begin, order.end());
        return order;
      }
      sum += weights[static_cast<std::size_t>(*begin)];
    }
  }
  return order;
}

void check_sampling(const Sampling& sampling) {
  C2R_REQUIRE(sampling.temperature >= 0 && std::isfinite(sampling.temperature), kInvalidArgument,
              "the temperature is {}, but must be at least 0", sampling.temperature);
  C2R_REQUIRE(0 < sampling.top_p && sampling.top_p <= 1, kInvalidArgument,
              "top_p is {}, but must be in (0, 1]", sampling.top_p);
}

// One text in progress.
struct Generation {
  std::size_t request;  // its position among the requests
  KvCache cache;
  std::mt19937_64 rng;
  std::vector<TokenId> text;
  bool is_done = false;
};

// The requests that run together: each begins when there is room, and leaves when it ends.
class GenerationBatch {
 public:
  GenerationBatch(Engine& engine, std::span<const GenerateRequest> requests,
                  const TokenObserver& on_token, std::vector<std::vector<TokenId>>& texts)
      : engine_(engine), requests_(requests), on_token_(on_token), texts_(texts) {}

  std::int64_t size() const { return std::ssize(running_); }

  void begin(std::size_t request) {
    const GenerateRequest& asked = requests_[request];
    const std::span<const TokenId> prompt = asked.prompt;
    running_.push_back({.request = request,
                        .cache = engine_.make_cache(std::ssize(prompt) + asked.max_new_tokens - 1),
                        .rng = std::mt19937_64(asked.sampling.seed)});
    logits_.reshape(1, engine_.config().vocab_size);
    engine_.prefill(
        running_.back().cache, prompt, [&](std::int64_t first, MatrixView<const float> states) {
          if (first + states.rows() < std::ssize(prompt)) return;
          engine_.decoder().logits(states.rows(states.rows() - 1, states.rows()), logits_);
        });
    add_tokens(running_.size() - 1);
  }

  /// The next token of all of them, in one pass.
  void step() {
    std::vector<SequenceSlice> slices;
    for (Generation& g : running_) slices.push_back({&g.cache, std::span(g.text).last(1)});
    const auto states = engine_.forward(slices);
    logits_.reshape(states.rows(), engine_.config().vocab_size);
    engine_.decoder().logits(states, logits_);
    add_tokens(0);
  }

 private:
  // Draws the next token of each from `first` on, whose logits are there; lets go what ends.
  void add_tokens(std::size_t first) {
    for (std::size_t i = first; i < running_.size(); ++i) {
      Generation& g = running_[i];
      const GenerateRequest& request = requests_[g.request];
      const auto logits = logits_.row(static_cast<std::int64_t>(i - first));
      engine_.check_logits(logits);
      const TokenId token = sample(logits, request.sampling, g.rng);
      g.text.push_back(token);
      const bool is_ended = request.is_last && request.is_last(token);
      g.is_done = is_ended || std::ssize(g.text) == request.max_new_tokens ||
                  std::ranges::count(engine_.config().eos_ids, token) > 0;
      if (on_token_) on_token_(g.request, token, g.is_done);
      if (g.is_done) texts_[g.request] = std::move(g.text);
    }
    std::erase_if(running_, [](const Generation& g) { return g.is_done; });
  }

  Engine& engine_;
  std::span<const GenerateRequest> requests_;
  const TokenObserver& on_token_;
  std::vector<std::vector<TokenId>>& texts_;
  std::vector<Generation> running_;
  Matrix<float> logits_;  // [num_running, vocab]
};

}  // namespace

TokenId sample(std::span<const float> logits, const Sampling& sampling, std::mt19937_64& rng) {
  C2R_REQUIRE(!logits.empty(), kInvalidArgument, "there are no logits to draw a token from");
  check_sampling(sampling);
  require_finite(logits);
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
  const auto& [prompt, max_new_tokens, sampling, is_last] = request;
  C2R_REQUIRE(!prompt.empty(), kInvalidArgument, "the prompt has no token");
  C2R_REQUIRE(max_new_tokens >= 1, kInvalidArgument, "max_new_tokens is {}, but must be at least 1",
              max_new_tokens);
  check_sampling(sampling);
  check_tokens(prompt, config);
  check_length(std::ssize(prompt) + max_new_tokens - 1, config);
}

std::vector<std::vector<TokenId>> generate_all(Engine& engine,
                                               std::span<const GenerateRequest> requests,
                                               std::int64_t batch_size,
                                               const TokenObserver& on_token) {
  std::vector<std::vector<TokenId>> texts;
  if (engine.is_first_rank()) {
    C2R_REQUIRE(batch_size >= 1, kInvalidArgument, "batch_size is {}, but must be at least 1",
                batch_size);
    for (const GenerateRequest& request : requests) check_request(request, engine.config());
    texts.resize(requests.size());
    GenerationBatch batch(engine, requests, on_token, texts);
    std::size_t next = 0;
    while (next < requests.size() || batch.size() > 0) {
      while (next < requests.size() && batch.size() < batch_size) batch.begin(next++);
      if (batch.size() > 0) batch.step();
    }
  }
  engine.finish_passes();
  return texts;
}

void generate_in_order(Engine& engine, std::span<const GenerateRequest> requests,
                       std::int64_t batch_size, const TextObserver& on_text, Progress& progress) {
  std::vector<std::vector<TokenId>> texts(requests.size());
  std::vector<bool> is_done(requests.size());
  std::size_t next = 0;  // the first that is not reported
  std::int64_t num_tokens = 0;
  const auto observe = [&](std::size_t request, TokenId token, bool is_last) {
    progress.update(++num_tokens, 0);
    texts[request].push_back(token);
    is_done[request] = is_last;
    for (; next < texts.size() && is_done[next]; ++next) {
      on_text(next, texts[next]);
      texts[next] = {};
    }
  };
  (void)generate_all(engine, requests, batch_size, observe);
}

std::vector<TokenId> generate(Engine& engine, const GenerateRequest& request,
                              const std::function<void(TokenId)>& on_token) {
  const auto observe = [&](std::size_t, TokenId token, bool) {
    if (on_token) on_token(token);
  };
  auto texts = generate_all(engine, {&request, 1}, 1, observe);
  return texts.empty() ? std::vector<TokenId>() : std::move(texts.front());
}

}  // namespace c2r
