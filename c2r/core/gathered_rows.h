// Rows that a computation reads from where they lie, in an order of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "c2r/core/element.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// @returns the rows of a matrix of f32
inline RowsView f32_rows(const MatrixView<const float>& m) {
  return {reinterpret_cast<const std::byte*>(m.data()), ElementType::kF32, m.rows(), m.cols(),
          m.cols()};
}

/// The rows that a computation reads, [num_rows, cols]: all rows of a view in their order, or those
/// that an index names. With an index no row has to be copied to stand beside others, and a row
/// that is read several times is stored once. Valid no longer than the memory and the index.
class GatheredRows {
 public:
  GatheredRows() = default;

  // A view, or a matrix of f32, is accepted where rows are read: all its rows in their order.
  GatheredRows(const RowsView& rows)  // NOLINT(google-explicit-constructor)
      : rows_(rows), num_rows_(rows.rows()) {}
  GatheredRows(const MatrixView<const float>& rows)  // NOLINT(google-explicit-constructor)
      : GatheredRows(f32_rows(rows)) {}
  GatheredRows(const MatrixView<float>& rows)  // NOLINT(google-explicit-constructor)
      : GatheredRows(MatrixView<const float>(rows.data(), rows.rows(), rows.cols())) {}
  GatheredRows(const Matrix<float>& rows)  // NOLINT(google-explicit-constructor)
      : GatheredRows(MatrixView<const float>(rows)) {}

  /// Row r is row index[r] of `rows` and `more` together: first all rows of `rows`, then those of
  /// `more`, which may have another element type.
  /// @param index [num_rows]; check() tells whether it is valid
  /// @throws Error(kInvalidArgument) if `more` has rows, and they differ in length from `rows`
  GatheredRows(const RowsView& rows, std::span<const std::int32_t> index,
               const RowsView& more = {});

  std::int64_t num_rows() const { return num_rows_; }
  std::int64_t cols() const { return rows_.cols(); }

  /// What the constructors were given, for kernels of a device, whose memory it is: the rows that
  /// come first, those behind them, and the index, [num_rows], null if there is none.
  const RowsView& first_rows() const { return rows_; }
  const RowsView& more_rows() const { return more_; }
  const std::int32_t* index() const { return index_; }

  /// Checks the index.
  /// @throws Error(kInvalidArgument), naming the first entry that is not a row
  /// Cost: O(num_rows), or nothing without an index.
  void check() const;

  /// @returns rows [begin, end)
  GatheredRows rows(std::int64_t begin, std::int64_t end) const;
  /// @returns whether `other` reads the same memory in the same order
  bool is_same_as(const GatheredRows& other) const;

  struct Row {
    const std::byte* elements = nullptr;  // [cols]
    ElementType type = ElementType::kF32;
  };
  /// @returns row `r` as it is stored
  /// @param r in [0, num_rows); neither it nor the index is checked
  Row row(std::int64_t r) const {
    C2R_ASSERT(0 <= r && r < num_rows_);
    const std::int64_t i = index_ == nullptr ? r : index_[r];
    if (i < rows_.rows()) return {rows_.row(i), rows_.type()};
    return {more_.row(i - rows_.rows()), more_.type()};
  }
  /// Writes the values of row `r`, which are exact in f32.
  /// @param to [cols]
  void read_row(std::int64_t r, std::span<float> to) const {
    C2R_ASSERT(std::ssize(to) == cols());
    const auto [elements, type] = row(r);
    to_f32(elements, type, to);
  }

 private:
  RowsView rows_, more_;
  const std::int32_t* index_ = nullptr;  // [num_rows_], or null: the rows of rows_
  std::int64_t num_rows_ = 0;
};

}  // namespace c2r
