// DeepSeek's Expert Parallelism Load Balancer: replicates and packs experts by load alone.
//
// The algorithm of github.com/deepseek-ai/EPLB (DeepSeek-V3, arXiv 2412.19437), which SGLang, vLLM
// and TensorRT-LLM follow. In float, like the original, so that ties fall the same way.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

struct EplbOptions {
  std::int32_t num_slots = 0;  // of all ranks together
  std::int32_t num_groups = 1;
  std::int32_t num_nodes = 1;
  std::int32_t num_ranks = 1;
};

/// Where EPLB puts replicas: slot p is on rank p / (num_slots / num_ranks).
struct EplbResult {
  std::vector<ExpertId> expert_of_slot;       // [num_slots], `phy2log`
  std::vector<std::int32_t> replica_of_slot;  // [num_slots], which replica of its expert it is
  std::vector<std::int32_t> num_replicas;     // [num_experts], `logcnt`
};

/// If num_groups is a multiple of num_nodes: packs groups to nodes, replicates experts in each
/// node, packs slots to the node's ranks. Otherwise the same with one group and one node.
///   packing      heaviest item first, to the lightest pack that is not full; ties go to the
///                lower item and the lower pack; packs of one item are taken in order
///   replicating  one more replica at a time for the expert with most load per replica, ties to
///                the lower expert
/// @param loads [num_experts]
/// @throws Error(kInvalidArgument) if something does not divide evenly
///
/// Cost: O(num_slots * (num_experts + num_ranks)).
EplbResult rebalance_eplb(std::span<const float> loads, const EplbOptions& options);

}  // namespace c2r
