// The experts of a layer: each a gated MLP, each with its own rows.
#pragma once

#include <span>
#include <vector>

#include "c2r/experts/grouped_gemm.h"

namespace c2r {

/// down(silu(gate(x)) * up(x)). Experts of one call may differ in their intermediate size.
struct ExpertWeights {
  RowsView gate, up;  // [intermediate, hidden]
  RowsView down;      // [hidden, intermediate]

  std::int64_t hidden() const { return gate.cols(); }
  std::int64_t intermediate() const { return gate.rows(); }
  std::int64_t num_bytes() const { return gate.num_bytes() + up.num_bytes() + down.num_bytes(); }
};

/// The rows that one expert computes. Nothing is dropped: there is no capacity.
struct ExpertRows {
  const ExpertWeights* expert = nullptr;
  MatrixView<const float> x;  // [num_rows, hidden]; num_rows may be 0
  MatrixView<float> out;      // [num_rows, hidden]
  // [num_rows], or empty: row r is that of x.row(row_index[r]), so that x need not be copied for
  // each expert. Then x has any number of rows.
  std::span<const std::int32_t> row_index = {};
};

/// Computes rows of experts, and keeps the memory between calls: two floats a row and value of the
/// intermediate size.
class ExpertMlps {
 public:
  /// @param gemm must outlive this object
  explicit ExpertMlps(GroupedGemm& gemm) : gemm_(&gemm) {}

  /// @throws Error(kInvalidArgument) if shapes do not agree
  /// Cost: 6 hidden intermediate FLOPs a row; reads the weights of every expert that has rows.
  void run(std::span<const ExpertRows> groups);

 private:
  GroupedGemm* gemm_;
  std::vector<float> gate_, up_;  // [num_rows of all groups, their intermediate]
};

/// sum += weight * out, as a token's outputs are added up.
inline void add_weighted(std::span<const float> out, float weight, std::span<float> sum) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * out[i];
}

/// ExpertMlps::run() by the formula, value by value, with sums in double: what it is compared with.
void run_experts_reference(std::span<const ExpertRows> groups);

}  // namespace c2r
