// Routing on a device: the same choices and weights as Router, a warp for each token; and the
// gradients of its logits.
#pragma once

#include <cstdint>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/routing/policy.h"

namespace c2r {

struct SelectTokens;
struct SelectGradients;

/// Starts the kernels of select-inl.h and select_backward-inl.h on a stream.
class SelectLauncher {
 public:
  SelectLauncher() = default;
  SelectLauncher(const SelectLauncher&) = delete;
  SelectLauncher& operator=(const SelectLauncher&) = delete;
  virtual ~SelectLauncher() = default;

  /// @throws Error(kTransport) if the device refuses
  virtual void launch(const SelectTokens& task, DeviceStream& stream) = 0;
  virtual void launch(const SelectGradients& task, DeviceStream& stream) = 0;
};

/// Checks that a device can route by `policy`: softmax, over all or over the chosen experts,
/// without groups; at most 512 experts and 16 choices. C2R's constraint is supported.
/// @throws Error(kUnsupported), naming the field, its value and what is supported;
///         Error(kInvalidArgument) as check_policy()
void check_device_policy(const RoutingPolicy& policy, std::int32_t num_experts);

/// A checked policy, ready to route on one device. The results are those of Router, bit for bit.
class DeviceRouter {
 public:
  /// @param stream,launcher must outlive the router
  /// @throws as check_device_policy()
  DeviceRouter(const RoutingPolicy& policy, std::int32_t num_experts, DeviceStream& stream,
               SelectLauncher& launcher);

  /// Enqueues the routing of each row of `logits`. All three are memory of the device.
  /// @param logits [num_tokens, num_experts]
  /// @param topk_idx,topk_weights [num_tokens, top_k]
  /// @throws Error(kInvalidArgument) if a shape is wrong
  /// Cost: one kernel; reads the logits once.
  void route_into(MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                  MatrixView<float> topk_weights);
  /// Enqueues the backward pass of route_into(): adds to the gradient of each logit. All four are
  /// memory of the device. The choices have no gradient.
  /// @param logits,dlogits [num_tokens, num_experts], the logits that were routed
  /// @param topk_idx [num_tokens, top_k], as route_into() wrote them
  /// @param dweights [num_tokens, top_k], 0 for a choice that the caller has dropped since
  /// @throws as route_into()
  /// Cost: one kernel; reads the logits once or twice, and reads and writes `dlogits`.
  void backward_into(MatrixView<const float> logits, MatrixView<const ExpertId> topk_idx,
                     MatrixView<const float> dweights, MatrixView<float> dlogits);
  /// Waits for all that was enqueued, and checks the logits of the batches since the last call.
  /// @throws Error(kInvalidArgument), naming the smallest token of these batches that has a logit
  ///         which is not finite, and the expert
  void check();

 private:
  const RoutingPolicy policy_;
  const std::int32_t num_experts_;
  DeviceStream& stream_;
  SelectLauncher& launcher_;
  DeviceBuffer candidates_;     // as SelectTokens::candidates
  DeviceBuffer first_invalid_;  // u64
  PinnedBuffer pinned_;         // for a copy of it
};

}  // namespace c2r
