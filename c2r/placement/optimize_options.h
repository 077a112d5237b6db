// How hard the placement optimizer searches, and with which slots.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace c2r {

struct OptimizeOptions {
  std::uint64_t seed = 0;
  // Multiplies the moves tried. 1 takes some 0.1 s a layer for 32 experts and 100,000 tokens. Above
  // 0; infinity searches until `seconds` or `stop` ends it. From 1 on, a search repeats those of
  // less effort first and keeps the best. Without redundant slots, it does as much between powers
  // of two as at the lower one.
  double effort = 1;
  std::optional<double> seconds;            // for all layers; a cut-off, then the best so far; > 0
  const std::atomic<bool>* stop = nullptr;  // set by another thread: as if the time were up
  std::int32_t redundant_slots_per_rank = 0;
  // Group-limited routing: group g, a run of num_experts / num_groups experts, stays in one node.
  std::optional<std::int32_t> num_groups;
  // Without replicas, on one level and without a weight on imbalance, placements are proved optimal
  // (column_search.h) if the possible contents of a rank are no more than these. 10^7 (32 experts
  // on 4 ranks) take some 2 s a layer and 0.3 GB.
  double max_columns = 50'000;
  int num_threads = 1;  // over layers
};

}  // namespace c2r
