// The predicted time of a layer under a placement that the optimizer is looking at.
#pragma once

#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/search/replica_state.h"

namespace c2r {

/// predict_layer_time() of all tokens as one batch from uniform homes, sent as default_copy_mode()
/// says; replicas as `state` chooses them. Cost: one pass over the sets.
double predicted_s(const SetIndex& index, const Cluster& cluster, const ReplicaState& state,
                   const LayerTimeOptions& options);

/// No placement is predicted faster whose copies and loads are at least these: the time if they
/// were spread evenly over ranks (and nodes), but for the busiest rank's load.
struct LeastCounts {
  double rank_copies = 0, node_copies = 0, busiest_load = 0;
};
double predicted_s_bound(const SetIndex& index, const Cluster& cluster, const LeastCounts& least,
                         const LayerTimeOptions& options);

}  // namespace c2r
