// The bodies of the kernels that move rows: one source for devices and for the tests on the host.
//
// Grid: one block for each row that a kernel writes or reads, num_blocks(); for WeighRows, which
// sums over a row, one warp for each row in blocks of 4 warps. Block of the others: 32 to 256
// threads, see num_threads(); thread i of n works on the columns [i V, i V + V), [(i + n) V, ...)
// with V = kVector. V is 8, so that a thread reads 16 bytes of bf16 at once, if hidden is a
// multiple of 8 and all rows are aligned to 16 bytes, and else 1. No shared memory, no atomics; a
// kernel writes every element of a row once, and sums have the order of dispatch.h.
//
// Bytes for each row of `hidden` elements, s = size of the row type, 4 for rows that stay on their
// rank:
//   kernel         reads                          writes              its adjoint
//   GatherRows     4 hidden for each sent row     s for each           AddReturns
//   ForwardRows    s for each forwarded row       s                    SumRelayed
//   SpreadRows     s for each received row        4 for each choice    ReduceRows, scale 1
//   ReduceRows     4 for each choice              s for each copy      SpreadRows
//   SumRelayed     s for each row that returned   s for each relayed   ForwardRows
//   AddReturns     s for each row, 4 a token      4 for each token     GatherRows
//   WeighRows      8 hidden + 4 for each choice   4 hidden + 4         none: it is an adjoint
//   IndexReceived  8 bytes for each choice        4 bytes for each     none: it makes an index
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <variant>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/row_values.h"
#include "c2r/core/cuda/warp.h"
#include "c2r/core/cuda/weigh_row.h"
#include "c2r/core/element.h"

namespace c2r {

/// The rows of one side, sent or received, in device memory: those that stay on their rank in f32,
/// all others in the row type.
struct DeviceRowStore {
  std::byte* wire = nullptr;
  std::byte* own = nullptr;
  std::int64_t own_begin = 0, own_end = 0;  // numbers of the rows that stay
  std::int64_t hidden = 0;
  ElementType type = ElementType::kF32;

  struct Row {
    std::byte* elements;
    ElementType type;
  };
  C2R_HOST_DEVICE Row row(std::int64_t r) const {
    const std::int64_t num_own = own_end - own_begin;
    if (r >= own_begin && r < own_end) {
      return {own + (r - own_begin) * hidden * 4, ElementType::kF32};
    }
    const std::int64_t on_wire = r < own_begin ? r : r - num_own;
    return {wire + on_wire * hidden * (type == ElementType::kF32 ? 4 : 2), type};
  }
};

/// The received copies of a part: block b is copy b, or b + skip from `skip_from` on.
struct PartCopies {
  std::int64_t num_copies = 0, skip_from = 0, skip = 0;

  C2R_HOST_DEVICE std::int64_t copy(std::int64_t block) const {
    return block < skip_from ? block : block + skip;
  }
};

/// sent row = row of x, for items that are tokens. One block for each sent row.
struct GatherRows {
  const std::byte* x = nullptr;  // f32, [num_tokens, hidden]
  const std::int32_t* send_item = nullptr;
  std::int64_t num_sent = 0, num_tokens = 0;
  DeviceRowStore sent;

  std::int64_t num_blocks() const { return num_sent; }
  std::int64_t hidden() const { return sent.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t row, const ThreadColumns& columns) const {
    const std::int32_t item = send_item[row];
    if (item >= num_tokens) return;
    const auto to = sent.row(row);
    copy_row<kVector>(f32_row(x, item, sent.hidden), ElementType::kF32, to.elements, to.type,
                      sent.hidden, columns);
  }
};

/// sent row = received row, for items that are relayed. One block for each sent row.
struct ForwardRows {
  const std::int32_t* send_item = nullptr;
  const std::int32_t* relay_row = nullptr;
  std::int64_t num_sent = 0, num_tokens = 0;
  DeviceRowStore received, sent;

