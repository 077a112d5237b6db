// Cuts text into pieces where a regular expression matches, as tokenizer.json asks for.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace c2r {

/// A compiled pattern. Immutable, so threads may share one; each brings its own Matcher.
///
/// tokenizer.json has patterns in Oniguruma's Ruby syntax, and we match with PCRE2. What means the
/// same in both is accepted, what can be said otherwise is translated (`translated_pattern`), and
/// everything else is refused, so that no pattern cuts differently.
class SplitPattern {
 public:
  /// @param place where the pattern is from, for messages
  /// @throws Error(kUnsupported) for syntax that we do not translate, Error(kInvalidFile) for a
  ///         pattern that is wrong; both name the pattern
  SplitPattern(std::string_view pattern, std::string_view place);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  struct Match {
    std::size_t begin = 0, end = 0;
  };

  /// The state of matching one text, to be used by one thread. Must not outlive its pattern.
  class Matcher {
   public:
    explicit Matcher(const SplitPattern& pattern);
    Matcher(Matcher&&) noexcept;
    Matcher& operator=(Matcher&&) noexcept;
    ~Matcher();

    /// The first match in `text`, valid UTF-8, that begins at `from` or later. Never empty.
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

/// `pattern`, in Oniguruma's syntax, in PCRE2's. @throws as the constructor of SplitPattern
std::string translated_pattern(std::string_view pattern, std::string_view place);

}  // namespace c2r
