// Average-linkage hierarchical clustering of the experts of a layer, and the order of its leaves.
//
// 1. Every expert is a cluster. The similarity of two experts is C[a][b] / sqrt(C[a][a] C[b][b]).
// 2. The two most similar clusters are joined until one is left. The similarity of a joined cluster
//    to another is the mean of its two parts', weighted by their sizes.
// 3. When clusters a and b are joined, each is reversed or not, so that the last expert of a and
//    the first of b are as similar as possible.
#include "c2r/collaboration/ordering.h"

#include <algorithm>
#include <cmath>

#include "c2r/collaboration/checks_internal.h"

namespace c2r {
namespace {

Matrix<double> cosine_similarity(const CollaborationMatrix& counts) {
  Matrix<double> similarity(counts.rows(), counts.cols());
  for (std::int64_t a = 0; a < counts.rows(); ++a) {
    for (std::int64_t b = 0; b < counts.cols(); ++b) {
      const double loads = static_cast<double>(counts(a, a)) * static_cast<double>(counts(b, b));
      similarity(a, b) = loads > 0 ? static_cast<double>(counts(a, b)) / std::sqrt(loads) : 0;
    }
  }
  return similarity;
}

// The clusters that are left, in the order of their lowest expert, with the mean similarity of
// each pair. Joining keeps the first of the two and removes the second.
class Clusters {
 public:
  explicit Clusters(const CollaborationMatrix& counts)
      : experts_(cosine_similarity(counts)), linkage_(experts_) {
    for (std::int64_t e = 0; e < counts.rows(); ++e) {
      leaves_.push_back({ExpertId{static_cast<std::int32_t>(e)}});
      alive_.push_back(e);
    }
  }

  bool is_joined() const { return alive_.size() <= 1; }
  std::vector<ExpertId> take() { return leaves_.empty() ? std::vector<ExpertId>{} : leaves_[0]; }

  void join_most_similar() {
    std::int64_t first = alive_[0], second = alive_[1];
    for (std::size_t i = 0; i < alive_.size(); ++i) {
      for (std::size_t j = i + 1; j < alive_.size(); ++j) {
        if (linkage_(alive_[i], alive_[j]) > linkage_(first, second)) {
          first = alive_[i], second = alive_[j];
        }
      }
    }
    join(first, second);
  }

 private:
  std::vector<ExpertId>& leaves(std::int64_t cluster) {
    return leaves_[static_cast<std::size_t>(cluster)];
  }

  void join(std::int64_t first, std::int64_t second) {
    auto &a = leaves(first), &b = leaves(second);
    const auto size_a = static_cast<double>(a.size()), size_b = static_cast<double>(b.size());
    for (const std::int64_t other : alive_) {
      const double mean =
          (linkage_(first, other) * size_a + linkage_(second, other) * size_b) / (size_a + size_b);
      linkage_(first, other) = linkage_(other, first) = mean;
    }
    turn_to_meet(a, b);
    a.insert(a.end(), b.begin(), b.end());
    b.clear();
    std::erase(alive_, second);
  }

  double similarity(ExpertId a, ExpertId b) const {
    return experts_(static_cast<std::int64_t>(a), static_cast<std::int64_t>(b));
  }

  void turn_to_meet(std::vector<ExpertId>& a, std::vector<ExpertId>& b) const {
    const double as_they_are = similarity(a.back(), b.front());
    const double turn_b = similarity(a.back(), b.back());
    const double turn_a = similarity(a.front(), b.front());
    const double turn_both = similarity(a.front(), b.back());
    const double best = std::max({as_they_are, turn_b, turn_a, turn_both});
    if (as_they_are == best) return;
    if (turn_b != best) std::ranges::reverse(a);
    if (turn_b == best || (turn_a != best && turn_both == best)) std::ranges::reverse(b);
  }

  Matrix<double> experts_;                     // [num_experts, num_experts]
  Matrix<double> linkage_;                     // the same, between clusters
  std::vector<std::vector<ExpertId>> leaves_;  // [num_experts]; empty once joined to another
  std::vector<std::int64_t> alive_;            // ascending
};

}  // namespace

std::vector<ExpertId> order_by_collaboration(const CollaborationMatrix& counts) {
  check_is_square(counts);
  Clusters clusters(counts);
  while (!clusters.is_joined()) clusters.join_most_similar();
  return clusters.take();
}

}  // namespace c2r
