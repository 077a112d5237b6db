// Set partitioning over columns: lists them, prices experts, then branches over what is left.
//
// Outline of search_columns():
//   1. ColumnLister lists every column within max_load with its copies.
//   2. Prices improves a lower bound by subgradient steps on the price of each expert, and drops
//      columns that no better placement can hold.
//   3. ColumnBranch searches the remaining columns depth first and proves the optimum, or gives up
//      after max_steps.
#include "c2r/placement/search/column_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

using ExpertSet = std::uint64_t;

struct Column {
  ExpertSet experts = 0;
  double copies = 0;
};

template <class Visit>
void for_each_expert(ExpertSet experts, const Visit& visit) {
  for (; experts != 0; experts &= experts - 1) visit(std::size_t(std::countr_zero(experts)));
}

// Lists the columns in lexicographic order, carrying along the sets that none of the experts chosen
// so far is in. Of these only the experts that may still be chosen matter, so sets that differ in
// others alone are merged: deep down, where most of the work is, a few dozen are left of thousands.
class ColumnLister {
 public:
  ColumnLister(const ColumnProblem& problem, const SearchLimits& limits)
      : problem_(problem),
        limits_(limits),
        size_(problem.index->num_experts() / problem.ep_size),
        rest_(std::size_t(size_)) {
    const SetIndex& index = *problem.index;
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      ExpertSet experts = 0;
      for (const std::uint16_t e : index.experts(set)) experts |= ExpertSet{1} << e;
      rest_[0].push_back({experts, static_cast<double>(index.weight(set))});
    }
    std::ranges::sort(rest_[0], {}, &Column::experts);
  }

  // None if a limit ended it: some columns alone bound nothing.
  std::optional<std::vector<Column>> run() {
    extend(0, 0, 0, 0, 0);
    if (is_cut_short_) return {};
    return std::move(columns_);
  }

 private:
  // rest_[num_chosen] holds the sets that no chosen expert is in, reduced to experts from `from` on
  // and ascending, which clearing low bits keeps them.
  void extend(std::int32_t from, std::int32_t num_chosen, ExpertSet chosen, double copies,
              std::int64_t load) {
    if (num_extended_++ % 256 == 0) is_cut_short_ |= limits_.reached();
    if (is_cut_short_) return;
    std::vector<Column>& unvisited = at(rest_, num_chosen);
    if (num_chosen + 1 == size_) return add_columns(from, chosen, copies, load, unvisited);
    const std::int32_t last = problem_.index->num_experts() - (size_ - num_chosen);
    std::vector<Column>& without = rest_[std::size_t(num_chosen) + 1];
    std::vector<Column> later;
    for (std::int32_t e = from; e <= last; ++e) {
      const ExpertSet expert = ExpertSet{1} << e;
      double visits = 0;
      without.clear(), later.clear();
      for (const Column& set : unvisited) {
        const Column reduced{set.experts & ~(expert | (expert - 1)), set.copies};
        append(reduced, later);
        if ((set.experts & expert) != 0) {
          visits += set.copies;
        } else {
          append(reduced, without);
        }
      }
      extend(e + 1, num_chosen + 1, chosen | expert, copies + visits,
             load + problem_.index->load(e));
      unvisited.swap(later);
    }
  }

  static void append(const Column& set, std::vector<Column>& sets) {
    if (set.experts == 0) return;
    if (!sets.empty() && sets.back().experts == set.experts) {
      sets.back().copies += set.copies;
    } else {
      sets.push_back(set);
    }
  }

  // All that one more expert completes.
  void add_columns(std::int32_t from, ExpertSet chosen, double copies, std::int64_t load,
                   const std::vector<Column>& unvisited) {
    std::array<double, 64> visits{};
    for (const Column& set : unvisited) {
      for_each_expert(set.experts, [&](std::size_t e) { visits[e] += set.copies; });
    }
    for (std::int32_t e = from; e < problem_.index->num_experts(); ++e) {
      if (static_cast<double>(load + problem_.index->load(e)) > problem_.max_load) continue;
      columns_.push_back({chosen | ExpertSet{1} << e, copies + at(visits, e)});
    }
  }

  const ColumnProblem& problem_;
  const SearchLimits& limits_;
  std::int64_t num_extended_ = 0;
  bool is_cut_short_ = false;
  std::int32_t size_ = 0;
  std::vector<std::vector<Column>> rest_;  // [size_], token sets and their weights
  std::vector<Column> columns_;
};

// Prices u[e] for covering each expert. The columns of a placement cover every expert once, so that
// with r(c) = copies(c) - sum of u over c, and s experts in a column,
//   copies of the placement = sum of u + sum of r(c) over its columns
//                           = sum over experts e of (u[e] + r(the column of e) / s)
//                           >= sum over experts e of (u[e] + least[e] / s),
// least[e] being the least r of a column with e. The prices maximize this by subgradient steps.
class Prices {
 public:
  Prices(std::vector<Column> columns, std::int32_t num_experts, std::int32_t slots_per_rank,
         double known_copies)
      : columns_(std::move(columns)),
        slots_per_rank_(slots_per_rank),
        known_(known_copies),
        price_(std::size_t(num_experts), known_copies / num_experts),
        best_share_(price_.size()) {}

