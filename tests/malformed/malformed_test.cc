// Every loader on files that are each broken in one way: the message must be exactly the expected
// one. make_files.py makes the files, expected.tsv has the messages.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "tests/loaders.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::load;

const std::filesystem::path kFolder = C2R_MALFORMED_DIR;

std::string without_folder(std::string message) {
  const std::string prefix = kFolder.string() + "/";
  for (auto at = message.find(prefix); at != std::string::npos; at = message.find(prefix)) {
    message.erase(at, prefix.size());
  }
  return message;
}

// A file or folder, as "LOADER/NAME", and the message. Comments begin with '#'.
std::map<std::string, std::string> expected_messages() {
  std::map<std::string, std::string> expected;
  const std::string text = read_text_file(std::filesystem::path(C2R_SOURCE_DIR) / "tests" /
                                          "malformed" / "expected.tsv");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with('#')) continue;
    const std::size_t tab = line.find('\t');
    expected.emplace(line.substr(0, tab), line.substr(tab + 1));
  }
  return expected;
}

std::set<std::string> files() {
  std::set<std::string> names;
  for (const auto& loader : std::filesystem::directory_iterator(kFolder)) {
    for (const auto& file : std::filesystem::directory_iterator(loader)) {
      names.insert(loader.path().filename().string() + "/" + file.path().filename().string());
    }
  }
  return names;
}

TEST(Malformed, EveryFileHasAnExpectedMessageAndTheOtherWayRound) {
  std::set<std::string> expected;
  for (const auto& [name, message] : expected_messages()) expected.insert(name);
  EXPECT_EQ(files(), expected);
}

// Without this, the files might be broken in another way than meant.
TEST(Malformed, WhatTheFilesAreMadeFromIsWellFormed) {
  int num_files = 0;
  for (const auto& folder : std::filesystem::directory_iterator(C2R_WELL_FORMED_DIR)) {
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      const auto output = testing::temporary_path("out");
      EXPECT_EQ(error_of([&] { load(folder.path().filename(), file, output); }), "no error")
          << file;
      ++num_files;
    }
  }
  EXPECT_GE(num_files, 14);
}

TEST(Malformed, EveryImportHasBrokenAndWellFormedFiles) {
  for (const ImportFormat& format : import_formats()) {
    const std::string loader = testing::loader_of(format);
    EXPECT_TRUE(std::filesystem::exists(kFolder / loader)) << loader;
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(C2R_WELL_FORMED_DIR) / loader))
        << loader;
  }
}

class MalformedFile : public ::testing::TestWithParam<std::string> {};

TEST_P(MalformedFile, IsRefusedWithTheExpectedMessage) {
  const std::string& name = GetParam();
  const std::string loader = name.substr(0, name.find('/'));
  const std::string message = without_folder(
      error_of([&] { load(loader, kFolder / name, testing::temporary_path("out")); }));
  const auto expected = expected_messages();
  const auto found = expected.find(name);
  EXPECT_EQ(message, found == expected.end() ? "" : found->second);
  EXPECT_LT(message.size(), 400u);
  for (const char c : message) EXPECT_TRUE(0x20 <= c && c < 0x7f) << "not one line of ASCII";
}

INSTANTIATE_TEST_SUITE_P(Files, MalformedFile, ::testing::ValuesIn(files()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace c2r
