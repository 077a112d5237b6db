// Tests of matrices as JSON.
#include "c2r/io/matrix_json.h"

#include <gtest/gtest.h>

#include "c2r/core/ids.h"

namespace c2r {
namespace {

TEST(MatrixToJson, WritesRowsOfNumbersAndOfIds) {
  Matrix<double> shares(2, 1);
  shares(1, 0) = 0.5;
  EXPECT_EQ(json_text(matrix_to_json(shares)), "[[0.0],[0.5]]");
  Matrix<ExpertId> ids(2, 2);
  ids(0, 1) = ExpertId{7};
  ids(1, 0) = kNoExpert;
  EXPECT_EQ(json_text(matrix_to_json(ids)), "[[0,7],[-1,0]]");
  EXPECT_EQ(json_text(matrix_to_json(Matrix<ExpertId>())), "[]");
  const Matrix<ExpertId> layers[] = {ids, Matrix<ExpertId>(1, 1)};
  EXPECT_EQ(json_text(matrices_to_json<ExpertId>(layers)), "[[[0,7],[-1,0]],[[0]]]");
}

}  // namespace
}  // namespace c2r
