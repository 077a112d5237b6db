// Tables of the names of enumerators, from which names are both printed and parsed.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace c2r {

template <class Enum>
struct EnumName {
  Enum value;
  std::string_view name;
};

/// @param subject the begin of the message, verb included: "a copy mode is"
/// @throws Error(kInvalidArgument), always: "a copy mode is per-rank or per-node; not 'per-token'"
[[noreturn]] void refuse_name(std::string_view subject, std::span<const std::string_view> names,
                              std::string_view name);

/// @param value must be in the table
/// @returns its name
template <class Enum, std::size_t N>
constexpr std::string_view name_in(const EnumName<Enum> (&table)[N], Enum value) {
  return std::ranges::find(table, value, &EnumName<Enum>::value)->name;
}

/// @returns the value called `name`
/// @throws as refuse_name() if there is none
template <class Enum, std::size_t N>
Enum parse_in(const EnumName<Enum> (&table)[N], std::string_view subject, std::string_view name) {
  const auto* const found = std::ranges::find(table, name, &EnumName<Enum>::name);
  if (found != std::end(table)) return found->value;
  std::array<std::string_view, N> names;
  std::ranges::transform(table, names.begin(), &EnumName<Enum>::name);
  refuse_name(subject, names, name);
}

}  // namespace c2r
