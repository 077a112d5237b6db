// Escapes and shortens text for error messages.
#include "c2r/core/shown.h"

#include <fmt/core.h>

namespace c2r {

std::string shown(std::string_view text, std::size_t max_chars) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
    if (out.size() > max_chars) return out.substr(0, max_chars - 3) + "...";
  }
  return out;
}

}  // namespace c2r