  std::int64_t num_blocks() const { return num_sent; }
  std::int64_t hidden() const { return sent.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t row, const ThreadColumns& columns) const {
    const std::int64_t relayed = send_item[row] - num_tokens;
    if (relayed < 0) return;
    const auto from = received.row(relay_row[relayed]);
    const auto to = sent.row(row);
    copy_row<kVector>(from.elements, from.type, to.elements, to.type, sent.hidden, columns);
  }
};

/// row = received row, for each choice of the copy. One block for each copy of the part.
struct SpreadRows {
  PartCopies part;
  const std::int64_t* choice_offsets = nullptr;
  const std::int32_t* choice_row = nullptr;
  DeviceRowStore received;
  std::byte* rows = nullptr;  // f32, [num_rows, hidden]

  std::int64_t num_blocks() const { return part.num_copies; }
  std::int64_t hidden() const { return received.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t block, const ThreadColumns& columns) const {
    const std::int64_t copy = part.copy(block);
    const auto from = received.row(copy);
    for_each_column<kVector>(columns, received.hidden, [&](std::int64_t c) {
      const auto values = load_values<kVector>(from.elements, from.type, c);
      for (auto choice = choice_offsets[copy]; choice < choice_offsets[copy + 1]; ++choice) {
        store_values(f32_row(rows, choice_row[choice], received.hidden), ElementType::kF32, c,
                     values);
      }
    });
  }
};

/// index[row] = where the row's copy was received: rows of the wire come before rows that stay. One
/// block for each received copy.
struct IndexReceived {
  std::int64_t num_received = 0, own_begin = 0, own_end = 0;
  const std::int64_t* choice_offsets = nullptr;
  const std::int32_t* choice_row = nullptr;
  std::int32_t* index = nullptr;  // [num_rows]

  std::int64_t num_blocks() const { return num_received; }
  std::int64_t hidden() const { return 1; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t copy, const ThreadColumns& columns) const {
    const std::int64_t num_own = own_end - own_begin;
    std::int64_t place = copy;
    if (copy >= own_end) place = copy - num_own;
    if (copy >= own_begin && copy < own_end) place = num_received - num_own + copy - own_begin;
    const std::int64_t begin = choice_offsets[copy], end = choice_offsets[copy + 1];
    for (std::int64_t choice = begin + columns.first; choice < end; choice += columns.step) {
      index[choice_row[choice]] = static_cast<std::int32_t>(place);
    }
  }
};

/// What goes back for a copy: the sum of weight x row over its choices, in their order, or each
/// choice's weight x row. One block for each copy of the part.
struct ReduceRows {
  PartCopies part;
  const std::int64_t* choice_offsets = nullptr;
  const std::int32_t* choice_row = nullptr;
  const float* weights = nullptr;   // [num_rows], or null: 1
  const std::byte* rows = nullptr;  // f32, [num_rows, hidden]
  bool returns_choices = false;
  DeviceRowStore back;

  std::int64_t num_blocks() const { return part.num_copies; }
  std::int64_t hidden() const { return back.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE RowValues<kVector> weighted(std::int64_t choice, std::int64_t c) const {
    const std::int32_t row = choice_row[choice];
    auto values = load_values<kVector>(f32_row(rows, row, back.hidden), ElementType::kF32, c);
    if (weights == nullptr) return values;
    for (float& value : values.v) value = weights[row] * value;
    return values;
  }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t block, const ThreadColumns& columns) const {
    const std::int64_t copy = part.copy(block);
    const std::int64_t begin = choice_offsets[copy], end = choice_offsets[copy + 1];
    if (begin == end) return;  // to be forwarded
    for_each_column<kVector>(columns, back.hidden, [&](std::int64_t c) {
      auto sum = weighted<kVector>(begin, c);
      for (std::int64_t choice = begin; choice < end; ++choice) {
        const auto values = weighted<kVector>(choice, c);
        if (returns_choices) {
          const auto to = back.row(choice);
          store_values(to.elements, to.type, c, values);
        } else if (choice > begin) {
          for (int i = 0; i < kVector; ++i) sum.v[i] += values.v[i];
        }
      }
      if (returns_choices) return;
      const auto to = back.row(copy);
      store_values(to.elements, to.type, c, sum);
    });
  }
};

/// product = <output, gradient> of a row, and then gradient = weight x gradient. One warp for each
/// row; the sum has the order of RowMover::weigh_gradients(), with and without vectors.
struct WeighRows {
  std::int64_t first = 0, num_rows = 0, row_hidden = 0;
  const std::byte* outputs = nullptr;  // f32, [all rows, hidden]
  const float* weights = nullptr;      // [all rows]
  std::byte* gradients = nullptr;      // f32, [all rows, hidden]
  float* products = nullptr;           // [all rows]

