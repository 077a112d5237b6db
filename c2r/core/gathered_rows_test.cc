// Checks rows that are read through an index: their order, their types and what is refused.
#include "c2r/core/gathered_rows.h"

#include <gtest/gtest.h>

#include <vector>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

std::vector<std::vector<float>> values_of(const GatheredRows& rows) {
  std::vector<std::vector<float>> values;
  for (std::int64_t r = 0; r < rows.num_rows(); ++r) {
    rows.read_row(r, values.emplace_back(std::size_t(rows.cols())));
  }
  return values;
}

// Three rows of f32, (0, 1), (2, 3), (4, 5), and two of bf16, (10, 11), (12, 13).
struct StoredRows {
  StoredRows() : f32(3, 2), bytes(2 * 2 * 2) {
    for (std::size_t i = 0; i < 6; ++i) f32.all()[i] = float(i);
    const MutableRowsView rows(bytes, ElementType::kBf16, 2, 2);
    rows.write_row(0, std::vector<float>{10, 11});
    rows.write_row(1, std::vector<float>{12, 13});
    bf16 = rows;
  }
  Matrix<float> f32;
  std::vector<std::byte> bytes;
  RowsView bf16;
};

using Values = std::vector<std::vector<float>>;

TEST(GatheredRows, AreAllRowsOfAViewOrThoseThatAnIndexNames) {
  const StoredRows stored;
  EXPECT_EQ(values_of(stored.f32), Values({{0, 1}, {2, 3}, {4, 5}}));
  EXPECT_EQ(values_of(stored.bf16), Values({{10, 11}, {12, 13}}));
  const std::vector<std::int32_t> index{2, 4, 0, 3, 4};
  const GatheredRows rows(f32_rows(stored.f32), index, stored.bf16);
  EXPECT_NO_THROW(rows.check());
  EXPECT_EQ(values_of(rows), Values({{4, 5}, {12, 13}, {0, 1}, {10, 11}, {12, 13}}));
  EXPECT_EQ(values_of(rows.rows(1, 3)), Values({{12, 13}, {0, 1}}));
  EXPECT_EQ(values_of(GatheredRows(stored.f32).rows(1, 3)), Values({{2, 3}, {4, 5}}));
  EXPECT_EQ(values_of(rows.rows(5, 5)), Values());
  EXPECT_EQ(rows.row(1).type, ElementType::kBf16);
  EXPECT_EQ(rows.row(2).type, ElementType::kF32);
}

TEST(GatheredRows, AreTheSameIfMemoryAndOrderAre) {
  const StoredRows stored, other;
  const std::vector<std::int32_t> index{2, 0}, equal = index;
  const GatheredRows rows(f32_rows(stored.f32), index, stored.bf16);
  EXPECT_TRUE(rows.is_same_as(GatheredRows(f32_rows(stored.f32), index, stored.bf16)));
  EXPECT_FALSE(rows.is_same_as(GatheredRows(f32_rows(stored.f32), equal, stored.bf16)));
  EXPECT_FALSE(rows.is_same_as(GatheredRows(f32_rows(other.f32), index, stored.bf16)));
  EXPECT_FALSE(rows.is_same_as(GatheredRows(f32_rows(stored.f32), index, other.bf16)));
  EXPECT_FALSE(rows.is_same_as(rows.rows(0, 1)));
  EXPECT_FALSE(rows.is_same_as(stored.f32));
  EXPECT_TRUE(GatheredRows(stored.f32).is_same_as(stored.f32));
}

TEST(GatheredRows, RefuseAnIndexThatNamesNoRowAndRowsOfOtherLengths) {
  const StoredRows stored;
  const auto error = [&](const std::vector<std::int32_t>& index) {
    return error_of([&] { GatheredRows(f32_rows(stored.f32), index, stored.bf16).check(); });
  };
  EXPECT_EQ(error({0, 4, 5}), "a row index names row 5, but x has 5 rows");
  EXPECT_EQ(error({0, -1}), "a row index names row -1, but x has 5 rows");
  const Matrix<float> wide(1, 3);
  EXPECT_EQ(error_of([&] { GatheredRows(f32_rows(stored.f32), {}, f32_rows(wide)); }),
            "rows of 2 and of 3 values cannot be gathered together");
}

}  // namespace
}  // namespace c2r
