// Reads generation_config.json: which tokens end a text, and which settings are not carried out.
#include "c2r/model/generation_config.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

// Keys that do not change which tokens follow a prompt.
constexpr std::string_view kHarmless[] = {
    "_from_model_config",   "_commit_hash",      "transformers_version",   "bos_token_id",
    "eos_token_id",         "pad_token_id",      "decoder_start_token_id", "use_cache",
    "cache_implementation", "output_attentions", "output_hidden_states",   "output_router_logits",
    "output_scores",        "output_logits",     "return_dict_in_generate"};

// Values with which a setting changes nothing.
const std::pair<std::string_view, Json> kNeutral[] = {{"temperature", 1},
                                                      {"top_p", 1},
                                                      {"top_k", 0},
                                                      {"min_p", 0},
                                                      {"typical_p", 1},
                                                      {"epsilon_cutoff", 0},
                                                      {"eta_cutoff", 0},
                                                      {"num_beams", 1},
                                                      {"num_beam_groups", 1},
                                                      {"diversity_penalty", 0},
                                                      {"length_penalty", 1},
                                                      {"repetition_penalty", 1},
                                                      {"no_repeat_ngram_size", 0},
                                                      {"num_return_sequences", 1},
                                                      {"min_length", 0}};

bool changes_a_text(const std::string& key, const Json& value) {
  if (value.is_null() || value == Json(false)) return false;
  if (std::ranges::find(kHarmless, key) != std::end(kHarmless)) return false;
  return std::ranges::none_of(kNeutral, [&](const auto& neutral) {
    return neutral.first == key && neutral.second == value;
  });
}

}  // namespace

std::vector<TokenId> parse_eos_ids(const Json* value, std::int64_t vocab_size,
                                   std::string_view place) {
  std::vector<TokenId> ids;
  if (value == nullptr || value->is_null()) return ids;
  const auto add = [&](const Json& json) {
    const auto id = json_integer(json, -1, INT32_MAX, "eos_token_id", place);
    if (0 <= id && id < vocab_size) ids.push_back(TokenId{static_cast<std::int32_t>(id)});
  };
  if (!value->is_array()) {
    add(*value);
  } else {
    for (const Json& id : *value) add(id);
  }
  return ids;
}

std::optional<GenerationConfig> read_generation_config(const std::filesystem::path& folder,
                                                       std::int64_t vocab_size) {
  const auto path = folder / "generation_config.json";
  if (!path_exists(path)) return std::nullopt;
  const std::string place = path.string();
  const Json json = read_json_file(path);
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: must be a JSON object", place);
  GenerationConfig config{.eos_ids =
                              parse_eos_ids(json_find(json, "eos_token_id"), vocab_size, place)};
  for (const auto& [key, value] : json.items()) {
    if (!changes_a_text(key, value)) continue;
    config.unused.push_back(fmt::format("{} {}", shown(key), shown_value(value)));
  }
  return config;
}

}  // namespace c2r
