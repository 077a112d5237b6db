// The definition of every routing policy, slow and obvious. Router must agree with it bit for bit.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// What Router(policy, logits.cols()).route(logits) returns and throws, computed by the definition.
///
/// Cost: O(num_tokens * num_experts * top_k) time.
Routing route_reference(const RoutingPolicy& policy, MatrixView<const float> logits);

}  // namespace c2r
