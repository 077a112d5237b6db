// The predicted time of a layer under a placement that the optimizer is looking at.
#pragma once

#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/search/replicas/replica_state.h"

namespace c2r {

/// @returns predict_layer_time() of all tokens as one batch under default_traffic(), with replicas
///          as `state` chooses them
///
/// Cost: one pass over the sets.
double predicted_s(const SetIndex& index, const Cluster& cluster, const ReplicaState& state,
                   const LayerTimeOptions& options);

/// Lower bounds on what a placement causes.
struct LeastCounts {
  double rank_copies = 0, node_copies = 0, busiest_load = 0;
};
/// @returns a time that no placement with at least these counts is predicted below: that of copies
///          spread evenly over ranks and nodes, and of every rank as busy as busiest_load
double predicted_s_bound(const SetIndex& index, const Cluster& cluster, const LeastCounts& least,
                         const LayerTimeOptions& options);

}  // namespace c2r
