// Tests that the names of enumerations lead both ways, and that unknown names are refused.
#include "c2r/core/enum_names.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

enum class Metal { kIron, kLead, kTin };

constexpr EnumName<Metal> kMetals[] = {
    {Metal::kTin, "tin"}, {Metal::kIron, "iron"}, {Metal::kLead, "lead"}};

TEST(EnumNames, LeadBothWays) {
  static_assert(name_in(kMetals, Metal::kIron) == "iron");
  for (const auto& [value, name] : kMetals) {
    EXPECT_EQ(name_in(kMetals, value), name);
    EXPECT_EQ(parse_in(kMetals, "a metal is", name), value);
  }
}

TEST(EnumNames, ListWhatThereIs) {
  EXPECT_EQ(testing::error_of([] { parse_in(kMetals, "a metal is", "wo\nod"); }),
            "a metal is tin, iron or lead; not 'wo\\nod'");
}

}  // namespace
}  // namespace c2r
