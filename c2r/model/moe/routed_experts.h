// Who computes the experts that tokens chose: this process, or the ranks that hold them.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/core/matrix.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/routing/routing.h"

namespace c2r {

/// The tokens of one MoE layer, routed. Borrows everything.
struct RoutedBatch {
  std::int64_t moe_layer = 0;
  std::span<const ExpertWeights> experts;  // [num_experts], of the layer
  const Routing& routing;
  MatrixView<const float> x;  // [num_tokens, hidden], normalized
  MatrixView<float> sum;      // [num_tokens, hidden], not `x`
  // Rows of experts that every token uses; computed at any time of the run.
  std::span<const ExpertRows> shared_experts;
};

class RoutedExperts {
 public:
  RoutedExperts() = default;
  RoutedExperts(const RoutedExperts&) = delete;
  RoutedExperts& operator=(const RoutedExperts&) = delete;
  virtual ~RoutedExperts() = default;

  /// Adds to each row of `sum` the weighted outputs of the experts that its token chose; a masked
  /// choice (kNoExpert) adds nothing. The rows of shared experts are computed, too, when it
  /// returns.
  /// @throws Error(kInvalidArgument) if a choice is neither an expert of the layer nor kNoExpert
  virtual void run(const RoutedBatch& batch) = 0;
};

/// All experts in this process: groups rows by expert and computes them at once. A token's outputs
/// are added in the order of choice, best first. Keeps its memory between calls: one row for each
/// choice of a token.
class LocalExperts final : public RoutedExperts {
 public:
  /// @param gemm must outlive this object
  explicit LocalExperts(GroupedGemm& gemm) : gemm_(&gemm), mlps_(gemm) {}

  void run(const RoutedBatch& batch) override;

 private:
  GroupedGemm* gemm_;
  ExpertMlps mlps_;
  Matrix<float> out_;  // [num_rows, hidden], rows by expert
};

}  // namespace c2r
