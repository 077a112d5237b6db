// From a batch's choices to who sends which row where: the part of a handle that never changes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/copy_lists_internal.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/placement/cost/replica_rule.h"

namespace c2r {

/// What the handles of one dispatcher share and routes are made of.
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

  /// Whether rows from `src` are those of own tokens that no relay has to bring.
  bool is_own(RankId src) const { return src == rank && relays.empty() && options.separates_own; }
};

/// Items are the rows that this rank gives to its group: its own tokens, then, in per-node mode,
/// the copies that it gets as a relay, by the rank that they come from.
struct Routes {
  std::int64_t num_tokens = 0;
  std::vector<CopyList> out;  // [ep_size], to this rank's group and relays
  std::vector<CopyList> in;   // [ep_size], from them

  struct Relayed {
    RankId from;
    std::int32_t idx = 0;  // in `in[from]`
  };
  std::vector<Relayed> relayed;  // items from num_tokens on

  /// One row that comes back for an item: number idx of what returns from `from`.
  struct Return {
    RankId from;
    std::int32_t idx = 0;
    float weight = 1;
  };
  std::vector<std::int64_t> return_offsets;  // [num_items + 1]
  std::vector<Return> returns;               // in the order of the sum

  // Rows by slot: of other ranks' tokens, then of own ones, if they are separate.
  std::vector<std::int64_t> offsets, own_offsets;  // [slots_per_rank + 1]
  std::vector<std::vector<std::int32_t>> row_of;   // [ep_size], for each choice of in[r]: its row

  std::int64_t num_rows() const { return own_offsets.back(); }
  std::span<const Return> returns_of(std::int64_t item) const {
    const auto begin = return_offsets[std::size_t(item)];
    return std::span(returns).subspan(std::size_t(begin),
                                      std::size_t(return_offsets[std::size_t(item) + 1] - begin));
  }
};

/// The routes of each of `num_chunks` runs of the tokens, as equally long as possible. Collective;
/// the conditions of Dispatcher::make_handles().
std::vector<Routes> make_routes(Transport& transport, RoutingTable& table,
                                MatrixView<const ExpertId> topk_idx,
                                MatrixView<const float> topk_weights, std::int64_t first_token,
                                std::int32_t num_chunks, const std::string& label);

}  // namespace c2r
