// The element types of rows on the wire.
#pragma once

#include <cstdint>
#include <string_view>

namespace c2r {

/// How rows travel. To bf16 they are rounded to the nearest, ties to even.
enum class RowType { kF32, kBf16 };

/// "f32", "bf16".
std::string_view name_of(RowType type);
/// @throws Error(kInvalidArgument), listing the names
RowType parse_row_type(std::string_view name);
std::int64_t element_bytes(RowType type);

}  // namespace c2r
