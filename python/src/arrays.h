// Passes NumPy and DLPack arrays to and from the library, without copies and without conversions.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r::python {

namespace nb = nanobind;

/// An array of any type, as the caller passed it. The functions below check it, so that the error
/// of a wrong array says in one line what the array is and what it must be.
using AnyArray = nb::ndarray<nb::ro>;

/// Where arrays are.
struct ArrayPlace {
  int device_type = nb::device::cpu::value;  // of DLPack
  const char* text = "in the host's memory";
};

/// Checks that an array is C-contiguous, in `place`, of one of `types` and has so many axes.
/// @param name of the argument, for messages
/// @throws nb::type_error
void check_array(const AnyArray& array, const char* name,
                 std::initializer_list<nb::dlpack::dtype> types, std::size_t num_axes,
                 const ArrayPlace& place = {});

/// The length of an axis.
std::int64_t extent(const AnyArray& array, std::size_t axis);

/// A borrowed view of a C-contiguous float32 array [rows, cols] in the host's memory.
/// @param name of the argument, for messages
/// @throws nb::type_error if the type, rank, layout or device is another
MatrixView<const float> float_matrix(const AnyArray& array, const char* name);

/// The same for expert ids, int32; -1 means no expert.
/// @throws nb::type_error as float_matrix()
MatrixView<const ExpertId> expert_matrix(const AnyArray& array, const char* name);

/// Borrowed views of C-contiguous arrays [n].
/// @throws nb::type_error as float_matrix()
std::span<const float> float_vector(const AnyArray& array, const char* name);
std::span<const std::int64_t> int64_vector(const AnyArray& array, const char* name);

template <class T>
std::span<const T> span_of(const std::vector<T>& values) {
  return values;
}
template <class T>
std::span<const T> span_of(const Matrix<T>& values) {
  return values.all();
}

/// A NumPy array of `shape`, in the memory of `values`, which it owns from now on. No copy.
/// @param values a std::vector or a Matrix; its elements are as large as `Stored`
template <class Stored, class Values>
nb::ndarray<nb::numpy, Stored> owned_array(Values values,
                                           std::initializer_list<std::size_t> shape) {
  auto owner = std::make_unique<Values>(std::move(values));
  const std::span elements = span_of(*owner);
  static_assert(sizeof(Stored) == sizeof(*elements.data()));
  // NumPy takes the address as one of `Stored`: an id is its int32, by its enumeration's type.
  auto* const data = const_cast<void*>(static_cast<const void*>(elements.data()));
  const nb::capsule capsule(owner.get(),
                            [](void* kept) noexcept { delete static_cast<Values*>(kept); });
  (void)owner.release();
  return nb::ndarray<nb::numpy, Stored>(data, shape, capsule);
}

/// A NumPy array [rows, cols] that owns the matrix. No copy.
nb::ndarray<nb::numpy, std::int32_t> to_numpy(Matrix<ExpertId> ids);
nb::ndarray<nb::numpy, float> to_numpy(Matrix<float> values);
/// A NumPy array [n] that owns the values. No copy.
nb::ndarray<nb::numpy, std::int64_t> to_numpy(std::vector<std::int64_t> values);

}  // namespace c2r::python
