// Escapes what could control a terminal.
#include "c2r/cli/printable.h"

#include <fmt/format.h>

#include "c2r/core/utf8.h"

namespace c2r::cli {

std::string printable(std::string_view text) {
  constexpr std::size_t kMaxBytes = 4000;
  std::string out;
  while (!text.empty() && out.size() < kMaxBytes) {
    const Utf8Unit unit = first_utf8_unit(text);
    const std::string_view bytes = text.substr(0, unit.num_bytes);
    text.remove_prefix(bytes.size());
    const auto first = static_cast<unsigned char>(bytes[0]);
    const bool is_c1 =
        bytes.size() == 2 && first == 0xc2 && static_cast<unsigned char>(bytes[1]) < 0xa0;
    if (unit.kind != Utf8Kind::kCharacter) {
      out += kReplacementCharacter;
    } else if (first == '\n') {
      out += "\\n";
    } else if (first < 0x20 || first == 0x7f) {
      out += fmt::format("\\x{:02x}", first);
    } else if (is_c1) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(bytes[1]));
    } else {
      out += bytes;
    }
  }
  if (!text.empty()) out += "...";
  return out;
}

}  // namespace c2r::cli
