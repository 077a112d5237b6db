// place_grace(): hierarchical non-uniform grouping, then replication of hot experts. baselines.h
// names the paper and the adaptations.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/baselines/baselines_internal.h"
#include "c2r/placement/baselines/spectral.h"

namespace c2r {
namespace {

using Experts = std::vector<std::int32_t>;

// At most kGraceNonUniformity of the mean from it, and within the slots.
GroupSizes group_sizes(std::size_t num_items, std::int32_t num_groups, std::int32_t capacity) {
  const double mean = static_cast<double>(num_items) / num_groups;
  const auto most = static_cast<std::int32_t>(std::floor(mean * (1 + kGraceNonUniformity)));
  const auto least = static_cast<std::int32_t>(std::ceil(mean * (1 - kGraceNonUniformity)));
  return {.num_groups = num_groups,
          .min = std::min(least, static_cast<std::int32_t>(std::floor(mean))),
          .max = std::max(std::min(most, capacity), static_cast<std::int32_t>(std::ceil(mean)))};
}

std::vector<Experts> split(MatrixView<const std::int64_t> counts, const Experts& experts,
                           std::int32_t num_groups, std::int32_t capacity) {
  const std::int64_t n = std::ssize(experts);
  Matrix<std::int64_t> affinity(n, n);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = 0; b < n; ++b) {
      affinity(a, b) = counts(at(experts, a), at(experts, b));
    }
  }
  const auto group_of =
      group_by_affinity(affinity, group_sizes(experts.size(), num_groups, capacity));
  std::vector<Experts> groups(static_cast<std::size_t>(num_groups));
  for (std::size_t i = 0; i < experts.size(); ++i) {
    at(groups, group_of[i]).push_back(experts[i]);
  }
  return groups;
}

// Step 1.
std::vector<Experts> group_hierarchically(const BaselineProblem& problem) {
  Experts all(static_cast<std::size_t>(problem.num_experts()));
  std::iota(all.begin(), all.end(), 0);
  std::vector<Experts> ranks;
  const Cluster& cluster = problem.cluster;
  for (const Experts& node : split(problem.counts, all, cluster.num_nodes,
                                   problem.slots_per_rank * cluster.ranks_per_node)) {
    for (auto& rank : split(problem.counts, node, cluster.ranks_per_node, problem.slots_per_rank)) {
      ranks.push_back(std::move(rank));
    }
  }
  return ranks;
}

// Step 2: how loads lie while slots are filled.
struct Replicas {
  const BaselineProblem& problem;
  std::vector<Experts> ranks;
  std::vector<double> load_per_replica;  // [num_experts]
  std::vector<std::int32_t> num_replicas;

  double rank_load(std::size_t rank) const {
    double load = 0;
    for (const std::int32_t e : ranks[rank]) load += at(load_per_replica, e);
    return load;
  }
  bool can_take(std::size_t rank, std::int32_t expert) const {
    return std::ssize(ranks[rank]) < problem.slots_per_rank &&
           std::ranges::find(ranks[rank], expert) == ranks[rank].end();
  }
  void add(std::size_t rank, std::int32_t expert) {
    ranks[rank].push_back(expert);
    auto& count = at(num_replicas, expert);
    at(load_per_replica, expert) = static_cast<double>(problem.counts(expert, expert)) / ++count;
  }
};

std::vector<std::size_t> ranks_by_load(const Replicas& replicas) {
  std::vector<double> load;
  for (std::size_t r = 0; r < replicas.ranks.size(); ++r) load.push_back(replicas.rank_load(r));
  std::vector<std::size_t> order(load.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return load[a] > load[b]; });
  return order;
}

// The hottest expert of the most loaded rank goes to the least loaded rank that can take it; where
// none can, the next hottest, then the next rank. A redundant slot can always be filled: a rank
// with one lacks an expert, and some other rank has it.
void add_one_replica(Replicas& replicas) {
  const auto order = ranks_by_load(replicas);
  for (const std::size_t busy : order) {
    Experts hottest = replicas.ranks[busy];
    std::ranges::stable_sort(hottest, [&](auto a, auto b) {
      return at(replicas.load_per_replica, a) > at(replicas.load_per_replica, b);
    });
    for (const std::int32_t expert : hottest) {
      const auto idle = std::find_if(order.rbegin(), order.rend(), [&](std::size_t rank) {
        return replicas.can_take(rank, expert);
      });
      if (idle != order.rend()) return replicas.add(*idle, expert);
    }
  }
}

}  // namespace

Placement internal::place_grace(const BaselineProblem& problem) {
  Replicas replicas{.problem = problem, .ranks = group_hierarchically(problem)};
  for (std::int32_t e = 0; e < problem.num_experts(); ++e) {
    replicas.load_per_replica.push_back(static_cast<double>(problem.counts(e, e)));
    replicas.num_replicas.push_back(1);
  }
  for (std::int32_t n = problem.num_slots() - problem.num_experts(); n > 0; --n) {
    add_one_replica(replicas);
  }
  return placement_of_ranks(problem.num_experts(), replicas.ranks);
}

}  // namespace c2r
