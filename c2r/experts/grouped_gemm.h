// Many matrix products at once, each of a few rows with its own weights: the experts of a layer,
// but also the projections of attention.
//
// Weights are used where they lie, as the checkpoint stores them: a row of inputs for each output.
// Products are dot products along that row, so nothing is packed or copied but the activations,
// and a model needs its weights once. A tile of 4 rows by 6 outputs stays in registers, as in any
// GEMM; its lanes are added once, at the end of the row. What that gives beside oneDNN, which packs
// weights, is measured by experts_bench.cc.
//
// Each output is computed in one order of additions, which depends on the backend and on nothing
// else: not on the other rows of the batch, nor on threads. So a token's results are the same bits
// in a batch, in a chunk of a prompt or alone. Other processors may round differently.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/element.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"

namespace c2r {

/// What is multiplied. kF32: activations as they are, weights widened. kBf16: bf16 weights by
/// activations that are rounded to bf16, where the processor can do that; otherwise, and for
/// weights of another type, as kF32. Sums are f32 in both.
enum class Arithmetic { kF32, kBf16 };

/// out = x weight^T + bias.
struct GemmGroup {
  MatrixView<const float> x;  // [num_rows, num_inputs]; num_rows may be 0
  // [num_rows], or empty: row r of the product is that of x.row(row_index[r]) instead of x.row(r).
  // Then x has any number of rows, and may be much smaller than the product.
  std::span<const std::int32_t> row_index;
  RowsView weight;              // [num_outputs, num_inputs], aligned to its elements
  std::span<const float> bias;  // [num_outputs], or empty
  MatrixView<float> out;        // [num_rows, num_outputs]; overlaps nothing else of the call

  std::int64_t num_rows() const { return out.rows(); }
  const float* row(std::int64_t r) const {
    return x.row(row_index.empty() ? r : row_index[static_cast<std::size_t>(r)]).data();
  }
};

/// A block of one product: a row of `x` is packed as the backend wants it.
struct GemmBlock {
  const std::byte* x = nullptr;  // `num_rows` packed rows
  std::int64_t num_rows = 0;
  RowsView weight;              // the outputs of this block
  const float* bias = nullptr;  // [weight.rows()], or null
  float* out = nullptr;         // element (0, 0) of this block
  std::int64_t out_stride = 0;
};

/// One way to compute a product. Rows are packed in panels of kPanelRows.
struct GemmBackend {
  std::string_view name;
  /// Empty if it can do this on this machine, else the reason.
  std::string (*why_not)(ElementType weights, Arithmetic arithmetic);
  std::int64_t (*packed_row_bytes)(std::int64_t num_inputs);
  /// Packs up to kPanelRows rows of num_inputs floats each into rows.size() x packed_row_bytes.
  void (*pack)(std::span<const float* const> rows, std::int64_t num_inputs, std::byte* packed);
  void (*multiply)(const GemmBlock& block);
};

inline constexpr std::int64_t kPanelRows = 4;

/// Every backend of this build, fastest first; the last one is the reference.
std::span<const GemmBackend> gemm_backends();

/// The first backend that can do it, or the one called `name` if that is not empty.
/// @throws Error(kUnsupported) with each backend's reason if there is none
const GemmBackend& choose_gemm_backend(ElementType weights, Arithmetic arithmetic,
                                       std::string_view name = {});

/// Runs groups on a pool of threads, and keeps the memory for packed rows between calls.
class GroupedGemm {
 public:
  /// @param backend forces one by name; empty: the fastest for each group
  /// @param pool must outlive this object
  GroupedGemm(Arithmetic arithmetic, ThreadPool& pool, std::string_view backend = {});

  Arithmetic arithmetic() const { return arithmetic_; }
  ThreadPool& pool() const { return *pool_; }

  /// Computes all groups. Work is handed out in blocks of weights of some 256 KiB across the
  /// groups, so that many small groups and a single large one both use all threads. Groups that
  /// follow each other and have the same rows share them packed. Rows are gathered while they are
  /// packed, so a `row_index` costs nothing.
  ///
  /// @throws Error(kInvalidArgument) if shapes do not agree, or a row_index is not in [0, x.rows())
  ///
  /// Cost: 2 num_rows num_inputs num_outputs FLOPs a group; reads the weights of each group once
  /// for every 256 KiB of packed rows; memory: the packed rows, kept for the next call.
  void run(std::span<const GemmGroup> groups);

 private:
  struct Planned;
  std::vector<Planned> plan(std::span<const GemmGroup> groups);
  void pack(std::span<const Planned> planned);
  std::byte* packed_begin();

  Arithmetic arithmetic_;
  ThreadPool* pool_;
  std::string backend_;
  std::vector<std::byte> packed_;
};

}  // namespace c2r
