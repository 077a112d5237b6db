// Parses decimal integers in names, keys and options.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace c2r {

/// @returns the whole of `text` as a decimal integer; nothing if it is anything else or does not
/// fit
inline std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  return error == std::errc() && end == last ? std::optional(value) : std::nullopt;
}

}  // namespace c2r