  // An expert's part of the bound.
  std::span<const double> shares() const { return best_share_; }
  double bound() const { return best_; }
  const std::vector<Column>& columns() const { return columns_; }

  void improve(const SearchLimits& limits) {
    constexpr int kSteps = 600, kMaxStepsWithoutGain = 12, kStepsToDrop = 5;
    double scale = 1;
    int since_better = 0;
    for (int step = 0; step < kSteps && scale > 1e-3 && !limits.reached(); ++step) {
      const double bound = evaluate();
      if (bound > best_ + 1e-6 * known_ || step == 0) since_better = 0;
      if (bound > best_ || step == 0) {
        best_ = bound;
        best_price_ = price_;
        for (std::size_t e = 0; e < price_.size(); ++e) {
          best_share_[e] = price_[e] + least_[e] / slots_per_rank_;
        }
      }
      if (best_ > known_ - 1) return;
      if (step % kStepsToDrop == kStepsToDrop - 1) drop_columns();
      if (++since_better > kMaxStepsWithoutGain)
        scale /= 2, since_better = 0, price_ = best_price_, evaluate();
      move(scale);
    }
  }

 private:
  double evaluate() {
    least_.assign(price_.size(), std::numeric_limits<double>::infinity());
    cheapest_.assign(price_.size(), 0);
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      double reduced = columns_[c].copies;
      for_each_expert(columns_[c].experts, [&](std::size_t e) { reduced -= price_[e]; });
      for_each_expert(columns_[c].experts, [&](std::size_t e) {
        if (reduced < least_[e]) least_[e] = reduced, cheapest_[e] = c;
      });
    }
    double bound = 0;
    for (std::size_t e = 0; e < price_.size(); ++e)
      bound += price_[e] + least_[e] / slots_per_rank_;
    return bound;
  }

  // A placement with column c costs at least the bound + copies(c) - the shares of its experts.
  void drop_columns() {
    std::erase_if(columns_, [&](const Column& column) {
      double least = best_ + column.copies;
      for_each_expert(column.experts, [&](std::size_t e) { least -= best_share_[e]; });
      return least > known_ - 0.5 + 1e-9 * known_;
    });
    evaluate();
  }

  // A step along 1 - (how often the cheapest columns hold e) / s, of Polyak's length.
  void move(double scale) {
    std::vector<double> slope(price_.size(), 1);
    for (const std::size_t c : cheapest_) {
      for_each_expert(columns_[c].experts,
                      [&](std::size_t e) { slope[e] -= 1.0 / slots_per_rank_; });
    }
    direction_.resize(price_.size());
    double norm = 0;
    for (std::size_t e = 0; e < price_.size(); ++e) {
      direction_[e] = 0.7 * slope[e] + 0.3 * direction_[e];  // damps zigzags
      norm += direction_[e] * direction_[e];
    }
    if (norm == 0) return;
    const double length = scale * (known_ - best_) / norm;
    for (std::size_t e = 0; e < price_.size(); ++e) price_[e] += length * direction_[e];
  }

  std::vector<Column> columns_;  // those that a better placement may have
  double slots_per_rank_ = 1;
  double known_ = 0;  // copies of a placement
  double best_ = 0;
  std::vector<double> price_, best_price_, least_, best_share_, direction_;  // [num_experts]
  std::vector<std::size_t> cheapest_;  // [num_experts], the column of least_[e]
};

