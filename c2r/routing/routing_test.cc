// Tests of the check of choices in memory.
#include "c2r/routing/routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

Matrix<ExpertId> choices(std::int64_t top_k, const std::vector<int>& ids) {
  Matrix<ExpertId> topk_idx(std::ssize(ids) / top_k, top_k);
  std::ranges::transform(ids, topk_idx.all().begin(), [](int id) { return ExpertId{id}; });
  return topk_idx;
}

// The definition, choice by choice.
bool is_valid(const Matrix<ExpertId>& topk_idx, std::int32_t num_experts) {
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    const auto row = topk_idx.row(t);
    for (const ExpertId e : row) {
      if (e == kNoExpert) continue;
      if (static_cast<std::int32_t>(e) < 0 || static_cast<std::int32_t>(e) >= num_experts ||
          std::ranges::count(row, e) > 1) {
        return false;
      }
    }
  }
  return true;
}

TEST(CheckTopkIdx, AcceptsDistinctAndMaskedChoices) {
  EXPECT_NO_THROW(check_topk_idx(choices(2, {3, 0, 0, 3, -1, -1, 2, -1}), 4, 2));
  EXPECT_NO_THROW(check_topk_idx(Matrix<ExpertId>(0, 2), 4, 2)) << "no tokens";
  EXPECT_NO_THROW(check_topk_idx(choices(3, {0, -1, -1}), 1, 3)) << "top_k above num_experts";
  EXPECT_NO_THROW(check_topk_idx(choices(1, {kMaxExperts - 1}), kMaxExperts, 1));
}

TEST(CheckTopkIdx, NamesTokenColumnAndValue) {
  const auto error = [](const std::vector<int>& ids) {
    return error_of([&] { check_topk_idx(choices(2, ids), 4, 2); });
  };
  EXPECT_EQ(error({0, 1, 3, 9}),
            "token 1 names expert 9 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({0, 1, 3, 4}),
            "token 1 names expert 4 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({0, -1, -2, 3}),
            "token 1 names expert -2 in column 0, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({3, 1, 1, 3, 3, 3}), "token 2 names expert 3 twice, in columns 0 and 1");
}

TEST(CheckTopkIdx, RefusesAnotherWidthAndTooManyExperts) {
  EXPECT_EQ(error_of([] {
              check_topk_idx(choices(2, {0, 1}), 4, 3);
            }),
            "topk_idx is [1, 2], but must be [num_tokens, 3]");
  EXPECT_EQ(error_of([] { check_topk_idx(choices(1, {0}), kMaxExperts + 1, 1); }),
            "num_experts is 1025, but must be in [0, 1024]");
}

TEST(FindInvalidChoice, AgreesWithTheDefinitionOnRandomChoices) {
  int num_valid = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 rng(seed);
    const auto num_experts = static_cast<std::int32_t>(4 + rng() % 40);
    const auto top_k = static_cast<std::int64_t>(1 + rng() % 4);
    Matrix<ExpertId> topk_idx(static_cast<std::int64_t>(rng() % 4), top_k);
    for (ExpertId& e : topk_idx.all()) {
      e = ExpertId{static_cast<std::int32_t>(rng() % unsigned(num_experts + 2)) - 1};
    }
    const auto invalid = find_invalid_choice(topk_idx, num_experts);
    ASSERT_EQ(!invalid, is_valid(topk_idx, num_experts));
    num_valid += !invalid;
    if (!invalid) continue;
    EXPECT_EQ(static_cast<std::int32_t>(topk_idx(invalid->token, invalid->column)),
              invalid->expert);
    EXPECT_EQ(invalid->first_column.has_value(),
              0 <= invalid->expert && invalid->expert < num_experts);
    if (invalid->first_column) {
      EXPECT_LT(*invalid->first_column, invalid->column);
      EXPECT_EQ(topk_idx(invalid->token, *invalid->first_column),
                topk_idx(invalid->token, invalid->column));
    }
  }
  EXPECT_GT(num_valid, 50);
  EXPECT_LT(num_valid, 250);
}

}  // namespace
}  // namespace c2r
