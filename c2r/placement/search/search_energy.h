// The energy that a placement search minimizes: copies and imbalance as one number, with penalties
// for exceeded bounds.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "c2r/placement/quality.h"

namespace c2r {

/// The unit is one token copy between ranks of a flat cluster; loads are (token, expert) choices.
struct SearchEnergy {
  double rank_cost = 1, node_cost = 0;  // of one copy
  double copy_scale = 1;                // small if the imbalance is to be minimized
  double imbalance_scale = 0;           // of max / mean load
  double mean_load = 1;
  double max_load = std::numeric_limits<double>::infinity();
  double max_cost = std::numeric_limits<double>::infinity();
  // Measured on gpt-oss-20b: from 3 on an excess never pays, at 10 annealing still crosses it.
  double load_penalty = 10, cost_penalty = 10;

  double cost(std::int64_t rank_copies, std::int64_t node_copies) const {
    return rank_cost * static_cast<double>(rank_copies) +
           node_cost * static_cast<double>(node_copies);
  }
  /// @returns how far the bounds are exceeded; 0 if both are met
  double violation(double cost, std::span<const std::int64_t> loads) const {
    double excess = 0;
    if (max_load < std::numeric_limits<double>::infinity()) {
      for (const std::int64_t load : loads) {
        excess += std::max(0.0, static_cast<double>(load) - max_load);
      }
    }
    return load_penalty * excess + cost_penalty * std::max(0.0, cost - max_cost);
  }
  /// @returns what is minimized among the placements that meet the bounds
  double value(double cost, std::span<const std::int64_t> loads) const {
    if (imbalance_scale == 0) return copy_scale * cost;
    return copy_scale * cost +
           imbalance_scale * static_cast<double>(std::ranges::max(loads)) / mean_load;
  }
  /// @returns the key of the order in which searches prefer placements
  Quality quality(double cost, std::span<const std::int64_t> loads) const {
    return {violation(cost, loads), value(cost, loads)};
  }
};

/// Sums of the same terms in another order differ by no more than this part of them.
inline constexpr double kRounding = 1e-9;

/// When a search ends before its work is done.
struct SearchLimits {
  std::optional<std::chrono::steady_clock::time_point> deadline;
  const std::atomic<bool>* stop = nullptr;

  /// @param num_left searches not begun yet, this one included; `num_threads` run at a time
  /// @returns the limits of the next search: an equal part of the time that is left at `now`
  SearchLimits share_of_one(std::chrono::steady_clock::time_point now, std::int64_t num_left,
                            std::int64_t num_threads) const {
    if (!deadline) return *this;
    const std::int64_t num_rounds = (num_left + num_threads - 1) / num_threads;
    return {.deadline = std::min(*deadline, now + (*deadline - now) / num_rounds), .stop = stop};
  }

  bool reached() const {
    return (stop != nullptr && stop->load(std::memory_order_relaxed)) ||
           (deadline && std::chrono::steady_clock::now() >= *deadline);
  }
};

}  // namespace c2r
