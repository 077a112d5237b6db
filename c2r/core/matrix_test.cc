// Checks the layout and the shapes of matrices and their views.
#include "c2r/core/matrix.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(Matrix, RowsFollowEachOther) {
  Matrix<int> m(2, 3, 7);
  m(1, 2) = 9;
  EXPECT_EQ(m.all()[5], 9);
  EXPECT_EQ(m.row(1)[2], 9);
  EXPECT_EQ(MatrixView<const int>(m).rows(1, 2)(0, 2), 9);
}

TEST(Matrix, AShapeThatCannotBeIsRefused) {
  EXPECT_EQ(error_of([] { Matrix<int>(3, -1); }), "a matrix cannot have the shape [3, -1]");
  EXPECT_EQ(error_of([] { Matrix<int>(-2, -3); }), "a matrix cannot have the shape [-2, -3]");
  Matrix<int> m(1, 2);
  EXPECT_EQ(error_of([&] { m.reshape(std::int64_t{1} << 40, std::int64_t{1} << 40); }),
            "a matrix cannot have the shape [1099511627776, 1099511627776]");
  EXPECT_EQ(m.rows(), 1) << "a refused shape changes nothing";
}

}  // namespace
}  // namespace c2r
