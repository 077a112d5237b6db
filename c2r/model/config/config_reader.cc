// Reads single keys of config.json and reports keys that were not read.
#include "c2r/model/config/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

// Keys about the origin of the model, its training, the tools that wrote it and the defaults of
// generation, which no forward pass reads. docs/models.md lists them.
constexpr std::string_view kIgnored[] = {"_attn_implementation_autoset",
                                         "_attn_implementation_internal",
                                         "_commit_hash",
                                         "_experts_implementation",
                                         "_experts_implementation_internal",
                                         "_flash_attn_2_enabled",
                                         "_from_model_config",
                                         "_name_or_path",
                                         "add_cross_attention",
                                         "architectures",
                                         "attention_dropout",
                                         "attn_implementation",
                                         "auto_map",
                                         "bad_words_ids",
                                         "begin_suppress_tokens",
                                         "bos_token_id",
                                         "chunk_size_feed_forward",
                                         "classifier_dropout",
                                         "cross_attention_hidden_size",
                                         "decoder_start_token_id",
                                         "diversity_penalty",
                                         "do_sample",
                                         "dtype",
                                         "early_stopping",
                                         "embd_pdrop",
                                         "encoder_no_repeat_ngram_size",
                                         "experts_implementation",
                                         "exponential_decay_length_penalty",
                                         "finetuning_task",
                                         "forced_bos_token_id",
                                         "forced_eos_token_id",
                                         "gradient_checkpointing",
                                         "id2label",
                                         "initializer_range",
                                         "is_decoder",
                                         "is_encoder_decoder",
                                         "label2id",
                                         "length_penalty",
                                         "max_length",
                                         "max_window_layers",
                                         "min_length",
                                         "model_name",
                                         "model_type",
                                         "no_repeat_ngram_size",
                                         "num_beam_groups",
                                         "num_beams",
                                         "num_labels",
                                         "num_return_sequences",
                                         "output_attentions",
                                         "output_hidden_states",
                                         "output_router_logits",
                                         "output_scores",
                                         "pad_token_id",
                                         "prefix",
                                         "pretraining_tp",
                                         "problem_type",
                                         "pruned_heads",
                                         "remove_invalid_values",
                                         "repetition_penalty",
                                         "resid_pdrop",
                                         "return_dict",
                                         "return_dict_in_generate",
                                         "router_aux_loss_coef",
                                         "router_jitter_noise",
                                         "sep_token_id",
                                         "suppress_tokens",
                                         "task_specific_params",
                                         "temperature",
                                         "tf_legacy_loss",
                                         "tie_encoder_decoder",
                                         "tokenizer_class",
                                         "top_k",
                                         "top_p",
                                         "torch_dtype",
                                         "torchscript",
                                         "transformers_version",
                                         "typical_p",
                                         "unsloth_fixed",
                                         "unsloth_version",
                                         "use_bfloat16",
                                         "use_cache"};

constexpr std::size_t kMostNamed = 20;  // keys in one message

}  // namespace

std::span<const std::string_view> ignored_config_keys() {
  return kIgnored;
}

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
  std::vector<std::string> unknown;
  for (const auto& [key, value] : json_.items()) {
    if (read_.contains(key) || value.is_null() || value == Json(false)) continue;
    const auto is_in = [&key = key](std::span<const std::string_view> list) {
      return std::ranges::find(list, key) != list.end();
    };
    if (is_in(kIgnored) || is_in(ignored)) continue;
    unknown.push_back(fmt::format("'{}' (value {})", shown(key), shown_value(value)));
  }
  C2R_REQUIRE(unknown.size() != 1, kUnsupported,
              "{}: the key {} is not known; remove it if it has no influence on the results",
              place_, unknown.front());
  const std::size_t num_more = unknown.size() - std::min(unknown.size(), kMostNamed);
  unknown.resize(unknown.size() - num_more);
  C2R_REQUIRE(unknown.empty(), kUnsupported,
              "{}: the keys {}{} are not known; remove those that have no influence on the results",
              place_, fmt::join(unknown, ", "),
              num_more > 0 ? fmt::format(" and {} more", num_more) : "");
}

}  // namespace c2r
