// The regular expressions by which tokenizer.json cuts a text into pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace c2r {

/// A compiled pattern. Immutable, so threads may share one; each thread has its own Matcher.
///
/// Patterns in tokenizer.json have Oniguruma's Ruby syntax, but PCRE2 matches them. Syntax with the
/// same meaning in both is accepted, syntax with an equivalent in PCRE2 is translated (see
/// translated_pattern()), and all other syntax is refused, so that no pattern matches differently.
class SplitPattern {
 public:
  /// @param place the file of the pattern, for messages
  /// @throws Error(kUnsupported) for syntax that is refused, Error(kInvalidFile) for a pattern that
  ///         is wrong; both name the pattern
  SplitPattern(std::string_view pattern, std::string_view place);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  struct Match {
    std::size_t begin = 0, end = 0;
  };

  /// Searches matches; used by one thread. Must not outlive its pattern.
  class Matcher {
   public:
    explicit Matcher(const SplitPattern& pattern);
    Matcher(Matcher&&) noexcept;
    Matcher& operator=(Matcher&&) noexcept;
    ~Matcher();

    /// @param text valid UTF-8, which is not checked
    /// @param from the begin of a character
    /// @returns the first match that begins at `from` or later, which is not empty; nothing if
    ///          there is none
    /// @throws Error(kUnsupported) if the pattern needs more steps or memory than PCRE2 allows
    std::optional<Match> next(std::string_view text, std::size_t from);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

/// @param pattern in the syntax of Oniguruma
/// @returns the pattern in the syntax of PCRE2
/// @throws as the constructor of SplitPattern
std::string translated_pattern(std::string_view pattern, std::string_view place);

}  // namespace c2r
