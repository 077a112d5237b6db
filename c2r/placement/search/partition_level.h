// The copies of a partition of experts into groups (ranks or nodes), kept exact under swaps.
//
// Copies at a level = sum over tokens of the distinct groups of its experts: the connectivity
// metric of hypergraph partitioning. Two tables give the effect of each of the O(E^2) swaps in
// O(1):
//   alone(e, g)      tokens of e whose other experts are all outside group g
//   alone_with(a, b) tokens of a and b in which a is the only expert of its own group
// Moving a from its group A to B changes the copies by alone(a, B) - alone(a, A). If b moves from B
// to A at the same time, alone(a, B) misses the tokens of both in which b was the only expert of B,
// which b now leaves. So exchanging a and b changes the copies by
//   delta(a, b) = alone(a, B) - alone(a, A) + alone_with(b, a)
//               + alone(b, A) - alone(b, B) + alone_with(a, b)
// On pair counts p, with to(e, g) the sum of p(e, x) over the experts x of group g, it is
//   delta(a, b) = to(a, A) - to(a, B) + to(b, B) - to(b, A) + 2 p(a, b)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Exact copies. Items are the experts of `index`, then redundant slots, which no token
/// chooses.
class PartitionLevel {
 public:
  /// @param group_of [num_items >= index.num_experts()]; `index` must outlive this object
  PartitionLevel(const SetIndex& index, std::span<const std::int32_t> group_of,
                 std::int32_t num_groups);

  std::int64_t cost() const { return copies_; }
  std::int32_t group_of(std::int32_t item) const { return at(group_of_, item); }

  /// @returns the change of cost() if two items of different groups change places
  std::int64_t swap_delta(std::int32_t a, std::int32_t b) const {
    return move_delta(a, group_of(b)) + move_delta(b, group_of(a)) + together_delta(a, b);
  }
  /// @returns the change of cost() if `item` alone moves to another group
  std::int64_t move_delta(std::int32_t item, std::int32_t to) const {
    return alone_(item, to) - alone_(item, group_of(item));
  }
  /// @returns what swap_delta() is more than both moves
  std::int64_t together_delta(std::int32_t a, std::int32_t b) const {
    return alone_with_(a, b) + alone_with_(b, a);
  }
  /// Cost: O(top_k) for each set of the two.
  void swap(std::int32_t a, std::int32_t b);
  /// @returns the sets that a swap visits, for effort counting
  std::int64_t swap_work(std::int32_t a, std::int32_t b) const;

 private:
  void move(std::int32_t item, std::int32_t to);
  void add_set(std::int64_t set);

  const SetIndex* index_;
  std::vector<std::int32_t> group_of_;
  std::int64_t copies_ = 0;
  Matrix<std::int64_t> alone_;       // [num_items, num_groups]
  Matrix<std::int64_t> alone_with_;  // [num_items, num_items]
  // Scratch of add_set(): the groups of a set, and how many of its experts are in each, else 0.
  std::vector<std::int32_t> visited_, num_inside_;  // [<= top_k], [num_groups]
};

/// The pair surrogate: minus the collaboration inside groups. It overrates groups that serve three
/// or more of a token's experts, but a swap costs O(num_items) whatever the number of tokens.
class PairLevel {
 public:
  /// @param pairs [num_items, num_items], symmetric with a zero diagonal; must outlive this object
  PairLevel(const Matrix<std::int64_t>& pairs, std::span<const std::int32_t> group_of,
            std::int32_t num_groups);

  std::int64_t cost() const { return -inside_; }
  std::int32_t group_of(std::int32_t item) const { return at(group_of_, item); }
  std::int64_t swap_delta(std::int32_t a, std::int32_t b) const {
    const std::int64_t group_a = group_of(a), group_b = group_of(b);
    return to_group_(a, group_a) - to_group_(a, group_b) +  //
           to_group_(b, group_b) - to_group_(b, group_a) + 2 * (*pairs_)(a, b);
  }
  void swap(std::int32_t a, std::int32_t b);
  std::int64_t swap_work(std::int32_t, std::int32_t) const { return pairs_->rows() / 8; }

 private:
  const Matrix<std::int64_t>* pairs_;
  std::vector<std::int32_t> group_of_;
  std::int64_t inside_ = 0;
  Matrix<std::int64_t> to_group_;  // [num_items, num_groups], pairs with the experts of a group
};

/// @returns the pair counts of `index`, with rows and columns of 0 up to `num_items`; diagonal 0
Matrix<std::int64_t> pair_counts(const SetIndex& index, std::int32_t num_items);

}  // namespace c2r
