// Tests of base64: the test vectors of RFC 4648, every length and byte both ways, and refusals.
#include "c2r/io/base64.h"

#include <gtest/gtest.h>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

std::string encoded(std::string_view text) {
  return encode_base64(std::as_bytes(std::span(text)));
}

TEST(Base64, HasTheTestVectorsOfRfc4648) {
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foob"), "Zm9vYg==");
  EXPECT_EQ(encoded("fooba"), "Zm9vYmE=");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encoded("\xfb\xff\xbf"), "+/+/");
}

TEST(Base64, DecodesWhatItEncodes) {
  std::mt19937_64 rng(1);
  for (std::size_t size = 0; size < 300; ++size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(uniform_below(256, rng));
    EXPECT_EQ(decode_base64(encode_base64(bytes), "here"), bytes) << size << " bytes";
  }
}

TEST(Base64, DecodesBlockAfterBlock) {
  std::mt19937_64 rng(2);
  for (const std::size_t size : {0U, 1U, 196608U, 196609U, 500000U}) {
    std::vector<std::byte> bytes(size), found;
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(uniform_below(256, rng));
    std::size_t num_blocks = 0;
    decode_base64_blocks(encode_base64(bytes), "here", [&](std::span<const std::byte> block) {
      EXPECT_EQ(found.size() % 24, 0u) << "of every block but the last";
      found.insert(found.end(), block.begin(), block.end());
      ++num_blocks;
    });
    EXPECT_EQ(found, bytes) << size << " bytes";
    EXPECT_EQ(num_blocks, (size + 196607) / 196608);
  }
  std::string text = encode_base64(std::vector<std::byte>(300000));
  text[300001] = '=';
  EXPECT_EQ(error_of([&] { decode_base64_blocks(text, "ids", [](std::span<const std::byte>) {}); }),
            "ids: '=' at 300001 is not a base64 digit");
}

TEST(Base64, RefusesWhatIsNotPaddedBase64) {
  const auto error = [](std::string_view text) {
    return error_of([&] { (void)decode_base64(text, "a.json, ids"); });
  };
  EXPECT_EQ(error("Zg="), "a.json, ids: has 3 base64 digits, which is not a multiple of 4");
  EXPECT_EQ(error("Zm9\n"), "a.json, ids: '\\n' at 3 is not a base64 digit");
  EXPECT_EQ(error("Z==="), "a.json, ids: '=' at 1 is not a base64 digit");
}

}  // namespace
}  // namespace c2r
