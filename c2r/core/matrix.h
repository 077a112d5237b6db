// A dense row-major matrix that owns its elements, and the view that borrows them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {

/// @returns rows x cols
/// @throws Error(kInvalidArgument) if one is negative, or the product does not fit 63 bits
std::size_t num_elements(std::int64_t rows, std::int64_t cols);

/// A dense row-major matrix, [rows, cols].
template <class T>
class Matrix {
 public:
  Matrix() = default;
  /// @throws as num_elements()
  Matrix(std::int64_t rows, std::int64_t cols, T fill = T{})
      : rows_(rows), cols_(cols), data_(num_elements(rows, cols), fill) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }

  /// Changes the shape. All elements are unspecified afterwards. Shrinking keeps the memory.
  /// @throws as num_elements()
  void reshape(std::int64_t rows, std::int64_t cols) {
    data_.resize(num_elements(rows, cols));
    rows_ = rows, cols_ = cols;
  }

  T& operator()(std::int64_t r, std::int64_t c) { return data_[offset(r, c)]; }
  const T& operator()(std::int64_t r, std::int64_t c) const { return data_[offset(r, c)]; }

  std::span<T> row(std::int64_t r) { return all().subspan(row_offset(r), std::size_t(cols_)); }
  std::span<const T> row(std::int64_t r) const {
    return all().subspan(row_offset(r), std::size_t(cols_));
  }

  std::span<T> all() { return data_; }
  std::span<const T> all() const { return data_; }

  bool operator==(const Matrix&) const = default;

 private:
  std::size_t row_offset(std::int64_t r) const {
    C2R_ASSERT(0 <= r && r < rows_);
    return static_cast<std::size_t>(r * cols_);
  }
  std::size_t offset(std::int64_t r, std::int64_t c) const {
    C2R_ASSERT(0 <= c && c < cols_);
    return row_offset(r) + static_cast<std::size_t>(c);
  }

  std::int64_t rows_ = 0, cols_ = 0;
  std::vector<T> data_;
};

/// A row-major matrix in memory that another object owns, and no longer valid than that memory. `T`
/// may be const.
template <class T>
class MatrixView {
 public:
  MatrixView() = default;
  MatrixView(T* data, std::int64_t rows, std::int64_t cols)
      : data_(data), rows_(rows), cols_(cols) {}
  // A Matrix is accepted wherever its view is.
  MatrixView(const Matrix<std::remove_const_t<T>>& m)  // NOLINT(google-explicit-constructor)
      requires std::is_const_v<T> : MatrixView(m.all().data(), m.rows(), m.cols()) {}
  MatrixView(Matrix<std::remove_const_t<T>>& m)  // NOLINT(google-explicit-constructor)
      : MatrixView(m.all().data(), m.rows(), m.cols()) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  T* data() const { return data_; }

  T& operator()(std::int64_t r, std::int64_t c) const {
    C2R_ASSERT(0 <= r && r < rows_ && 0 <= c && c < cols_);
    return data_[r * cols_ + c];
  }
  std::span<T> row(std::int64_t r) const {
    C2R_ASSERT(0 <= r && r < rows_);
    return {data_ + r * cols_, static_cast<std::size_t>(cols_)};
  }
  /// Rows [begin, end).
  MatrixView rows(std::int64_t begin, std::int64_t end) const {
    C2R_ASSERT(0 <= begin && begin <= end && end <= rows_);
    return {data_ + begin * cols_, end - begin, cols_};
  }

 private:
  T* data_ = nullptr;
  std::int64_t rows_ = 0, cols_ = 0;
};

}  // namespace c2r
