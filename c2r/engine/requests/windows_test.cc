// Sequences are cut into windows in order, without losing an empty one.
#include "c2r/engine/requests/windows.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using Tokens = std::vector<TokenId>;

Tokens tokens_from(std::int32_t first, std::int32_t count) {
  Tokens tokens;
  for (std::int32_t t = 0; t < count; ++t) tokens.push_back(TokenId{first + t});
  return tokens;
}

// Sequences of 5, 0 and 2 tokens: 0 to 4, none, 10 and 11.
NextSequence some_sequences_to_cut() {
  return [next = 0]() mutable -> std::optional<Tokens> {
    const std::vector<Tokens> sequences{tokens_from(0, 5), {}, tokens_from(10, 2)};
    return next < 3 ? std::optional(sequences[static_cast<std::size_t>(next++)]) : std::nullopt;
  };
}

void expect_next(Windows& windows, const Tokens& tokens, std::int64_t window_idx) {
  const auto window = windows.next();
  ASSERT_TRUE(window.has_value());
  EXPECT_EQ(window->tokens, tokens);
  EXPECT_EQ(window->window_idx, window_idx);
}

TEST(Windows, CutEachSequenceAndKeepEmptyOnes) {
  Windows windows(some_sequences_to_cut(), 2);
  expect_next(windows, tokens_from(0, 2), 0);
  expect_next(windows, tokens_from(2, 2), 1);
  expect_next(windows, tokens_from(4, 1), 2);
  expect_next(windows, {}, 0);
  expect_next(windows, tokens_from(10, 2), 0);
  EXPECT_FALSE(windows.next());
}

TEST(Windows, EndAfterTheGivenNumberOfTokens) {
  Windows windows(some_sequences_to_cut(), 3, 6);
  expect_next(windows, tokens_from(0, 3), 0);
  expect_next(windows, tokens_from(3, 2), 1);
  expect_next(windows, {}, 0);
  expect_next(windows, tokens_from(10, 1), 0);
  EXPECT_FALSE(windows.next());
}

TEST(Windows, RefuseSizesOutOfRange) {
  EXPECT_EQ(testing::error_of([] { Windows(some_sequences_to_cut(), 0); }),
            "the window is 0 tokens, but must be at least 1");
  EXPECT_EQ(testing::error_of([] { Windows(some_sequences_to_cut(), 1, -1); }),
            "max_tokens is -1, but must be at least 0");
}

void expect_next(RollingWindows& windows, const Tokens& tokens, std::int64_t first_scored,
                 std::int64_t window_idx) {
  const auto window = windows.next();
  ASSERT_TRUE(window.has_value());
  EXPECT_EQ(window->tokens, tokens);
  EXPECT_EQ(window->first_scored, first_scored);
  EXPECT_EQ(window->window_idx, window_idx);
}

Tokens with_first(Tokens tokens) {
  tokens.insert(tokens.begin(), TokenId{99});
  return tokens;
}

TEST(RollingWindows, ScoreEachTokenOnceAndFillTheLastWindow) {
  RollingWindows windows(some_sequences_to_cut(), TokenId{99}, 3, 1);
  expect_next(windows, with_first(tokens_from(0, 3)), 1, 0);  // scores 0 to 2
  expect_next(windows, tokens_from(1, 4), 2, 1);              // scores 3 and 4
  expect_next(windows, {}, 1, 0);
  expect_next(windows, with_first(tokens_from(10, 2)), 1, 0);
  EXPECT_FALSE(windows.next());
}

TEST(RollingWindows, GiveEachTokenTheContextThatWasAskedFor) {
  RollingWindows windows(some_sequences_to_cut(), TokenId{99}, 3, 3);
  expect_next(windows, with_first(tokens_from(0, 3)), 1, 0);
  expect_next(windows, tokens_from(0, 4), 3, 1);  // scores 3 alone
  expect_next(windows, tokens_from(1, 4), 3, 2);
}

TEST(RollingWindows, RefuseContextThatNoWindowHas) {
  EXPECT_EQ(testing::error_of([] { RollingWindows(some_sequences_to_cut(), TokenId{0}, 3, 4); }),
            "each token is to have 4 tokens before it, but that must be in [1, 3], the tokens of a "
            "window");
}

}  // namespace
}  // namespace c2r
