// Reads the special tokens of tokenizer_config.json, as transformers does.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"
#include "c2r/tokenizer/tokenizer_json_steps.h"

namespace c2r {
namespace {

// A token in the config is a string, its text, or an object with its text and flags.
AddedToken read_token(const Json& json, const std::string& what, const std::string& place) {
  if (json.is_string()) return {.content = json.get<std::string>(), .is_special = true};
  const auto flag = [&](const char* key) { return json_flag(json, key, false, what, place); };
  return {.content = json_string(json_at(json, "content", place), what, place),
          .is_single_word = flag("single_word"),
          .strips_left = flag("lstrip"),
          .strips_right = flag("rstrip"),
          .is_normalized = flag("normalized"),
          .is_special = json_flag(json, "special", true, what, place)};
}

// The tokens of tokenizer.json or tokenizer.model, and those that the config adds.
class KnownTokens {
 public:
  explicit KnownTokens(TokenizerSpec& spec) : spec_(spec) {
    for (const AddedToken& token : spec.added_tokens) {
      added_.insert(token.content);
      ids_.emplace(token.content, token.id);
    }
    for (std::size_t id = 0; id < spec.decoded.size(); ++id) {
      ids_.emplace(spec.decoded[id].bytes, TokenId(static_cast<std::int32_t>(id)));
    }
  }

