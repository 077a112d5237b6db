// Keeps the two tables of partition_level.h exact while items change places.
#include "c2r/placement/search/partition_level.h"

#include <algorithm>

#include "c2r/core/at.h"

namespace c2r {

PartitionLevel::PartitionLevel(const SetIndex& index, std::span<const std::int32_t> group_of,
                               std::int32_t num_groups)
    : index_(&index),
      group_of_(group_of.begin(), group_of.end()),
      alone_(std::ssize(group_of), num_groups),
      alone_with_(std::ssize(group_of), std::ssize(group_of)),
      num_inside_(static_cast<std::size_t>(num_groups)) {
  // A token counts in alone(e, g) for every group but those of its other experts.
  for (std::int32_t e = 0; e < index.num_experts(); ++e) {
    std::ranges::fill(alone_.row(e), index.load(e));
  }
  for (std::int64_t set = 0; set < index.num_sets(); ++set) add_set(set);
}

void PartitionLevel::add_set(std::int64_t set) {
  const auto experts = index_->experts(set);
  const std::int64_t weight = index_->weight(set);
  visited_.clear();
  for (const std::uint16_t e : experts) {
    const std::int32_t group = group_of(e);
    if (at(num_inside_, group)++ == 0) visited_.push_back(group);
  }
  copies_ += std::ssize(visited_) * weight;
  for (const std::uint16_t e : experts) {
    const std::int32_t own = group_of(e);
    const bool is_alone = at(num_inside_, own) == 1;
    const auto alone = alone_.row(e);
    for (const std::int32_t group : visited_) {
      at(alone, group) -= is_alone && group == own ? 0 : weight;
    }
    if (!is_alone) continue;
    const auto alone_with = alone_with_.row(e);
    for (const std::uint16_t other : experts) alone_with[other] += other == e ? 0 : weight;
  }
  for (const std::int32_t group : visited_) at(num_inside_, group) = 0;
}

void PartitionLevel::swap(std::int32_t a, std::int32_t b) {
  const std::int32_t group_a = group_of(a), group_b = group_of(b);
  move(a, group_b);
  move(b, group_a);
}

std::int64_t PartitionLevel::swap_work(std::int32_t a, std::int32_t b) const {
  const auto sets = [&](std::int32_t item) {
    return item < index_->num_experts() ? std::ssize(index_->sets_of(item)) : 0;
  };
  return sets(a) + sets(b);
}

void PartitionLevel::move(std::int32_t item, std::int32_t to) {
  const std::int32_t from = group_of(item);
  at(group_of_, item) = to;
  if (item >= index_->num_experts()) return;
  index_->for_each_set_of(item, [&](std::int32_t set) {
    const auto experts = index_->experts(set);
    const std::int64_t weight = index_->weight(set);
    std::int32_t left = 0, met = 0;              // other experts of the token in from, in to
    std::int32_t last_left = -1, last_met = -1;  // the last of each
    for (const std::uint16_t e : experts) {
      if (e == item) continue;
      if (group_of(e) == from) ++left, last_left = e;
      if (group_of(e) == to) ++met, last_met = e;
    }
    // Adds to alone_with(single, .) for the other experts of the token.
    const auto count_alone = [&](std::int32_t single, std::int64_t change) {
      const auto alone_with = alone_with_.row(single);
      for (const std::uint16_t e : experts) alone_with[e] += e == single ? 0 : change;
    };
    if (left == 0) {
      copies_ -= weight;
      count_alone(item, -weight);
      for (const std::uint16_t e : experts) {
        if (e != item) alone_(e, from) += weight;
      }
    } else if (left == 1) {
      alone_(last_left, from) += weight;
      count_alone(last_left, weight);
    }
    if (met == 0) {
      copies_ += weight;
      count_alone(item, weight);
      for (const std::uint16_t e : experts) {
        if (e != item) alone_(e, to) -= weight;
      }
    } else if (met == 1) {
      alone_(last_met, to) -= weight;
      count_alone(last_met, -weight);
    }
  });
}

PairLevel::PairLevel(const Matrix<std::int64_t>& pairs, std::span<const std::int32_t> group_of,
                     std::int32_t num_groups)
    : pairs_(&pairs),
      group_of_(group_of.begin(), group_of.end()),
      to_group_(pairs.rows(), num_groups) {
  for (std::int64_t a = 0; a < pairs.rows(); ++a) {
    for (std::int64_t b = 0; b < pairs.rows(); ++b) {
      const std::int32_t group = at(group_of_, b);
      to_group_(a, group) += pairs(a, b);
      if (a < b && at(group_of_, a) == group) inside_ += pairs(a, b);
    }
  }
}

void PairLevel::swap(std::int32_t a, std::int32_t b) {
  const std::int32_t group_a = group_of(a), group_b = group_of(b);
  inside_ -= swap_delta(a, b);
  for (std::int64_t item = 0; item < pairs_->rows(); ++item) {
    const std::int64_t change = (*pairs_)(item, b) - (*pairs_)(item, a);
    to_group_(item, group_a) += change;
    to_group_(item, group_b) -= change;
  }
  std::swap(at(group_of_, a), at(group_of_, b));
}

Matrix<std::int64_t> pair_counts(const SetIndex& index, std::int32_t num_items) {
  Matrix<std::int64_t> pairs(num_items, num_items);
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    const auto experts = index.experts(set);
    const std::int64_t weight = index.weight(set);
    for (const std::uint16_t a : experts) {
      const auto pairs_of_a = pairs.row(a);
      for (const std::uint16_t b : experts) pairs_of_a[b] += weight;
    }
  }
  for (std::int64_t a = 0; a < num_items; ++a) pairs(a, a) = 0;
  return pairs;
}

}  // namespace c2r
