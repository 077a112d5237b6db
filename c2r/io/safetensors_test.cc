// Tests that safetensors files survive a round trip, and that broken ones are refused.
#include "c2r/io/safetensors.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::num_files;
using testing::path_in_empty_folder;
using testing::temporary_path;

// A file with this header and `num_data_bytes` of data: "abc...".
std::filesystem::path safetensors_of(std::string_view header, std::size_t num_data_bytes) {
  const auto path = temporary_path("test.safetensors");
  const std::uint64_t header_bytes = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(header);
  std::string data(num_data_bytes, 'a');
  std::iota(data.begin(), data.end(), 'a');
  file.write(data);
  file.commit();
  return path;
}

// What opening it says, without the path.
std::string error_of_header(std::string_view header, std::size_t num_data_bytes = 0) {
  const auto path = safetensors_of(header, num_data_bytes);
  const auto message = error_of([&] { SafetensorsFile file{path}; });
  return message.starts_with(path.string()) ? message.substr(path.string().size()) : message;
}

TEST(Safetensors, WritesTheFormatByteForByte) {
  const auto path = temporary_path("test.safetensors");
  const std::array<std::uint8_t, 3> bytes = {7, 8, 9};
  const std::array<std::int32_t, 1> ints = {0x01020304};
  write_safetensors(
      path,
      {tensor_of<std::uint8_t>("bytes", {3}, bytes), tensor_of<std::int32_t>("ints", {1, 1}, ints)},
      {{"key", "value"}});
  // The wider dtype first; the header padded with spaces to a multiple of 8.
  const std::string header =
      R"({"__metadata__":{"key":"value"},"ints":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},)"
      R"("bytes":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})";
  const std::size_t padded = (header.size() + 7) / 8 * 8;
  std::string expected(8, '\0');
  expected[0] = static_cast<char>(padded);
  expected += header + std::string(padded - header.size(), ' ') + "\x04\x03\x02\x01\x07\x08\x09";
  EXPECT_EQ(read_text_file(path), expected);
}

TEST(Safetensors, HoldsWritersToTheirPromises) {
  const auto path = path_in_empty_folder("test.safetensors");
  const auto tensor = [](std::string name, std::string_view written) {
    return TensorToWrite{
        std::move(name), Dtype::kU8, {3}, [written](AtomicFile& file) { file.write(written); }};
  };
  EXPECT_EQ(error_of([&] {
              write_safetensors(path, {tensor("a", "xyz"), tensor("b", "xy")}, {});
            }),
            path.string() + ": 2 bytes were written of tensor 'b', which has 3");
  EXPECT_EQ(error_of([&] {
              write_safetensors(path, {tensor("a", "xyz"), tensor("a", "xyz")}, {});
            }),
            path.string() + ": two tensors are called 'a'");
  EXPECT_EQ(num_files(path.parent_path()), 0);
  write_safetensors(path, {tensor("a", "xyz")}, {{"model", "\xff"}});
  EXPECT_EQ(SafetensorsFile(path).metadata_at("model"), "\ufffd");
}

