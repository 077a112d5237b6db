// The mover of rows in the memory of a device: kernels on a stream, and a network between devices.
#pragma once

#include <memory>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/transport/device/device_network.h"

namespace c2r {

struct RowKernel;

/// Starts the kernels of row_kernels-inl.h on a stream.
class RowLauncher {
 public:
  RowLauncher() = default;
  RowLauncher(const RowLauncher&) = delete;
  RowLauncher& operator=(const RowLauncher&) = delete;
  virtual ~RowLauncher() = default;

  /// @throws Error(kTransport) if the device refuses
  virtual void launch(const RowKernel& kernel, DeviceStream& stream) = 0;
};

/// Moves rows in the memory of a device. Views of `x`, `rows`, `sum` and scales are addresses of
/// the device. Each call is one kernel on `compute`, in whose order buffers are reused; the rows
/// travel on the stream of the network.
///
/// Results have the bits of HostRowMover. Ranks with and without a device exchange the same bytes
/// over a StagedNetwork.
///
/// Cost: row_kernels-inl.h says the bytes of each kernel. prepare() uploads the plan in one copy,
/// some 20 bytes for each choice.
/// Memory: a row for each sent and received row, in each direction.
class DeviceRowMover final : public RowMover {
 public:
  /// @param compute,network,launcher must outlive this object and what it prepares
  DeviceRowMover(DeviceStream& compute, DeviceNetwork& network, RowLauncher& launcher)
      : compute_(compute), network_(network), launcher_(launcher) {}

  std::unique_ptr<MovingRows> prepare(const RowPlan& plan, ElementType type) override;
  void weigh_gradients(const RowGradients& rows) override;

 private:
  DeviceStream& compute_;
  DeviceNetwork& network_;
  RowLauncher& launcher_;
};

}  // namespace c2r
