// What tests of homes share.
#pragma once

#include <cstdint>
#include <set>

#include "c2r/core/ids.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/plan.h"
#include "c2r/trace/trace.h"

namespace c2r::testing {

/// @returns the copies of a token that leave its home rank, by the definition
inline double counted_wire(const Trace& trace, const AssignedHomes& homes, const Plan& plan) {
  double copies = 0, num_tokens = 0;
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const auto ranks = rank_of(plan.layers[layer].placement);
    for (std::size_t s = 0; s < homes.sequences.size(); ++s) {
      const auto [begin, end] = homes.sequences[s];
      const auto topk_idx = trace.topk_idx(std::int64_t(layer), begin, end);
      for (std::int64_t t = 0; t < topk_idx.rows(); ++t, ++num_tokens) {
        std::set<RankId> reached;
        for (const ExpertId e : topk_idx.row(t)) reached.insert(ranks[index(e)]);
        reached.erase(t < homes.num_prefix_tokens ? homes.first[s] : homes.chosen[s]);
        copies += double(reached.size());
      }
    }
  }
  return copies / num_tokens;
}

}  // namespace c2r::testing
