// The element types of tensors in files (dtypes), and the sizes of tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "c2r/core/element.h"

namespace c2r {

enum class Dtype { kBool, kU8, kI8, kU16, kI16, kF16, kBf16, kU32, kI32, kF32, kU64, kI64, kF64 };

/// @returns the name in safetensors: "U8", "BF16", ...
std::string_view dtype_name(Dtype dtype);
/// @returns the dtype of that name; nothing if there is none
std::optional<Dtype> dtype_of_name(std::string_view name);
/// @returns the bytes of one element
std::int64_t dtype_bytes(Dtype dtype);

/// The dtype whose elements have the C++ type T, if there is one.
template <class T>
inline constexpr std::optional<Dtype> kDtypeOf = std::nullopt;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<std::uint8_t> = Dtype::kU8;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<std::uint16_t> = Dtype::kU16;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<Half> = Dtype::kF16;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<std::int32_t> = Dtype::kI32;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<std::int64_t> = Dtype::kI64;
template <>
inline constexpr std::optional<Dtype> kDtypeOf<float> = Dtype::kF32;

/// @returns the element type of F32, F16 and BF16; nothing for other dtypes
std::optional<ElementType> element_type_of(Dtype dtype);

/// @returns the bytes of a tensor; nothing if an extent is negative or the product does not fit
std::optional<std::int64_t> tensor_bytes(std::span<const std::int64_t> shape, Dtype dtype);

/// @returns the shape for messages: "[3, 4]"; an extent of -1 is "any"
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace c2r
