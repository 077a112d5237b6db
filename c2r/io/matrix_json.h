// Matrices as JSON.
#pragma once

#include <span>
#include <type_traits>

#include "c2r/core/matrix.h"
#include "c2r/io/json.h"

namespace c2r {

/// @returns an array of the rows, each an array of numbers; ids are written as integers
template <class T>
Json matrix_to_json(const Matrix<T>& matrix) {
  Json rows = Json::array();
  for (std::int64_t r = 0; r < matrix.rows(); ++r) {
    Json row = Json::array();
    for (const T& value : matrix.row(r)) {
      if constexpr (std::is_enum_v<T>) {
        row.push_back(static_cast<std::underlying_type_t<T>>(value));
      } else {
        row.push_back(value);
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// @returns an array with matrix_to_json() of each
template <class T>
Json matrices_to_json(std::span<const Matrix<T>> matrices) {
  Json json = Json::array();
  for (const Matrix<T>& matrix : matrices) json.push_back(matrix_to_json(matrix));
  return json;
}

}  // namespace c2r
