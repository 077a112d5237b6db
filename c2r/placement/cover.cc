#include "c2r/placement/cover.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {

bool CoverSolver::is_used(std::uint16_t rank) const {
  return std::ranges::find(used_, rank) != used_.end();
}

std::int32_t CoverSolver::solve(std::span<const std::span<const std::uint16_t>> hosts,
                                std::span<const std::int64_t> loads,
                                std::span<std::uint16_t> served_by) {
  C2R_ASSERT(hosts.size() == served_by.size());
  hosts_ = hosts, loads_ = loads;
  used_.clear(), best_.clear();
  steps_ = 0;
  for (const auto& ranks : hosts) {  // no choice: visited in every cover
    if (ranks.size() == 1 && !is_used(ranks[0])) used_.push_back(ranks[0]);
  }
  branch();
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    bool is_served = false;
    for (const std::uint16_t rank : hosts[i]) {
      if (std::ranges::find(best_, rank) == best_.end()) continue;
      if (!is_served || loads[rank] < loads[served_by[i]]) served_by[i] = rank;
      is_served = true;
    }
  }
  return static_cast<std::int32_t>(best_.size());
}

void CoverSolver::branch() {
  if (++steps_ > kMaxSteps && !best_.empty()) return;
  if (!best_.empty() && used_.size() > best_.size()) return;
  // Of the experts not served yet, the one with the fewest hosts.
  const std::span<const std::uint16_t>* open = nullptr;
  for (const auto& ranks : hosts_) {
    if (open != nullptr && ranks.size() >= open->size()) continue;
    if (std::ranges::none_of(ranks, [&](std::uint16_t rank) { return is_used(rank); })) {
      open = &ranks;
    }
  }
  if (open == nullptr) return consider();
  if (!best_.empty() && used_.size() >= best_.size()) return;
  for (const std::uint16_t rank : *open) {
    used_.push_back(rank);
    branch();
    used_.pop_back();
  }
}

std::int32_t CoverSolver::num_nodes_used() const {
  std::int32_t num_nodes = 0;
  for (std::size_t i = 0; i < used_.size(); ++i) {
    num_nodes += std::none_of(used_.begin(), used_.begin() + std::ptrdiff_t(i), [&](auto rank) {
      return rank / ranks_per_node_ == used_[i] / ranks_per_node_;
    });
  }
  return num_nodes;
}

void CoverSolver::consider() {
  std::int64_t load = 0;
  for (const auto& ranks : hosts_) {
    std::int64_t least = INT64_MAX;
    for (const std::uint16_t rank : ranks) {
      if (is_used(rank)) least = std::min(least, loads_[rank]);
    }
    load += least;
  }
  const std::pair ties{num_nodes_used(), load};
  if (best_.empty() || used_.size() < best_.size() ||
      (used_.size() == best_.size() && ties < best_ties_)) {
    best_ = used_;
    best_ties_ = ties;
  }
}

}  // namespace c2r
