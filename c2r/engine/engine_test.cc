// Profiling, scoring and generating with a tiny model whose answers are known: see
// tools/make_tiny_models.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "c2r/core/testing.h"
#include "c2r/engine/generate.h"
#include "c2r/engine/profile.h"
#include "c2r/engine/score.h"
#include "c2r/io/json.h"
#include "c2r/trace/trace.h"

namespace c2r {
namespace {

using testing::error_of;
using Tokens = std::vector<TokenId>;

class TinyModel : public ::testing::Test {
 protected:
  static std::filesystem::path folder() {
    return std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / "qwen2_moe";
  }

  TinyModel()
      : model_(folder()),
        expected_(read_json_file(folder() / "expected.json").at("plain")),
        prompt_(expected_.at("prompt").get<Tokens>()),
        greedy_(expected_.at("greedy").get<Tokens>()) {}

  // Small passes, so that every prompt is cut.
  Engine engine(int num_threads = 2) {
    return {model_,
            {.arithmetic = Arithmetic::kF32, .num_threads = num_threads, .max_pass_tokens = 5}};
  }

  Tokens all() const {
    Tokens tokens = prompt_;
    tokens.insert(tokens.end(), greedy_.begin(), greedy_.end());
    return tokens;
  }

  Model model_;
  Json expected_;
  Tokens prompt_, greedy_;
  NoProgress progress_;
};

NextSequence once(std::vector<Tokens> sequences) {
  return [sequences = std::move(sequences), next = std::size_t{0}]() mutable {
    return next < sequences.size() ? std::optional(sequences[next++]) : std::nullopt;
  };
}

using Profile = TinyModel;

TEST_F(Profile, RecordsTheChoicesOfTheOtherImplementation) {
  const auto path = testing::temporary_path("trace.safetensors");
  Engine engine = this->engine();
  const auto result = profile(engine, once({all(), all()}),
                              {.output = path, .model_name = "tiny", .window = 128}, progress_);
  const std::int64_t length = std::ssize(all());
  EXPECT_EQ(result.num_tokens, 2 * length);
  EXPECT_EQ(result.num_sequences, 2);

  const Trace trace(path);
  EXPECT_EQ(trace.header().model, "tiny");
  EXPECT_EQ(trace.header().layer_indices, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(trace.sequence_starts()[1], length);
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    const Json& rows = expected_.at("topk_idx").at(static_cast<std::size_t>(layer));
    const auto got = trace.topk_idx(layer, 0, trace.num_tokens());
    for (std::int64_t t = 0; t < trace.num_tokens(); ++t) {
      for (std::int64_t k = 0; k < 4; ++k) {
        ASSERT_EQ(static_cast<int>(got(t, k)),
                  rows.at(static_cast<std::size_t>(t % length)).at(static_cast<std::size_t>(k)));
      }
    }
  }
}

TEST_F(Profile, CutsLongTextsIntoWindowsThatDoNotSeeEachOther) {
  const auto cut = testing::temporary_path("cut"), separate = testing::temporary_path("separate");
  Engine engine = this->engine();
  const Tokens tokens = all();
  (void)profile(engine, once({tokens}), {.output = cut, .window = 30, .max_tokens = 70}, progress_);
  (void)profile(engine,
                once({{tokens.begin(), tokens.begin() + 30},
                      {tokens.begin() + 30, tokens.begin() + 60},
                      {tokens.begin() + 60, tokens.begin() + 70}}),
                {.output = separate, .window = 128}, progress_);
  EXPECT_EQ(read_file(cut), read_file(separate));
}

TEST_F(Profile, RecordsTokenIdsIfItIsAskedTo) {
  const auto path = testing::temporary_path("trace.safetensors");
  Engine engine = this->engine();
  (void)profile(engine, once({all()}), {.output = path, .window = 30}, progress_);
  EXPECT_FALSE(Trace(path).has_token_ids());
  (void)profile(engine, once({all()}), {.output = path, .window = 30, .records_token_ids = true},
                progress_);
  const Trace trace(path);
  EXPECT_EQ(trace.token_ids(0, trace.num_tokens()), all());
}

TEST_F(Profile, RefusesWhatTheModelCannotRun) {
  const auto path = testing::temporary_path("trace.safetensors");
  Engine engine = this->engine();
  const auto error = [&](const NextSequence& next, std::int64_t window) {
    return error_of(
        [&] { (void)profile(engine, next, {.output = path, .window = window}, progress_); });
  };
  EXPECT_EQ(error(once({{TokenId{1}}}), 129),
            "the window is 129, but the model has positions for 1 to 128 tokens");
  EXPECT_EQ(error(once({{TokenId{1}, TokenId{64}}}), 128),
            "token 64 is not in the vocabulary of 64");
  EXPECT_EQ(error(once({Tokens{}}), 128), "there is no token to profile");
  EXPECT_FALSE(std::filesystem::exists(path));
}

using Scores = TinyModel;

TEST_F(Scores, AreTheLogSoftmaxOfTheOtherImplementationsLogits) {
  Engine engine = this->engine();
  // Each logit is within 1e-4 of the largest, about 10, as the golden test checks.
  constexpr double kBoundOfToken = 2e-3;
  for (const std::int64_t first : {1, 4, 11, 12}) {
    double expected = 0;
    std::vector<double> expected_of_tokens;
    bool is_greedy = true;
    for (auto t = static_cast<std::size_t>(first); t < prompt_.size(); ++t) {
      const auto logits = expected_.at("logits").at(t - 1).get<std::vector<double>>();
      double sum = 0;
      for (const double v : logits) sum += std::exp(v);
      const double logit = logits.at(index(prompt_[t]));
      expected_of_tokens.push_back(logit - std::log(sum));
      expected += expected_of_tokens.back();
      is_greedy = is_greedy && logit == *std::ranges::max_element(logits);
    }
    std::vector<double> of_tokens;
    const Score got = score(engine, {prompt_, first}, &of_tokens);
    EXPECT_NEAR(got.log_likelihood, expected,
                kBoundOfToken * static_cast<double>(12 - first) + 1e-12);
    ASSERT_EQ(of_tokens.size(), expected_of_tokens.size());
    double sum = 0;
    for (std::size_t t = 0; t < of_tokens.size(); ++t) {
      EXPECT_NEAR(of_tokens[t], expected_of_tokens[t], kBoundOfToken);
      sum += of_tokens[t];
    }
    EXPECT_EQ(sum, got.log_likelihood);
    EXPECT_EQ(got.num_tokens, 12 - first);
    EXPECT_EQ(got.is_greedy, is_greedy);
  }
}

TEST_F(Scores, KnowTheGreedyText) {
  Engine engine = this->engine();
  const Score got = score(engine, {all(), std::ssize(prompt_)});
  EXPECT_TRUE(got.is_greedy);
  EXPECT_NEAR(got.perplexity(), std::exp(-got.log_likelihood / 64), 1e-12);
}

TEST_F(Scores, RefuseRequestsThatTheModelCannotRun) {
  Engine engine = this->engine();
  const auto error = [&](Tokens tokens, std::int64_t first_scored) {
    return error_of([&] { (void)score(engine, {std::move(tokens), first_scored}); });
  };
  EXPECT_EQ(error(prompt_, 0), "tokens are scored from position 0 on, but it must be in [1, 12]");
  EXPECT_EQ(error(prompt_, 13), "tokens are scored from position 13 on, but it must be in [1, 12]");
  EXPECT_EQ(error(prompt_, 12), "no error");
  EXPECT_EQ(error({}, 1), "no error");
  EXPECT_EQ(error({}, 2), "tokens are scored from position 2 on, but it must be in [1, 1]");
  // The last token is looked up among the logits without a pass.
  EXPECT_EQ(error({TokenId{1}, TokenId{64}}, 1), "token 64 is not in the vocabulary of 64");
  EXPECT_EQ(error({TokenId{1}, TokenId{2}, TokenId{-1}}, 1),
            "token -1 is not in the vocabulary of 64");
  EXPECT_EQ(error(Tokens(129, TokenId{1}), 1), "no error");  // the last needs no position
  EXPECT_EQ(error(Tokens(130, TokenId{1}), 1),
            "a sequence of 129 tokens was asked for, but the model has positions for 1 to 128");
}

// Requests without scored tokens before, between and behind others.
TEST_F(Scores, AreReportedInTheOrderOfRequests) {
  Engine engine = this->engine();
  const std::vector<ScoreRequest> requests{
      {}, {prompt_, 1}, {{TokenId{5}}, 1}, {prompt_, 12}, {prompt_, 4}, {}};
  std::vector<std::int64_t> num_tokens;
  const Score total = score_all(
      engine,
      [&, next = std::size_t{0}]() mutable {
        return next < requests.size() ? std::optional(requests[next++]) : std::nullopt;
      },
      [&](const Score& score, std::span<const double> log_likelihoods) {
        num_tokens.push_back(score.num_tokens);
        EXPECT_EQ(std::ssize(log_likelihoods), score.num_tokens);
      },
      progress_);
  EXPECT_EQ(num_tokens, (std::vector<std::int64_t>{0, 11, 0, 0, 8, 0}));
  Score expected = score(engine, requests[1]);
  expected.add(score(engine, requests[4]));
  EXPECT_EQ(total, expected);
}

using Generation = TinyModel;

TEST_F(Generation, IsGreedyWithoutATemperature) {
  for (const int num_threads : {1, 3}) {
    Engine engine = this->engine(num_threads);
    Tokens seen;
    const Tokens text = generate(engine, {.prompt = prompt_, .max_new_tokens = 64},
                                 [&](TokenId token) { seen.push_back(token); });
    EXPECT_EQ(text, greedy_);
    EXPECT_EQ(seen, greedy_);
  }
}

TEST_F(Generation, IsTheSameForTheSameSeed) {
  Engine engine = this->engine();
  const auto text = [&](std::uint64_t seed) {
    return generate(engine, {.prompt = prompt_,
                             .max_new_tokens = 30,
                             .sampling = {.temperature = 1.5f, .top_p = 0.9f, .seed = seed}});
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

// Prompts and texts of different lengths, so that each joins and leaves the batch at another time.
TEST_F(Generation, GivesTheSameTextsTogetherAsAlone) {
  std::vector<GenerateRequest> requests;
  std::vector<Tokens> alone;
  Engine engine = this->engine();
  for (std::size_t i = 0; i < 7; ++i) {
    requests.push_back({.prompt = std::span(prompt_).subspan(i, 1 + (5 * i) % (12 - i)),
                        .max_new_tokens = static_cast<std::int64_t>(1 + (11 * i) % 17),
                        .sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.5f, .seed = i}});
    alone.push_back(generate(engine, requests.back()));
    EXPECT_EQ(std::ssize(alone.back()), requests.back().max_new_tokens);
  }
  for (const std::int64_t batch_size : {1, 2, 3, 7, 20}) {
    std::vector<Tokens> seen(requests.size()), ended(requests.size());
    const auto texts = generate_all(engine, requests, batch_size,
                                    [&](std::size_t request, TokenId token, bool is_last) {
                                      seen[request].push_back(token);
                                      if (is_last) ended[request] = seen[request];
                                    });
    EXPECT_EQ(texts, alone) << batch_size;
    EXPECT_EQ(ended, alone) << batch_size;
  }
}

struct LastCount final : Progress {
  std::int64_t last = 0;
  void update(std::int64_t done, std::int64_t) override { last = done; }
};

// Texts of different lengths, so that later requests are finished first.
TEST_F(Generation, ReportsFinishedTextsInTheOrderOfRequests) {
  std::vector<GenerateRequest> requests;
  for (const std::int64_t length : {9, 2, 5, 1}) {
    requests.push_back({.prompt = prompt_, .max_new_tokens = length});
  }
  Engine engine = this->engine();
  std::vector<Tokens> texts;
  LastCount progress;
  const auto add_text = [&](std::size_t request, std::span<const TokenId> text) {
    EXPECT_EQ(request, texts.size());
    texts.emplace_back(text.begin(), text.end());
  };
  generate_in_order(engine, requests, 3, add_text, progress);
  EXPECT_EQ(texts, generate_all(engine, requests, 1));
  EXPECT_EQ(progress.last, 9 + 2 + 5 + 1);
}

// Weights are read once for a token of each text.
TEST_F(Generation, GivesEachTextOfABatchATokenInEveryPass) {
  Engine engine = this->engine();
  const GenerateRequest request{.prompt = prompt_, .max_new_tokens = 3};
  const std::vector<GenerateRequest> requests(4, request);
  std::vector<std::size_t> order;
  (void)generate_all(engine, requests, 3,
                     [&](std::size_t i, TokenId, bool) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 3, 3}));
}

TEST_F(Generation, EndsATextWhereTheRequestSaysSo) {
  Engine engine = this->engine();
  const auto whole = generate(engine, {.prompt = prompt_, .max_new_tokens = 6});
  Tokens seen;
  const auto part =
      generate(engine, {.prompt = prompt_, .max_new_tokens = 6, .is_last = [&](TokenId token) {
                          seen.push_back(token);
                          return seen.size() == 4;
                        }});
  EXPECT_EQ(part, Tokens(whole.begin(), whole.begin() + 4));
  EXPECT_EQ(seen, part);
}

TEST_F(Generation, RefusesOptionsOutOfRange) {
  Engine engine = this->engine();
  const auto error = [&](const GenerateRequest& request) {
    return error_of([&] { (void)generate(engine, request); });
  };
  EXPECT_EQ(error({}), "the prompt has no token");
  const Tokens unknown{TokenId{1}, TokenId{64}};
  EXPECT_EQ(error({.prompt = unknown}), "token 64 is not in the vocabulary of 64");
  EXPECT_EQ(error({.prompt = prompt_, .max_new_tokens = 0}),
            "max_new_tokens is 0, but must be at least 1");
  EXPECT_EQ(error({.prompt = prompt_, .max_new_tokens = 118}),
            "a sequence of 129 tokens was asked for, but the model has positions for 1 to 128");
  EXPECT_EQ(error({.prompt = prompt_, .sampling = {.temperature = -1}}),
            "the temperature is -1, but must be at least 0");
  EXPECT_EQ(error({.prompt = prompt_, .sampling = {.top_p = 0}}),
            "top_p is 0, but must be in (0, 1]");
  EXPECT_EQ(error_of([&] { (void)generate_all(engine, {}, 0); }),
            "batch_size is 0, but must be at least 1");
}

// Four tokens of probability 1/2, 1/4, 1/8, 1/8.
TEST(Sample, DrawsAsOftenAsTheProbabilitiesSay) {
  const std::vector<float> logits = {std::log(0.25f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.125f)};
  std::mt19937_64 rng(1);
  const auto count = [&](const Sampling& sampling) {
    std::vector<int> counts(4);
    for (int n = 0; n < 8000; ++n) {
      ++counts[index(sample(logits, sampling, rng))];
    }
    return counts;
  };
  // Four standard deviations of a count are at most 4 sqrt(8000 / 4) = 179.
  const auto all = count({.temperature = 1});
  EXPECT_NEAR(all[0], 2000, 179);
  EXPECT_NEAR(all[1], 4000, 179);
  EXPECT_NEAR(all[2], 1000, 179);
  const auto likely = count({.temperature = 1, .top_p = 0.7f});  // the best two: 2/3 and 1/3
  EXPECT_NEAR(likely[1], 5333, 179);
  EXPECT_EQ(likely[2] + likely[3], 0);
  const auto sharp = count({.temperature = 0.5f});  // squares: 16/22, 4/22, 1/22, 1/22
  EXPECT_NEAR(sharp[1], 8000 * 16.0 / 22, 179);
  EXPECT_EQ(count({.temperature = 0}), (std::vector<int>{0, 8000, 0, 0}));
}

// The definition: all tokens sorted, the likelier first.
TokenId sample_by_sorting(std::span<const float> logits, const Sampling& sampling,
                          std::mt19937_64& rng) {
  std::vector<double> weights;
  for (const float v : logits) {
    weights.push_back(
        std::exp((double{v} - double{std::ranges::max(logits)}) / double{sampling.temperature}));
  }
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](auto t) { return weights[t]; });
  const double wanted =
      double{sampling.top_p} * std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  std::size_t size = 0;
  while (size < order.size() && sum < wanted) sum += weights[order[size++]];
  double left = sum * (static_cast<double>(rng() >> 11) * 0x1p-53);
  for (std::size_t i = 0; i < size; ++i) {
    left -= weights[order[i]];
    if (left < 0) return TokenId{static_cast<std::int32_t>(order[i])};
  }
  return TokenId{static_cast<std::int32_t>(order[size - 1])};
}

