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

/// What the handles of one dispatcher share and row plans are made of.
struct RoutingTable {
  RoutingTable(const Transport& transport, const Placement& placement,
               const DispatchOptions& options);

  DispatchOptions options;
  RankId rank;  // this one
  ReplicaChooser chooser;
  std::int32_t num_experts = 0, slots_per_rank = 0;
  Matrix<std::uint16_t> slot_of;  // [ep_size, num_experts], where the rank hosts the expert
  std::vector<RankId> group;      // whom this rank sends to directly, itself among them: all ranks,
                                  // or in per-node mode its node's; consecutive
  std::vector<RankId> relays;     // per-node: this rank's peers on the other nodes, ascending
  std::uint64_t fingerprint = 0;

  /// Whether rows for own tokens follow those for others: not where a relay has to bring some.
  bool separates_own() const { return relays.empty() && options.separates_own; }
};

/// The plan of each of `num_chunks` runs of the tokens, as equally long as possible. Collective;
/// the conditions of Dispatcher::make_handles().
std::vector<RowPlan> make_row_plans(Transport& transport, RoutingTable& table,
                                    MatrixView<const ExpertId> topk_idx,
                                    MatrixView<const float> topk_weights, std::int64_t first_token,
                                    std::int32_t num_chunks, const std::string& label);

}  // namespace c2r
