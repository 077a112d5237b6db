// Checks the arrays that callers pass, and makes the arrays that they get.
#include "python/src/arrays.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace c2r::python {
namespace {

std::string type_name(const nb::dlpack::dtype& type) {
  using Code = nb::dlpack::dtype_code;
  const int bits = type.bits;
  switch (static_cast<Code>(type.code)) {
    case Code::Int:
      return fmt::format("int{}", bits);
    case Code::UInt:
      return fmt::format("uint{}", bits);
    case Code::Float:
      return fmt::format("float{}", bits);
    case Code::Bfloat:
      return "bfloat16";
    case Code::Complex:
      return fmt::format("complex{}", bits);
    case Code::Bool:
      return "bool";
    default:
      return fmt::format("type code {} of {} bits", type.code, bits);
  }
}

std::string shape_text(const AnyArray& array) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < array.ndim(); ++axis) {
    text += fmt::format("{}{}", axis == 0 ? "" : ", ", array.shape(axis));
  }
  return text + "]";
}

bool is_c_contiguous(const AnyArray& array) {
  if (array.size() == 0) return true;  // NumPy gives such arrays any strides
  std::int64_t expected = 1;
  for (std::size_t axis = array.ndim(); axis-- > 0;) {
    if (array.shape(axis) != 1 && array.stride(axis) != expected) return false;
    expected *= static_cast<std::int64_t>(array.shape(axis));
  }
  return true;
}

std::string type_names(std::initializer_list<nb::dlpack::dtype> types) {
  std::string names;
  for (const auto& type : types) {
    if (!names.empty()) names += " or ";
    names += type_name(type);
  }
  return names;
}

template <class T, class Stored>
MatrixView<const T> matrix_view(const AnyArray& array, const char* name) {
  check_array(array, name, {nb::dtype<Stored>()}, 2);
  return {static_cast<const T*>(array.data()), extent(array, 0), extent(array, 1)};
}

template <class Stored, class T>
nb::ndarray<nb::numpy, Stored> matrix_array(Matrix<T> values) {
  const auto rows = static_cast<std::size_t>(values.rows());
  const auto cols = static_cast<std::size_t>(values.cols());
  return owned_array<Stored>(std::move(values), {rows, cols});
}

}  // namespace

void check_array(const AnyArray& array, const char* name,
                 std::initializer_list<nb::dlpack::dtype> types, std::size_t num_axes,
                 const ArrayPlace& place) {
  const bool is_in_place = array.device_type() == place.device_type;
  const bool is_of_type = std::ranges::find(types, array.dtype()) != types.end();
  if (is_of_type && array.ndim() == num_axes && is_in_place && is_c_contiguous(array)) return;
  const std::string message = fmt::format(
      "{} must be a C-contiguous array of {} with {} ax{} {}, not {} {}{}{}; nothing is converted "
      "silently",
      name, type_names(types), num_axes, num_axes == 1 ? "is" : "es", place.text,
      type_name(array.dtype()), shape_text(array), is_in_place ? "" : " on another device",
      is_c_contiguous(array) ? "" : " that is not contiguous");
  throw nb::type_error(message.c_str());
}

std::int64_t extent(const AnyArray& array, std::size_t axis) {
  return static_cast<std::int64_t>(array.shape(axis));
}

MatrixView<const float> float_matrix(const AnyArray& array, const char* name) {
  return matrix_view<float, float>(array, name);
}

MatrixView<const ExpertId> expert_matrix(const AnyArray& array, const char* name) {
  return matrix_view<ExpertId, std::int32_t>(array, name);
}

std::span<const float> float_vector(const AnyArray& array, const char* name) {
  check_array(array, name, {nb::dtype<float>()}, 1);
  return {static_cast<const float*>(array.data()), array.shape(0)};
}

std::span<const std::int64_t> int64_vector(const AnyArray& array, const char* name) {
  check_array(array, name, {nb::dtype<std::int64_t>()}, 1);
  return {static_cast<const std::int64_t*>(array.data()), array.shape(0)};
}

nb::ndarray<nb::numpy, std::int32_t> to_numpy(Matrix<ExpertId> ids) {
  return matrix_array<std::int32_t>(std::move(ids));
}

nb::ndarray<nb::numpy, float> to_numpy(Matrix<float> values) {
  return matrix_array<float>(std::move(values));
}

nb::ndarray<nb::numpy, std::int64_t> to_numpy(std::vector<std::int64_t> values) {
  const std::size_t count = values.size();
  return owned_array<std::int64_t>(std::move(values), {count});
}

}  // namespace c2r::python
