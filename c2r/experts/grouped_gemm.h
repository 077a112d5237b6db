// Grouped GEMM: many matrix products in one call, each of some rows with weights of their own. It
// computes the experts of a layer and the projections of attention.
//
// Weights are read in place, in the layout of checkpoints: one row of inputs for each output. An
// output is a dot product along that row, so only the activations are packed, and a model keeps one
// copy of its weights. As in any GEMM, the sums of a tile of 4 rows by 6 outputs stay in registers;
// the lanes of a sum are added once, at the end of the row. experts_bench.cc compares the speed
// with oneDNN, which packs the weights.
//
// The order of the additions of an output depends on the backend only, neither on the other rows of
// the batch nor on threads. So the result of a token is the same bits in a batch, in a chunk of a
// prompt and alone. Other processors may round differently.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/element.h"
#include "c2r/core/gathered_rows.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"

namespace c2r {

/// The types of the factors. kF32: activations and weights are multiplied in f32. kBf16: bf16
/// weights are multiplied by activations that are rounded to bf16, if the processor has such
/// instructions; without them, and for weights of other types, as kF32. Sums are f32 in both.
enum class Arithmetic { kF32, kBf16 };

/// out = x weight^T + bias.
struct GemmGroup {
  GatheredRows x;   // [num_rows, num_inputs], aligned to its elements; num_rows may be 0
  RowsView weight;  // [num_outputs, num_inputs], aligned to its elements
  std::span<const float> bias;  // [num_outputs], or empty
  MatrixView<float> out;        // [num_rows, num_outputs]; overlaps nothing else of the call

  std::int64_t num_rows() const { return out.rows(); }
};

/// A block of one product. The rows of `x` are packed in the layout of the backend.
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
  /// @returns why this machine cannot compute such a product with this backend; empty if it can
  std::string (*why_not)(ElementType weights, Arithmetic arithmetic);
  std::int64_t (*packed_row_bytes)(std::int64_t num_inputs);
  /// Packs up to kPanelRows rows of num_inputs floats each into
  /// rows.size() x packed_row_bytes(num_inputs) bytes.
  void (*pack)(std::span<const float* const> rows, std::int64_t num_inputs, std::byte* packed);
  void (*multiply)(const GemmBlock& block);
};

inline constexpr std::int64_t kPanelRows = 4;

/// @returns the backends of this build, fastest first; the last is the reference
std::span<const GemmBackend> gemm_backends();

/// @returns the first backend that can compute such products, or the one called `name` if that is
///          not empty
/// @throws Error(kUnsupported), with the reason of each backend, if there is none
const GemmBackend& choose_gemm_backend(ElementType weights, Arithmetic arithmetic,
                                       std::string_view name = {});

/// Computes groups on a pool of threads, and keeps the memory of packed rows between calls.
class GroupedGemm {
 public:
  /// @param backend the name of the one to use; empty: the fastest for each group
  /// @param pool must outlive this object
  GroupedGemm(Arithmetic arithmetic, ThreadPool& pool, std::string_view backend = {});

  Arithmetic arithmetic() const { return arithmetic_; }
  ThreadPool& pool() const { return *pool_; }

  /// Computes all groups. A task is a block of weights of some 256 KiB of any group, so that both
  /// many small groups and a single large group use all threads. Consecutive groups with the same
  /// rows share the packed rows. Rows are gathered, and widened to f32, while they are packed, so
  /// neither an index nor another element type costs a copy of the rows.
  ///
  /// @throws Error(kInvalidArgument) if shapes do not agree, or as GatheredRows::check()
  ///
  /// Cost: 2 x num_rows x num_inputs x num_outputs FLOPs for each group; reads the weights of a
  /// group once for every 256 KiB of packed rows. Memory: the packed rows, kept for the next call.
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
  std::vector<float> widened_;  // [num_threads, kPanelRows * num_inputs]
};

}  // namespace c2r
