// What the experts of one process or device compute, forward and backward, on rows grouped by slot.
//
// Dispatch hands out rows, an ExpertCompute turns them into outputs, and combine brings those back.
// The backward pass of a layer uses the same rows and the same handle; docs/architecture.md says
// how. CpuExperts is the implementation for host memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/experts/exact_expert.h"
#include "c2r/experts/expert_mlp.h"

namespace c2r {

/// The experts in the slots of one rank. Rows of slot s are [offsets[s], offsets[s + 1]); offsets
/// has one entry more than there are slots, and rows outside [offsets[0], offsets.back()) are left
/// alone. All rows are [num_rows, hidden], in the memory of the device that computes; those that
/// are only read may lie where they were received.
class ExpertCompute {
 public:
  ExpertCompute() = default;
  ExpertCompute(const ExpertCompute&) = delete;
  ExpertCompute& operator=(const ExpertCompute&) = delete;
  virtual ~ExpertCompute() = default;

  /// Gives each row its output.
  virtual void forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                       MatrixView<float> out) = 0;
  /// Gives each row its gradient, and adds to those of the weights. Computes again what it needs of
  /// the forward pass.
  /// @param dout the gradient of each row's output
  /// @param drows is overwritten, but for rows outside the offsets
  /// @param dweights [num_slots], of the shape of each slot's expert; slots without rows stay as
  ///        they are
  virtual void backward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                        MatrixView<const float> dout, MatrixView<float> drows,
                        std::span<ExactExpert> dweights) = 0;
};

/// The experts of this process, forward as fast as ExpertMlps. Backward is the reference in double,
/// for checking: it uses one thread, and memory for its experts in double.
class CpuExperts final : public ExpertCompute {
 public:
  /// @param mlps,slots must outlive this object; a slot without expert is null and gets no rows
  CpuExperts(ExpertMlps& mlps, std::span<const ExpertWeights* const> slots)
      : mlps_(mlps), slots_(slots) {}

  /// @throws Error(kInvalidArgument) if there are not as many offsets as slots and one, or as
  ///         ExpertMlps::run()
  void forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
               MatrixView<float> out) override;
  /// @throws Error(kInvalidArgument) as forward(), and if there is not one gradient for each slot
  void backward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                MatrixView<const float> dout, MatrixView<float> drows,
                std::span<ExactExpert> dweights) override;

 private:
  void check(std::span<const std::int64_t> offsets) const;

  ExpertMlps& mlps_;
  std::span<const ExpertWeights* const> slots_;
};

}  // namespace c2r
