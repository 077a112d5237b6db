// The predicted time of a layer under a placement that the optimizer is looking at.
#pragma once

#include "c2r/placement/measure.h"
#include "c2r/placement/search/replicas/replica_state.h"

namespace c2r {

/// @param objective of kTime
/// @returns predict_layer_time() of all tokens under default_traffic() in the objective's copy
///          mode, with replicas as `state` chooses them
/// Cost: one pass over the sets.
double predicted_s(const SetIndex& index, const Cluster& cluster, const ReplicaState& state,
                   const PlacementObjective& objective);

/// Lower bounds on what a placement causes.
struct LeastCounts {
  double rank_copies = 0, node_copies = 0, busiest_load = 0;
};
/// @returns a time that no placement with at least these counts is predicted below: that of copies
///          spread evenly over ranks and nodes, and of every rank as busy as busiest_load
double predicted_s_bound(const SetIndex& index, const Cluster& cluster, const LeastCounts& least,
                         const PlacementObjective& objective);

}  // namespace c2r
