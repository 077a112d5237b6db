// Compares whole tokenizers with the ids and texts of golden files.
#include "c2r/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "c2r/core/testing.h"
#include "c2r/core/utf8.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

using testing::error_of;

const std::filesystem::path kGolden =
    std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "tokenizers";

std::vector<TokenId> ids_of(const Json& json) {
  std::vector<TokenId> ids;
  for (const Json& id : json) ids.push_back(TokenId(id.get<std::int32_t>()));
  return ids;
}

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16));
  }
  return bytes;
}

// What Hugging Face's libraries gave for each text: tools/make_tokenizer_fixtures.py.
class GoldenTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  template <class Body>
  void for_each_text(const Body& body) const {
    const Json cases = read_json_file(kGolden / GetParam() / "expected.json");
    ASSERT_GT(cases.size(), 20u);
    for (const Json& expected : cases) {
      const std::string text = expected.contains("text")
                                   ? expected["text"].get<std::string>()
                                   : bytes_of_hex(expected["hex"].get<std::string>());
      SCOPED_TRACE(text);
      body(text, expected);
    }
  }
  const Tokenizer tokenizer_ = Tokenizer::load(kGolden / GetParam());
};

TEST_P(GoldenTokenizer, EncodesAsHuggingFace) {
  for_each_text([&](const std::string& text, const Json& expected) {
    EXPECT_EQ(tokenizer_.encode(text, Template::kNone), ids_of(expected["ids"]));
    EXPECT_EQ(tokenizer_.encode(text), ids_of(expected["template_ids"]));
  });
}

TEST_P(GoldenTokenizer, DecodesAsHuggingFace) {
  for_each_text([&](const std::string&, const Json& expected) {
    const auto ids = ids_of(expected["template_ids"]);
    EXPECT_EQ(tokenizer_.decode(ids, SpecialTokens::kKeep), expected["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer_.decode(ids, SpecialTokens::kSkip),
              expected["decoded_skip"].get<std::string>());
  });
}

TEST_P(GoldenTokenizer, StreamsWholeCharactersThatAddUpToTheText) {
  for_each_text([&](const std::string&, const Json& expected) {
    Tokenizer::Stream stream(tokenizer_, SpecialTokens::kSkip);
    std::string text;
    for (const TokenId id : ids_of(expected["template_ids"])) {
      const std::string part = stream.push(id);
      EXPECT_TRUE(is_valid_utf8(part));
      text += part;
    }
    EXPECT_EQ(text + stream.finish(), expected["decoded_skip"].get<std::string>());
  });
}

// Ids in an order that no text gives, so that characters are cut anywhere.
TEST_P(GoldenTokenizer, StreamsRandomIdsAsItDecodesThem) {
  std::mt19937 rng(1);
  for (int round = 0; round < 200; ++round) {
    Tokenizer::Stream stream(tokenizer_, SpecialTokens::kKeep);
    std::vector<TokenId> ids;
    std::string text;
    for (int i = 0; i < 20; ++i) {
      ids.push_back(TokenId(static_cast<std::int32_t>(rng() % 500)));  // some beyond the vocabulary
      text += stream.push(ids.back());
      EXPECT_TRUE(is_valid_utf8(text));
    }
    EXPECT_EQ(text + stream.finish(), tokenizer_.decode(ids, SpecialTokens::kKeep));
  }
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& folder : std::filesystem::directory_iterator(kGolden)) {
    names.push_back(folder.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTokenizer, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST(Tokenizer, HoldsBackACharacterUntilItIsWhole) {
  const Tokenizer tokenizer = Tokenizer::load(kGolden / "digits");
  const auto ids = tokenizer.encode("😀");
  ASSERT_GT(ids.size(), 1u);  // otherwise there is nothing to hold back
  Tokenizer::Stream stream(tokenizer, SpecialTokens::kSkip);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.push(ids.back()), "😀");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), kReplacementCharacter);
}

TEST(Tokenizer, RefusesNegativeIdsAndIgnoresThoseBeyondTheVocabulary) {
  const Tokenizer tokenizer = Tokenizer::load(kGolden / "qwen2");
  const std::vector<TokenId> padding = {TokenId(static_cast<std::int32_t>(tokenizer.vocab_size()))};
  EXPECT_EQ(tokenizer.decode(padding, SpecialTokens::kKeep), "");
  const std::vector<TokenId> negative = {TokenId{-1}};
  EXPECT_EQ(error_of([&] { (void)tokenizer.decode(negative, SpecialTokens::kKeep); }),
            "-1 is no token id");
}

TEST(Tokenizer, SaysWhatIsMissing) {
  const auto folder = testing::temporary_path("empty").parent_path();
  EXPECT_EQ(error_of([&] { (void)Tokenizer::load(folder); }),
            folder.string() + ": has neither tokenizer.json nor tokenizer.model");
}

