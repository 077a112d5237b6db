// Exchanges the contents of two slots of a running placement, each time those after which the
// energy is the least.
//
// An exchange between the ranks P and Q changes the energy by what happens to the tokens of the two
// items and to the loads of P and Q. So the best exchange of two ranks is kept until another
// exchange changes one of them, and a step judges only exchanges with the two ranks that the step
// before changed: (2 ep_size - 3) of ep_size x (ep_size - 1) / 2 pairs of ranks. Two terms of the
// energy depend on all ranks: the largest load, for which a pair is judged anew when the largest
// load of the others has changed, and a bound on copies, with which all pairs are judged each time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/moves/replan.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/search/partition_level.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"
#include "c2r/placement/token_sets.h"

namespace c2r::internal {

/// The tables of a running placement. Slots are the items; an item keeps its expert and its tokens,
/// and changes its rank.
struct RunningState {
  RunningState(const TokenSets& sets, const Cluster& cluster, const PlacementObjective& objective,
               const Placement& running, bool is_fixed_to_nodes);

  Cluster cluster;
  Placement running;
  bool is_fixed_to_nodes;
  SetIndex served;  // token sets of slots
  SearchEnergy energy;
  PartitionLevel ranks;
  std::optional<PartitionLevel> nodes;              // where copies between nodes cost
  std::vector<std::int64_t> loads;                  // [ep_size]
  std::vector<std::vector<std::int32_t>> items_of;  // the slots of each expert. [num_experts]
};

/// One descent from a running placement, on copies of its tables.
class ExchangeDescent {
 public:
  /// @param state must outlive this object
  explicit ExchangeDescent(const RunningState& state);

  double energy() const;

  /// @returns the exchange after which the energy is the least, which is made, or nothing if that
  ///          is not below the present one
  std::optional<ReplanStep> best_step();

 private:
  // The best exchange of two ranks.
  struct Exchange {
    std::int32_t item_a = -1, item_b = -1;  // -1: none is allowed
    double change = 0;                      // of the energy
  };
  struct KnownExchange {
    Exchange best;
    bool is_known = false;
    std::int64_t largest_elsewhere = 0;  // the load that it was judged with
  };
  class ChangeOfEnergy;
  // An item that may move to the other rank.
  struct Candidate {
    std::int32_t item = 0;
    std::int64_t load = 0;
    double change = 0;  // of the cost of copies if it moves alone
  };

  double copy_cost() const;
  std::int32_t node_of(std::int32_t rank) const;
  ExpertId expert_of(std::int32_t item) const;
  bool has_cost_bound() const;
  void rank_by_load();
  std::int64_t largest_elsewhere(std::int32_t rank_a, std::int32_t rank_b) const;
  bool may_move(std::int32_t item, std::int32_t to) const;
  void find_candidates(std::int32_t from, std::int32_t to, std::vector<Candidate>& found) const;
  Exchange best_exchange(std::int32_t rank_a, std::int32_t rank_b, std::int64_t elsewhere);
  Exchange best_of_all();
  void apply(const Exchange& exchange);
  void forget(std::int32_t rank_a, std::int32_t rank_b);
  std::int64_t num_moved() const;

  const RunningState& state_;
  PartitionLevel ranks_;
  std::optional<PartitionLevel> nodes_;
  std::vector<std::int64_t> loads_;
  Matrix<std::uint8_t> held_, holds_;                // [ep_size, num_experts], running and now
  std::vector<std::vector<std::int32_t>> items_on_;  // of each rank, ascending
  std::vector<std::int32_t> busiest_;  // the three busiest ranks: one of them is in no exchange
  Matrix<KnownExchange> known_;        // [ep_size, ep_size], of rank_a < rank_b
  std::vector<Candidate> from_a_, from_b_;  // scratch
};

}  // namespace c2r::internal
