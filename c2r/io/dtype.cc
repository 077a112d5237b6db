// The table of tensor dtypes, and the sizes and shapes of tensors.
#include "c2r/io/dtype.h"

#include <algorithm>
#include <iterator>

namespace c2r {
namespace {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  std::int64_t bytes;
  std::optional<ElementType> element = std::nullopt;
};

constexpr DtypeRow kDtypes[] = {
    {Dtype::kBool, "BOOL", 1},
    {Dtype::kU8, "U8", 1},
    {Dtype::kI8, "I8", 1},
    {Dtype::kU16, "U16", 2},
    {Dtype::kI16, "I16", 2},
    {Dtype::kF16, "F16", 2, ElementType::kF16},
    {Dtype::kBf16, "BF16", 2, ElementType::kBf16},
    {Dtype::kU32, "U32", 4},
    {Dtype::kI32, "I32", 4},
    {Dtype::kF32, "F32", 4, ElementType::kF32},
    {Dtype::kU64, "U64", 8},
    {Dtype::kI64, "I64", 8},
    {Dtype::kF64, "F64", 8},
};

const DtypeRow& dtype_row(Dtype dtype) {
  return *std::ranges::find(kDtypes, dtype, &DtypeRow::dtype);
}

}  // namespace

std::optional<Dtype> dtype_of_name(std::string_view name) {
  const auto* const row = std::ranges::find(kDtypes, name, &DtypeRow::name);
  return row == std::end(kDtypes) ? std::nullopt : std::optional(row->dtype);
}

std::string_view dtype_name(Dtype dtype) {
  return dtype_row(dtype).name;
}

std::int64_t dtype_bytes(Dtype dtype) {
  return dtype_row(dtype).bytes;
}

std::optional<ElementType> element_type_of(Dtype dtype) {
  return dtype_row(dtype).element;
}

std::optional<std::int64_t> tensor_bytes(std::span<const std::int64_t> shape, Dtype dtype) {
  std::int64_t bytes = dtype_bytes(dtype);
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  constexpr std::size_t kMostShown = 8;  // a broken file may have millions
  std::string text = "[";
  for (const std::int64_t extent : shape.first(std::min(shape.size(), kMostShown))) {
    if (text.size() > 1) text += ", ";
    text += extent == -1 ? "any" : std::to_string(extent);
  }
  if (shape.size() > kMostShown) text += ", ... " + std::to_string(shape.size()) + " extents";
  return text + "]";
}

}  // namespace c2r
