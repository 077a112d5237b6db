// Tiny checkpoints of every family against an independent implementation: see
// tools/make_tiny_models.py for whose. tools/make_saved_configs.py makes the configs of
// transformers 5.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "c2r/core/testing.h"
#include "c2r/model/decoder.h"
#include "c2r/model/model.h"

namespace c2r {
namespace {

using Tokens = std::vector<TokenId>;

struct Case {
  // "plain", "c2r" with collaborator lists, or "transformers_5" with the config that it saves
  std::string family, variant;
};

// What the golden file says of one variant.
struct Expected {
  Tokens prompt, greedy;
  Matrix<float> logits;               // [prompt.size(), vocab_size]
  std::vector<Matrix<int>> topk_idx;  // [num_moe_layers] of [prompt + greedy, top_k]
};

std::filesystem::path folder_of(const std::string& family) {
  return std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / family;
}

Json expected_json(const Case& c) {
  const Json all = read_json_file(folder_of(c.family) / "expected.json");
  return all.at(c.variant == "c2r" ? "c2r" : "plain");
}

template <class T>
Matrix<T> matrix_of(const Json& rows) {
  Matrix<T> m(std::ssize(rows), std::ssize(rows.at(0)));
  for (std::int64_t r = 0; r < m.rows(); ++r) {
    for (std::int64_t c = 0; c < m.cols(); ++c) {
      m(r, c) = rows.at(static_cast<std::size_t>(r)).at(static_cast<std::size_t>(c)).get<T>();
    }
  }
  return m;
}

Expected read_expected(const Case& c) {
  const Json json = expected_json(c);
  Expected e{.prompt = json.at("prompt").get<Tokens>(),
             .greedy = json.at("greedy").get<Tokens>(),
             .logits = matrix_of<float>(json.at("logits"))};
  for (const Json& layer : json.at("topk_idx")) e.topk_idx.push_back(matrix_of<int>(layer));
  return e;
}

class Golden : public ::testing::TestWithParam<Case> {
 protected:
  Golden() : model_(folder_of(GetParam().family)), expected_(read_expected(GetParam())) {
    const auto saved = GetParam().variant == "transformers_5" ? "transformers_5" : "";
    Json config = read_json_file(folder_of(GetParam().family) / saved / "config.json");
    if (GetParam().variant == "c2r") {
      const Json json = expected_json(GetParam());
      config["top_t"] = json.at("top_t");
      config["collaborative_list"] = json.at("collaborative_list");
    }
    config_ = parse_config(config, "config.json");
    all_ = expected_.prompt;
    all_.insert(all_.end(), expected_.greedy.begin(), expected_.greedy.end());
  }

  Decoder decoder(Arithmetic arithmetic = Arithmetic::kF32) {
    return {config_, model_.weights(), arithmetic, pool_};
  }

  Matrix<float> logits(Decoder& decoder, MatrixView<const float> states) const {
    Matrix<float> out(states.rows(), config_.vocab_size);
    decoder.logits(states, out);
    return out;
  }

