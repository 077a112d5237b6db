// Decodes arrays of ids and checks their extents.
#include <algorithm>
#include <cstring>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/responses/base85_internal.h"
#include "c2r/import/responses/packed_ids_internal.h"
#include "c2r/io/base64.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

struct IntegerName {
  std::string_view name;
  Dtype dtype;
};

constexpr IntegerName kIntegerNames[] = {{"uint8", Dtype::kU8},   {"int8", Dtype::kI8},
                                         {"uint16", Dtype::kU16}, {"int16", Dtype::kI16},
                                         {"int32", Dtype::kI32},  {"int64", Dtype::kI64}};

template <class T>
void append_as(const NpyView& array, const std::string& place, RoutedIds& ids) {
  const std::size_t begin = ids.values.size(), num_values = array.bytes.size() / sizeof(T);
  ids.values.resize(begin + num_values);
  for (std::size_t i = 0; i < num_values; ++i) {
    T value;
    std::memcpy(&value, array.bytes.data() + i * sizeof(T), sizeof(T));
    const std::int64_t id = std::int64_t{0} + value;  // clang-tidy takes int8 for a character
    if (id < -1 || id >= kMaxExperts) {
      C2R_THROW(kInvalidFile, "{}: token {}: an expert id is {}, but must be in [-1, {}]", place,
                static_cast<std::int64_t>(begin + i) / (ids.num_layers * ids.top_k), id,
                kMaxExperts - 1);
    }
    ids.values[begin + i] = ExpertId{static_cast<std::int32_t>(id)};
  }
}

// The integers of an object without a dtype: as wide as the sizes say. Of two bytes they are
// signed, because -1 marks positions in the prefix cache.
Dtype dtype_of_sizes(std::int64_t num_bytes, const std::vector<std::int64_t>& shape,
                     const std::string& place) {
  for (const Dtype dtype : {Dtype::kU8, Dtype::kI16, Dtype::kI32, Dtype::kI64}) {
    if (tensor_bytes(shape, dtype) == num_bytes) return dtype;
  }
  C2R_THROW(kInvalidFile, "{}: the data has {} bytes, which are not integers of shape {}", place,
            num_bytes, shape_text(shape));
}

}  // namespace

Dtype integer_dtype(std::string_view name, std::string_view what, std::string_view place) {
  const auto* const found = std::ranges::find(kIntegerNames, name, &IntegerName::name);
  C2R_REQUIRE(found != std::end(kIntegerNames), kUnsupported,
              "{}: {} is '{}', but must be an integer type, such as uint8, uint16 or int32", place,
              what, shown(name));
  return found->dtype;
}

void append_integers(const NpyView& array, const std::string& place, RoutedIds& ids) {
  switch (array.dtype) {
    case Dtype::kU8:
      return append_as<std::uint8_t>(array, place, ids);
    case Dtype::kI8:
      return append_as<std::int8_t>(array, place, ids);
    case Dtype::kU16:
      return append_as<std::uint16_t>(array, place, ids);
    case Dtype::kI16:
      return append_as<std::int16_t>(array, place, ids);
    case Dtype::kI32:
      return append_as<std::int32_t>(array, place, ids);
    case Dtype::kI64:
      return append_as<std::int64_t>(array, place, ids);
    default:
      C2R_THROW(kInvalidFile, "{}: is {}, but ids must be integers", place,
                dtype_name(array.dtype));
  }
}

void set_num_layers(std::size_t num_layers, const std::string& place, RoutedIds& ids) {
  C2R_REQUIRE(1 <= num_layers && num_layers <= kMaxLayers, kInvalidFile,
              "{}: has {} layers, but must have from 1 to {}", place, num_layers, kMaxLayers);
  if (ids.num_layers == 0) ids.num_layers = static_cast<std::int64_t>(num_layers);
  C2R_REQUIRE(static_cast<std::int64_t>(num_layers) == ids.num_layers, kInvalidFile,
              "{}: has {} layers, but the tokens before it have {}", place, num_layers,
              ids.num_layers);
}

void append_array(const NpyView& array, const std::string& place, TraceBuilder& builder,
                  RoutedIds& ids) {
  C2R_REQUIRE(is_integer(array.dtype) && array.shape.size() == 3, kInvalidFile,
              "{}: is {} {}, but must be integers [num_tokens, num_layers, top_k]", place,
              dtype_name(array.dtype), shape_text(array.shape));
  builder.set_top_k(array.shape[2], place);
  set_num_layers(static_cast<std::size_t>(array.shape[1]), place, ids);
  ids.top_k = array.shape[2];
  append_integers(array, place, ids);
}

std::int64_t append_packed(const Json& object, const std::string& place, TraceBuilder& builder,
                           RoutedIds& ids) {
  const std::string& data = json_string(json_at(object, "data", place), "data", place);
  std::vector<std::int64_t> shape;
  for (const Json& extent : json_array(json_at(object, "shape", place), "shape", place)) {
    shape.push_back(json_integer(extent, 0, INT32_MAX, "an extent of shape", place));
  }
  const Json* const name = json_find(object, "dtype");
  const Json* const start = json_find(object, "start");
  std::vector<std::byte> bytes;
  Dtype dtype{};
  if (name == nullptr) {
    bytes = decode_base85(data, place);
    dtype = dtype_of_sizes(std::ssize(bytes), shape, place);
  } else {
    dtype = integer_dtype(json_string(*name, "dtype", place), "dtype", place);
    bytes = decode_base64(data, place);
    C2R_REQUIRE(tensor_bytes(shape, dtype) == std::ssize(bytes), kInvalidFile,
                "{}: the data has {} bytes, which are not {} of shape {}", place, bytes.size(),
                dtype_name(dtype), shape_text(shape));
  }
  append_array({.dtype = dtype, .shape = shape, .bytes = bytes}, place, builder, ids);
  return start == nullptr ? 0 : json_integer(*start, 0, INT32_MAX, "start", place);
}

}  // namespace c2r
