// Tests that .npy files are read as NumPy saves them, and that broken ones are refused.
#include "c2r/io/npy.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <type_traits>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::real_data;

// A version 1 file with this header, which gets its line feed, and these data bytes.
std::string npy(std::string header, std::string_view data, int version = 1) {
  header += '\n';
  std::string file = "\x93NUMPY";
  file += {static_cast<char>(version), '\0', static_cast<char>(header.size() % 256),
           static_cast<char>(header.size() / 256)};
  if (version > 1) file += std::string(2, '\0');
  return file + header + std::string(data);
}

std::string header_of(std::string_view descr, std::string_view shape) {
  return fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", descr, shape);
}

NpyView parse(const std::string& file) {
  return parse_npy(std::as_bytes(std::span(file)), "a.npy");
}

std::string error_of_file(const std::string& file) {
  return error_of([&] { (void)parse(file); });
}

static_assert(!std::is_copy_constructible_v<NpyFile>, "a copy would show the original's bytes");

TEST(ParseNpy, ReadsAnArrayAsNumpySavesIt) {
  const std::string file = npy(header_of("<i2", "(2, 3)") + std::string(20, ' '),
                               std::string_view("\1\0\2\0\3\0\4\0\5\0\xff\xff", 12));
  const NpyView array = parse(file);
  EXPECT_EQ(array.dtype, Dtype::kI16);
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 3}));
  ASSERT_EQ(array.num_elements(), 6);
  EXPECT_EQ(integer_at(array, 0), 1);
  EXPECT_EQ(integer_at(array, 5), -1);
}

TEST(ParseNpy, ReadsEveryVersionKeyOrderAndQuote) {
  for (const int version : {1, 2, 3}) {
    EXPECT_EQ(parse(npy(header_of("|u1", "(1,)"), "x", version)).shape.size(), 1u) << version;
  }
  EXPECT_EQ(parse(npy("{\"shape\":(1,1),\"fortran_order\":False,\"descr\":\"|u1\"}", "x")).dtype,
            Dtype::kU8);
  EXPECT_EQ(parse(npy(header_of("<f8", "()"), std::string(8, '\0'))).num_elements(), 1);
  EXPECT_EQ(parse(npy(header_of("<f8", "(0, 7)"), "")).num_elements(), 0);
}

template <class T>
std::string file_of(std::string_view descr, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  // One byte more in the header, so that the elements are not aligned.
  return npy(header_of(descr, "(1,)") + std::string(sizeof(T) > 1, ' '),
             {bytes.data(), bytes.size()});
}

TEST(ParseNpy, ReadsEveryDtype) {
  EXPECT_EQ(integer_at(parse(file_of("|u1", std::uint8_t{200})), 0), 200);
  EXPECT_EQ(integer_at(parse(file_of("|i1", std::int8_t{-3})), 0), -3);
  EXPECT_EQ(integer_at(parse(file_of("<u2", std::uint16_t{60000})), 0), 60000);
  EXPECT_EQ(integer_at(parse(file_of("<i2", std::int16_t{-300})), 0), -300);
  EXPECT_EQ(integer_at(parse(file_of("<i4", std::int32_t{-70000})), 0), -70000);
  EXPECT_EQ(integer_at(parse(file_of("<i8", std::int64_t{-1} << 40)), 0), -(std::int64_t{1} << 40));
  EXPECT_EQ(float_at(parse(file_of("<f2", std::uint16_t{0x3e00})), 0), 1.5f);
  EXPECT_EQ(float_at(parse(file_of("<f4", -0.25f)), 0), -0.25f);
  EXPECT_EQ(float_at(parse(file_of("<f8", 0.1)), 0), 0.1f);
  EXPECT_EQ(parse(file_of("|b1", true)).dtype, Dtype::kBool);
  EXPECT_TRUE(is_integer(Dtype::kU8));
  EXPECT_FALSE(is_integer(Dtype::kF16));
  EXPECT_FALSE(is_integer(Dtype::kBool));
}

TEST(ParseNpy, SaysWhyItCannotReadAnArray) {
  EXPECT_EQ(error_of_file(npy("{'descr': '<i8', 'fortran_order': True, 'shape': (1, 1), }", "")),
            "a.npy: is in Fortran order; save numpy.ascontiguousarray() of it");
  EXPECT_EQ(error_of_file(npy(header_of(">i8", "(1,)"), "12345678")),
            "a.npy: is big-endian; convert it with astype() to a little-endian dtype");
  EXPECT_EQ(error_of_file(npy(header_of(">c8", "(1,)"), "12345678")),
            "a.npy: has the dtype '>c8', but only b1, u1, i1, u2, i2, i4, i8, f2, f4 "
            "and f8 are read; convert it with astype()");
  EXPECT_EQ(error_of_file(npy("{'descr': [('a', '<i8')], 'fortran_order': False, }", "")),
            "a.npy: has a structured dtype; save each field as an array of its own");
}

