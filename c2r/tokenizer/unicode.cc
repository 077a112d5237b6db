// Properties of characters and normal forms of text, by utf8proc.
#include "c2r/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/core/utf8.h"

namespace c2r {
namespace {

// The first character of `text` and its bytes.
struct Character {
  utf8proc_int32_t code_point = -1;
  std::size_t num_bytes = 0;
};

Character first_character(std::string_view text) {
  Character character;
  const utf8proc_ssize_t num_bytes =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &character.code_point);
  C2R_REQUIRE(num_bytes > 0, kInvalidArgument, "the text '{}' is not valid UTF-8", shown(text));
  character.num_bytes = static_cast<std::size_t>(num_bytes);
  return character;
}

Character last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return first_character(text.substr(begin));
}

bool is_word(utf8proc_int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_SO:  // circled and squared letters are alphabetic
      return (0x24B6 <= c && c <= 0x24E9) || (0x1F130 <= c && c <= 0x1F149) ||
             (0x1F150 <= c && c <= 0x1F169) || (0x1F170 <= c && c <= 0x1F189);
    default:
      return c == 0x200C || c == 0x200D;  // zero width non-joiner, joiner
  }
}

// Unicode's property White_Space.
bool is_space(utf8proc_int32_t c) {
  return (0x09 <= c && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (0x2000 <= c && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Whether normalizing may change a character with this first byte. Characters before U+00A0, the
// first one with a compatibility decomposition, and for NFC before U+0300, the first mark, never
// change.
bool may_change(char c, NormalForm form) {
  return static_cast<unsigned char>(c) >= (form == NormalForm::kNfc ? 0xCC : 0xC2);
}

// Whether both forms leave the character as it is in any text: it has no decomposition, is no mark,
// and composes with no other character.
bool is_inert(utf8proc_int32_t c) {
  const bool is_hangul = (0x1100 <= c && c <= 0x11FF) || (0xAC00 <= c && c <= 0xD7A3);
  const utf8proc_property_t& property = *utf8proc_get_property(c);
  return !is_hangul && property.combining_class == 0 && property.decomp_seqindex == UINT16_MAX &&
         property.comb_index == UINT16_MAX;
}

struct Free {
  void operator()(utf8proc_uint8_t* pointer) const { std::free(pointer); }
};

}  // namespace

void append_normalized_plainly(std::string_view text, NormalForm form, std::string& out) {
  const int options =
      UTF8PROC_STABLE | UTF8PROC_COMPOSE | (form == NormalForm::kNfkc ? UTF8PROC_COMPAT : 0);
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t num_bytes = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &mapped, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(mapped);
  if (num_bytes == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  C2R_REQUIRE(num_bytes >= 0, kInvalidArgument, "cannot normalize {} bytes of text: {}",
              text.size(), utf8proc_errmsg(num_bytes));
  out.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(num_bytes));
}

void append_normalized(std::string_view text, NormalForm form, std::string& out) {
  std::size_t done = 0;      // the bytes of `text` that are in `out`
  std::size_t previous = 0;  // the begin of the last character
  // The bytes of the character at `at` if normalizing may change it, else 0.
  const auto changing = [&](std::size_t at) -> std::size_t {
    if (at == text.size() || !may_change(text[at], form)) return 0;
    const Character character = first_character(text.substr(at));
    return is_inert(character.code_point) ? 0 : character.num_bytes;
  };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (const std::size_t num_bytes = changing(end)) end += num_bytes;
    if (end > at) {  // normalizes from the character before on, which may be the base of a mark
      out += text.substr(done, previous - done);
      append_normalized_plainly(text.substr(previous, end - previous), form, out);
      done = at = end;
    }
    previous = at;
    if (at < text.size()) at += first_utf8_unit(text.substr(at)).num_bytes;
  }
  out += text.substr(done);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  C2R_REQUIRE(!from.empty(), kInvalidArgument, "the empty text cannot be replaced by '{}'",
              shown(to));
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0;;) {
    const std::size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    out += to;
    at = found + from.size();
  }
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word(first_character(text).code_point);
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(last_character(text).code_point);
}

std::size_t leading_space_bytes(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Character character = first_character(text.substr(at));
    if (!is_space(character.code_point)) break;
    at += character.num_bytes;
  }
  return at;
}

std::size_t trailing_space_bytes(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const Character character = last_character(text.substr(0, end));
    if (!is_space(character.code_point)) break;
    end -= character.num_bytes;
  }
  return text.size() - end;
}

}  // namespace c2r