  Model model_;
  ModelConfig config_;
  Expected expected_;
  Tokens all_;  // prompt and greedy continuation
  ThreadPool pool_{2};
};

float largest(const Matrix<float>& m) {
  float max = 0;
  for (const float v : m.all()) max = std::max(max, std::abs(v));
  return max;
}

TEST_P(Golden, LogitsAreThoseOfTheOtherImplementation) {
  Decoder decoder = this->decoder();
  KvCache cache(config_, Arithmetic::kF32, 128);
  const SequenceSlice slice{&cache, expected_.prompt};
  const auto got = logits(decoder, decoder.forward({&slice, 1}));
  const float tolerance = 1e-4f * largest(expected_.logits);
  for (std::int64_t t = 0; t < got.rows(); ++t) {
    for (std::int64_t v = 0; v < got.cols(); ++v) {
      ASSERT_NEAR(got(t, v), expected_.logits(t, v), tolerance) << "token " << t;
    }
  }
}

// The second sequence of each batch is wrong; the first one's cache must not change.
TEST_P(Golden, ABatchWithAWrongSequenceIsRefused) {
  Decoder decoder = this->decoder();
  ModelConfig shallow = config_;
  --shallow.num_layers;
  KvCache cache(config_, Arithmetic::kF32, 128), small(config_, Arithmetic::kF32, 2);
  KvCache of_another(shallow, Arithmetic::kF32, 128), other(config_, Arithmetic::kF32, 128);
  const Tokens two = {TokenId{1}, TokenId{2}}, three = {TokenId{1}, TokenId{2}, TokenId{3}};
  const Tokens wrong = {TokenId{1}, TokenId{-1}};
  const auto error = [&](KvCache* second, const Tokens& tokens) {
    const SequenceSlice batch[] = {{&cache, two}, {second, tokens}};
    const std::string message = testing::error_of([&] { (void)decoder.forward(batch); });
    EXPECT_EQ(cache.num_tokens(), 0);
    return message;
  };
  EXPECT_EQ(error(nullptr, two), "sequence 1 of the batch has no cache");
  EXPECT_EQ(error(&of_another, two), "sequence 1 of the batch has the cache of another model");
  EXPECT_EQ(error(&cache, two), "two sequences of the batch have the same cache");
  EXPECT_EQ(error(&small, three), "3 new tokens do not fit a cache with 0 of 2 in use");
  EXPECT_EQ(error(&other, {}), "a sequence of the batch has no new token");
  EXPECT_EQ(error(&other, wrong),
            fmt::format("token -1 is not in the vocabulary of {}", config_.vocab_size));
  EXPECT_EQ(testing::error_of([&] { cache.truncate(1); }),
            "a cache of 0 tokens cannot be cut to 1");
}

TEST_P(Golden, AttentionRefusesSegmentsThatDoNotFit) {
  GroupedGemm gemm(Arithmetic::kF32, pool_);
  Attention attention(config_, gemm);
  KvCache cache(config_, Arithmetic::kF32, 128), small(config_, Arithmetic::kF32, 2);
  Matrix<float> x(4, config_.hidden);
  const auto error = [&](const Segment& second, std::int64_t layer = 0) {
    const Segment segments[] = {{&cache, 0, 1}, second};
    return testing::error_of(
        [&] { attention.run(model_.weights().layers[0].attention, layer, segments, x); });
  };
  EXPECT_EQ(error({nullptr, 1, 3}), "segment 1 has no cache of this model");
  EXPECT_EQ(
      error({&small, 1, 3}),
      "segment 1 has rows [1, 1 + 3), but there are 4 rows, and 2 of 2 positions of its cache "
      "are free");
  EXPECT_EQ(
      error({&small, 3, 2}),
      "segment 1 has rows [3, 3 + 2), but there are 4 rows, and 2 of 2 positions of its cache "
      "are free");
  EXPECT_EQ(error({&small, 1, 1}, config_.num_layers),
            fmt::format("there is no layer {0} in a model with {0}", config_.num_layers));
  std::vector<float> three(3), four(4);
  EXPECT_EQ(testing::error_of([&] { rms_norm(four, three, 1e-5F); }),
            "4 values cannot be normalized with 3 weights");
}

TEST_P(Golden, GreedyTextIsIdentical) {
  Decoder decoder = this->decoder();
  KvCache cache(config_, Arithmetic::kF32, 128);
  Tokens next = expected_.prompt, text;
  while (text.size() < expected_.greedy.size()) {
    const SequenceSlice slice{&cache, next};
    const auto states = decoder.forward({&slice, 1});
    const auto last = logits(decoder, states.rows(states.rows() - 1, states.rows()));
    const auto best = std::ranges::max_element(last.row(0)) - last.row(0).begin();
    next = {TokenId{static_cast<std::int32_t>(best)}};
    text.push_back(next[0]);
  }
  EXPECT_EQ(text, expected_.greedy);
}

TEST_P(Golden, RoutingIsIdenticalOnEveryToken) {
  Decoder decoder = this->decoder();
  KvCache cache(config_, Arithmetic::kF32, 128);
  std::size_t num_layers = 0;
  const SequenceSlice slice{&cache, all_};
  (void)decoder.forward({&slice, 1}, [&](std::int64_t layer, const Routing& routing) {
    const auto& expected = expected_.topk_idx.at(static_cast<std::size_t>(layer));
    ASSERT_EQ(routing.num_tokens(), expected.rows());
    for (std::int64_t t = 0; t < expected.rows(); ++t) {
      for (std::int64_t k = 0; k < expected.cols(); ++k) {
        ASSERT_EQ(static_cast<int>(routing.topk_idx(t, k)), expected(t, k))
            << "layer " << layer << ", token " << t << ", choice " << k;
      }
    }
    ++num_layers;
  });
  EXPECT_EQ(num_layers, expected_.topk_idx.size());
}

// Rows of one batch, slices of one sequence and threads do not see each other.
TEST_P(Golden, StatesAreTheSameBitsInChunksAndInBatches) {
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
    Decoder whole = this->decoder(arithmetic);
    KvCache cache(config_, arithmetic, 128);
    const SequenceSlice slice{&cache, all_};
    const auto states = whole.forward({&slice, 1});

    // The sequence in slices of 1, 2, 3 ..., beside another one in slices of 5.
    Decoder decoder = this->decoder(arithmetic);
    KvCache in_slices(config_, arithmetic, 100), other(config_, arithmetic, 128);
    std::int64_t done = 0;
    for (std::int64_t size = 1; done < std::ssize(all_); ++size) {
      const auto count = std::min(size, std::ssize(all_) - done);
      const std::span<const TokenId> tokens(all_);
      const SequenceSlice batch[] = {{&other, tokens.subspan(0, 5)},
                                     {&in_slices, tokens.subspan(static_cast<std::size_t>(done),
                                                                 static_cast<std::size_t>(count))}};
      const auto part = decoder.forward(batch);
      for (std::int64_t t = 0; t < count; ++t) {
        ASSERT_TRUE(std::ranges::equal(part.row(5 + t), states.row(done + t)))
            << "token " << done + t << " in a slice of " << count;
      }
      done += count;
    }
    EXPECT_EQ(in_slices.num_tokens(), std::ssize(all_));
  }
}

// As when a sequence moves to another rank.
TEST_P(Golden, StatesAreTheSameBitsAfterTheCacheWasSavedAndRestored) {
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
    Decoder decoder = this->decoder(arithmetic);
    KvCache whole(config_, arithmetic, 128), begun(config_, arithmetic, 7);
    KvCache moved(config_, arithmetic, 100);
    const SequenceSlice all{&whole, all_};
    const auto of_all = decoder.forward({&all, 1});
    Matrix<float> states(of_all.rows(), of_all.cols());
    for (std::int64_t t = 0; t < states.rows(); ++t) {
      std::ranges::copy(of_all.row(t), states.row(t).begin());
    }
    const std::span<const TokenId> tokens(all_);
    const SequenceSlice first{&begun, tokens.first(5)};
    (void)decoder.forward({&first, 1});
    const auto saved = begun.save();
    EXPECT_EQ(std::ssize(saved), 5 * begun.token_bytes());
    EXPECT_EQ(begun.token_bytes(), moved.token_bytes());
    moved.restore(saved);
    EXPECT_EQ(moved.num_tokens(), 5);
    const SequenceSlice rest{&moved, tokens.subspan(5)};
    const auto after = decoder.forward({&rest, 1});
    for (std::int64_t t = 0; t < after.rows(); ++t) {
      ASSERT_TRUE(std::ranges::equal(after.row(t), states.row(5 + t))) << "token " << 5 + t;
    }
    EXPECT_NE(testing::error_of([&] { moved.restore(saved); }), "no error") << "it has tokens";
    KvCache small(config_, arithmetic, 4);
    EXPECT_NE(testing::error_of([&] { small.restore(saved); }), "no error");
    EXPECT_NE(testing::error_of([&] { small.restore(std::span(saved).first(3)); }), "no error");
    small.restore({});
    EXPECT_EQ(small.num_tokens(), 0);
  }
}

