// Matches split patterns with PCRE2.
#include "c2r/tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <new>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return shown(reinterpret_cast<const char*>(text.data()), 200);
}

PCRE2_SPTR as_pcre2(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

struct SplitPattern::Compiled {
  std::string shown_pattern;  // for messages
  Code code;
};

SplitPattern::SplitPattern(std::string_view pattern, std::string_view place)
    : compiled_(std::make_unique<Compiled>()) {
  compiled_->shown_pattern = shown(pattern);
  const std::string translated = translated_pattern(pattern, place);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what '.' does not match
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->code.reset(pcre2_compile(as_pcre2(translated), translated.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
                                      &offset, context.get()));
  C2R_REQUIRE(compiled_->code, kInvalidFile, "{}: the pattern '{}' is wrong: {}", place,
              compiled_->shown_pattern, message_of(error));
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(compiled_->code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  C2R_REQUIRE(matches_empty == 0, kUnsupported, "{}: the pattern '{}' matches the empty text",
              place, compiled_->shown_pattern);
  // Where PCRE2 has no JIT compiler for the processor it interprets: slower, with the same matches.
  (void)pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);
}

SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

struct SplitPattern::Matcher::State {
  const Compiled* pattern;
  MatchData match;
};

SplitPattern::Matcher::Matcher(const SplitPattern& pattern)
    : state_(std::make_unique<State>(
          State{pattern.compiled_.get(), MatchData(pcre2_match_data_create_from_pattern(
                                             pattern.compiled_->code.get(), nullptr))})) {
  if (!state_->match) throw std::bad_alloc();
}

SplitPattern::Matcher::Matcher(Matcher&&) noexcept = default;
SplitPattern::Matcher& SplitPattern::Matcher::operator=(Matcher&&) noexcept = default;
SplitPattern::Matcher::~Matcher() = default;

std::optional<SplitPattern::Match> SplitPattern::Matcher::next(std::string_view text,
                                                               std::size_t from) {
  if (from >= text.size()) return std::nullopt;
  pcre2_match_data* const match = state_->match.get();
  const int rc = pcre2_match(state_->pattern->code.get(), as_pcre2(text), text.size(), from,
                             PCRE2_NO_UTF_CHECK, match, nullptr);
  if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
  C2R_REQUIRE(rc > 0, kUnsupported, "the pattern '{}' cannot be matched with this text: {}",
              state_->pattern->shown_pattern, message_of(rc));
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(match);
  C2R_ASSERT(from <= ends[0] && ends[0] < ends[1]);
  return Match{ends[0], ends[1]};
}

}  // namespace c2r
