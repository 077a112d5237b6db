// Solves the linear assignment problem by shortest augmenting paths with potentials.
#include "c2r/placement/moves/assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Adds one row after another. Row and column 0 are artificial: the path to a new row starts in
// column 0. For every pair, row_potential + column_potential <= cost, with equality where paired.
class Assigner {
 public:
  explicit Assigner(MatrixView<const double> gain)
      : gain_(gain),
        row_potential_(std::size_t(gain.rows()) + 1),
        column_potential_(std::size_t(gain.rows()) + 1),
        row_of_column_(std::size_t(gain.rows()) + 1) {}

  void add_row(std::int64_t row) {
    const auto n = std::size_t(gain_.rows());
    std::vector<double> distance(n + 1, kInfinite);
    std::vector<std::size_t> before(n + 1);  // the column before each on its shortest path
    std::vector<bool> is_done(n + 1);
    row_of_column_[0] = row + 1;
    std::size_t column = 0;
    do {
      is_done[column] = true;
      column = extend(column, distance, before, is_done);
    } while (row_of_column_[column] != 0);
    for (; column != 0; column = before[column]) {
      row_of_column_[column] = row_of_column_[before[column]];
    }
  }

  std::vector<std::int32_t> columns() const {
    std::vector<std::int32_t> column_of(row_of_column_.size() - 1);
    for (std::size_t column = 1; column < row_of_column_.size(); ++column) {
      at(column_of, row_of_column_[column] - 1) = static_cast<std::int32_t>(column) - 1;
    }
    return column_of;
  }

 private:
  // Relaxes the columns that the row in `from` leads to, and shifts the potentials so that the
  // nearest column is reached at no cost.
  // @returns the nearest column
  std::size_t extend(std::size_t from, std::vector<double>& distance,
                     std::vector<std::size_t>& before, const std::vector<bool>& is_done) {
    const std::int64_t row = row_of_column_[from];
    std::size_t nearest = 0;
    double least = kInfinite;
    for (std::size_t column = 1; column < distance.size(); ++column) {
      if (is_done[column]) continue;
      const double reduced = -gain_(row - 1, std::int64_t(column) - 1) - at(row_potential_, row) -
                             column_potential_[column];
      if (reduced < distance[column]) distance[column] = reduced, before[column] = from;
      if (distance[column] < least) least = distance[column], nearest = column;
    }
    for (std::size_t column = 0; column < distance.size(); ++column) {
      if (is_done[column]) {
        at(row_potential_, row_of_column_[column]) += least;
        column_potential_[column] -= least;
      } else {
        distance[column] -= least;
      }
    }
    return nearest;
  }

  MatrixView<const double> gain_;
  std::vector<double> row_potential_, column_potential_;  // [n + 1]
  std::vector<std::int64_t> row_of_column_;               // [n + 1], 0 = none
};

}  // namespace

std::vector<std::int32_t> best_assignment(MatrixView<const double> gain) {
  C2R_REQUIRE(gain.rows() == gain.cols(), kInvalidArgument,
              "an assignment needs as many rows as columns, not {} and {}", gain.rows(),
              gain.cols());
  for (std::int64_t row = 0; row < gain.rows(); ++row) {
    for (const double value : gain.row(row)) {
      C2R_REQUIRE(std::isfinite(value), kInvalidArgument,
                  "the gain {} of row {} cannot be assigned: gains are finite", value, row);
    }
  }
  Assigner assigner(gain);
  for (std::int64_t row = 0; row < gain.rows(); ++row) assigner.add_row(row);
  return assigner.columns();
}

}  // namespace c2r
