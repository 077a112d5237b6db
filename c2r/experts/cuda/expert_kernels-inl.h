// The bodies of the kernels around the experts' products: one source for devices and for the tests
// on the host.
//
// Grid: one block for each row, num_blocks(). Block: 32 to 256 threads, see num_threads(); thread i
// of n works on the columns [8 i, 8 i + 8), [8 (i + n), ...). No shared memory, no atomics. Lengths
// are multiples of 8 and rows are aligned to 16 bytes, which DeviceExperts checks.
//
// Bytes for each row, s = size of the type in which a row was received:
//   kernel           reads                   writes
//   PackRows         s hidden, 4 of index    2 hidden
//   Swiglu           4 intermediate          2 intermediate
//   SwigluBackward   6 intermediate          6 intermediate, where it has read
//   WidenRows        2 hidden                4 hidden
//
// With g and u for the outputs of gate and up, and s = sigmoid(g), all in f32:
//   Swiglu           h = bf16(g s u)
//   SwigluBackward   du = bf16(dh g s), dg = bf16(dh u (s (1 + g (1 - s)))), and h as above
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/row_values.h"
#include "c2r/core/element.h"
#include "c2r/core/exp.h"

namespace c2r {

/// Rows of bf16 one after the other.
C2R_HOST_DEVICE inline std::byte* bf16_row(std::byte* rows, std::int64_t r, std::int64_t cols) {
  return rows + r * cols * 2;
}
C2R_HOST_DEVICE inline const std::byte* bf16_row(const std::byte* rows, std::int64_t r,
                                                 std::int64_t cols) {
  return rows + r * cols * 2;
}

/// Consecutive rows of device memory, `stride` elements apart.
struct DeviceRows {
  const std::byte* data = nullptr;
  ElementType type = ElementType::kF32;
  std::int64_t num_rows = 0, stride = 0;

  C2R_HOST_DEVICE const std::byte* row(std::int64_t r) const {
    return data + r * stride * (type == ElementType::kF32 ? 4 : 2);
  }
};

/// packed row = row `first` + block of what the experts are given, rounded to bf16.
struct PackRows {
  DeviceRows from, more;                // as in GatheredRows
  const std::int32_t* index = nullptr;  // the same; null: rows of `from` in their order
  std::int64_t first = 0, num_rows = 0, cols = 0;
  std::byte* packed = nullptr;  // bf16, [num_rows, cols]

  std::int64_t num_blocks() const { return num_rows; }
  std::int64_t num_columns() const { return cols; }
  C2R_HOST_DEVICE void run(std::int64_t block, const ThreadColumns& columns) const {
    const std::int64_t place = index == nullptr ? first + block : index[first + block];
    const bool is_first = place < from.num_rows;
    copy_row<kRowVector>(is_first ? from.row(place) : more.row(place - from.num_rows),
                         is_first ? from.type : more.type, bf16_row(packed, block, cols),
                         ElementType::kBf16, cols, columns);
  }
};

/// The outputs of gate and up for a row, which lie one behind the other.
struct GateAndUp {
  RowValues<kRowVector> gate, up;

  C2R_HOST_DEVICE static GateAndUp load(const std::byte* row, std::int64_t intermediate,
                                        std::int64_t c) {
    return {load_values<kRowVector>(row, ElementType::kBf16, c),
            load_values<kRowVector>(row, ElementType::kBf16, intermediate + c)};
  }
};

/// h = silu(gate) * up.
struct Swiglu {
  const std::byte* gate_up = nullptr;  // bf16, [num_rows, 2 intermediate]
  std::int64_t num_rows = 0, intermediate = 0;
  std::byte* inner = nullptr;  // bf16, [num_rows, intermediate]

  std::int64_t num_blocks() const { return num_rows; }
  std::int64_t num_columns() const { return intermediate; }
  C2R_HOST_DEVICE void run(std::int64_t row, const ThreadColumns& columns) const {
    const std::byte* const from = bf16_row(gate_up, row, 2 * intermediate);
    std::byte* const to = bf16_row(inner, row, intermediate);
    for_each_column<kRowVector>(columns, intermediate, [&](std::int64_t c) {
      const auto values = GateAndUp::load(from, intermediate, c);
      RowValues<kRowVector> h;
      for (int i = 0; i < kRowVector; ++i) {
        const float gate = values.gate.v[i];
        h.v[i] = gate * sigmoid(gate) * values.up.v[i];
      }
      store_values(to, ElementType::kBf16, c, h);
    });
  }
};

/// The gradients of gate and up, and h again, each where what it is computed from was.
struct SwigluBackward {
  std::byte* gate_up = nullptr;  // bf16, [num_rows, 2 intermediate]; becomes their gradients
  std::int64_t num_rows = 0, intermediate = 0;
  std::byte* inner = nullptr;  // bf16, [num_rows, intermediate]; the gradient of h becomes h

  std::int64_t num_blocks() const { return num_rows; }
  std::int64_t num_columns() const { return intermediate; }
  C2R_HOST_DEVICE void run(std::int64_t row, const ThreadColumns& columns) const {
    std::byte* const outer_row = bf16_row(gate_up, row, 2 * intermediate);
    std::byte* const inner_row = bf16_row(inner, row, intermediate);
    for_each_column<kRowVector>(columns, intermediate, [&](std::int64_t c) {
      const auto values = GateAndUp::load(outer_row, intermediate, c);
      auto dh = load_values<kRowVector>(inner_row, ElementType::kBf16, c);
      RowValues<kRowVector> dgate, dup;
      for (int i = 0; i < kRowVector; ++i) {
        const float gate = values.gate.v[i], up = values.up.v[i], s = sigmoid(gate);
        dup.v[i] = dh.v[i] * (gate * s);
        dgate.v[i] = dh.v[i] * up * (s * (1.0F + gate * (1.0F - s)));
        dh.v[i] = gate * s * up;
      }
      store_values(outer_row, ElementType::kBf16, c, dgate);
      store_values(outer_row, ElementType::kBf16, intermediate + c, dup);
      store_values(inner_row, ElementType::kBf16, c, dh);
    });
  }
};

/// row `first` + block of f32 = packed row.
struct WidenRows {
  const std::byte* packed = nullptr;  // bf16, [num_rows, cols]
  std::int64_t first = 0, num_rows = 0, cols = 0;
  std::byte* rows = nullptr;  // f32

  std::int64_t num_blocks() const { return num_rows; }
  std::int64_t num_columns() const { return cols; }
  C2R_HOST_DEVICE void run(std::int64_t block, const ThreadColumns& columns) const {
    copy_row<kRowVector>(bf16_row(packed, block, cols), ElementType::kBf16,
                         f32_row(rows, first + block, cols), ElementType::kF32, cols, columns);
  }
};

/// A kernel with its arguments.
struct ExpertKernel {
  std::variant<PackRows, Swiglu, SwigluBackward, WidenRows> kernel;
};

}  // namespace c2r
