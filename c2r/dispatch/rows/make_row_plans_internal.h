// Makes row plans from a batch's choices and from what the ranks tell each other about theirs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/rows/copy_lists_internal.h"
#include "c2r/dispatch/rows/row_plan.h"
#include "c2r/placement/cost/replica_rule.h"

namespace c2r {

/// The properties of a dispatcher from which row plans are made.
struct RoutingTable {
  RoutingTable(const Transport& transport, const Placement& placement,
               const DispatchOptions& options);

  DispatchOptions options;
  RankId rank;  // this rank
  ReplicaChooser chooser;
  std::int32_t num_experts = 0, slots_per_rank = 0;
  Matrix<std::uint16_t> slot_of;  // [ep_size, num_experts], where the rank hosts the expert
  // The ranks that this rank sends to directly, itself included: all ranks, or in per-node mode
  // those of its node. Consecutive.
  std::vector<RankId> group;
  std::vector<RankId> relays;  // per-node: this rank's peers on the other nodes, ascending
  std::uint64_t fingerprint = 0;

  /// @returns whether rows for own tokens follow those for others, which they do not where a relay
  ///          brings some of them
  bool separates_own() const { return relays.empty() && options.separates_own; }
};

/// Makes the plan of each of `num_chunks` runs of tokens of equal length, up to one token.
/// Collective.
/// @param topk_idx,topk_weights,first_token,num_chunks,label as of Dispatcher::make_handles()
/// @throws as Dispatcher::make_handles()
std::vector<RowPlan> make_row_plans(Transport& transport, RoutingTable& table,
                                    MatrixView<const ExpertId> topk_idx,
                                    MatrixView<const float> topk_weights, std::int64_t first_token,
                                    std::int32_t num_chunks, const std::string& label);

}  // namespace c2r