// A tokenizer_config.json beside a known tokenizer.json.
Tokenizer with_config(const std::string& name, const std::string& config) {
  const auto folder = testing::temporary_path("config").parent_path();
  std::filesystem::copy_file(kGolden / name / "tokenizer.json", folder / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  write_text_file(folder / "tokenizer_config.json", config);
  return Tokenizer::load(folder);
}

TEST(TokenizerConfig, LeavesTheTemplateToTokenizerJson) {
  const auto ids = [](const char* config) { return with_config("llama3", config).encode(""); };
  const TokenId bos{0};
  for (
      const char* const config :
      {"{}", R"({"add_bos_token": false})", R"({"add_bos_token": true})",
       R"({"add_eos_token": true, "eos_token": "<|eos|>", "tokenizer_class": "LlamaTokenizerFast"})"}) {
    EXPECT_EQ(ids(config), std::vector{bos}) << config;
  }
  EXPECT_TRUE(error_of([&] {
                ids(R"({"bos_token": "<x>"})");
              }).ends_with("bos_token is '<x>', which the tokenizer does not have"));
}

// A folder with the tokenizer.model of LLaMA and this config.
Tokenizer model_with_config(const std::string& config) {
  const auto folder = testing::temporary_path("model_and_config") / "model";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(kGolden / "llama_legacy" / "tokenizer.model",
                             folder / "tokenizer.model",
                             std::filesystem::copy_options::overwrite_existing);
  write_text_file(folder / "tokenizer_config.json", config);
  return Tokenizer::load(folder);
}

TEST(TokenizerConfig, DecidesAboutTheTemplateOfATokenizerModel) {
  const auto ids = [](const char* config) { return model_with_config(config).encode(""); };
  const TokenId bos{1}, eos{2};
  EXPECT_EQ(ids("{}"), std::vector{bos});
  EXPECT_EQ(ids(R"({"add_bos_token": false})"), std::vector<TokenId>{});
  EXPECT_EQ(ids(R"({"add_eos_token": true})"), (std::vector{bos, eos}));
}

TEST(TokenizerConfig, NamesTheTokenBeforeATextWhoseFirstTokenIsPredicted) {
  const auto first = [](const char* config) { return with_config("llama3", config).first_token(); };
  EXPECT_EQ(first(R"({"eos_token": "<|eos|>", "bos_token": "<|bos|>"})"), TokenId{0});
  EXPECT_EQ(first(R"({"eos_token": "<|eos|>"})"), TokenId{1});
  EXPECT_EQ(first("{}"), std::nullopt);
}

// As with LLaMA's own tokenizer_config.json, which says nothing else about them.
TEST(TokenizerConfig, OfATokenizerModelMayBeAbsent) {
  const auto folder = testing::temporary_path("alone") / "model";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(kGolden / "llama_legacy" / "tokenizer.model",
                             folder / "tokenizer.model");
  const Tokenizer alone = Tokenizer::load(folder);
  const Tokenizer with_config = Tokenizer::load(kGolden / "llama_legacy");
  for (const char* const text : {"", "Hello, world!", " a", "<s> text </s><unk>"}) {
    EXPECT_EQ(alone.encode(text), with_config.encode(text)) << text;
  }
  const auto ids = alone.encode("<s>");
  EXPECT_EQ(ids, (std::vector{TokenId{1}, TokenId{1}}));
  EXPECT_EQ(alone.decode(ids, SpecialTokens::kSkip), "");
}

TEST(TokenizerConfig, AddsTokensWithTheNextFreeIds) {
  const auto load = [](std::int64_t id, std::int64_t other) {
    return with_config("llama3",
                       fmt::format(R"({{"added_tokens_decoder": {{"{}": {{"content": "<|user|>"}},
                                  "{}": {{"content": "<|end|>"}}}}}})",
                                   id, other));
  };
  const std::int64_t size = with_config("llama3", "{}").vocab_size();
  const Tokenizer tokenizer = load(size + 1, size);  // in another order than that of their ids
  EXPECT_EQ(tokenizer.vocab_size(), size + 2);
  const auto ids = tokenizer.encode("<|user|>", Template::kNone);
  EXPECT_EQ(ids, std::vector{TokenId(static_cast<std::int32_t>(size + 1))});
  EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kKeep), "<|user|>");
  EXPECT_TRUE(error_of([&] {
                load(-3, size);
              }).ends_with("added_tokens_decoder.-3 is no id in [0, 1048576)"));
  for (const std::int64_t id : {size + 2, std::int64_t{300}}) {
    EXPECT_TRUE(error_of([&] { load(size, id); })
                    .ends_with(fmt::format("added_tokens_decoder.{} is '<|end|>', but transformers "
                                           "gives a new token the next free id, {}",
                                           id, size + (id == 300 ? 0 : 1))));
  }
}

