// A placement with replicas while a search changes it, with the ranks that serve each token set.
//
// Every token is served by the fewest ranks that host all its experts; of several such sets of
// ranks by the one on the fewest nodes, then by the one with the least load. The number of copies
// is therefore a function of the placement alone and is tracked exactly. The loads depend on the
// order of the choices; settle_loads() makes them a function of the placement, too ("settled").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/cover.h"
#include "c2r/placement/cost/cover_size.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/search/replicas/served_tables.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// A placement under change, with each token set's ranks.
class ReplicaState {
 public:
  /// @param is_fixed_to_nodes experts may only move within their node
  ReplicaState(const SetIndex& index, const Cluster& cluster, const Placement& placement,
               bool is_fixed_to_nodes);

  const Placement& placement() const { return placement_; }
  std::int64_t rank_copies() const { return rank_copies_; }
  std::int64_t node_copies() const { return node_copies_; }
  std::span<const std::int64_t> loads() const { return loads_; }
  /// @returns the loads in each scenario, as SetIndex weighs them, which bounds are on; of one
  ///          scenario loads(). [num_scenarios, ep_size]
  std::span<const std::int64_t> scenario_loads() const {
    return scenario_loads_.empty() ? loads_ : scenario_loads_;
  }
  /// @returns the rank that serves each expert of a set. [<= top_k]
  std::span<const std::uint16_t> ranks_of(std::int64_t set) const;

  /// From now on keeps the tables by which changes are estimated (served_tables.h).
  void keep_tables();
  /// @returns the tables; only after keep_tables()
  const ServedTables& tables() const { return *tables_; }
  /// @returns the ranks that host `expert`, ascending
  std::span<const std::uint16_t> hosts_of(std::int32_t expert) const { return at(hosts_, expert); }

  /// Slot `slot` of `rank` is to hold `expert`. A swap is two changes at once.
  struct Change {
    std::int32_t rank = 0, slot = 0, expert = 0;
  };
  /// @returns whether each expert would still have a host, at most one slot on a rank, and replicas
  ///          on as many nodes as possible, or on no fewer than now
  bool is_allowed(std::span<const Change> changes) const;
  using Copies = ServedTables::Copies;
  /// Counts without making the changes. Cost: a tenth of apply().
  /// @returns the copies after allowed changes; nothing if the cluster is too large for
  /// cover_size.h
  std::optional<Copies> copies_after(std::span<const Change> changes);
  /// Makes allowed changes and serves the tokens concerned anew.
  /// @returns the number of sets visited
  std::int64_t apply(std::span<const Change> changes);
  /// Restores the state before the last apply() exactly.
  void undo();

  /// Serves all tokens anew, twice, so that the choices of the second pass depend on the loads of
  /// all tokens. The result depends on the placement alone.
  void settle_loads();

  /// @returns for each expert, the tokens that would need one rank less if `rank` hosted it as
  ///          well: those that visit `rank` and whose rank for the expert serves nothing else.
  ///          [num_experts]
  std::vector<std::int64_t> gains_on(std::int32_t rank) const;

  std::int32_t num_replicas(std::int32_t expert) const {
    return static_cast<std::int32_t>(std::ssize(at(hosts_, expert)));
  }

 private:
  struct Saved {
    std::int32_t set = 0;
    std::uint32_t offset = 0;  // its ranks in saved_ranks_
  };

  std::span<std::uint16_t> mutable_ranks_of(std::int64_t set);
  bool keeps_nodes(std::int32_t expert, std::int32_t lost, std::int32_t gained) const;
  std::int32_t missed_nodes(std::int32_t expert, std::int32_t lost, std::int32_t gained) const;
  std::int32_t place(const Change& change);  // returns the expert that was there
  CoverSize size_of(std::span<const std::uint16_t> ranks) const;
  void add_loads(std::int64_t set, std::int64_t sign);
  void add_to_tables(std::int64_t set, std::int64_t sign);
  void count(std::int64_t set, std::int64_t sign);
  void count_copies(std::int64_t set, std::int64_t sign);
  bool serve(std::int64_t set);  // whether the loads may have mattered
  std::int64_t visit_sets_of(std::int32_t expert);

  const SetIndex* index_;
  Cluster cluster_;
  Placement placement_;
  bool is_fixed_to_nodes_ = false;
  std::vector<std::vector<std::uint16_t>> hosts_;  // [num_experts], ascending
  std::vector<std::size_t> offsets_;               // [num_sets + 1], into served_by_
  std::vector<std::uint16_t> served_by_;           // the rank of each expert of each set
  std::int64_t rank_copies_ = 0, node_copies_ = 0;
  std::vector<std::int64_t> loads_;           // [ep_size]
  std::vector<std::int64_t> scenario_loads_;  // [num_scenarios, ep_size], empty for one
  CoverSolver solver_;
  std::optional<CoverCounter> counter_;
  std::vector<CoverSize> sizes_;  // [num_sets], as served now

  std::optional<ServedTables> tables_;

  // What undo() needs.
  std::vector<Change> undone_;
  std::vector<Saved> saved_;
  std::vector<std::uint16_t> saved_ranks_;
  std::vector<std::uint16_t> anew_;        // [<= top_k], scratch
  std::vector<std::uint32_t> visited_in_;  // [num_sets], the apply() that last visited the set
  std::uint32_t num_applied_ = 0;
};

}  // namespace c2r
