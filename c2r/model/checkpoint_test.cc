// Tests of which files of a folder are used, and of what is said of the others.
#include "c2r/model/checkpoint.h"

#include <gtest/gtest.h>

#include <map>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using Tensors = std::map<std::string, std::vector<float>>;

void write_tensors(const std::filesystem::path& path, const Tensors& values) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, of_tensor] : values) {
    tensors.push_back(tensor_of<float>(name, {std::ssize(of_tensor)}, of_tensor));
  }
  write_safetensors(path, std::move(tensors), {});
}

// A folder with model.safetensors and an index of two shards.
class SingleFileBesideShards : public ::testing::Test {
 protected:
  SingleFileBesideShards() {
    write_tensors(folder_ / "model.safetensors", {{"a", a_}, {"b", {3}}});
    write_text_file(folder_ / "model.safetensors.index.json",
                    R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  }

  std::string note_with(const Tensors& first, const Tensors& second) {
    write_tensors(folder_ / "1.safetensors", first);
    write_tensors(folder_ / "2.safetensors", second);
    return note();
  }
  std::string note() {
    const Checkpoint checkpoint(folder_);
    EXPECT_EQ(checkpoint.shards().size(), 1u);
    EXPECT_EQ(checkpoint.shards()[0].path(), (folder_ / "model.safetensors").string());
    const std::string used = (folder_ / "model.safetensors").string() +
                             " is used, as by transformers, and not model.safetensors.index.json, ";
    EXPECT_EQ(checkpoint.note().substr(0, used.size()), used);
    return checkpoint.note().substr(std::min(used.size(), checkpoint.note().size()));
  }
  static std::string other_model(const std::string& difference) {
    return "whose 2 files (1.safetensors, 2.safetensors) hold another model: " + difference +
           "; remove the model that you do not mean";
  }

  const std::filesystem::path folder_ = testing::path_in_empty_folder("config.json").parent_path();
  const std::vector<float> a_ = std::vector<float>(1000, 1.5F);
};

TEST_F(SingleFileBesideShards, SaysThatTheIndexIsNotUsed) {
  EXPECT_EQ(note(), "whose files are not all there");
  write_tensors(folder_ / "1.safetensors", {{"a", a_}});
  EXPECT_EQ(note(), "whose files are not all there");
  EXPECT_EQ(
      note_with({{"a", a_}}, {{"b", {3}}}),
      "whose 2 files (1.safetensors, 2.safetensors) have the same tensors, as far as compared");
}

TEST_F(SingleFileBesideShards, NamesBothModelsThatDiffer) {
  for (const std::size_t changed : {0u, 500u, 999u}) {
    std::vector<float> other = a_;
    other[changed] = 2;
    EXPECT_EQ(note_with({{"a", other}}, {{"b", {3}}}), other_model("tensor 'a' has other values"));
  }
  EXPECT_EQ(note_with({{"a", a_}}, {{"b", {3, 4}}}),
            other_model("tensor 'b' has another type or shape"));
  EXPECT_EQ(note_with({{"a", a_}}, {{"b", {3}}, {"c", {4}}}),
            other_model("tensor 'c' is only in " + (folder_ / "2.safetensors").string()));
  EXPECT_EQ(note_with({{"a", a_}}, {}), other_model("they lack tensor 'b'"));
}

TEST_F(SingleFileBesideShards, SaysThatShardsCannotBeRead) {
  write_tensors(folder_ / "1.safetensors", {{"a", a_}});
  write_text_file(folder_ / "2.safetensors", "broken");
  EXPECT_EQ(note(), "which cannot be read");
  write_text_file(folder_ / "model.safetensors.index.json", "{");
  EXPECT_EQ(note(), "which cannot be read");
}

TEST(Checkpoint, HasNothingToSayOfOneModel) {
  const auto folder = testing::path_in_empty_folder("config.json").parent_path();
  write_tensors(folder / "model.safetensors", {{"a", {1}}});
  EXPECT_EQ(Checkpoint(folder).note(), "");
}

}  // namespace
}  // namespace c2r
