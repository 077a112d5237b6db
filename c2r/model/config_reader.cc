// Reads single keys of config.json and reports keys that were not read.
#include "c2r/model/config_reader.h"

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

// Keys about the origin of the model, its training and the defaults of generation, which no forward
// pass reads.
constexpr std::string_view kIgnored[] = {"_name_or_path",
                                         "architectures",
                                         "attention_dropout",
                                         "auto_map",
                                         "bos_token_id",
                                         "dtype",
                                         "initializer_range",
                                         "max_window_layers",
                                         "model_type",
                                         "output_router_logits",
                                         "pad_token_id",
                                         "pretraining_tp",
                                         "router_aux_loss_coef",
                                         "router_jitter_noise",
                                         "torch_dtype",
                                         "transformers_version",
                                         "use_cache",
                                         "tokenizer_class",
                                         "max_length",
                                         "do_sample",
                                         "temperature",
                                         "top_p",
                                         "repetition_penalty",
                                         "id2label",
                                         "label2id",
                                         "return_dict"};

}  // namespace

ConfigReader::ConfigReader(const Json& json, std::string_view place) : json_(json), place_(place) {
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: must be a JSON object", place);
}

const Json* ConfigReader::find(std::string_view key) {
  read_.emplace(key);
  return json_find(json_, key);
}

std::int64_t ConfigReader::integer(std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* const value = find(key);
  C2R_REQUIRE(value != nullptr, kInvalidFile, "{}: the key '{}' is missing", place_, key);
  return json_integer(*value, min, max, key, place_);
}

std::int64_t ConfigReader::integer_or(std::string_view key, std::int64_t min, std::int64_t max,
                                      std::int64_t value) {
  return find(key) == nullptr ? value : integer(key, min, max);
}

double ConfigReader::number(std::string_view key, double min) {
  const Json* const value = find(key);
  C2R_REQUIRE(value != nullptr, kInvalidFile, "{}: the key '{}' is missing", place_, key);
  return json_number(*value, min, key, place_);
}

bool ConfigReader::boolean(std::string_view key) {
  const Json* const value = find(key);
  C2R_REQUIRE(value != nullptr, kInvalidFile, "{}: the key '{}' is missing", place_, key);
  return json_boolean(*value, key, place_);
}

bool ConfigReader::boolean_or(std::string_view key, bool value) {
  return find(key) == nullptr ? value : boolean(key);
}

void ConfigReader::require(std::span<const RequiredValue> required) {
  for (const auto& [key, expected] : required) {
    const Json* const value = find(key);
    C2R_REQUIRE(value == nullptr || *value == Json::parse(expected), kUnsupported,
                "{}: {} is {}, but only {} is supported", place_, key, shown_value(*value),
                expected);
  }
}

void ConfigReader::finish(std::span<const std::string_view> ignored) {
  for (const auto& [key, value] : json_.items()) {
    if (read_.contains(key) || value.is_null() || value == Json(false)) continue;
    const auto is_in = [&key = key](std::span<const std::string_view> list) {
      return std::ranges::find(list, key) != list.end();
    };
    C2R_REQUIRE(is_in(kIgnored) || is_in(ignored), kUnsupported,
                "{}: the key '{}' (value {}) is not known; remove it if it has no influence on "
                "the results",
                place_, shown(key), shown_value(value));
  }
}

}  // namespace c2r
