// Which rows a rank sends for its tokens, made on a device from the choices of its router: the
// arrays of RowPlan that need no other rank, without copying the choices to the host.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/dispatch.h"

namespace c2r {

struct RouteKernel;

/// Starts the kernels of route_kernels-inl.h on a stream.
class RouteLauncher {
 public:
  RouteLauncher() = default;
  RouteLauncher(const RouteLauncher&) = delete;
  RouteLauncher& operator=(const RouteLauncher&) = delete;
  virtual ~RouteLauncher() = default;

  /// @throws Error(kTransport) if the device refuses
  virtual void launch(const RouteKernel& kernel, DeviceStream& stream) = 0;
};

/// The copies of one rank's tokens. Offsets are on the host, all else is device memory; each array
/// is the one of RowPlan of that name. In per-node mode, copies that this rank forwards for others
/// come behind those of its own tokens for each rank, and are not here.
struct DeviceRoutes {
  std::vector<std::int64_t> send_offsets, send_choice_offsets;  // [ep_size + 1]
  std::int64_t num_returns = 0;
  DeviceBuffer send_item;       // i32, [send_offsets.back()]
  DeviceBuffer send_choice;     // i32, [send_choice_offsets.back()]
  DeviceBuffer return_offsets;  // i64, [num_tokens + 1]
  DeviceBuffer return_row;      // i32, [num_returns]
  DeviceBuffer return_weight;   // f32, [num_returns]; empty where all are 1
};

/// Makes the routes of one rank's batches.
class DeviceRouteMaker {
 public:
  /// @param rank this rank
  /// @param stream,launcher must outlive this object
  /// @throws Error(kUnsupported) if an expert has replicas: those are chosen by loads, on the host;
  ///         Error(kInvalidArgument) if the placement and the cluster differ in their ranks, or the
  ///         mode is kAllGather
  DeviceRouteMaker(const Placement& placement, const DispatchOptions& options, RankId rank,
                   DeviceStream& stream, RouteLauncher& launcher);

  /// Makes the routes of a batch, and waits for the counts.
  /// @param topk_idx,topk_weights [num_tokens, top_k], in device memory; as of
  ///        Dispatcher::make_handle(), which is not checked here
  /// @throws Error(kInvalidArgument) if the two differ in their shapes, or there are more choices
  ///         than 31 bits count; Error(kUnsupported) if a grid has too few blocks for them
  /// Cost: six kernels, and one wait for the device. Memory: some 30 bytes for each choice.
  DeviceRoutes make(MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights);

 private:
  std::int32_t ep_size_, bins_per_rank_;
  bool copies_each_choice_, returns_each_choice_;
  DeviceStream& stream_;
  RouteLauncher& launcher_;
  DeviceBuffer bin_of_expert_;  // i32, [num_experts]
};

}  // namespace c2r
