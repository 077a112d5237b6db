// Tests that JSON is read exactly; duplicate keys, deep nesting and broken text are refused.
#include "c2r/io/json.h"

#include <gtest/gtest.h>

#include <chrono>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

std::string error_of_json(std::string_view text) {
  return error_of([&] { (void)parse_json(text, "a.json"); });
}

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(ParseJson, ReadsEveryKindOfValueAndKeepsTheOrderOfKeys) {
  const std::string text =
      R"({"z":[1,-2,3.5,"four",true,false,null,[],{}],"a":{"b":{"c":[[1],[2,3]]},"d":4}})";
  const Json value = parse_json(text, "a.json");
  EXPECT_EQ(value.dump(), text);
  EXPECT_EQ(value["a"]["b"]["c"][1][1], 3);
  EXPECT_EQ(parse_json(" 7 ", "a.json"), 7);
  EXPECT_EQ(parse_json("\"\\u00e9\"", "a.json"), "\xc3\xa9");
}

TEST(ParseJson, RefusesDuplicateKeysButOnlyInOneObject) {
  EXPECT_EQ(error_of_json(R"({"a":1,"b":2,"a":3})"), "a.json: JSON has the key 'a' twice");
  EXPECT_EQ(error_of_json(R"({"a":{"b":1,"\u0062":2}})"), "a.json: JSON has the key 'b' twice");
  EXPECT_EQ(error_of_json(R"({"a":{"a":1},"b":[{"a":1},{"a":1}]})"), "no error");
}

TEST(ParseJson, RefusesDeepNesting) {
  EXPECT_EQ(error_of_json(nested(100)), "no error");
  EXPECT_EQ(error_of_json(nested(101)), "a.json: JSON is nested deeper than 100");
  EXPECT_EQ(error_of_json(std::string(1'000'000, '[')), "a.json: JSON is nested deeper than 100");
}

TEST(ParseJson, SaysWhereTheTextIsBroken) {
  EXPECT_EQ(error_of_json("[1,\n2"),
            "a.json: not valid JSON: parse error at line 2, column 2: syntax error while parsing "
            "array - unexpected end of input; expected ']'");
  EXPECT_EQ(error_of_json("{} x"),
            "a.json: not valid JSON: parse error at line 1, column 4: syntax error while parsing "
            "value - invalid literal; last read: '{} x'; expected end of input");
  EXPECT_NE(error_of_json(""), "no error");
  EXPECT_NE(error_of_json("1e999"), "no error");
}

TEST(ParseJson, DoesNotRepeatLongOrBinaryTextInItsMessage) {
  const auto long_message = error_of_json("\"" + std::string(5000, 'x'));
  EXPECT_LT(long_message.size(), 300u) << long_message;
  const auto binary_message = error_of_json("\"\xff\x1b");
  for (const char c : binary_message) EXPECT_TRUE(0x20 <= c && c < 0x7f) << binary_message;
}

// Safetensors headers of large models have tens of thousands of keys.
TEST(ParseJson, TakesTimeProportionalToTheNumberOfKeys) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += fmt::format("\"{}\":{{}},", i);
  text.back() = '}';
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text, "a.json").size(), 100'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));  // is 0.05
}

TEST(JsonAt, NamesWhatIsMissing) {
  const Json object = parse_json(R"({"a":1})", "a.json");
  EXPECT_EQ(json_at(object, "a", "a.json"), 1);
  EXPECT_EQ(error_of([&] { (void)json_at(object, "b", "a.json"); }),
            "a.json: the key 'b' is missing");
  EXPECT_EQ(error_of([&] { (void)json_at(Json(3), "b", "a.json"); }),
            "a.json: expected a JSON object with the key 'b'");
}

TEST(JsonInteger, AcceptsOnlyIntegersInRange) {
  const auto check = [](const char* text, std::int64_t min, std::int64_t max) {
    return error_of([&] { (void)json_integer(parse_json(text, "t"), min, max, "n", "a.json"); });
  };
  EXPECT_EQ(json_integer(Json(-3), -3, 4, "n", "a.json"), -3);
  EXPECT_EQ(check("9223372036854775807", 0, INT64_MAX), "no error");
  EXPECT_EQ(check("-9223372036854775808", INT64_MIN, 0), "no error");
  EXPECT_EQ(check("5", 0, 4), "a.json: n is 5, but must be an integer in [0, 4]");
  EXPECT_EQ(check("-1", 0, 4), "a.json: n is -1, but must be an integer in [0, 4]");
  EXPECT_EQ(check("3.0", 0, 4), "a.json: n is 3.0, but must be an integer in [0, 4]");
  EXPECT_EQ(check("\"3\"", 0, 4), "a.json: n is \"3\", but must be an integer in [0, 4]");
  EXPECT_NE(check("9223372036854775808", 0, INT64_MAX), "no error");  // 2^63
  EXPECT_NE(check("99999999999999999999", 0, INT64_MAX), "no error");
}

TEST(JsonArrayAndString, NameTheKindTheyWant) {
  EXPECT_EQ(json_array(parse_json("[1]", "t"), "ids", "a.json").size(), 1u);
  EXPECT_EQ(json_string(Json("x"), "name", "a.json"), "x");
  EXPECT_EQ(error_of([] { (void)json_array(Json("x"), "ids", "a.json"); }),
            "a.json: ids is \"x\", but must be an array");
  EXPECT_EQ(error_of([] { (void)json_string(Json(1), "name", "a.json"); }),
            "a.json: name is 1, but must be a string");
}

// Files of 13 and 99 MB would take a gigabyte and five.
TEST(JsonText, EscapesWhatCouldControlATerminal) {
  const Json value = {
      "a\xc2\x9b"
      "2J\xc2\x80\xc2\x9f",
      "\x1b[2J", "\xc2\xa0\xc3\xa9"};
  EXPECT_EQ(json_text(value), "[\"a\\u009b2J\\u0080\\u009f\",\"\\u001b[2J\",\"\xc2\xa0\xc3\xa9\"]");
  EXPECT_EQ(parse_json(json_text(value), "x"), value);
  EXPECT_EQ(json_text("\xff\xc2"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(Json, LimitsWhatTakesMuchMoreMemoryThanText) {
  const auto error = [](const char* element) {
    std::string text = "[";
    for (int i = 0; i <= (1 << 22); ++i) text += element;
    text.back() = ']';
    return error_of([&] { (void)parse_json(text, "x"); });
  };
  EXPECT_EQ(error("[],"), "x: JSON has more than 4194304 arrays and objects");
  EXPECT_EQ(error("\"\","), "x: JSON has more than 4194304 strings and keys");
}

}  // namespace
}  // namespace c2r