  std::int64_t num_blocks() const { return num_rows; }
  std::int64_t hidden() const { return row_hidden; }
  template <int kVector, class Warp>
  C2R_HOST_DEVICE void run_in_warp(const Warp& warp, std::int64_t block) const {
    const std::int64_t row = first + block;
    std::byte* const gradient = f32_row(gradients, row, row_hidden);
    const float product = weigh_row<kVector>(warp, f32_row(outputs, row, row_hidden), gradient,
                                             weights[row], ElementType::kF32, row_hidden, gradient);
    warp.each([&](int lane) {
      if (lane == 0) products[row] = product;
    });
  }
};

/// The rows that have returned, and for which item each is.
struct ReturnedRows {
  DeviceRowStore rows;
  const std::int64_t* offsets = nullptr;  // [num_items + 1]
  const std::int32_t* row = nullptr;
  const float* weights = nullptr;  // of each entry of `row`, or null: 1

  template <int kVector>
  C2R_HOST_DEVICE void add_to(RowValues<kVector>& sum, std::int64_t item, std::int64_t c) const {
    for (std::int64_t i = offsets[item]; i < offsets[item + 1]; ++i) {
      const auto from = rows.row(row[i]);
      const auto values = load_values<kVector>(from.elements, from.type, c);
      const float weight = weights == nullptr ? 1.0F : weights[i];
      for (int j = 0; j < kVector; ++j) sum.v[j] += weight * values.v[j];
    }
  }
};

/// What goes back for a relayed copy: the sum of what has returned for it. One block for each.
struct SumRelayed {
  ReturnedRows returned;
  const std::int32_t* relay_row = nullptr;
  std::int64_t num_relayed = 0, num_tokens = 0;
  DeviceRowStore back;

  std::int64_t num_blocks() const { return num_relayed; }
  std::int64_t hidden() const { return back.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t relayed, const ThreadColumns& columns) const {
    const auto to = back.row(relay_row[relayed]);
    for_each_column<kVector>(columns, back.hidden, [&](std::int64_t c) {
      RowValues<kVector> sum = {};
      returned.add_to(sum, num_tokens + relayed, c);
      store_values(to.elements, to.type, c, sum);
    });
  }
};

/// sum += what has returned for the token. One block for each token.
struct AddReturns {
  ReturnedRows returned;
  std::int64_t num_tokens = 0;
  std::byte* sum = nullptr;  // f32, [num_tokens, hidden]

  std::int64_t num_blocks() const { return num_tokens; }
  std::int64_t hidden() const { return returned.rows.hidden; }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t token, const ThreadColumns& columns) const {
    std::byte* const to = f32_row(sum, token, hidden_of());
    for_each_column<kVector>(columns, hidden_of(), [&](std::int64_t c) {
      auto values = load_values<kVector>(to, ElementType::kF32, c);
      returned.add_to(values, token, c);
      store_values(to, ElementType::kF32, c, values);
    });
  }

 private:
  C2R_HOST_DEVICE std::int64_t hidden_of() const { return returned.rows.hidden; }
};

/// Whether a kernel is run by warps, each for a row, instead of blocks.
template <class Kernel>
inline constexpr bool kRunsInWarps = std::is_same_v<Kernel, WeighRows>;

/// A kernel with its arguments, and whether all rows are aligned to 16 bytes and of a multiple of
/// kRowVector elements.
struct RowKernel {
  std::variant<GatherRows, ForwardRows, SpreadRows, IndexReceived, ReduceRows, SumRelayed,
               AddReturns, WeighRows>
      kernel;
  bool is_vectorized = false;
};

}  // namespace c2r
