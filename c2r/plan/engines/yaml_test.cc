// Tests the bound on the size of a yaml.
#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/plan/engines/yaml_internal.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(ParseYaml, BoundsTheValuesOfAFile) {
  EXPECT_EQ(parse_yaml("a: [1, 2]", "f", 3).dump(), R"({"a":[1,2]})");
  const auto error = [](std::string_view text) {
    return error_of([&] { parse_yaml(text, "f", 3); });
  };
  constexpr std::string_view kTooMany =
      "f: yaml has more than 3 brackets, commas, colons, dashes and lines";
  for (const auto text : {"a: [1, 2, 3]", "[[], []]]", "- 1\n- 2\n", "[{},{}", "\n\n\n\n"}) {
    EXPECT_EQ(error(text), kTooMany) << text;
  }
}

}  // namespace
}  // namespace c2r
