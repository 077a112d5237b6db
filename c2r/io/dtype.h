// The element types of tensors in files, and the sizes of tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "c2r/core/element.h"

namespace c2r {

enum class Dtype { kBool, kU8, kI8, kU16, kI16, kF16, kBf16, kU32, kI32, kF32, kU64, kI64, kF64 };

std::string_view dtype_name(Dtype dtype);  // as safetensors spells it: "U8", "BF16", ...
std::optional<Dtype> dtype_of_name(std::string_view name);
std::int64_t dtype_bytes(Dtype dtype);

/// The dtype whose elements are of C++ type T, if there is one.
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

/// The element type of a dtype of floats that are read as f32; nothing for F64 and for integers.
std::optional<ElementType> element_type_of(Dtype dtype);

/// Bytes of a tensor; nothing if an extent is negative or the product does not fit.
std::optional<std::int64_t> tensor_bytes(std::span<const std::int64_t> shape, Dtype dtype);

std::string shape_text(std::span<const std::int64_t> shape);  // "[3, 4]"; -1 is shown as "any"

}  // namespace c2r
