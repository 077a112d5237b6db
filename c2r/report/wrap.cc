// Breaks text into lines that fit a terminal.
#include "c2r/report/wrap.h"

#include <algorithm>

namespace c2r {
namespace {

// Appends one line of the text, broken where it is too long.
void append_wrapped(std::string& out, std::string_view line, std::size_t indent) {
  const std::size_t first = std::min(line.find_first_not_of(' '), line.size());
  out += line.substr(0, first);
  line.remove_prefix(first);
  std::size_t used = indent + first;
  bool is_first_word = true;
  while (!line.empty()) {
    const std::string_view word = line.substr(0, line.find(' '));
    if (!is_first_word && used + 1 + width_of(word) > kLineWidth) {
      out += '\n' + std::string(indent + first, ' ');
      used = indent + first;
    } else if (!is_first_word) {
      out += ' ';
      ++used;
    }
    out += word;
    used += width_of(word);
    is_first_word = false;
    line.remove_prefix(std::min(word.size() + 1, line.size()));
  }
}

}  // namespace

std::size_t width_of(std::string_view text) {  // continuation bytes take no place
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string wrap_text(std::string_view text, std::size_t indent) {
  std::string out;
  for (bool is_first_line = true;; is_first_line = false) {
    const std::size_t end = text.find('\n');
    if (!is_first_line) out += std::string(end == 0 || text.empty() ? 0 : indent, ' ');
    append_wrapped(out, text.substr(0, end), indent);
    if (end == std::string_view::npos) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace c2r
