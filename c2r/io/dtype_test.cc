// Checks the table of dtypes.
#include "c2r/io/dtype.h"

#include <gtest/gtest.h>

#include <span>
#include <vector>

namespace c2r {
namespace {

constexpr Dtype kAllDtypes[] = {Dtype::kBool, Dtype::kU8,   Dtype::kI8,  Dtype::kU16, Dtype::kI16,
                                Dtype::kF16,  Dtype::kBf16, Dtype::kU32, Dtype::kI32, Dtype::kF32,
                                Dtype::kU64,  Dtype::kI64,  Dtype::kF64};

TEST(Dtype, ANameParsesBack) {
  for (const Dtype dtype : kAllDtypes) EXPECT_EQ(dtype_of_name(dtype_name(dtype)), dtype);
  EXPECT_EQ(dtype_of_name("F8"), std::nullopt);
}

TEST(Dtype, FloatsOfUpTo32BitsAreElementTypes) {
  EXPECT_EQ(element_type_of(Dtype::kF16), ElementType::kF16);
  EXPECT_EQ(element_type_of(Dtype::kBf16), ElementType::kBf16);
  EXPECT_EQ(element_type_of(Dtype::kF32), ElementType::kF32);
  int num_floats = 0;
  for (const Dtype dtype : kAllDtypes) {
    const auto element = element_type_of(dtype);
    if (!element) continue;
    ++num_floats;
    EXPECT_EQ(element_bytes(*element), dtype_bytes(dtype));
  }
  EXPECT_EQ(num_floats, 3);
}

TEST(ShapeText, ShowsTheFirstOfManyExtents) {
  const std::vector<std::int64_t> shape(3'000'000, 1);
  EXPECT_EQ(shape_text(shape), "[1, 1, 1, 1, 1, 1, 1, 1, ... 3000000 extents]");
  EXPECT_EQ(shape_text(std::span(shape).first(8)), "[1, 1, 1, 1, 1, 1, 1, 1]");
}

}  // namespace
}  // namespace c2r