  std::optional<TokenId> find(const std::string& content) const {
    const auto found = ids_.find(content);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  TokenId next_id() const { return TokenId(static_cast<std::int32_t>(spec_.decoded.size())); }

  void add(AddedToken token) {
    if (!added_.insert(token.content).second) return;  // tokenizer.json has it, its flags count
    if (index(token.id) >= spec_.decoded.size()) spec_.decoded.resize(index(token.id) + 1);
    DecodedToken& decoded = spec_.decoded[index(token.id)];
    if (const auto old = ids_.find(decoded.bytes); old != ids_.end() && old->second == token.id) {
      ids_.erase(old);
    }
    ids_.insert_or_assign(token.content, token.id);
    decoded = {.bytes = token.content, .is_special = token.is_special};
    spec_.added_tokens.push_back(std::move(token));
  }

 private:
  TokenizerSpec& spec_;
  std::unordered_set<std::string> added_;
  std::unordered_map<std::string, TokenId> ids_;
};

// A token with its name in the file, for messages.
struct TokenInFile {
  AddedToken token;
  std::string what;
};

// {"32000": {"content": "<|user|>", ...}, ...}
std::vector<TokenInFile> read_tokens_by_id(const Json& json, const std::string& place) {
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: added_tokens_decoder is not an object", place);
  std::vector<TokenInFile> read;
  for (const auto& [key, value] : json.get_ref<const Json::object_t&>()) {
    std::string what = fmt::format("added_tokens_decoder.{}", shown(key));
    const auto id = parse_integer(key);
    C2R_REQUIRE(id && 0 <= *id && *id < kMaxVocabSize, kInvalidFile, "{}: {} is no id in [0, {})",
                place, what, kMaxVocabSize);
    AddedToken token = read_token(value, what, place);
    token.id = TokenId{static_cast<std::int32_t>(*id)};
    read.push_back({.token = std::move(token), .what = std::move(what)});
  }
  return read;
}

// added_tokens.json, which transformers wrote before added_tokens_decoder: {"<|user|>": 32000, ...}
std::vector<TokenInFile> read_ids_by_token(const Json& json, const std::set<std::string>& special,
                                           const std::string& place) {
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: is not a JSON object", place);
  std::vector<TokenInFile> read;
  for (const auto& [text, value] : json.get_ref<const Json::object_t&>()) {
    const auto id = json_integer(value, 0, kMaxVocabSize - 1,
                                 fmt::format("the id of '{}'", shown(text)), place);
    AddedToken token;
    token.id = TokenId{static_cast<std::int32_t>(id)};
    token.content = text;
    token.is_special = special.contains(text);
    token.is_normalized = !token.is_special;
    read.push_back({.token = std::move(token), .what = fmt::format("the id {}", id)});
  }
  return read;
}

// Adds what the tokenizer lacks in the order of the ids, as transformers does, which gives each
// token the next free id, whatever the file says. A tokenizer.model may have pieces that only
// stand for such a token.
void add_tokens(std::vector<TokenInFile> added, const std::string& place, bool is_sentencepiece,
                KnownTokens& tokens) {
  std::ranges::sort(added, {}, [](const TokenInFile& entry) { return entry.token.id; });
  for (auto& [token, what] : added) {
    const auto known = tokens.find(token.content);
    C2R_REQUIRE(!known || *known == token.id, kInvalidFile,
                "{}: {} is '{}', which has the id {} in the tokenizer", place, what,
                shown(token.content), index(*known));
    const bool is_piece = is_sentencepiece && index(token.id) < index(tokens.next_id());
    C2R_REQUIRE(known || is_piece || token.id == tokens.next_id(), kInvalidFile,
                "{}: {} is '{}', but transformers gives a new token the next free id, {}", place,
                what, shown(token.content), index(tokens.next_id()));
    tokens.add(std::move(token));
  }
}

// The tokens that the config gives a role, such as pad_token, or names in a list.
std::vector<AddedToken> special_tokens(const Json& config, const std::string& place) {
  std::vector<AddedToken> tokens;
  const auto add = [&](const Json& json, const std::string& key) {
    if (!json.is_string() && !(json.is_object() && json.contains("content"))) return;
    tokens.push_back(read_token(json, key, place));
    if (tokens.back().content.empty()) tokens.pop_back();
  };
  for (const auto& [key, value] : config.get_ref<const Json::object_t&>()) {
    if (key.ends_with("_token")) add(value, key);
    if (key != "extra_special_tokens" && key != "additional_special_tokens") continue;
    if (!value.is_array()) continue;
    for (const Json& token : value) add(token, key);
  }
  return tokens;
}

// Before added_tokens_decoder, roles were written to a file of their own, which counts first.
void merge_special_tokens_map(const std::filesystem::path& folder, Json& config) {
  const auto path = folder / "special_tokens_map.json";
  if (!json_or_null(config, "added_tokens_decoder").is_null() || !path_exists(path)) return;
  const Json roles = read_json_file(path);
  C2R_REQUIRE(roles.is_object(), kInvalidFile, "{}: is not a JSON object", path.string());
  config.update(roles);
}

// Adds the tokens of added_tokens_decoder, or else of added_tokens.json.
void add_tokens_with_ids(const std::filesystem::path& path, const Json& config,
                         bool is_sentencepiece, KnownTokens& tokens) {
  const std::string place = path.string();
  if (const Json& added = json_or_null(config, "added_tokens_decoder"); !added.is_null()) {
    return add_tokens(read_tokens_by_id(added, place), place, is_sentencepiece, tokens);
  }
  const auto old = path.parent_path() / "added_tokens.json";
  if (!path_exists(old)) return;
  std::set<std::string> special;
  for (const AddedToken& token : special_tokens(config, place)) special.insert(token.content);
  add_tokens(read_ids_by_token(read_json_file(old), special, old.string()), old.string(),
             is_sentencepiece, tokens);
}

// Makes all tokens with a role added tokens. transformers gives those that the tokenizer lacks new
// ids, for which a model has no weights, so here they stay text.
void add_special_tokens(const Json& config, const std::string& place, KnownTokens& tokens) {
  for (AddedToken& token : special_tokens(config, place)) {
    const auto id = tokens.find(token.content);
    if (!id) continue;
    token.id = *id;
    tokens.add(std::move(token));
  }
}

// Returns the token of a key such as bos_token, and makes it an added token if it was none.
std::optional<TokenId> read_role(const Json& config, const char* key, const std::string& place,
                                 KnownTokens& tokens) {
  const Json& json = json_or_null(config, key);
  if (json.is_null()) return std::nullopt;
  AddedToken token = read_token(json, key, place);
  const auto id = tokens.find(token.content);
  C2R_REQUIRE(id, kInvalidFile, "{}: {} is '{}', which the tokenizer does not have", place, key,
              shown(token.content));
  token.id = *id;
  tokens.add(std::move(token));
  return id;
}

// Reads the tokens around a text of a tokenizer.model, by default those of LLaMA. A tokenizer.json
// has its own template, and transformers drops these keys beside it.
void set_template(const Json& config, std::optional<TokenId> bos, std::optional<TokenId> eos,
                  const std::string& place, TokenizerSpec& spec) {
  const auto tokens_of = [&](const char* key, const char* role, bool otherwise,
                             std::optional<TokenId> id) -> std::vector<TokenId> {
    if (!json_flag(config, key, otherwise, "the config", place)) return {};
    C2R_REQUIRE(id, kInvalidFile, "{}: {} is true, but there is no {}", place, key, role);
    return {*id};
  };
  spec.prefix = tokens_of("add_bos_token", "bos_token", true, bos);
  spec.suffix = tokens_of("add_eos_token", "eos_token", false, eos);
}

// The special tokens of LlamaTokenizer, for a config that does not mention them.
void add_default_roles(const KnownTokens& tokens, Json& config) {
  constexpr std::pair<const char*, const char*> kDefaults[] = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  for (const auto& [role, text] : kDefaults) {
    if (!config.contains(role) && tokens.find(text)) config[role] = text;
  }
}

}  // namespace

void apply_tokenizer_config(const std::filesystem::path& path, bool is_sentencepiece,
                            TokenizerSpec& spec) {
  const bool exists = path_exists(path);
  const std::string place = path.string();
  Json config = exists ? read_json_file(path) : Json::object();
  C2R_REQUIRE(config.is_object(), kInvalidFile, "{}: is not a JSON object", place);
  C2R_REQUIRE(!json_flag(config, "split_special_tokens", false, "the config", place), kUnsupported,
              "{}: split_special_tokens is true, but only false is supported", place);
  merge_special_tokens_map(path.parent_path(), config);
  KnownTokens tokens(spec);
  if (is_sentencepiece) add_default_roles(tokens, config);
  if (!exists && !config.contains("bos_token")) config["add_bos_token"] = false;
  add_tokens_with_ids(path, config, is_sentencepiece, tokens);
  const auto bos = read_role(config, "bos_token", place, tokens);
  const auto eos = read_role(config, "eos_token", place, tokens);
  (void)read_role(config, "unk_token", place, tokens);
  add_special_tokens(config, place, tokens);
  spec.first_token = bos ? bos : eos;
  if (!is_sentencepiece) return;
  set_template(config, bos, eos, place, spec);
  if (!json_flag(config, "add_prefix_space", true, "the config", place)) {
    spec.metaspace->prefix = Metaspace::Prefix::kNever;
    spec.strips_leading_space = false;
  } else if (!json_flag(config, "legacy", true, "the config", place)) {
    spec.metaspace = {.prefix = Metaspace::Prefix::kFirst};
  }
}

}  // namespace c2r
