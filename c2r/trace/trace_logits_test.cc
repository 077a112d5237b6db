// Tests of traces that have logits.
#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/core/half.h"
#include "c2r/core/testing.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/trace.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::temporary_path;

std::vector<ExpertId> experts_of(std::initializer_list<int> numbers) {
  std::vector<ExpertId> experts;
  for (const int number : numbers) experts.push_back(ExpertId{number});
  return experts;
}

// 2 layers, 3 tokens, 4 experts; the values tell layer, token and expert. 0.1 is rounded to f16.
TEST(TraceLogits, AreKeptInVersion2) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.num_experts = 4, .top_k = 1, .layer_indices = {0, 1}};
  const auto value = [](std::int64_t layer, std::int64_t token, std::int64_t expert) {
    return float(100 * layer + 10 * token + expert) + 0.1f;
  };
  TraceWriter writer(path, header, false);
  for (const std::int64_t layer : {0, 1}) {
    writer.append(layer, experts_of({1, 2, 3}), {}, "test");
    for (std::int64_t token = 0; token < 3; ++token) {
      std::vector<float> logits;
      for (std::int64_t e = 0; e < 4; ++e) logits.push_back(value(layer, token, e));
      writer.append_logits(layer, logits, "test");
    }
  }
  writer.finish();
  EXPECT_EQ(SafetensorsFile(path).metadata_at("version"), "2");
  const Trace trace(path);
  ASSERT_TRUE(trace.has_logits());
  EXPECT_TRUE(std::ranges::equal(trace.topk_idx(1, 0, 3).all(), experts_of({1, 2, 3})));
  const Matrix<float> logits = trace.logits(1, 1, 3);
  ASSERT_EQ(logits.rows(), 2);
  for (std::int64_t t = 0; t < 2; ++t) {
    for (std::int64_t e = 0; e < 4; ++e) {
      EXPECT_EQ(logits(t, e), to_float(to_half(value(1, 1 + t, e)))) << t << " " << e;
    }
  }
  EXPECT_EQ(error_of([&] { (void)trace.logits(0, 2, 4); }),
            path.string() + ": tokens [2, 4) are not a range of its 3 tokens");
  EXPECT_EQ(error_of([&] { (void)trace.logits(2, 0, 1); }),
            path.string() + ": layer 2 is not in [0, 1]");
}

TEST(TraceLogits, AreOfAllTokensOrOfNone) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.num_experts = 2, .top_k = 1, .layer_indices = {0, 1}};
  const std::vector<float> one_token = {1, 2}, two_tokens = {1, 2, 3, 4};
  TraceWriter writer(path, header, false);
  writer.append(0, experts_of({1}), {}, "test");
  writer.append(1, experts_of({1}), {}, "test");
  writer.append_logits(0, one_token, "test");
  EXPECT_EQ(error_of([&] { writer.finish(); }),
            path.string() + ": layer 1 has logits of 0 tokens, but there are 1 tokens");
  writer.append_logits(1, two_tokens, "test");
  EXPECT_EQ(error_of([&] { writer.finish(); }),
            path.string() + ": layer 1 has logits of 2 tokens, but there are 1 tokens");
  EXPECT_EQ(error_of([&] { writer.append_logits(0, std::span(two_tokens).first(3), "a"); }),
            "a: 3 logits do not divide into tokens of 2 experts");
  EXPECT_EQ(error_of([&] { writer.append_logits(2, one_token, "a"); }),
            "a: layer 2 is not in [0, 1], the layers of the trace");
  const std::vector<float> large = {0, 1, 2, -65520};
  EXPECT_EQ(error_of([&] { writer.append_logits(0, large, "a"); }),
            "a, token 1: the logit of expert 1 is -65520, but must be a number that f16 can hold");

  TraceWriter without(path, header, false);
  without.append(0, experts_of({1}), {}, "test");
  without.append(1, experts_of({1}), {}, "test");
  without.finish();
  EXPECT_EQ(SafetensorsFile(path).metadata_at("version"), "1");
  EXPECT_EQ(error_of([&] { (void)Trace(path).logits(0, 0, 1); }),
            path.string() + ": holds no logits");
}

}  // namespace
}  // namespace c2r
