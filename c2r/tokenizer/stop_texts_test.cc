// Stop texts in pieces of every size against a search in the whole text.
#include "c2r/tokenizer/stop_texts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

TEST(StopTexts, HoldBackWhatMayBeginOne) {
  StopTexts stops({"\nUser:", "END"});
  EXPECT_EQ(stops.push("Hi"), "Hi");
  EXPECT_EQ(stops.push(" E"), " ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("OR\nUs"), "ENOR");
  EXPECT_FALSE(stops.has_stopped());
  EXPECT_EQ(stops.push("er: no"), "");
  EXPECT_TRUE(stops.has_stopped());
  EXPECT_EQ(stops.push("more"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopTexts, GiveBackAtTheEndWhatBeganNone) {
  StopTexts stops({"aab"});
  EXPECT_EQ(stops.push("xaa"), "x");
  EXPECT_EQ(stops.push("a"), "a");
  EXPECT_EQ(stops.finish(), "aa");
  StopTexts none({});
  EXPECT_EQ(none.push("text"), "text");
}

// Texts of two letters, so that stop texts overlap themselves and each other.
TEST(StopTexts, FindWhatASearchInTheWholeTextFinds) {
  std::mt19937 rng(1);
  const auto random_text = [&](std::size_t length) {
    std::string text(length, 'a');
    for (char& c : text) c = static_cast<char>('a' + static_cast<char>(rng() % 2));
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::vector<std::string> stops = {random_text(1 + rng() % 6), random_text(1 + rng() % 6)};
    const std::string text = random_text(rng() % 20);
    std::size_t first = std::string::npos;  // where the one begins that ends first
    for (std::size_t end = 0; end <= text.size() && first == std::string::npos; ++end) {
      for (const std::string& stop : stops) {
        if (text.substr(0, end).ends_with(stop)) first = std::min(first, end - stop.size());
      }
    }
    StopTexts search(stops);
    std::string got;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = 1 + rng() % 3;
      got += search.push(text.substr(at, length));
      at += length;
    }
    EXPECT_EQ(search.has_stopped(), first != std::string::npos);
    EXPECT_EQ(got + search.finish(), text.substr(0, first)) << "round " << round;
  }
}

TEST(StopTexts, MustNotBeEmpty) {
  EXPECT_EQ(testing::error_of([] { StopTexts({"a", ""}); }), "a stop text is empty");
}

}  // namespace
}  // namespace c2r
