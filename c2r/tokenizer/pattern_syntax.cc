// Translates patterns from Oniguruma's syntax to PCRE2's, as far as an equivalent is known.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/tokenizer/new_characters_internal.h"
#include "c2r/tokenizer/split_pattern.h"

namespace c2r {
namespace {

// The general categories of Unicode on which both libraries agree, except for characters newer than
// PCRE2. Mn and Mc are left out because U+1171E moved from one to the other, and C because every
// version of Unicode takes characters out of it.
constexpr auto kCategories = std::to_array<std::string_view>(
    {"L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd",
     "Pe", "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"});
constexpr auto kGroups = std::to_array<std::string_view>({"(?:", "(?=", "(?!", "(?>"});
constexpr auto kFoldedPairs = std::to_array<std::string_view>({"ss", "ff", "fi", "fl", "st"});

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view place)
      : rest_(pattern), pattern_(pattern), place_(place) {}

  std::string run() {
    while (!rest_.empty()) {
      switch (rest_[0]) {
        case '\\':
          escape(/*is_in_class=*/false);
          break;
        case '[':
          character_class();
          break;
        case '(':
          group();
          break;
        case '{':
          counted();
          break;
        case '*':
        case '+':
        case '?':
          quantifier();
          break;
        case '$':  // Ruby's: before any line feed, and at the end
          take(1);
          out_ += "(?=\\n|\\z)";
          break;
        case '^':
          refuse(1);
          break;
        default:
          copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  std::string_view take(std::size_t count) {
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  void copy(std::size_t count) { out_ += take(count); }

  [[noreturn]] void refuse(std::size_t count) const {
    C2R_THROW(kUnsupported, "{}: the pattern '{}' has '{}', which c2r does not support", place_,
              shown(pattern_), shown(rest_.substr(0, count)));
  }

  void escape(bool is_in_class) {
    if (rest_.size() < 2) refuse(1);
    const char c = rest_[1];
    if (c == 's' || c == 'S') {
      // PCRE2's \s matches U+180E, too, which is no white space since Unicode 6.3.
      take(2);
      out_ += c == 's' ? "\\p{wspace}" : "\\P{wspace}";
    } else if (c == 'd' || c == 'D') {
      put_property("Nd", "Nd", c == 'D', is_in_class, 2);
    } else if (c == 'p' || c == 'P') {
      property(c == 'P', is_in_class);
    } else if (std::string_view("nrt").find(c) != std::string_view::npos || is_punctuation(c)) {
      copy(2);
    } else {
      refuse(2);
    }
  }

  static bool is_letter(char c) { return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z'); }
  static bool is_punctuation(char c) {
    return 0x20 <= c && c < 0x7f && !('0' <= c && c <= '9') && !is_letter(c);
  }

  void property(bool is_negated, bool is_in_class) {
    const auto end = rest_.find('}');
    if (rest_.size() < 3 || rest_[2] != '{' || end == std::string_view::npos) refuse(3);
    const std::string_view name = rest_.substr(3, end - 3);
    const bool is_han = name == "Han";  // PCRE2's \p{Han} has characters that several scripts use
    if (!is_han && std::ranges::find(kCategories, name) == kCategories.end()) refuse(end + 1);
    put_property(is_han ? "sc:Han" : name, name, is_negated, is_in_class, end + 1);
  }

  // Writes the property as a class to which newer characters with that property are added.
  void put_property(std::string_view name_in_pcre2, std::string_view name, bool is_negated,
                    bool is_in_class, std::size_t length) {
    if (is_negated && is_in_class) refuse(length);  // a class cannot leave out from what it adds
    take(length);
    if (!is_in_class) out_ += is_negated ? "[^" : "[";
    out_ += fmt::format("\\p{{{}}}", name_in_pcre2);
    for (const NewCharacters& characters : kNewCharacters) {
      if (!characters.category.starts_with(name)) continue;
      out_ += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", characters.first, characters.last);
    }
    if (!is_in_class) out_ += ']';
  }

  void character_class() {
    copy(1);
    if (rest_.starts_with('^')) copy(1);
    if (rest_.starts_with(']')) refuse(1);
    while (!rest_.starts_with(']')) {
      if (rest_.empty()) return;  // PCRE2 says what is missing
      if (rest_.starts_with('[') || rest_.starts_with("&&")) refuse(2);  // sets in sets
      rest_[0] == '\\' ? escape(/*is_in_class=*/true) : copy(1);
    }
    copy(1);
  }

  void group() {
    if (rest_.starts_with("(*")) refuse(2);  // PCRE2's verbs
    if (!rest_.starts_with("(?")) return copy(1);
    if (rest_.starts_with("(?i:")) return caseless_group();
    for (const std::string_view start : kGroups) {
      if (rest_.starts_with(start)) return copy(start.size());
    }
    refuse(4);  // a lookbehind, a name, or options that PCRE2 scopes differently
  }

  // Supports only words and sets of ASCII letters, as in (?i:'s|'t|'re), without the pairs of
  // letters that Oniguruma also matches with one character, such as ss with the German sharp s.
  void caseless_group() {
    const std::size_t end = rest_.find(')');
    std::string inner(rest_.substr(4, end - 4));
    const bool is_plain = std::ranges::all_of(inner, [](char c) {
      return is_letter(c) || std::string_view("'|[]").find(c) != std::string_view::npos;
    });
    for (char& c : inner) c = static_cast<char>(c | 0x20);  // lower case, where it is a letter
    const bool has_pair = std::ranges::any_of(kFoldedPairs, [&](std::string_view pair) {
      return inner.find(pair) != std::string_view::npos;
    });
    if (end == std::string_view::npos || !is_plain || has_pair) refuse(end - 1);
    copy(end);
  }

  void quantifier() {
    copy(1);
    if (rest_.starts_with('?') || rest_.starts_with('+')) copy(1);  // lazy, possessive
    refuse_another_quantifier();
  }

  void counted() {
    const auto end = rest_.find('}');
    if (end == std::string_view::npos || end < 2 || rest_[1] == ',') refuse(3);
    for (const char c : rest_.substr(1, end - 1)) {
      if (c != ',' && !('0' <= c && c <= '9')) refuse(end + 1);
    }
    copy(end + 1);
    refuse_another_quantifier();  // {2}+ and {2}? mean something else in Ruby
  }

  void refuse_another_quantifier() const {
    if (!rest_.empty() && std::string_view("*+?{").find(rest_[0]) != std::string_view::npos) {
      refuse(1);
    }
  }

  std::string_view rest_, pattern_, place_;
  std::string out_;
};

}  // namespace

std::string translated_pattern(std::string_view pattern, std::string_view place) {
  return Translator(pattern, place).run();
}

}  // namespace c2r
