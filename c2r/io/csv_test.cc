// Tests that CSV files are read as RFC 4180 says, and broken rows are refused with their line.
#include "c2r/io/csv.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

// All rows after a header of two columns.
std::vector<std::vector<std::string>> rows_of(std::string_view text) {
  std::vector<std::vector<std::string>> rows;
  CsvReader csv(text, "a.csv");
  while (csv.next()) rows.push_back({csv.field(0), csv.field(1)});
  return rows;
}

std::string error_of_csv(std::string_view text) {
  return error_of([&] { (void)rows_of(text); });
}

using Rows = std::vector<std::vector<std::string>>;

TEST(CsvReader, ReadsRowsByTheNamesOfTheirColumns) {
  CsvReader csv("layer,ids\n1,\"[0, 8]\"\n2,\"[3, 4]\"\n", "a.csv");
  const std::size_t ids = csv.column("ids"), layer = csv.column("layer");
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.integer(layer, 0, 9), 1);
  EXPECT_EQ(csv.field(ids), "[0, 8]");
  EXPECT_EQ(csv.place(), "a.csv:2");
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.field(ids), "[3, 4]");
  EXPECT_FALSE(csv.next());
}

TEST(CsvReader, SkipsAByteOrderMarkAndBlankLines) {
  EXPECT_EQ(rows_of("\xef\xbb\xbf"
                    "a,b\r\n\r\n1,2\r\n\r\n3,4\r\n\r\n"),
            (Rows{{"1", "2"}, {"3", "4"}}));
  CsvReader csv("\xef\xbb\xbfname,b\n", "a.csv");
  EXPECT_EQ(csv.column("name"), 0u);
  EXPECT_EQ(error_of_csv("\xef\xbb\xbf"), "a.csv: is empty, but must begin with a header");
}

TEST(CsvReader, UnquotesFields) {
  EXPECT_EQ(rows_of("a,b\n\"say \"\"hi\"\"\",\"x,\r\ny\"\n"), (Rows{{"say \"hi\"", "x,\r\ny"}}));
  EXPECT_EQ(rows_of("a,b\n\"\",\"\"\"\"\n"), (Rows{{"", "\""}}));
}

TEST(CsvReader, TakesEitherLineEndAndAMissingLastOne) {
  const Rows expected = {{"1", "2"}, {"3", ""}};
  EXPECT_EQ(rows_of("a,b\n1,2\n3,\n"), expected);
  EXPECT_EQ(rows_of("a,b\r\n1,2\r\n3,\r\n"), expected);
  EXPECT_EQ(rows_of("a,b\n1,2\n3,"), expected);
  EXPECT_EQ(rows_of("a,b"), Rows{});
}

TEST(CsvReader, CountsTheLinesInsideQuotes) {
  CsvReader csv("a\n\"1\n2\n3\"\nx\n", "a.csv");
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.place(), "a.csv:2");
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.place(), "a.csv:5");
}

TEST(CsvReader, NamesTheLineOfABrokenRow) {
  EXPECT_EQ(error_of_csv(""), "a.csv: is empty, but must begin with a header");
  EXPECT_EQ(error_of_csv("a,b\n1,2\n3\n"), "a.csv:3: has 1 fields, but the header has 2");
  EXPECT_EQ(error_of_csv("a,b\n\n3\n"), "a.csv:3: has 1 fields, but the header has 2");
  EXPECT_EQ(error_of_csv("a,b\n1,x\"y\"\n"), "a.csv:2: field 2 has a quote in its middle");
  EXPECT_EQ(error_of_csv("a,b\n\"1\"x,2\n"), "a.csv:2: field 1 goes on after its closing quote");
  EXPECT_EQ(error_of_csv("a,b\n1,\"x\n\n"),
            "a.csv:2: the quote that opens field 2 is never closed");
  EXPECT_EQ(error_of_csv("a,b\r1,2\n"),
            "a.csv:1: field 2 has a carriage return without a line feed");
}

TEST(CsvReader, NamesAWrongColumnOrNumber) {
  CsvReader csv("a,b,b\n7,x,99999999999999999999\n", "a.csv");
  EXPECT_EQ(error_of([&] { (void)csv.column("c"); }), "a.csv:1: the header has no column 'c'");
  EXPECT_EQ(error_of([&] { (void)csv.column("b"); }),
            "a.csv:1: the header has the column 'b' twice");
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(error_of([&] { (void)csv.integer(0, 0, 6); }),
            "a.csv:2: a is '7', but must be an integer in [0, 6]");
  EXPECT_EQ(error_of([&] { (void)csv.integer(1, 0, 6); }),
            "a.csv:2: b is 'x', but must be an integer in [0, 6]");
  EXPECT_NE(error_of([&] { (void)csv.integer(2, 0, 6); }), "no error");
  EXPECT_EQ(csv.field(2), "99999999999999999999");
  EXPECT_EQ(error_of([&] { (void)csv.field(3); }),
            "a.csv:2: column 3 was asked for, but there are 3");
  EXPECT_EQ(error_of([&] { (void)csv.integer(3, 0, 6); }),
            "a.csv:2: column 3 was asked for, but there are 3");
}

}  // namespace
}  // namespace c2r