// bf16 keeps 8 bits of each activation. Over two or three layers of these models its logits are
// within a few percent of the largest; a wrong term would be off by tens of percent.
TEST_P(Golden, Bf16IsClose) {
  Decoder decoder = this->decoder(Arithmetic::kBf16);
  KvCache cache(config_, Arithmetic::kBf16, 128);
  const SequenceSlice slice{&cache, expected_.prompt};
  const auto got = logits(decoder, decoder.forward({&slice, 1}));
  double squares = 0, expected_squares = 0;
  for (std::size_t i = 0; i < got.all().size(); ++i) {
    squares += std::pow(double{got.all()[i]} - double{expected_.logits.all()[i]}, 2);
    expected_squares += std::pow(double{expected_.logits.all()[i]}, 2);
  }
  EXPECT_LT(std::sqrt(squares / expected_squares), 0.05);
}

INSTANTIATE_TEST_SUITE_P(
    Families, Golden,
    ::testing::Values(Case{"llama_moe", "plain"}, Case{"llama_moe", "c2r"},
                      Case{"qwen2_moe", "plain"}, Case{"qwen2_moe", "c2r"},
                      Case{"qwen3_moe", "plain"}, Case{"olmoe", "plain"}, Case{"mixtral", "plain"},
                      Case{"qwen2_moe", "transformers_5"}, Case{"qwen3_moe", "transformers_5"},
                      Case{"olmoe", "transformers_5"}, Case{"mixtral", "transformers_5"}),
    [](const auto& test) { return test.param.family + "_" + test.param.variant; });

TEST(GoldenModels, CoverEveryFamily) {
  for (const Family& family : families()) {
    EXPECT_TRUE(std::filesystem::exists(folder_of(std::string(family.model_type))))
        << family.model_type;
  }
}

}  // namespace
}  // namespace c2r
