// Reads the special tokens of tokenizer_config.json, as transformers does.
#include <fmt/format.h>

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

// {"32000": {"content": "<|user|>", ...}, ...}
void add_tokens_by_id(const Json& json, const std::string& place, KnownTokens& tokens) {
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: added_tokens_decoder is not an object", place);
  for (const auto& [key, value] : json.get_ref<const Json::object_t&>()) {
    const std::string what = fmt::format("added_tokens_decoder.{}", shown(key));
    const auto id = parse_integer(key);
    C2R_REQUIRE(id && 0 <= *id && *id < kMaxVocabSize, kInvalidFile, "{}: {} is no id in [0, {})",
                place, what, kMaxVocabSize);
    AddedToken token = read_token(value, what, place);
    token.id = TokenId{static_cast<std::int32_t>(*id)};
    const auto known = tokens.find(token.content);
    C2R_REQUIRE(!known || *known == token.id, kInvalidFile,
                "{}: {} is '{}', which has the id {} in the tokenizer", place, what,
                shown(token.content), index(*known));
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

// Reads the tokens around a text. If the config does not name them, those of tokenizer.json or the
// default of LLaMA stay.
void set_template(const Json& config, std::optional<TokenId> bos, std::optional<TokenId> eos,
                  bool is_sentencepiece, const std::string& place, TokenizerSpec& spec) {
  const bool is_explicit = config.contains("add_bos_token") || config.contains("add_eos_token");
  if (!is_explicit && !is_sentencepiece) return;
  const std::string type =
      config.contains("tokenizer_class") && config["tokenizer_class"].is_string()
          ? config["tokenizer_class"].get<std::string>()
          : "";
  const bool is_llama = is_sentencepiece || type.starts_with("LlamaTokenizer");
  const auto tokens_of = [&](const char* key, const char* role, bool otherwise,
                             std::optional<TokenId> id) -> std::vector<TokenId> {
    if (!json_flag(config, key, otherwise, "the config", place)) return {};
    C2R_REQUIRE(id, kInvalidFile, "{}: {} is true, but there is no {}", place, key, role);
    return {*id};
  };
  spec.prefix = tokens_of("add_bos_token", "bos_token", is_llama, bos);
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
  if (!exists && !is_sentencepiece) return;
  const std::string place = path.string();
  Json config = exists ? read_json_file(path) : Json::object();
  C2R_REQUIRE(config.is_object(), kInvalidFile, "{}: is not a JSON object", place);
  KnownTokens tokens(spec);
  if (is_sentencepiece) add_default_roles(tokens, config);
  if (!exists && !config.contains("bos_token")) config["add_bos_token"] = false;
  const Json& added = json_or_null(config, "added_tokens_decoder");
  if (!added.is_null()) add_tokens_by_id(added, place, tokens);
  const auto bos = read_role(config, "bos_token", place, tokens);
  const auto eos = read_role(config, "eos_token", place, tokens);
  (void)read_role(config, "unk_token", place, tokens);
  set_template(config, bos, eos, is_sentencepiece, place, spec);
  spec.first_token = bos ? bos : eos;
  if (!is_sentencepiece) return;
  if (!json_flag(config, "add_prefix_space", true, "the config", place)) {
    spec.metaspace->prefix = Metaspace::Prefix::kNever;
    spec.strips_leading_space = false;
  } else if (!json_flag(config, "legacy", true, "the config", place)) {
    spec.metaspace = {.prefix = Metaspace::Prefix::kFirst};
  }
}

}  // namespace c2r