// Depth first over the experts: the first one not covered, in the order of how few columns it has.
class ColumnBranch {
 public:
  ColumnBranch(const ColumnProblem& problem, const SearchLimits& limits, const Prices& prices,
               double bound, double known_copies)
      : limits_(limits),
        bound_(bound),
        best_copies_(known_copies),
        max_steps_(problem.max_steps),
        of_expert_(prices.shares().size()) {
    std::vector<PricedColumn> columns;
    std::vector<std::int64_t> num_columns(of_expert_.size());
    for (const Column& column : prices.columns()) {
      double excess = column.copies;
      for_each_expert(column.experts, [&](std::size_t e) { excess -= prices.shares()[e]; });
      if (bound + excess > best_copies_ - 0.5) continue;
      columns.push_back({column.experts, excess});
      for_each_expert(column.experts, [&](std::size_t e) { ++num_columns[e]; });
    }
    order_.resize(of_expert_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::stable_sort(order_, {}, [&](std::size_t e) { return num_columns[e]; });
    sort_by_first_expert(columns);
  }

  // Whether all placements were looked at or ruled out.
  bool run() {
    branch(0, bound_);
    return !has_given_up_;
  }
  const std::vector<ExpertSet>& best() const { return best_; }  // empty: none is better

 private:
  struct PricedColumn {
    ExpertSet experts = 0;
    double excess = 0;  // of the copies over the shares of the experts
  };

  // When an expert's turn comes, those before it are covered: it needs no column with one of them.
  void sort_by_first_expert(std::span<const PricedColumn> columns) {
    for (const PricedColumn& column : columns) {
      const auto first = std::ranges::find_if(
          order_, [&](std::size_t e) { return (column.experts >> e & 1) != 0; });
      of_expert_[*first].push_back(column);
    }
    for (auto& list : of_expert_) {
      std::ranges::sort(list, {},
                        [](const PricedColumn& c) { return std::pair(c.excess, c.experts); });
    }
  }

  // `bound`: what a completion costs at least.
  void branch(ExpertSet covered, double bound) {
    const auto open =
        std::ranges::find_if(order_, [&](std::size_t e) { return (covered >> e & 1) == 0; });
    if (open == order_.end()) {
      best_ = chosen_;
      best_copies_ = bound;
      return;
    }
    for (const PricedColumn& column : of_expert_[*open]) {
      constexpr std::int64_t kStepsToCheck = 1 << 16;
      if (++steps_ > max_steps_ || (steps_ % kStepsToCheck == 0 && limits_.reached())) {
        has_given_up_ = true;
      }
      const double next = bound + column.excess;
      // copies are whole; columns ascend
      if (has_given_up_ || next > best_copies_ - 0.5) return;
      if ((column.experts & covered) != 0) continue;
      chosen_.push_back(column.experts);
      branch(covered | column.experts, next);
      chosen_.pop_back();
    }
  }

  const SearchLimits& limits_;
  double bound_ = 0, best_copies_ = 0;
  std::int64_t steps_ = 0, max_steps_ = 0;
  bool has_given_up_ = false;
  std::vector<std::vector<PricedColumn>> of_expert_;
  std::vector<std::size_t> order_;
  std::vector<ExpertSet> chosen_, best_;
};

// Infinite if a rank is above max_load.
double copies_of(const ColumnProblem& problem, const std::vector<std::int32_t>& rank_of) {
  std::vector<std::int64_t> loads(std::size_t(problem.ep_size));
  for (std::int32_t e = 0; e < problem.index->num_experts(); ++e) {
    at(loads, at(rank_of, e)) += problem.index->load(e);
  }
  if (static_cast<double>(std::ranges::max(loads)) > problem.max_load) {
    return std::numeric_limits<double>::infinity();
  }
  std::int64_t copies = 0;
  for (std::int64_t set = 0; set < problem.index->num_sets(); ++set) {
    ExpertSet ranks = 0;  // at most 64 experts, so at most 64 ranks
    for (const std::uint16_t e : problem.index->experts(set)) ranks |= ExpertSet{1} << rank_of[e];
    copies += problem.index->weight(set) * std::popcount(ranks);
  }
  return static_cast<double>(copies);
}

}  // namespace

double num_columns(std::int32_t num_experts, std::int32_t slots_per_rank) {
  double count = 1;
  for (std::int32_t i = 1; i <= slots_per_rank; ++i) {
    count = count * (num_experts - slots_per_rank + i) / i;
  }
  return count;
}

ColumnResult search_columns(const ColumnProblem& problem, const SearchLimits& limits,
                            std::vector<std::int32_t> known) {
  const SetIndex& index = *problem.index;
  C2R_REQUIRE(index.num_experts() <= 64 && index.num_experts() % problem.ep_size == 0,
              kInvalidArgument,
              "columns are for up to 64 experts, evenly over ranks, not {} over {}",
              index.num_experts(), problem.ep_size);
  ColumnResult result{.rank_of = std::move(known)};
  const double known_copies = copies_of(problem, result.rank_of);
  // Without a placement to start from, more copies than any: one for each choice, and one more.
  const double ceiling = std::min(known_copies, static_cast<double>(index.num_choices()) + 1);

  auto columns = ColumnLister(problem, limits).run();
  if (!columns) return result;
  Prices prices(std::move(*columns), index.num_experts(), index.num_experts() / problem.ep_size,
                ceiling);
  prices.improve(limits);
  // Rounding: costs are below 2^53 and sums have some thousand terms.
  const double bound = prices.bound() - 1e-9 * ceiling;
  // Columns that only placements worse than the known one hold do not count towards the bound.
  result.bound = std::clamp(std::ceil(bound), 0.0, ceiling);
  if (limits.reached()) return result;  // few columns may be ruled out yet
  ColumnBranch branch(problem, limits, prices, bound, ceiling);
  result.is_proved = branch.run();
  for (std::size_t rank = 0; rank < branch.best().size(); ++rank) {
    for_each_expert(branch.best()[rank],
                    [&](std::size_t e) { result.rank_of[e] = static_cast<std::int32_t>(rank); });
  }
  if (result.is_proved) result.bound = copies_of(problem, result.rank_of);
  return result;
}

}  // namespace c2r
