// Reads the vocabulary, merges and added tokens of tokenizer.json; tokenizer_json_steps.cc reads
// the other steps.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/tokenizer/tokenizer_json_steps.h"
#include "c2r/tokenizer/vocabulary.h"

namespace c2r {
namespace {

TokenId token_id(const Json& value, std::string_view what, const std::string& place) {
  return TokenId(static_cast<std::int32_t>(json_integer(value, 0, kMaxVocabSize - 1, what, place)));
}

Vocabulary read_vocabulary(const Json& model, const std::string& place) {
  const Json& tokens = json_at(model, "vocab", place);
  C2R_REQUIRE(tokens.is_object(), kInvalidFile, "{}: model.vocab is not an object", place);
  Vocabulary vocabulary(place);
  for (const auto& [text, id] : tokens.get_ref<const Json::object_t&>()) {
    vocabulary.add(text, token_id(id, "an id in model.vocab", place));
  }
  return vocabulary;
}

// A merge is ["a", "b"], or "a b" in older files.
std::pair<std::string_view, std::string_view> merge_parts(const Json& merge, std::size_t rank,
                                                          const std::string& place) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  const std::string what = fmt::format("model.merges[{}]", rank);
  const std::string_view text = json_string(merge, what, place);
  const std::size_t space = text.find(' ');
  C2R_REQUIRE(
      space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos,
      kInvalidFile, "{}: {} is '{}', but must be two tokens", place, what, shown(text));
  return {text.substr(0, space), text.substr(space + 1)};
}

std::vector<BpeMerge> read_merges(const Json& model, const Vocabulary& vocabulary,
                                  const std::string& place) {
  std::vector<BpeMerge> merges;
  const auto& entries = json_array(json_at(model, "merges", place), "model.merges", place);
  merges.reserve(entries.size());
  std::string text;
  for (std::size_t rank = 0; rank < entries.size(); ++rank) {
    const auto [left, right] = merge_parts(entries[rank], rank, place);
    text.assign(left).append(right);
    const auto id_of = [&](std::string_view token) {
      const auto id = vocabulary.find(token);
      C2R_REQUIRE(id, kInvalidFile,
                  "{}: model.merges[{}] needs the token '{}', which is not in model.vocab", place,
                  rank, shown(token));
      return *id;
    };
    merges.push_back({.left = id_of(left),
                      .right = id_of(right),
                      .merged = id_of(text),
                      .rank = static_cast<std::int32_t>(rank)});
  }
  return merges;
}

// Fills the texts that merging may give, and the tokens of single bytes.
void set_tokens(const Vocabulary& vocabulary, bool has_byte_fallback, const std::string& place,
                BpeModel& model) {
  model.byte_tokens.fill(kNoToken);
  model.tokens.resize(vocabulary.size());
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.text(id);
    if (!model.is_byte_level) {
      model.tokens[id] = text;
      const auto byte = has_byte_fallback ? fallback_byte(text) : std::nullopt;
      // Hugging Face's tokenizers look for capital hexadecimal digits only.
      if (byte && text == fmt::format("<0x{:02X}>", *byte))
        model.byte_tokens[*byte] = TokenId(static_cast<std::int32_t>(id));
    } else if (const auto bytes = bytes_of_byte_level(text)) {
      model.tokens[id] = *bytes;
      if (bytes->size() == 1)
        model.byte_tokens[static_cast<unsigned char>((*bytes)[0])] =
            TokenId(static_cast<std::int32_t>(id));
    }
  }
  if (!model.is_byte_level) return;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_in_utf8 = byte < 0xC0 || (0xC1 < byte && byte < 0xF5);
    C2R_REQUIRE(!is_in_utf8 || model.byte_tokens[std::size_t(byte)] != kNoToken, kInvalidFile,
                "{}: model.vocab has no token for the byte 0x{:02X}", place, byte);
  }
}

BpeModel read_model(const Json& json, const Vocabulary& vocabulary, bool is_byte_level,
                    const std::string& place) {
  json_check_keys(
      json,
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"},
      "model", place);
  require_absent(json, "dropout", {0, 0.0}, "model", place);
  require_absent(json, "continuing_subword_prefix", {""}, "model", place);
  require_absent(json, "end_of_word_suffix", {""}, "model", place);
  BpeModel model;
  model.is_byte_level = is_byte_level;
  model.ignores_merges = json_flag(json, "ignore_merges", false, "model", place);
  model.fuses_unknown = json_flag(json, "fuse_unk", false, "model", place);
  if (json.contains("unk_token") && !json["unk_token"].is_null()) {
    model.unknown =
        vocabulary.at(json_string(json["unk_token"], "model.unk_token", place), "model.unk_token");
  }
  set_tokens(vocabulary, json_flag(json, "byte_fallback", false, "model", place), place, model);
  model.merges = read_merges(json, vocabulary, place);
  return model;
}

// Hugging Face's tokenizers give a token that the vocabulary lacks the next id, which is that of
// the file unless the file was edited.
std::vector<AddedToken> read_added_tokens(const Json& json, Vocabulary& vocabulary,
                                          const std::string& place) {
  std::vector<AddedToken> tokens;
  if (!json.contains("added_tokens")) return tokens;
  std::size_t next_id = vocabulary.num_tokens();
  for (const Json& entry : json_array(json["added_tokens"], "added_tokens", place)) {
    const std::string what = fmt::format("added_tokens[{}]", tokens.size());
    json_check_keys(entry,
                    {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"},
                    what, place);
    const auto flag = [&](const char* key, bool otherwise) {
      return json_flag(entry, key, otherwise, what, place);
    };
    const bool is_special = flag("special", false);
    AddedToken token{.id = token_id(json_at(entry, "id", place), what + ".id", place),
                     .content = json_string(json_at(entry, "content", place), what, place),
                     .is_single_word = flag("single_word", false),
                     .strips_left = flag("lstrip", false),
                     .strips_right = flag("rstrip", false),
                     .is_normalized = flag("normalized", !is_special),
                     .is_special = is_special};
    const bool is_new = !vocabulary.find(token.content);
    vocabulary.add(token.content, token.id);
    C2R_REQUIRE(!is_new || index(token.id) == next_id, kInvalidFile,
                "{}: {} is '{}' with the id {}, but Hugging Face's tokenizers give a new token the "
                "next free id, {}",
                place, what, shown(token.content), index(token.id), next_id);
    next_id = std::max(next_id, index(token.id) + 1);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

TokenizerSpec read_tokenizer_json(const std::filesystem::path& path) {
  const std::string place = path.string();
  const Json json = read_json_file(path);
  json_check_keys(json,
                  {"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"},
                  "the tokenizer", place);
  const Json& model = json_at(json, "model", place);
  const std::string& type = json_string(json_at(model, "type", place), "model.type", place);
  C2R_REQUIRE(type == "BPE", kUnsupported, "{}: model.type is '{}', but c2r supports only BPE",
              place, shown(type));

  TokenizerSpec spec;
  read_normalizer(json_or_null(json, "normalizer"), place, spec);
  const bool is_byte_level = read_pre_tokenizer(json_or_null(json, "pre_tokenizer"), place, spec);
  Vocabulary vocabulary = read_vocabulary(model, place);
  spec.model = read_model(model, vocabulary, is_byte_level, place);
  spec.added_tokens = read_added_tokens(json, vocabulary, place);
  read_post_processor(json_or_null(json, "post_processor"), vocabulary, place, spec);
  read_decoder(json_or_null(json, "decoder"), vocabulary, place, spec);
  return spec;
}

}  // namespace c2r
