// The experts of a layer: gated MLPs, each of which computes its own rows.
#pragma once

#include <span>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/experts/grouped_gemm.h"

namespace c2r {

/// The weights of one expert, which computes down(silu(gate(x)) * up(x)). The experts of one call
/// may differ in their intermediate size.
struct ExpertWeights {
  RowsView gate, up;  // [intermediate, hidden]
  RowsView down;      // [hidden, intermediate]

  std::int64_t hidden() const { return gate.cols(); }
  std::int64_t intermediate() const { return gate.rows(); }
  std::int64_t num_bytes() const { return gate.num_bytes() + up.num_bytes() + down.num_bytes(); }
};

/// The rows that one expert computes. There is no capacity limit, so no row is dropped.
struct ExpertRows {
  const ExpertWeights* expert = nullptr;
  GatheredRows x;         // [num_rows, hidden], aligned to its elements; num_rows may be 0
  MatrixView<float> out;  // [num_rows, hidden]
};

/// Computes rows of experts. Memory, kept between calls: 2 x intermediate floats for each row.
class ExpertMlps {
 public:
  /// @param gemm must outlive this object
  explicit ExpertMlps(GroupedGemm& gemm) : gemm_(&gemm) {}

  /// @throws Error(kInvalidArgument) if shapes do not agree or an expert is null
  /// Cost: 6 x hidden x intermediate FLOPs for each row; reads the weights of each expert with
  /// rows.
  void run(std::span<const ExpertRows> groups);

 private:
  GroupedGemm* gemm_;
  std::vector<float> gate_, up_;  // [num_rows of all groups, their intermediate]
};

/// sum += weight * out, as the outputs of a token's experts are added.
/// @throws Error(kInvalidArgument) if `out` and `sum` differ in size
inline void add_weighted(std::span<const float> out, float weight, std::span<float> sum) {
  C2R_REQUIRE(out.size() == sum.size(), kInvalidArgument, "{} outputs cannot be added to {} sums",
              out.size(), sum.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * out[i];
}

/// The reference of ExpertMlps::run(): computes value by value, by the formula, with sums in
/// double.
/// @throws as ExpertMlps::run()
void run_experts_reference(std::span<const ExpertRows> groups);

}  // namespace c2r
