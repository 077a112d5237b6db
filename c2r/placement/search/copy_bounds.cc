// Lower bounds on copies and imbalance, each with its proof.
#include "c2r/placement/search/copy_bounds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/search/partition_level.h"

namespace c2r {

CopyBounds::CopyBounds(const SetIndex& index) : index_(&index) {
  const auto pairs = pair_counts(index, index.num_experts());
  for (std::int32_t e = 0; e < index.num_experts(); ++e) {
    std::vector<std::int64_t> row(pairs.row(e).begin(), pairs.row(e).end());
    std::ranges::sort(row, std::greater());
    largest_.push_back(std::move(row));
  }
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    max_size_ = std::max(max_size_, std::ssize(index.experts(set)));
  }
}

double CopyBounds::copies(std::int32_t num_groups, std::int32_t slots_per_group) const {
  const std::int64_t num_replica_slots =
      std::int64_t{num_groups} * slots_per_group - index_->num_experts();
  // Copies are whole; the sums of by_companions() may be off by rounding.
  return std::max(by_slots(slots_per_group),
                  std::ceil(by_companions(num_replica_slots, slots_per_group) - 1e-6));
}

// A group serves at most slots_per_group of a token's experts.
double CopyBounds::by_slots(std::int32_t slots_per_group) const {
  std::int64_t copies = 0;
  for (std::int64_t set = 0; set < index_->num_sets(); ++set) {
    const std::int64_t size = std::ssize(index_->experts(set));
    copies += index_->weight(set) * ((size + slots_per_group - 1) / slots_per_group);
  }
  return static_cast<double>(copies);
}

// Let expert e of token t be served in a group that serves 1 + x of t's experts. Summed over the
// experts, copies(t) = sum 1 / (1 + x), and what is saved against one copy a choice is the sum of
// saved(x) = x / (1 + x). This is concave, so for integers x >= 0 and any j it lies on or below the
// line through j and j + 1:
//   saved(x) <= j / (j + 1) + (x - j) / ((j + 1)(j + 2)).
// x is at most the number of t's other experts among the companions of e: the experts in the other
// slots of e's groups. With m replicas these are at most n = m (s - 1) experts, so that
//   saved(e) <= min over j of [offset(j) * load(e) + slope(j) * (the n largest pair counts of e)].
// The right side grows with n, in ever smaller steps, for each j; their minimum over j is concave
// in n too. The R s - E slots for replicas are therefore given out best by taking the largest
// steps first, one replica being a step of s - 1 companions.
double CopyBounds::by_companions(std::int64_t num_replica_slots,
                                 std::int32_t slots_per_group) const {
  double saved = 0;
  std::vector<double> steps;
  for (std::int32_t e = 0; e < index_->num_experts(); ++e) {
    double before = most_saved(e, 1, slots_per_group);
    saved += before;
    for (std::int64_t m = 2; m <= num_replica_slots + 1; ++m) {
      const double now = most_saved(e, m, slots_per_group);
      if (now <= before) break;
      steps.push_back(now - before);
      before = now;
    }
  }
  std::ranges::sort(steps, std::greater());
  const auto count = std::min<std::size_t>(steps.size(), std::size_t(num_replica_slots));
  for (std::size_t i = 0; i < count; ++i) saved += steps[i];
  return static_cast<double>(index_->num_choices()) - saved;
}

// saved(e) with m replicas.
double CopyBounds::most_saved(std::int32_t e, std::int64_t num_replicas,
                              std::int32_t slots_per_group) const {
  const auto& row = at(largest_, e);
  const std::int64_t companions = slots_per_group - 1;
  const auto count = std::min<std::int64_t>(num_replicas * companions, std::ssize(row));
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < count; ++i) pairs += at(row, i);
  // x is also below the group's slots and the token's size.
  const auto largest_x = std::min<std::int64_t>(companions, max_size_ - 1);
  const auto largest = static_cast<double>(largest_x);
  const auto load = static_cast<double>(index_->load(e));
  double saved = largest / (1 + largest) * load;
  for (std::int64_t x = 0; x < largest_x; ++x) {
    const auto j = static_cast<double>(x);
    const double slope = 1 / ((j + 1) * (j + 2)), offset = j / (j + 1) - j * slope;
    saved = std::min(saved, offset * load + slope * static_cast<double>(pairs));
  }
  return saved;
}

// Of the g x R + 1 largest loads, some group has g + 1, at least the smallest of these. And the
// largest load has the s - 1 smallest beside it at least.
double imbalance_bound(const SetIndex& index, std::int32_t num_groups,
                       std::int32_t slots_per_group) {
  const auto num_experts = index.num_experts();
  if (num_groups * slots_per_group > num_experts || index.num_choices() == 0) return 1;
  std::vector<std::int64_t> loads(static_cast<std::size_t>(num_experts));
  for (std::int32_t e = 0; e < num_experts; ++e) at(loads, e) = index.load(e);
  std::ranges::sort(loads, std::greater());
  std::int64_t least =
      std::accumulate(loads.end() - (slots_per_group - 1), loads.end(), loads.front());
  for (std::int32_t size = 2; size <= slots_per_group; ++size) {
    const auto end = loads.begin() + std::ptrdiff_t{size - 1} * num_groups + 1;
    least = std::max(least, std::accumulate(end - size, end, std::int64_t{0}));
  }
  const double mean = static_cast<double>(index.num_choices()) / num_groups;
  return std::max(1.0, static_cast<double>(least) / mean);
}

}  // namespace c2r
