// How kernels read and write rows: eight consecutive elements at once where rows are aligned, in
// f32 registers, rounded to the type of the row. One source for devices and for the tests on the
// host.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

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

/// @returns whether rows that begin at `address` can be read by vectors, if their length is a
///          multiple of kRowVector
inline bool is_aligned_for_vectors(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % alignof(SixteenBytes) == 0;
}

/// @returns the threads of a block: a warp or more, so that each has a vector if there are enough
inline int num_threads(std::int64_t hidden, bool is_vectorized) {
  const std::int64_t vectors = is_vectorized ? hidden / kRowVector : hidden;
  return static_cast<int>(std::clamp<std::int64_t>((vectors + 31) / 32 * 32, 32, 256));
}

}  // namespace c2r