TEST(TokenizerConfig, MakesTokensWithARoleAddedTokens) {
  const Tokenizer plain = with_config("llama3", "{}");
  const auto letter = plain.encode("a", Template::kNone);
  const std::vector twice{letter.at(0), letter.at(0)};
  ASSERT_NE(plain.encode("aa", Template::kNone), twice);  // merged, but not beyond an added token
  for (const char* const config :
       {R"({"pad_token": "a"})", R"({"image_token": "a"})", R"({"extra_special_tokens": ["a"]})",
        R"({"additional_special_tokens": ["a"]})"}) {
    const Tokenizer tokenizer = with_config("llama3", config);
    EXPECT_EQ(tokenizer.encode("aa", Template::kNone), twice) << config;
    EXPECT_EQ(tokenizer.decode(twice, SpecialTokens::kSkip), "") << config;
  }
  EXPECT_EQ(with_config("llama3", R"({"pad_token": "<new>"})").vocab_size(), plain.vocab_size());
}

// added_tokens.json is what transformers wrote before added_tokens_decoder, and does not read
// beside it.
TEST(TokenizerConfig, TakesAddedTokensOfOldFiles) {
  const auto folder = testing::path_in_empty_folder("x").parent_path();
  std::filesystem::copy_file(kGolden / "llama_legacy" / "tokenizer.model",
                             folder / "tokenizer.model");
  write_text_file(folder / "added_tokens.json", R"({"<|user|>": 430, "<|end|>": 431})");
  write_text_file(folder / "special_tokens_map.json",
                  R"({"additional_special_tokens": ["<|user|>"]})");
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const auto ids = tokenizer.encode("<|user|><|end|>", Template::kNone);
  EXPECT_EQ(ids, (std::vector{TokenId{430}, TokenId{431}}));
  EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kSkip), "<|end|>");
  write_text_file(folder / "added_tokens.json", R"({"<|user|>": 431})");
  EXPECT_TRUE(
      error_of([&] { (void)Tokenizer::load(folder); })
          .ends_with("added_tokens.json: the id 431 is '<|user|>', but transformers gives a "
                     "new token the next free id, 430"));
  write_text_file(folder / "added_tokens.json", R"({"<|user|>": -1})");
  EXPECT_TRUE(
      error_of([&] { (void)Tokenizer::load(folder); })
          .ends_with("added_tokens.json: the id of '<|user|>' is -1, but must be an integer "
                     "in [0, 1048575]"));
  write_text_file(folder / "tokenizer_config.json", R"({"added_tokens_decoder": {}})");
  EXPECT_EQ(Tokenizer::load(folder).vocab_size(), 430);
}

TEST(TokenizerConfig, TakesRolesOfOldFilesBeforeItsOwn) {
  const auto folder = testing::path_in_empty_folder("x").parent_path();
  std::filesystem::copy_file(kGolden / "llama_legacy" / "tokenizer.model",
                             folder / "tokenizer.model");
  write_text_file(folder / "tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_EQ(Tokenizer::load(folder).first_token(), TokenId{1});
  write_text_file(folder / "special_tokens_map.json", R"({"bos_token": "</s>"})");
  EXPECT_EQ(Tokenizer::load(folder).first_token(), TokenId{2});
  write_text_file(folder / "tokenizer_config.json",
                  R"({"bos_token": "<s>", "added_tokens_decoder": {}})");
  EXPECT_EQ(Tokenizer::load(folder).first_token(), TokenId{1});
  write_text_file(folder / "tokenizer_config.json", "{}");
  write_text_file(folder / "special_tokens_map.json", "[]");
  EXPECT_TRUE(error_of([&] {
                (void)Tokenizer::load(folder);
              }).ends_with("special_tokens_map.json: is not a JSON object"));
}

// As the pieces that a tokenizer.model leaves free for others.
TEST(TokenizerConfig, KnowsATokenByTheTextThatItHasLast) {
  const TokenId id = model_with_config("{}").encode("onder", Template::kNone).back();
  const auto load = [&](const std::string& bos) {
    return model_with_config(fmt::format(
        R"({{"bos_token": "{}", "added_tokens_decoder": {{"{}": {{"content": "<x>"}}}}}})", bos,
        index(id)));
  };
  EXPECT_EQ(load("<x>").first_token(), id);
  EXPECT_TRUE(error_of([&] { load("er"); }).ends_with("which the tokenizer does not have"));
}

}  // namespace
}  // namespace c2r
