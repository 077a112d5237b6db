// Compares whole tokenizers with the ids and texts of golden files.
#include "c2r/tokenizer/tokenizer.h"

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

TEST(TokenizerConfig, DecidesAboutTheTemplateWhereItMentionsIt) {
  const auto ids = [](const char* config) { return with_config("llama3", config).encode(""); };
  const TokenId bos{0}, eos{1};
  EXPECT_EQ(ids("{}"), std::vector{bos});  // as tokenizer.json
  EXPECT_EQ(ids(R"({"add_bos_token": false})"), std::vector<TokenId>{});
  EXPECT_EQ(ids(R"({"add_eos_token": true, "eos_token": "<|eos|>"})"), std::vector{eos});
  EXPECT_EQ(ids(R"({"add_eos_token": true, "eos_token": "<|eos|>", "bos_token": "<|bos|>",
                    "tokenizer_class": "LlamaTokenizerFast"})"),
            (std::vector{bos, eos}));
  EXPECT_TRUE(
      error_of([&] {
        ids(R"({"add_bos_token": true})");
      }).ends_with("tokenizer_config.json: add_bos_token is true, but there is no bos_token"));
  EXPECT_TRUE(error_of([&] {
                ids(R"({"bos_token": "<x>"})");
              }).ends_with("bos_token is '<x>', which the tokenizer does not have"));
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

TEST(TokenizerConfig, AddsTokens) {
  const auto load = [](const char* id) {
    return with_config("llama3", std::string(R"({"added_tokens_decoder": {")") + id +
                                     R"(": {"content": "<|user|>", "special": true}}})");
  };
  const Tokenizer tokenizer = load("600");
  EXPECT_EQ(tokenizer.vocab_size(), 601);
  const auto ids = tokenizer.encode("<|user|>", Template::kNone);
  EXPECT_EQ(ids, std::vector{TokenId{600}});
  EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kKeep), "<|user|>");
  EXPECT_TRUE(
      error_of([&] { load("-3"); }).ends_with("added_tokens_decoder.-3 is no id in [0, 1048576)"));
}

TEST(TokenizerConfig, KnowsATokenByTheTextThatItHasLast) {
  const TokenId id{300};
  const std::string old = with_config("llama3", "{}").decode(std::vector{id}, SpecialTokens::kKeep);
  const auto load = [&](const std::string& bos) {
    return with_config("llama3", R"({"add_bos_token": true, "bos_token": ")" + bos +
                                     R"(", "added_tokens_decoder": {"300": {"content": "<x>"}}})");
  };
  EXPECT_EQ(load("<x>").encode(""), std::vector{id});
  EXPECT_TRUE(error_of([&] { load(old); }).ends_with("which the tokenizer does not have"));
}

}  // namespace
}  // namespace c2r