TEST(ParseNpy, ChecksSizesBeforeItBelievesThem) {
  EXPECT_EQ(error_of_file(npy(header_of("|u1", "(2, 3)"), "12345")),
            "a.npy: shape [2, 3] of U8 needs 6 bytes, but the file has 5");
  EXPECT_EQ(error_of_file(npy(header_of("|u1", "(2, 3)"), "1234567")),
            "a.npy: shape [2, 3] of U8 needs 6 bytes, but the file has 7");
  EXPECT_EQ(
      error_of_file(npy(header_of("<i8", "(1152921504606846976, 2)"), "")),
      "a.npy: shape [1152921504606846976, 2] of I64 needs too many bytes, but the file has 0");
  EXPECT_EQ(error_of_file(npy(header_of("<i8", "(9223372036854775808,)"), "")),
            "a.npy: the shape has an extent of more than 2^63 - 1");
}

TEST(ParseNpy, NoticesEveryTruncation) {
  const std::string file = npy(header_of("<i8", "(1,)"), "12345678");
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(error_of_file(file.substr(0, size)), "no error") << size;
  }
  EXPECT_EQ(error_of_file(file), "no error");
}

TEST(NpyFile, StaysValidWhenMoved) {
  const auto path = testing::temporary_path("a.npy");
  write_text_file(path, npy(header_of("|u1", "(3,)"), "\1\2\3"));
  NpyFile first(path);
  const NpyFile second(std::move(first));
  EXPECT_EQ(integer_at(second.array(), 2), 3);
}

TEST(Npy, ElementsThatAreNotThereAreRefused) {
  const std::string ids = npy(header_of("<u2", "(2,)"), std::string("\1\0\2\0", 4));
  const NpyView array = parse_npy(std::as_bytes(std::span(ids)), "a.npy");
  EXPECT_EQ(error_of([&] {
              for (const std::int64_t i : {0, 1, 2}) (void)integer_at(array, i);
            }),
            "element 2 was asked for of an array of 2");
  EXPECT_EQ(error_of([&] { (void)float_at(array, -1); }),
            "element -1 was asked for of an array of 2");
  EXPECT_EQ(error_of([&] { (void)float_at(array, 1); }),
            "an array of U16 was read as one of floats");
  const std::string weights = npy(header_of("<f4", "(1,)"), std::string(4, '\0'));
  EXPECT_EQ(
      error_of([&] { (void)integer_at(parse_npy(std::as_bytes(std::span(weights)), "a.npy"), 0); }),
      "an array of F32 was read as one of integers");
}

TEST(NpyFile, TurnsBigEndianElementsAround) {
  const auto numbers = testing::text_file(
      "numbers.npy", npy(header_of(">i4", "(2,)"), {"\0\0\1\2\xff\xff\xff\xfe", 8}));
  const NpyFile file(numbers);
  EXPECT_EQ(file.array().dtype, Dtype::kI32);
  EXPECT_EQ(integer_at(file.array(), 0), 258);
  EXPECT_EQ(integer_at(file.array(), 1), -2);
  const auto floats =
      testing::text_file("floats.npy", npy(header_of(">f8", "(1,)"), {"\x3f\xf8\0\0\0\0\0\0", 8}));
  EXPECT_EQ(double_at(NpyFile(floats).array(), 0), 1.5);
}

TEST(NpyOnRealData, ReadsCollaborationMatrices) {
  const auto path = real_data("c2r-official/llama_moe_3_5b_2_8_base_i64.npy");
  C2R_SKIP_WITHOUT(path);
  const NpyFile file(path);
  EXPECT_EQ(file.array().shape, (std::vector<std::int64_t>{32, 8, 8}));
  EXPECT_EQ(integer_at(file.array(), 3), 15105);
}

TEST(NpyOnRealData, ReadsCompressedArrays) {
  const auto path = real_data("placements/omni_infer_dsv3_8_ranks.npy.xz");
  C2R_SKIP_WITHOUT(path);
  const NpyFile file(path);
  EXPECT_EQ(file.array().shape, (std::vector<std::int64_t>{8, 58, 256}));
}

}  // namespace
}  // namespace c2r
