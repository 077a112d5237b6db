// Checks conversions of elements and rows, and the bounds of views of rows.
#include "c2r/core/element.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

constexpr ElementType kAllTypes[] = {ElementType::kF32, ElementType::kF16, ElementType::kBf16};

// The rounding that half.h and bf16.h define and their tests check.
float rounded(float value, ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return value;
    case ElementType::kF16:
      return to_float(to_half(value));
    case ElementType::kBf16:
      return to_float(to_bf16(value));
  }
  return 0;
}

void expect_same_bits(float got, float expected) {
  EXPECT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(expected))
      << got << " " << expected;
}

// Every kind of float, drawn: all bit patterns, among them subnormals, infinities and NaN.
std::vector<float> random_floats(std::size_t count, std::mt19937& rng) {
  std::vector<float> values(count);
  for (float& v : values) v = std::bit_cast<float>(static_cast<std::uint32_t>(rng()));
  if (count > 3) values[0] = INFINITY, values[1] = -0.0F, values[2] = 1e-41F, values[3] = 65520;
  return values;
}

TEST(ElementType, HasANameAndASize) {
  EXPECT_EQ(name_of(ElementType::kF32), "f32");
  EXPECT_EQ(name_of(ElementType::kF16), "f16");
  EXPECT_EQ(name_of(ElementType::kBf16), "bf16");
  EXPECT_EQ(element_bytes(ElementType::kF32), 4);
  EXPECT_EQ(element_bytes(ElementType::kF16), 2);
  EXPECT_EQ(element_bytes(ElementType::kBf16), 2);
}

// 1.00390625 = 1 + 2^-8 lies between two bf16, 1 and 1 + 2^-7, and the even one is 1.
TEST(ElementType, ConvertsAWorkedExample) {
  const std::vector<float> values = {1.00390625F, -2.5F, 65520};
  std::vector<float> back(3);
  std::vector<std::byte> bytes(3 * 2);
  from_f32(values, ElementType::kBf16, bytes.data());
  to_f32(bytes.data(), ElementType::kBf16, back);
  EXPECT_EQ(back, std::vector<float>({1, -2.5F, 65536}));
  from_f32(values, ElementType::kF16, bytes.data());
  to_f32(bytes.data(), ElementType::kF16, back);
  EXPECT_EQ(back, std::vector<float>({1.00390625F, -2.5F, INFINITY}));
}

// Sizes and addresses of all kinds, because the loops use vectors.
TEST(ElementType, RowsAreConvertedAndAddedAsTheirElements) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 rng(seed);
    const ElementType type = kAllTypes[seed % 3];
    const std::vector<float> values = random_floats(rng() % 70, rng);
    const std::size_t shift = rng() % 5;  // of the row's first byte
    std::vector<std::byte> bytes(shift + values.size() * 4 + 1, std::byte{0x5a});
    std::byte* const row = bytes.data() + shift;
    from_f32(values, type, row);
    const std::size_t used = values.size() * static_cast<std::size_t>(element_bytes(type));
    EXPECT_EQ(row[used], std::byte{0x5a});

    std::vector<float> back(values.size());
    to_f32(row, type, back);
    std::vector<float> sum(values.size(), 0.3F);
    add_weighted(row, type, -1.7F, sum);
    for (std::size_t i = 0; i < values.size(); ++i) {
      SCOPED_TRACE(i);
      const float expected = rounded(values[i], type);
      expect_same_bits(back[i], expected);
      expect_same_bits(load_element(row, type, static_cast<std::int64_t>(i)), expected);
      const float product = -1.7F * expected;
      if (!std::isnan(product)) expect_same_bits(sum[i], 0.3F + product);
    }
  }
}

TEST(ElementType, AnElementIsStoredWithoutItsNeighbours) {
  for (const ElementType type : kAllTypes) {
    std::vector<std::byte> bytes(1 + 3 * static_cast<std::size_t>(element_bytes(type)));
    for (std::int64_t i : {2, 0, 1}) {
      store_element(bytes.data() + 1, type, i, static_cast<float>(i) + 0.5F);
    }
    for (std::int64_t i : {0, 1, 2}) {
      EXPECT_EQ(load_element(bytes.data() + 1, type, i), static_cast<float>(i) + 0.5F);
    }
    EXPECT_EQ(bytes[0], std::byte{0});
  }
}

TEST(RowsView, ReadsAndWritesRowsThatLieApart) {
  std::vector<std::byte> bytes(3 * 4 * 2);
  const MutableRowsView rows(bytes.data(), ElementType::kBf16, 3, 2, 4);
  rows.write_row(1, std::vector<float>{1, 2});
  rows.write_row(2, std::vector<float>{3, 4});
  EXPECT_EQ(load_element(bytes.data(), ElementType::kBf16, 4), 1);
  EXPECT_EQ(load_element(bytes.data(), ElementType::kBf16, 6), 0);
  EXPECT_EQ(load_element(bytes.data(), ElementType::kBf16, 9), 4);

  const RowsView view = rows.rows(1, 3);
  EXPECT_EQ(view.rows(), 2);
  EXPECT_EQ(view.stride(), 4);
  EXPECT_EQ(view.num_bytes(), 8);
  std::vector<float> row(2);
  view.read_row(1, row);
  EXPECT_EQ(row, std::vector<float>({3, 4}));
  view.add_row_to(0, 10, row);
  EXPECT_EQ(row, std::vector<float>({13, 24}));
}

TEST(RowsView, ARowOutOfRangeOrOfAnotherLengthIsRefused) {
  std::vector<std::byte> bytes(24);
  const std::span<std::byte> all = bytes;
  const MutableRowsView rows(all, ElementType::kBf16, 3, 4);
  std::vector<float> four(4), five(5);
  EXPECT_EQ(error_of([&] {
              for (const std::int64_t r : {0, 2, 3}) rows.read_row(r, four);
            }),
            "row 3 of 4 values was asked for, but there are rows [3, 4]");
  EXPECT_EQ(error_of([&] { rows.add_row_to(-1, 1, four); }),
            "row -1 of 4 values was asked for, but there are rows [3, 4]");
  EXPECT_EQ(error_of([&] { rows.write_row(1, five); }),
            "row 1 of 5 values was asked for, but there are rows [3, 4]");
}

TEST(RowsView, MustFillItsBytes) {
  std::vector<std::byte> bytes(24);
  const std::span<const std::byte> all = bytes;
  EXPECT_EQ(RowsView(all, ElementType::kF32, 2, 3).bytes().size(), 24U);
  EXPECT_EQ(RowsView(all, ElementType::kF16, 4, 3).row(3), bytes.data() + 18);
  EXPECT_EQ(RowsView(all.first(0), ElementType::kF32, 0, 3).rows(), 0);
  const auto refused = [&](std::int64_t rows, std::int64_t cols) {
    return error_of([&] { RowsView(all, ElementType::kF32, rows, cols); });
  };
  EXPECT_EQ(refused(2, 4), "rows [2, 4] of f32 do not fill 24 bytes");
  EXPECT_EQ(refused(1, 3), "rows [1, 3] of f32 do not fill 24 bytes");
  EXPECT_EQ(refused(-2, -3), "rows [-2, -3] of f32 do not fill 24 bytes");
  EXPECT_EQ(refused(std::int64_t{1} << 40, std::int64_t{1} << 40),
            "rows [1099511627776, 1099511627776] of f32 do not fill 24 bytes");
}

}  // namespace
}  // namespace c2r