// Logits with many ties, flat ones and peaks, fewer and more than the parts that are sorted.
TEST(Sample, DrawsWithTopPAsIfAllTokensWereSorted) {
  std::mt19937_64 rng(7);
  for (int round = 0; round < 400; ++round) {
    std::vector<float> logits(1 + rng() % 2000);
    const float spread = static_cast<float>(rng() % 4) * 3;
    for (float& v : logits) v = spread * static_cast<float>(rng() % 8) / 8;
    const Sampling sampling{.temperature = 0.7f,
                            .top_p = std::array{0.01f, 0.5f, 0.9f, 0.999f}[rng() % 4]};
    std::mt19937_64 one(rng()), other(one);
    EXPECT_EQ(sample(logits, sampling, one), sample_by_sorting(logits, sampling, other)) << round;
  }
}

TEST(Sample, RefusesWhatItCannotDrawFrom) {
  std::mt19937_64 rng(1);
  const std::vector<float> logits = {1, 0};
  EXPECT_EQ(error_of([&] { (void)sample({}, {}, rng); }),
            "there are no logits to draw a token from");
  EXPECT_EQ(error_of([&] { (void)sample(logits, {.temperature = -1}, rng); }),
            "the temperature is -1, but must be at least 0");
  EXPECT_EQ(error_of([&] { (void)sample(logits, {.temperature = 1, .top_p = 2}, rng); }),
            "top_p is 2, but must be in (0, 1]");
}

TEST(Sample, RefusesLogitsThatAreNotFinite) {
  std::mt19937_64 rng(1);
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    const std::vector<float> logits = {1, bad, 0};
    EXPECT_EQ(error_of([&] { (void)sample(logits, {}, rng); }),
              "the model's logits are not finite: its weights hold NaN, or are too large");
  }
}

}  // namespace
}  // namespace c2r
