// The steps before merging: patterns, added tokens, normal forms.
#include <gtest/gtest.h>

#include <random>

#include "c2r/core/testing.h"
#include "c2r/tokenizer/added_tokens.h"
#include "c2r/tokenizer/split_pattern.h"
#include "c2r/tokenizer/unicode.h"

namespace c2r {
namespace {

using testing::error_of;

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const SplitPattern compiled(pattern, "test");
  SplitPattern::Matcher matcher(compiled);
  std::vector<std::string> found;
  std::size_t at = 0;
  while (const auto match = matcher.next(text, at)) {
    found.emplace_back(text.substr(match->begin, match->end - match->begin));
    at = match->end;
  }
  return found;
}

TEST(SplitPattern, MatchesAsOniguruma) {
  using Found = std::vector<std::string>;
  EXPECT_EQ(matches("\\s+(?!\\S)|\\s+", "a  b "), (Found{" ", " ", " "}));
  EXPECT_EQ(matches("(?i:'s|'t)", "'S'\u017f't"), (Found{"'S", "'\u017f", "'t"}));
  EXPECT_EQ(matches("\\s", "\u0085\u00a0\u180e\u3000"), (Found{"\u0085", "\u00a0", "\u3000"}));
  EXPECT_EQ(matches("\\S", "\u180e \u3000"), Found{"\u180e"});
  EXPECT_EQ(matches("\\s+$", "a \nb "), (Found{" ", " "}));  // before a line feed, and at the end
  EXPECT_EQ(matches("\\p{Han}+", "々中\u3001文ー"), (Found{"々中", "文"}));  // not U+3001
  // Of Unicode 15 and 16: a pink heart, a digit of Garay, an ideograph.
  EXPECT_EQ(matches("\\p{S}\\d\\p{Han}[^\\p{L}]", "\U0001FA77\U00010D41\U00031350."),
            Found{"\U0001FA77\U00010D41\U00031350."});
  EXPECT_EQ(matches("\\P{L}|\\D", "\U00031350\U00010D41"), (Found{"\U00031350", "\U00010D41"}));
  EXPECT_EQ(matches("[^\\r\\n\\p{L}]?\\p{L}++", ".a\nb"), (Found{".a", "b"}));
}

TEST(SplitPattern, RefusesWhatMeansSomethingElseInPcre2) {
  for (const char* pattern :
       {"^a",      "\\w",        "\\b",      "\\h",       "\\G",          "\\R",         "\\1",
        "\\u0041", "\\p{Latin}", "\\p{Mn}",  "\\p{Cn}",   "\\p{^L}",      "\\pL",        "(?<=a)b",
        "(?i)a",   "(?m:a)",     "(?<n>a)",  "(?i:stra)", "(?i:\\p{Lu})", "[[:alpha:]]", "[a&&b]",
        "[a[b]]",  "[]a]",       "a{2}+",    "a{2}?",     "a{,2}",        "a**",         "a{x}",
        "a\\",     "(*SKIP)a",   "(?i:STRA)"}) {
    const std::string message = error_of([&] { SplitPattern(pattern, "test"); });
    EXPECT_TRUE(message.ends_with("which c2r does not support")) << pattern << ": " << message;
  }
  EXPECT_EQ(error_of([] { SplitPattern("a\\w", "test"); }),
            "test: the pattern 'a\\w' has '\\w', which c2r does not support");
  EXPECT_EQ(error_of([] { SplitPattern("[a", "test"); }),
            "test: the pattern '[a' is wrong: missing terminating ] for character class");
  EXPECT_EQ(error_of([] { SplitPattern("a*", "test"); }),
            "test: the pattern 'a*' matches the empty text");
}

TEST(SplitPattern, GivesUpOnPatternsThatTakeTooLong) {
  const SplitPattern pattern("(a+)+[bc]", "test");
  SplitPattern::Matcher matcher(pattern);
  EXPECT_EQ(error_of([&] { (void)matcher.next(std::string(40, 'a'), 0); }),
            "the pattern '(a+)+[bc]' cannot be matched with this text: match limit exceeded");
}

// "12" is a section of token 12, text is itself.
std::vector<std::string> sections(std::vector<AddedToken> tokens, std::string_view text) {
  const AddedTokens finder(std::move(tokens));
  std::vector<std::string> found;
  for (const TextSection& section : finder.sections(text)) {
    found.push_back(section.token == nullptr
                        ? std::string(text.substr(section.begin, section.end - section.begin))
                        : fmt::format("{}", index(section.token->id)));
  }
  return found;
}

TEST(AddedTokens, AreFoundLongestFirst) {
  const std::vector<AddedToken> tokens = {
      {TokenId{1}, "<a>"}, {TokenId{2}, "<a><b>"}, {TokenId{3}, "<"}, {TokenId{4}, ""}};
  using Found = std::vector<std::string>;
  EXPECT_EQ(sections(tokens, "x<a><a><b>y<"), (Found{"x", "1", "2", "y", "3"}));
  EXPECT_EQ(sections(tokens, ""), Found{});
  EXPECT_EQ(sections({}, "<a>"), Found{"<a>"});
}

TEST(AddedTokens, TakeWhiteSpaceAndStandAloneAsTheirFlagsSay) {
  using Found = std::vector<std::string>;
  const AddedToken both{
      .id = TokenId{1}, .content = "<m>", .strips_left = true, .strips_right = true};
  EXPECT_EQ(sections({both}, "a \u3000<m>\n b<m> <m>"), (Found{"a", "1", "b", "1", "1"}));
  const AddedToken word{.id = TokenId{2}, .content = "the", .is_single_word = true};
  EXPECT_EQ(sections({word}, "the other the_ the\u0301 éthe the."),
            (Found{"2", " other the_ the\u0301 éthe ", "2", "."}));
}

TEST(NormalForm, ComposesAndLeavesTheRest) {
  std::string out = "x";
  append_normalized("e\u0301a\u0323\u0302 \u1100\u1161\u11a8 ﬁ", NormalForm::kNfc, out);
  EXPECT_EQ(out, "xé\u1ead 각 ﬁ");
  out.clear();
  append_normalized("ﬁ ½", NormalForm::kNfkc, out);
  EXPECT_EQ(out, "fi 1\u20442");
}

TEST(NormalForm, TextThatIsNotUtf8IsRefused) {
  std::string out;
  EXPECT_EQ(error_of([&] { append_normalized("ab\xff", NormalForm::kNfc, out); }),
            "the text '\\xff' is not valid UTF-8");
  EXPECT_EQ(error_of([] { (void)ends_with_word("ab\xff"); }),
            "the text '\\xff' is not valid UTF-8");
  EXPECT_EQ(error_of([] { (void)leading_space_bytes("  \xc3"); }),
            "the text '\\xc3' is not valid UTF-8");
  EXPECT_EQ(error_of([] { (void)replace_all("text", "", "x"); }),
            "the empty text cannot be replaced by 'x'");
}

TEST(NormalForm, MatchesThePlainWay) {
  const char* const parts[] = {
      "a",      "é", "e",      "\u0301", "\u0323", "\u0302", "\u1100", "\u1161", "\u11a8", "각",
      "ﬁ",      "½", "’",      "中",     "\u212b", "が",     "か",     "\u3099", " ",      "\u0958",
      "\u0344", "😀", "\u1e0a", "\u0cc6", "\u05b0", "\u05bc", "\u0334"};  // marks that compose with
                                                                         // nothing
  std::mt19937 rng(1);
  for (int round = 0; round < 20000; ++round) {
    std::string text, plain, fast;
    for (auto n = rng() % 9; n > 0; --n) text += parts[rng() % std::size(parts)];
    const auto form = round % 2 == 0 ? NormalForm::kNfc : NormalForm::kNfkc;
    append_normalized_plainly(text, form, plain);
    append_normalized(text, form, fast);
    ASSERT_EQ(fast, plain) << text;
  }
}

}  // namespace
}  // namespace c2r
