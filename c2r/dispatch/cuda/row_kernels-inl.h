// The bodies of the kernels that move rows: one source for devices and for the tests on the host.
//
// Grid: one block for each row that a kernel writes or reads, num_blocks(). Block: 32 to 256
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
//   IndexReceived  8 bytes for each choice        4 bytes for each     none: it makes an index
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <variant>

#include "c2r/core/bf16.h"
#include "c2r/core/cuda/host_device.h"
#include "c2r/core/element.h"
#include "c2r/core/half.h"

namespace c2r {

inline constexpr int kRowVector = 8;

/// Consecutive elements of a row.
template <int kVector>
struct RowValues {
  float v[kVector];
};

struct __attribute__((may_alias, aligned(16))) SixteenBytes {
  std::uint32_t word[4];
};

template <class Stored>
C2R_HOST_DEVICE inline Stored load_stored(const std::byte* row, std::int64_t c) {
  Stored stored;
  std::memcpy(&stored, row + c * std::int64_t{sizeof stored}, sizeof stored);
  return stored;
}
template <class Stored>
C2R_HOST_DEVICE inline void store_stored(std::byte* row, std::int64_t c, Stored stored) {
  std::memcpy(row + c * std::int64_t{sizeof stored}, &stored, sizeof stored);
}

/// The 16-bit types, as their bits.
C2R_HOST_DEVICE inline float float_of_bits(ElementType type, std::uint16_t bits) {
  return type == ElementType::kBf16 ? to_float(Bf16{bits}) : to_float(Half{bits});
}
C2R_HOST_DEVICE inline std::uint16_t bits_of_float(ElementType type, float value) {
  return static_cast<std::uint16_t>(type == ElementType::kBf16 ? std::uint16_t(to_bf16(value))
                                                               : std::uint16_t(to_half(value)));
}

/// Elements [c, c + kVector) of a row, exactly.
template <int kVector>
C2R_HOST_DEVICE inline RowValues<kVector> load_values(const std::byte* row, ElementType type,
                                                      std::int64_t c) {
  RowValues<kVector> values;
  if constexpr (kVector == 1) {
    values.v[0] = type == ElementType::kF32
                      ? load_stored<float>(row, c)
                      : float_of_bits(type, load_stored<std::uint16_t>(row, c));
  } else if (type == ElementType::kF32) {
    for (int half = 0; half < 2; ++half) {
      const auto bits = reinterpret_cast<const SixteenBytes*>(row + 4 * c)[half];
      for (int i = 0; i < 4; ++i) values.v[4 * half + i] = std::bit_cast<float>(bits.word[i]);
    }
  } else {
    const auto bits = *reinterpret_cast<const SixteenBytes*>(row + 2 * c);
    for (int i = 0; i < 4; ++i) {
      values.v[2 * i] = float_of_bits(type, static_cast<std::uint16_t>(bits.word[i] & 0xffffU));
      values.v[2 * i + 1] = float_of_bits(type, static_cast<std::uint16_t>(bits.word[i] >> 16));
    }
  }
  return values;
}

/// Rounds to the nearest of `type`, ties to even.
template <int kVector>
C2R_HOST_DEVICE inline void store_values(std::byte* row, ElementType type, std::int64_t c,
                                         const RowValues<kVector>& values) {
  if constexpr (kVector == 1) {
    if (type == ElementType::kF32) return store_stored(row, c, values.v[0]);
    store_stored(row, c, bits_of_float(type, values.v[0]));
  } else if (type == ElementType::kF32) {
    for (int half = 0; half < 2; ++half) {
      SixteenBytes bits;
      for (int i = 0; i < 4; ++i) {
        bits.word[i] = std::bit_cast<std::uint32_t>(values.v[4 * half + i]);
      }
      reinterpret_cast<SixteenBytes*>(row + 4 * c)[half] = bits;
    }
  } else {
    SixteenBytes bits;
    for (int i = 0; i < 4; ++i) {
      bits.word[i] = std::uint32_t{bits_of_float(type, values.v[2 * i])} |
                     std::uint32_t{bits_of_float(type, values.v[2 * i + 1])} << 16;
    }
    *reinterpret_cast<SixteenBytes*>(row + 2 * c) = bits;
  }
}

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

/// Rows of f32 one after the other, [num_rows, hidden].
C2R_HOST_DEVICE inline std::byte* f32_row(std::byte* rows, std::int64_t r, std::int64_t hidden) {
  return rows + r * hidden * 4;
}
C2R_HOST_DEVICE inline const std::byte* f32_row(const std::byte* rows, std::int64_t r,
                                                std::int64_t hidden) {
  return rows + r * hidden * 4;
}

/// The columns of one thread.
struct ThreadColumns {
  std::int64_t first = 0, step = 1;  // in vectors
};

template <int kVector, class Body>
C2R_HOST_DEVICE inline void for_each_column(const ThreadColumns& columns, std::int64_t hidden,
                                            const Body& body) {
  for (std::int64_t c = columns.first * kVector; c < hidden; c += columns.step * kVector) body(c);
}

/// to[c] = from[c], between types.
template <int kVector>
C2R_HOST_DEVICE inline void copy_row(const std::byte* from, ElementType from_type, std::byte* to,
                                     ElementType to_type, std::int64_t hidden,
                                     const ThreadColumns& columns) {
  for_each_column<kVector>(columns, hidden, [&](std::int64_t c) {
    store_values(to, to_type, c, load_values<kVector>(from, from_type, c));
  });
}

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

/// A kernel with its arguments, and whether all rows are aligned to 16 bytes and of a multiple of
/// kRowVector elements.
struct RowKernel {
  std::variant<GatherRows, ForwardRows, SpreadRows, IndexReceived, ReduceRows, SumRelayed,
               AddReturns>
      kernel;
  bool is_vectorized = false;
};

/// @returns the threads of a block: a warp or more, so that each has a vector if there are enough
inline int num_threads(std::int64_t hidden, bool is_vectorized) {
  const std::int64_t vectors = is_vectorized ? hidden / kRowVector : hidden;
  return static_cast<int>(std::clamp<std::int64_t>((vectors + 31) / 32 * 32, 32, 256));
}

}  // namespace c2r
