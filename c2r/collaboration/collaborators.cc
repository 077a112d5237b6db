#include "c2r/collaboration/collaborators.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {

Matrix<ExpertId> rank_collaborators(const CollaborationMatrix& counts) {
  C2R_REQUIRE(counts.rows() == counts.cols() && counts.rows() >= 1, kInvalidArgument,
              "a collaboration matrix is square, not {}x{}", counts.rows(), counts.cols());
  Matrix<ExpertId> ranked(counts.rows(), counts.rows() - 1);
  for (std::int32_t e = 0; e < counts.rows(); ++e) {
    const auto row = ranked.row(e);
    std::int32_t other = 0;
    for (ExpertId& id : row) id = ExpertId{other == e ? ++other : other}, ++other;
    std::ranges::stable_sort(row, std::ranges::greater{},
                             [&](ExpertId id) { return counts(e, static_cast<std::int64_t>(id)); });
  }
  return ranked;
}

}  // namespace c2r
