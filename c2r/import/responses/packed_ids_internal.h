// Arrays of ids as servers pack them into JSON: raw integers, .npy files and objects with a shape.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "c2r/import/responses/routed_ids_internal.h"
#include "c2r/io/dtype.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"

namespace c2r {

/// @returns the integers that numpy calls by this name, such as "uint16"
/// @throws Error(kUnsupported) for any other name; `what` is where the name is from
Dtype integer_dtype(std::string_view name, std::string_view what, std::string_view place);

/// Appends every element of an array of integers; `ids` keeps its extents.
/// @throws Error(kInvalidFile) for an id that is not in [-1, kMaxExperts)
/// Cost: one pass, some nanoseconds for each element.
void append_integers(const NpyView& array, const std::string& place, RoutedIds& ids);

/// Sets the extents of `ids`, or compares them with those that are set, and appends the array.
/// @throws Error(kInvalidFile) unless the array is integers [num_tokens, num_layers, top_k]
void append_array(const NpyView& array, const std::string& place, TraceBuilder& builder,
                  RoutedIds& ids);

/// Appends what an object of packed integers holds. Dynamo writes {data, shape} with base85 of
/// integers whose width follows from the sizes; prime-rl {data, shape, start, dtype} with base64.
/// @returns the position of the first row: `start`, or 0
/// @throws Error(kInvalidFile) as append_array(), and if data and shape do not agree
std::int64_t append_packed(const Json& object, const std::string& place, TraceBuilder& builder,
                           RoutedIds& ids);

/// Sets the number of layers, or compares it with the one that is set.
/// @throws Error(kInvalidFile) if it is another, or out of range
void set_num_layers(std::size_t num_layers, const std::string& place, RoutedIds& ids);

}  // namespace c2r
