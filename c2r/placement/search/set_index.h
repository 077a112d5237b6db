// Token sets laid out for search: compact rows, and the sets of each expert.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

/// Experts are plain integers here: searches number slots, groups and padding in the same way.
class SetIndex {
 public:
  explicit SetIndex(const TokenSets& sets);

  /// Draws tokens in the order of the sets at equal distances, and gives each the weight of the
  /// distance. So the copies of a placement are estimated without bias, and sets with many tokens
  /// are never left out. load(), num_choices() and total_weight() stay those of all sets.
  /// @param num_sets that the sample has at most, in expectation; at least 1
  /// @param seed of the first token that is drawn
  /// @returns the sample, or a copy of all sets if there are no more
  ///
  /// Cost: some 20 passes over the weights, and one over the sample.
  SetIndex sample(std::int64_t num_sets, std::uint64_t seed) const;

  std::int32_t num_experts() const { return num_experts_; }
  std::int64_t num_sets() const { return std::ssize(weights_); }
  std::int64_t total_weight() const { return total_weight_; }            // tokens with a choice
  std::int64_t num_choices() const { return num_choices_; }              // (token, expert) pairs
  std::int64_t num_set_choices() const { return std::ssize(set_ids_); }  // (set, expert) pairs
  std::int64_t weight(std::int64_t set) const { return at(weights_, set); }

  /// @returns the experts of a set, ascending. [<= top_k]
  std::span<const std::uint16_t> experts(std::int64_t set) const {
    return std::span(experts_).subspan(static_cast<std::size_t>(set) * width_, at(sizes_, set));
  }
  /// @returns the sets that hold `expert`, ascending
  std::span<const std::int32_t> sets_of(std::int32_t expert) const {
    const auto e = static_cast<std::size_t>(expert);
    return std::span(set_ids_).subspan(offsets_[e], offsets_[e + 1] - offsets_[e]);
  }
  /// Calls visit(set) for each set that holds `expert`, and prefetches the experts and weights of
  /// the next ones.
  template <class Visit>
  void for_each_set_of(std::int32_t expert, Visit visit) const {
    constexpr std::size_t kAhead = 16;
    const auto sets = sets_of(expert);
    for (std::size_t i = 0; i < sets.size(); ++i) {
      const auto next = static_cast<std::size_t>(sets[std::min(i + kAhead, sets.size() - 1)]);
      __builtin_prefetch(&experts_[next * width_]);
      __builtin_prefetch(&weights_[next]);
      visit(sets[i]);
    }
  }
  /// @returns the (token, expert) choices of an expert
  std::int64_t load(std::int32_t expert) const { return at(loads_, expert); }

  /// Scenarios (TokenSets::multiplicity_in) weigh as if each were all tokens, so that their loads
  /// can be compared; they have the same sum but for rounding. Of one scenario these are load() and
  /// weight().
  std::int32_t num_scenarios() const { return num_scenarios_; }
  /// @returns [num_scenarios]
  std::span<const std::int64_t> scenario_loads(std::int32_t expert) const {
    return row_of(num_scenarios_ == 1 ? loads_ : scenario_loads_, expert);
  }
  /// @returns [num_scenarios]
  std::span<const std::int64_t> scenario_weights(std::int64_t set) const {
    return row_of(num_scenarios_ == 1 ? weights_ : scenario_weights_, set);
  }

 private:
  std::span<const std::int64_t> row_of(const std::vector<std::int64_t>& of,
                                       std::int64_t row) const {
    const auto width = static_cast<std::size_t>(num_scenarios_);
    return std::span(of).subspan(static_cast<std::size_t>(row) * width, width);
  }
  void weigh_scenarios(const TokenSets& sets);
  SetIndex() = default;
  void list_sets_of_experts();

  std::int32_t num_experts_ = 0;
  std::size_t width_ = 0;
  std::int64_t total_weight_ = 0, num_choices_ = 0;
  std::vector<std::uint16_t> experts_;  // [num_sets, width_]
  std::vector<std::uint8_t> sizes_;     // [num_sets]
  std::vector<std::int64_t> weights_;   // [num_sets]
  std::vector<std::size_t> offsets_;    // [num_experts + 1]
  std::vector<std::int32_t> set_ids_;   // sets of expert e at [offsets[e], offsets[e + 1])
  std::vector<std::int64_t> loads_;     // [num_experts]
  std::int32_t num_scenarios_ = 1;
  std::vector<std::int64_t> scenario_weights_;  // [num_sets, num_scenarios], empty for one
  std::vector<std::int64_t> scenario_loads_;    // [num_experts, num_scenarios], empty for one
};

}  // namespace c2r
