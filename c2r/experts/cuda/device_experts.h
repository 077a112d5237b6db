// The experts of a rank in the memory of a device: grouped products in bf16 with f32 sums, and the
// kernels around them.
//
// Each operation rounds to bf16 where it says so and is f32 otherwise. For a row x of an expert
// with weights G, U and D (gate, up, down), which are bf16:
//   forward    x' = bf16(x), g = bf16(G x'), u = bf16(U x'), h = bf16(silu(g) u), y = bf16(D h)
//   backward   dy' = bf16(dy), dh = bf16(D^T dy')
//              du = bf16(dh silu(g)), dg = bf16(dh u silu'(g)), dx = bf16(G^T dg + U^T du)
//              dD += dy' h^T, dG += dg x'^T, dU += du x'^T, all three in f32
// Only the order of the sums of products is left to the implementation of GroupedProducts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/experts/cuda/grouped_products.h"
#include "c2r/experts/expert_compute.h"

namespace c2r {

struct ExpertKernel;

/// Starts the kernels of expert_kernels-inl.h on a stream.
class ExpertLauncher {
 public:
  ExpertLauncher() = default;
  ExpertLauncher(const ExpertLauncher&) = delete;
  ExpertLauncher& operator=(const ExpertLauncher&) = delete;
  virtual ~ExpertLauncher() = default;

  /// @throws Error(kTransport) if the device refuses
  virtual void launch(const ExpertKernel& kernel, DeviceStream& stream) = 0;
};

/// The gradients of one slot's weights in device memory, f32; null while no row gave any.
struct DeviceGradients {
  const float* gate_up = nullptr;  // [2 intermediate, hidden], those of gate first
  const float* down = nullptr;     // [hidden, intermediate]
};

/// Experts in the slots of one rank, as the device that is given in the constructor computes them.
/// Calls enqueue tasks and return, but for take_gradients() and backward(). Rows, outputs and their
/// gradients are device memory; offsets are on the host.
///
/// Cost of a forward pass: a kernel to pack the rows, a grouped product, a kernel, a grouped
/// product and a kernel; 6 x hidden x intermediate FLOPs for each row, and three times that
/// backward, where gate and up are computed again. Memory: the weights in bf16; during a call 4
/// hidden + 6 intermediate bytes for each row; the gradients, 12 x hidden x intermediate bytes for
/// each slot, from the first backward pass on.
class DeviceExperts final : public ExpertCompute {
 public:
  /// Uploads the weights, rounded to bf16.
  /// @param stream,products,launcher must outlive this object
  /// @param slots in host memory, used during the call only; a slot without expert is null and gets
  ///        no rows
  /// @throws Error(kUnsupported) if experts differ in their sizes, or a size is not a multiple of
  ///         8; Error(kInvalidArgument) if the shapes of an expert do not agree
  DeviceExperts(DeviceStream& stream, GroupedProducts& products, ExpertLauncher& launcher,
                std::span<const ExpertWeights* const> slots);

  /// @throws Error(kInvalidArgument) if there are not as many offsets as slots and one, a slot
  ///         without expert gets rows, or rows have another length than the experts;
  ///         Error(kUnsupported) if rows are not aligned to 16 bytes
  void forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
               MatrixView<float> out) override;
  /// Adds to the gradients of the weights, which stay on the device.
  /// @throws as forward()
  void backward_on_device(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                          MatrixView<const float> dout, MatrixView<float> drows);
  /// As backward_on_device(), and take_gradients().
  /// @throws as forward() and take_gradients()
  void backward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                MatrixView<const float> dout, MatrixView<float> drows,
                std::span<ExactExpert> dweights) override;

  /// @returns the gradients of a slot, for later tasks of the stream; valid until take_gradients()
  DeviceGradients gradients(std::int64_t slot) const;
  /// Waits, adds all gradients to `dweights` in host memory, and starts again from none.
  /// @param dweights [num_slots], of the shape of each slot's expert; slots without gradients stay
  ///        as they are
  /// @throws Error(kInvalidArgument) if there is not one gradient for each slot, or its shape is
  ///         another
  void take_gradients(std::span<ExactExpert> dweights);

 private:
  // Of one slot, gate and up one behind the other, then down.
  struct Slot {
    DeviceBuffer weights;    // bf16; empty: no expert
    DeviceBuffer gradients;  // f32; empty until they are needed
    bool has_gradients = false;
  };
  // The rows of one call.
  struct Call {
    std::span<const std::int64_t> offsets;
    std::int64_t first = 0, num_rows = 0;
  };

  void upload(Slot& slot, const ExpertWeights& expert);
  Call check_call(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                  std::initializer_list<const void*> addresses) const;
  DeviceBuffer rows_of(const Call& call, std::int64_t cols) const;
  DeviceBuffer packed(const Call& call, const GatheredRows& rows);
  void widen(const Call& call, const DeviceBuffer& packed, MatrixView<float> rows);
  void multiply(const Call& call, const DeviceBuffer& rows, bool by_down, bool transposed,
                const DeviceBuffer& out);
  void add_gradients(const Call& call, const DeviceBuffer& dout, const DeviceBuffer& in,
                     bool of_down);
  void launch(const ExpertKernel& kernel);
  std::int64_t down_offset() const { return 2 * intermediate_ * hidden_; }  // in elements
  std::int64_t num_weights() const { return 3 * intermediate_ * hidden_; }

  DeviceStream& stream_;
  GroupedProducts& products_;
  ExpertLauncher& launcher_;
  std::int64_t hidden_ = 0, intermediate_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace c2r