TEST(Safetensors, ReturnsWhatWasWritten) {
  const auto path = temporary_path("test.safetensors");
  std::vector<std::int64_t> wide(6);
  std::iota(wide.begin(), wide.end(), std::int64_t{1} << 40);
  const std::vector<std::uint16_t> narrow = {1, 2, 65535};
  const std::vector<float> none;
  write_safetensors(
      path,
      {tensor_of<std::uint16_t>("narrow", {3}, narrow), tensor_of<float>("none", {0, 5}, none),
       tensor_of<std::int64_t>("wide", {2, 3}, wide)},
      {{"model", "\xc3\xa9\n\""}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.metadata_at("model"), "\xc3\xa9\n\"");
  const std::int64_t wide_shape[] = {2, 3}, any_shape[] = {-1}, none_shape[] = {0, 5};
  const auto read_wide = file.elements<std::int64_t>("wide", wide_shape);
  EXPECT_TRUE(std::ranges::equal(read_wide, wide));
  EXPECT_TRUE(std::ranges::equal(file.elements<std::uint16_t>("narrow", any_shape), narrow));
  EXPECT_TRUE(file.elements<float>("none", none_shape).empty());
}

TEST(Safetensors, AccessorsSayWhatTheFileHasInstead) {
  const auto path = temporary_path("test.safetensors");
  const std::vector<std::int32_t> ints = {1, 2};
  write_safetensors(path, {tensor_of<std::int32_t>("ints", {2}, ints)}, {});
  const SafetensorsFile file(path);
  const std::int64_t two[] = {2}, three[] = {3};
  const auto name = path.string();
  EXPECT_EQ(error_of([&] { (void)file.elements<float>("ints", two); }),
            name + ": tensor 'ints' is I32 [2], not F32 [2]");
  EXPECT_EQ(error_of([&] { (void)file.elements<std::int32_t>("ints", three); }),
            name + ": tensor 'ints' is I32 [2], not I32 [3]");
  EXPECT_EQ(error_of([&] { (void)file.tensor("x"); }), name + ": has no tensor 'x'");
  EXPECT_EQ(error_of([&] { (void)file.metadata_at("x"); }), name + ": the metadata has no 'x'");
}

TEST(Safetensors, RefusesToWriteAnImpossibleShape) {
  const auto path = temporary_path("test.safetensors");
  const auto nothing = [](AtomicFile&) {};
  EXPECT_EQ(error_of([&] {
              write_safetensors(
                  path, {{"a", Dtype::kU8, {0}, nothing}, {"b", Dtype::kU8, {2, -1}, nothing}}, {});
            }),
            path.string() + ": tensor 'b' cannot have the shape [2, any]");
  EXPECT_FALSE(std::filesystem::exists(path));
}

// As files of writers that do not pad the header, or that order tensors by name.
TEST(Safetensors, ReadsTensorsThatAreNotAligned) {
  const auto path = safetensors_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                   R"("b":{"dtype":"I32","shape":[1],"data_offsets":[1,5]},)"
                                   R"("c":{"dtype":"I32","shape":[1],"data_offsets":[5,9]}})",
                                   9);
  SafetensorsFile opened(path);
  const SafetensorsFile file = std::move(opened);  // the copies stay where they are
  const std::int64_t one[] = {1};
  for (const char* const name : {"b", "c"}) {
    const auto elements = file.elements<std::int32_t>(name, one);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(elements.data()) % 4, 0u);
    EXPECT_EQ(std::memcmp(elements.data(), name[0] == 'b' ? "bcde" : "fghi", 4), 0);
  }
}

TEST(Safetensors, MetadataMayBeNull) {
  EXPECT_EQ(error_of_header(R"({"__metadata__":null})", 0), "no error");
}

TEST(Safetensors, ChecksThatTensorsTileTheData) {
  const std::string a = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  EXPECT_EQ(error_of_header("{" + a + "}", 4), "no error");
  EXPECT_EQ(error_of_header("{" + a + "}", 5), ": the tensors end at byte 4, but the data has 5");
  EXPECT_EQ(
      error_of_header("{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})", 5),
      ": tensor 'b' begins at byte 3 of the data, but the one before it ends at 4");
  EXPECT_EQ(
      error_of_header("{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}})", 8),
      ": tensor 'b' begins at byte 6 of the data, but the one before it ends at 4");
  EXPECT_EQ(
      error_of_header("{" + a + R"(,"b":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})", 4),
      "no error");
}

TEST(Safetensors, ChecksSizesBeforeItBelievesThem) {
  EXPECT_EQ(error_of_header(
                R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})"),
            ": tensor 'a': shape [4611686018427387904, 4] of F32 needs too many bytes, but "
            "data_offsets span 0");
  EXPECT_EQ(error_of_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
            ": tensor 'a': shape [2] of F32 needs 8 bytes, but data_offsets span 4");
  EXPECT_EQ(error_of_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 4),
            ": tensor 'a': the end in data_offsets is 8, but must be an integer in [0, 4]");
}

TEST(Safetensors, ShortensHostileNames) {
  const auto message = error_of_header("{\"" + std::string(1000, 'x') + "\\u001b\":{}}");
  EXPECT_LT(message.size(), 200u) << message;
}

TEST(WriteSafetensors, GivesTheSameBytesForTheSameArguments) {
  const std::vector<std::uint8_t> bytes = {1, 2, 3};
  std::string first;
  for (const char* name : {"one.safetensors", "two.safetensors"}) {
    const auto path = temporary_path(name);
    write_safetensors(path, {tensor_of<std::uint8_t>("b", {3}, bytes)}, {{"k", "v"}, {"a", "b"}});
    if (first.empty()) first = read_text_file(path);
    EXPECT_EQ(read_text_file(path), first);
  }
}

}  // namespace
}  // namespace c2r
