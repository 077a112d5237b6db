// Normalised spectral clustering with sizes that are bounded from both sides.
#include "c2r/placement/baselines/spectral.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr int kMaxRounds = 50;

using Points = Eigen::MatrixXd;  // one row for each item or centre

Eigen::VectorXd degrees(MatrixView<const std::int64_t> affinity) {
  Eigen::VectorXd degree = Eigen::VectorXd::Zero(affinity.rows());
  for (std::int64_t a = 0; a < affinity.rows(); ++a) {
    for (std::int64_t b = 0; b < affinity.cols(); ++b) {
      if (a != b) degree(a) += static_cast<double>(affinity(a, b));
    }
  }
  return degree;
}

Points embed(MatrixView<const std::int64_t> affinity, const Eigen::VectorXd& degree,
             std::int64_t num_dimensions) {
  const std::int64_t n = affinity.rows();
  Eigen::MatrixXd normalised = Eigen::MatrixXd::Zero(n, n);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = 0; b < n; ++b) {
      if (a == b || affinity(a, b) == 0) continue;
      normalised(a, b) = static_cast<double>(affinity(a, b)) / std::sqrt(degree(a) * degree(b));
    }
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(normalised);
  C2R_ASSERT(solver.info() == Eigen::Success);
  Points points = solver.eigenvectors().rightCols(num_dimensions);  // eigenvalues ascend
  for (std::int64_t item = 0; item < n; ++item) {
    const double length = points.row(item).norm();
    if (length > 0) points.row(item) /= length;
  }
  return points;
}

Points first_centres(const Points& points, const Eigen::VectorXd& degree, std::int64_t num_groups) {
  Points centres(num_groups, points.cols());
  Eigen::VectorXd distance =
      Eigen::VectorXd::Constant(points.rows(), std::numeric_limits<double>::infinity());
  Eigen::Index next = 0;
  degree.maxCoeff(&next);
  for (std::int64_t group = 0; group < num_groups; ++group) {
    centres.row(group) = points.row(next);
    distance = distance.cwiseMin((points.rowwise() - centres.row(group)).rowwise().squaredNorm());
    distance.maxCoeff(&next);
  }
  return centres;
}

// Nearest pair of item and centre first, as the sizes allow: a group may grow beyond `min` only
// while enough items are left for the groups below it.
std::vector<std::int32_t> assign(const Points& points, const Points& centres,
                                 const GroupSizes& sizes) {
  std::vector<std::tuple<double, std::int32_t, std::int32_t>> pairs;  // distance, item, group
  for (std::int32_t item = 0; item < points.rows(); ++item) {
    for (std::int32_t group = 0; group < sizes.num_groups; ++group) {
      pairs.emplace_back((points.row(item) - centres.row(group)).squaredNorm(), item, group);
    }
  }
  std::ranges::sort(pairs);
  std::vector<std::int32_t> group_of(static_cast<std::size_t>(points.rows()), -1);
  std::vector<std::int32_t> size(static_cast<std::size_t>(sizes.num_groups));
  std::int64_t num_above_min = points.rows() - std::int64_t{sizes.min} * sizes.num_groups;
  // When no item is left for groups above the minimum, pairs that were passed over stay impossible:
  // one pass assigns all.
  for (const auto& [distance, item, group] : pairs) {
    std::int32_t& members = at(size, group);
    if (at(group_of, item) != -1 || members == sizes.max) continue;
    if (members >= sizes.min && num_above_min == 0) continue;
    if (members >= sizes.min) --num_above_min;
    at(group_of, item) = group;
    ++members;
  }
  return group_of;
}

Points means(const Points& points, const std::vector<std::int32_t>& group_of, Points centres) {
  Points sums = Points::Zero(centres.rows(), centres.cols());
  Eigen::VectorXd count = Eigen::VectorXd::Zero(centres.rows());
  for (std::int64_t item = 0; item < points.rows(); ++item) {
    const std::int32_t group = at(group_of, item);
    sums.row(group) += points.row(item);
    count(group) += 1;
  }
  for (std::int64_t group = 0; group < centres.rows(); ++group) {
    if (count(group) > 0) centres.row(group) = sums.row(group) / count(group);
  }
  return centres;
}

void number_by_lowest_item(std::vector<std::int32_t>& group_of, std::int32_t num_groups) {
  std::vector<std::int32_t> renamed(static_cast<std::size_t>(num_groups), -1);
  std::int32_t next = 0;
  for (std::int32_t& group : group_of) {
    std::int32_t& name = at(renamed, group);
    if (name == -1) name = next++;
    group = name;
  }
}

}  // namespace

std::vector<std::int32_t> group_by_affinity(MatrixView<const std::int64_t> affinity,
                                            const GroupSizes& sizes) {
  const std::int64_t n = affinity.rows();
  C2R_REQUIRE(sizes.num_groups >= 1 && 0 <= sizes.min && sizes.min <= sizes.max &&
                  std::int64_t{sizes.min} * sizes.num_groups <= n &&
                  n <= std::int64_t{sizes.max} * sizes.num_groups,
              kInvalidArgument, "{} items do not fit into {} groups of {} to {}", n,
              sizes.num_groups, sizes.min, sizes.max);
  if (n == 0) return {};
  const Eigen::VectorXd degree = degrees(affinity);
  const Points points = embed(affinity, degree, std::min<std::int64_t>(n, sizes.num_groups));
  Points centres = first_centres(points, degree, sizes.num_groups);
  std::vector<std::int32_t> group_of;
  for (int round = 0; round < kMaxRounds; ++round) {
    auto next = assign(points, centres, sizes);
    if (next == group_of) break;
    group_of = std::move(next);
    centres = means(points, group_of, std::move(centres));
  }
  number_by_lowest_item(group_of, sizes.num_groups);
  return group_of;
}

}  // namespace c2r
