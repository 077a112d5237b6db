// Tests of traces that say what their tokens are.
#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/join_traces.h"
#include "c2r/trace/trace.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::temporary_path;

using Tokens = std::vector<TokenId>;

Tokens tokens_of(std::initializer_list<int> numbers) {
  Tokens tokens;
  for (const int number : numbers) tokens.push_back(TokenId{number});
  return tokens;
}

TraceHeader small_header() {
  return {.num_experts = 4, .top_k = 1, .layer_indices = {0}};
}

// @param token_ids empty: the trace has none
Trace in_memory(std::int64_t num_tokens, const Tokens& token_ids) {
  const Matrix<ExpertId> choices(num_tokens, 1);
  const std::vector<MatrixView<const ExpertId>> layers = {choices};
  return Trace(small_header(), layers, {}, "m", token_ids);
}

TEST(TraceTokenIds, AreWhatWasWritten) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, small_header(), false);
  writer.append(0, std::vector(5, ExpertId{3}), {}, "test");
  writer.append_token_ids(tokens_of({7, 0}), "test");
  writer.append_token_ids(tokens_of({2147483647, 9, 7}), "test");
  writer.finish();
  // Programs that do not know token ids ignore them.
  EXPECT_EQ(SafetensorsFile(path).metadata_at("version"), "1");
  const Trace trace(path);
  ASSERT_TRUE(trace.has_token_ids());
  EXPECT_EQ(trace.token_ids(0, 5), tokens_of({7, 0, 2147483647, 9, 7}));
  EXPECT_EQ(trace.token_ids(1, 3), tokens_of({0, 2147483647}));
  EXPECT_EQ(trace.token_ids(5, 5), Tokens{});
  EXPECT_EQ(error_of([&] { (void)trace.token_ids(4, 6); }),
            path.string() + ": tokens [4, 6) are not a range of its 5 tokens");
}

TEST(TraceTokenIds, AreInMemoryWhatWasGiven) {
  const Trace trace = in_memory(3, tokens_of({1, 5, 2}));
  ASSERT_TRUE(trace.has_token_ids());
  EXPECT_EQ(trace.token_ids(1, 3), tokens_of({5, 2}));
  EXPECT_FALSE(in_memory(3, {}).has_token_ids());
  EXPECT_EQ(error_of([&] { (void)in_memory(3, {}).token_ids(0, 1); }), "m: holds no token ids");
  EXPECT_EQ(error_of([&] {
              (void)in_memory(3, tokens_of({1, 5}));
            }),
            "m: there are 2 token ids, but 3 tokens");
  EXPECT_EQ(error_of([&] {
              (void)in_memory(3, tokens_of({1, 5, -1}));
            }),
            "m, token 2: the token id is -1, but must not be negative");
}

TEST(TraceTokenIds, AreOfAllTokensOrOfNone) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, small_header(), false);
  writer.append(0, std::vector(2, ExpertId{3}), {}, "test");
  writer.append_token_ids(tokens_of({1}), "test");
  EXPECT_EQ(error_of([&] { writer.finish(); }),
            path.string() + ": there are 1 token ids, but 2 tokens");
  EXPECT_EQ(error_of([&] {
              writer.append_token_ids(tokens_of({3, -2}), "text");
            }),
            "text, token 1: the token id is -2, but must not be negative");
  writer.append_token_ids(tokens_of({2}), "test");
  writer.finish();
  EXPECT_EQ(Trace(path).token_ids(0, 2), tokens_of({1, 2}));
}

TEST(TraceTokenIds, AreCheckedInAFile) {
  const auto path = temporary_path("trace.safetensors");
  const std::vector<std::uint8_t> choices = {0, 3, 1}, bytes = {1, 2, 3};
  const auto with = [&](const TensorToWrite& token_ids) {
    write_safetensors(path,
                      {tensor_of<std::uint8_t>("layers.0.topk_idx", {3, 1}, choices), token_ids},
                      trace_metadata(small_header(), kTraceFormat));
    return error_of([&] { (void)Trace(path).token_ids(1, 3); });
  };
  const std::vector<std::int32_t> short_ids = {1, 2}, negative = {1, 2, -3};
  EXPECT_EQ(with(tensor_of<std::int32_t>("token_ids", {2}, short_ids)),
            path.string() + ": tensor 'token_ids' is I32 [2], not I32 [3]");
  EXPECT_EQ(with(tensor_of<std::uint8_t>("token_ids", {3}, bytes)),
            path.string() + ": tensor 'token_ids' is U8 [3], not I32 [3]");
  EXPECT_EQ(with(tensor_of<std::int32_t>("token_ids", {3}, negative)),
            path.string() + ", token 2: the token id is -3, but must not be negative");
}

TEST(TraceTokenIds, AreJoinedIfAllTracesHaveThem) {
  std::vector<Trace> traces;
  traces.push_back(in_memory(2, tokens_of({5, 6})));
  traces.push_back(in_memory(0, {}));
  traces.push_back(in_memory(1, tokens_of({7})));
  EXPECT_EQ(join_traces(traces).trace.token_ids(0, 3), tokens_of({5, 6, 7}));
  traces.push_back(in_memory(1, {}));
  EXPECT_FALSE(join_traces(traces).trace.has_token_ids());
}

}  // namespace
}  // namespace c2r
