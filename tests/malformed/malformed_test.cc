// Every loader on files that are each broken in one way: the message must be exactly the expected
// one. make_files.py makes the files, expected.tsv has the messages.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "c2r/collaboration/collaboration.h"
#include "c2r/collaboration/import_loads.h"
#include "c2r/core/testing.h"
#include "c2r/io/csv.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/import.h"

namespace c2r {
namespace {

using testing::error_of;

const std::filesystem::path kFolder = C2R_MALFORMED_DIR;

std::string without_folder(std::string message) {
  const std::string prefix = kFolder.string() + "/";
  for (auto at = message.find(prefix); at != std::string::npos; at = message.find(prefix)) {
    message.erase(at, prefix.size());
  }
  return message;
}

void load_csv(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  CsvReader csv(text, path.native());
  while (csv.next()) {
  }
}

void load_trace(const std::filesystem::path& path) {
  const Trace trace(path);
  for (std::int64_t layer = 0; layer < trace.header().num_layers(); ++layer) {
    (void)trace.topk_idx(layer, 0, trace.num_tokens());
  }
}

// The loader that the folder's name says.
void load(const std::string& loader, const std::filesystem::path& path) {
  if (loader == "safetensors") return void(SafetensorsFile(path));
  if (loader == "trace") return load_trace(path);
  if (loader == "statistics") return void(read_statistics(path));
  if (loader == "npy") return void(NpyFile(path));
  if (loader == "json") return void(read_json_file(path));
  if (loader == "csv") return load_csv(path);
  const LoadsRequest loads{.input = path, .top_k = 2};
  if (loader == "sglang_loads") return void(import_sglang_loads(loads));
  if (loader == "tensorrt_llm_loads") return void(import_tensorrt_llm_loads(loads));
  if (loader == "coactivation") return void(import_coactivation(loads));
  for (const ImportFormat& format : import_formats()) {
    if (loader != "import_" + std::string(format.name)) continue;
    ImportRequest request{
        .inputs = {path}, .output = testing::temporary_path("out.safetensors"), .num_experts = 4};
    if (format.name == "sglang") {
      request.num_hidden_layers = 1;
      request.top_k = 2;
    }
    format.run(request);
  }
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

class MalformedFile : public ::testing::TestWithParam<std::string> {};

TEST_P(MalformedFile, IsRefusedWithTheExpectedMessage) {
  const std::string& name = GetParam();
  const std::string loader = name.substr(0, name.find('/'));
  const std::string message = without_folder(error_of([&] { load(loader, kFolder / name); }));
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
