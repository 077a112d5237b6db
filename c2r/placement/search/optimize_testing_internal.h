// Small problems for the optimizer's tests, and the definitions that it is compared with.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <set>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/search/optimize_problems_internal.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

inline Cluster flat(std::int32_t ep_size) {
  return {.num_nodes = 1, .ranks_per_node = ep_size};
}

inline TokenSets random_sets(std::int32_t num_experts, std::int32_t top_k, int num_tokens,
                             std::uint64_t seed) {
  return clustered_token_sets({.num_experts = num_experts,
                               .top_k = top_k,
                               .num_tokens = num_tokens,
                               .num_topics = 3,
                               .seed = seed});
}

// The sets behind pair counts of a top-2 router, where each pair is one set: exact.
inline TokenSets token_sets_from_pairs(const Matrix<std::int64_t>& counts) {
  TokenSets sets{.num_experts = static_cast<std::int32_t>(counts.rows())};
  std::vector<ExpertId> pairs;
  for (std::int32_t a = 0; a < sets.num_experts; ++a) {
    for (std::int32_t b = a + 1; b < sets.num_experts; ++b) {
      if (counts(a, b) == 0) continue;
      pairs.insert(pairs.end(), {ExpertId{a}, ExpertId{b}});
      sets.multiplicity.push_back(counts(a, b));
      sets.num_tokens += counts(a, b);
    }
  }
  sets.experts = {std::ssize(sets.multiplicity), 2};
  std::ranges::copy(pairs, sets.experts.all().begin());
  return sets;
}

// The definition: the distinct groups of each token's experts.
inline std::int64_t copies_of(const TokenSets& sets, const std::vector<std::int32_t>& group_of) {
  std::int64_t copies = 0;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    std::set<std::int32_t> groups;
    for (const ExpertId e : sets.experts.row(set)) {
      if (e != kNoExpert) groups.insert(at(group_of, e));
    }
    copies += std::ssize(groups) * at(sets.multiplicity, set);
  }
  return copies;
}

// The definition with replicas: the smallest set of ranks that hosts every expert of the token.
inline std::int64_t fewest_copies(const TokenSets& sets, const Placement& placement) {
  const auto hosts = ranks_of_experts(placement);
  std::int64_t copies = 0;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    int fewest = placement.ep_size();
    for (unsigned ranks = 0; ranks < (1u << placement.ep_size()); ++ranks) {
      const bool serves_all = std::ranges::all_of(sets.experts.row(set), [&](ExpertId e) {
        return e == kNoExpert || std::ranges::any_of(at(hosts, e), [&](RankId rank) {
                 return (ranks >> index(rank) & 1u) != 0;
               });
      });
      if (serves_all) fewest = std::min(fewest, std::popcount(ranks));
    }
    copies += fewest * at(sets.multiplicity, set);
  }
  return copies;
}

// The fewest copies of all ways to split the experts evenly.
inline double least_copies_per_token(const TokenSets& sets, std::int32_t ep_size) {
  std::vector<std::int32_t> rank_of(std::size_t(sets.num_experts));
  for (std::int32_t e = 0; e < sets.num_experts; ++e) {
    at(rank_of, e) = e / (sets.num_experts / ep_size);
  }
  std::int64_t least = INT64_MAX;
  do {
    least = std::min(least, copies_of(sets, rank_of));
  } while (std::next_permutation(rank_of.begin(), rank_of.end()));
  return static_cast<double>(least) / static_cast<double>(sets.num_tokens);
}

}  // namespace c2r
