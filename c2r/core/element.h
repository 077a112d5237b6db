// Floats as they are stored: the element types of weights, of rows on the wire, of KV caches and of
// float tensors in files, and views of rows of such elements. All arithmetic is done in f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "c2r/core/bf16.h"
#include "c2r/core/error.h"
#include "c2r/core/half.h"

namespace c2r {

/// f32: IEEE binary32. f16: IEEE binary16, see half.h. bf16: the upper half of f32, see bf16.h.
enum class ElementType { kF32, kF16, kBf16 };

/// @returns "f32", "f16" or "bf16"
std::string_view name_of(ElementType type);

constexpr std::int64_t element_bytes(ElementType type) {
  return type == ElementType::kF32 ? 4 : 2;
}

/// Element `i` of a row of `type`, exactly: f32 has every value of f16 and bf16. The row need not
/// be aligned.
inline float load_element(const std::byte* row, ElementType type, std::int64_t i) {
  const auto load = [row, i]<class T>(T value) {
    std::memcpy(&value, row + i * std::int64_t{sizeof value}, sizeof value);
    return value;
  };
  if (type == ElementType::kF32) return load(float{});
  return type == ElementType::kF16 ? to_float(load(Half{})) : to_float(load(Bf16{}));
}

/// Rounds `value` to the nearest of `type`, ties to even, and stores it as element `i` of a row,
/// which need not be aligned.
inline void store_element(std::byte* row, ElementType type, std::int64_t i, float value) {
  const auto store = [row, i](auto stored) {
    std::memcpy(row + i * std::int64_t{sizeof stored}, &stored, sizeof stored);
  };
  if (type == ElementType::kF32) return store(value);
  type == ElementType::kF16 ? store(to_half(value)) : store(to_bf16(value));
}

/// to[i] = element i of `from`, exactly. `from` has to.size() elements, need not be aligned, and
/// does not overlap `to`.
void to_f32(const std::byte* from, ElementType type, std::span<float> to);

/// Element i of `to` = from[i], rounded to the nearest, ties to even. `to` has from.size()
/// elements, need not be aligned, and does not overlap `from`.
void from_f32(std::span<const float> from, ElementType type, std::byte* to);

/// sum[i] += weight * element i of `from`, each operation rounded to f32. `from` is as in to_f32().
void add_weighted(const std::byte* from, ElementType type, float weight, std::span<float> sum);

/// Rows of elements, [rows, cols], row-major, in memory that another object owns. `Byte` is
/// std::byte or const std::byte. Valid no longer than the memory.
template <class Byte>
class BasicRowsView {
 public:
  BasicRowsView() = default;

  /// Rows that are `stride` elements apart, at least `cols`. Whether the memory is that long cannot
  /// be checked here.
  BasicRowsView(Byte* data, ElementType type, std::int64_t rows, std::int64_t cols,
                std::int64_t stride)
      : data_(data), type_(type), rows_(rows), cols_(cols), stride_(stride) {}

  /// Rows one after the other, which fill `bytes`.
  /// @throws Error(kInvalidArgument) if `bytes` is shorter or longer than the rows
  BasicRowsView(std::span<Byte> bytes, ElementType type, std::int64_t rows, std::int64_t cols)
      : BasicRowsView(bytes.data(), type, rows, cols, cols) {
    check_size(bytes.size());
  }

  // Rows that may be written are accepted where rows are only read.
  template <class Other>
  requires(std::is_const_v<Byte> && !std::is_const_v<Other>)
      BasicRowsView(const BasicRowsView<Other>& from)  // NOLINT(google-explicit-constructor)
      : BasicRowsView(from.data(), from.type(), from.rows(), from.cols(), from.stride()) {}

  Byte* data() const { return data_; }
  ElementType type() const { return type_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  /// Elements from the begin of a row to that of the next.
  std::int64_t stride() const { return stride_; }
  std::int64_t row_bytes() const { return cols_ * element_bytes(type_); }
  /// @returns the bytes of all elements, without the gaps between rows
  std::int64_t num_bytes() const { return rows_ * row_bytes(); }

  Byte* row(std::int64_t r) const {
    C2R_ASSERT(0 <= r && r < rows_);
    return data_ + r * stride_ * element_bytes(type_);
  }
  /// Rows [begin, end).
  BasicRowsView rows(std::int64_t begin, std::int64_t end) const {
    C2R_ASSERT(0 <= begin && begin <= end && end <= rows_);
    return {data_ + begin * stride_ * element_bytes(type_), type_, end - begin, cols_, stride_};
  }
  /// The bytes of all rows, which must lie one after the other.
  std::span<Byte> bytes() const {
    C2R_ASSERT(stride_ == cols_ || rows_ <= 1);
    return {data_, static_cast<std::size_t>(num_bytes())};
  }

  /// As to_f32(), add_weighted() and from_f32().
  /// @param r in [0, rows)
  /// @param to,sum,from [cols]
  /// @throws Error(kInvalidArgument) if there is no such row, or it has another length
  void read_row(std::int64_t r, std::span<float> to) const {
    check_access(r, to.size());
    to_f32(row(r), type_, to);
  }
  void add_row_to(std::int64_t r, float weight, std::span<float> sum) const {
    check_access(r, sum.size());
    add_weighted(row(r), type_, weight, sum);
  }
  void write_row(std::int64_t r, std::span<const float> from) const
      requires(!std::is_const_v<Byte>) {
    check_access(r, from.size());
    // clang 14 instantiates this for const rows, too, where the class is instantiated as a whole.
    if constexpr (!std::is_const_v<Byte>) from_f32(from, type_, row(r));
  }

 private:
  void check_access(std::int64_t r, std::size_t num_values) const {
    if (r < 0 || r >= rows_ || num_values != static_cast<std::size_t>(cols_)) {
      refuse_access(r, num_values);
    }
  }
  [[noreturn]] void refuse_access(std::int64_t r, std::size_t num_values) const;
  void check_size(std::size_t size) const;

  Byte* data_ = nullptr;
  ElementType type_ = ElementType::kF32;
  std::int64_t rows_ = 0, cols_ = 0, stride_ = 0;
};

using RowsView = BasicRowsView<const std::byte>;
using MutableRowsView = BasicRowsView<std::byte>;

extern template class BasicRowsView<const std::byte>;
extern template class BasicRowsView<std::byte>;

}  // namespace c2r
