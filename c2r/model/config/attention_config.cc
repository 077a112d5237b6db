// Reads the sizes, attention and positions of a model, and refuses windows and scaled positions.
#include "c2r/model/config/attention_config.h"

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxVocab = 1 << 24, kMaxPositions = 1 << 24;
constexpr std::int64_t kMaxHeads = 1024, kMaxHeadDim = 1024;

// The type of the scaling of positions. No type means "default", which does not scale.
void check_rope_type(const Json& rope, std::string_view key, std::string_view place) {
  for (const auto* const name : {"rope_type", "type"}) {
    const Json* const type = json_find(rope, name);
    C2R_REQUIRE(type == nullptr || *type == Json("default"), kUnsupported,
                "{}: {} asks for the {} {}, but only 'default' is supported", place, key, name,
                shown_value(*type));
  }
}

// transformers 4 writes rope_theta and rope_scaling, transformers 5 both in rope_parameters. If
// theta stands in several places, it must be the same.
double read_rope_theta(ConfigReader& reader, const Family& family) {
  std::optional<double> theta;
  if (reader.find("rope_theta") != nullptr) theta = reader.number("rope_theta", 1);
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const Json* const rope = reader.find(key);
    if (rope == nullptr) continue;
    check_rope_type(*rope, key, reader.place());
    json_check_keys(*rope, {"rope_type", "type", "rope_theta", "partial_rotary_factor"}, key,
                    reader.place());
    const Json* const part = json_find(*rope, "partial_rotary_factor");
    C2R_REQUIRE(part == nullptr || *part == Json(1), kUnsupported,
                "{}: {} has the partial_rotary_factor {}, but only 1 is supported", reader.place(),
                key, shown_value(*part));
    const Json* const inner = json_find(*rope, "rope_theta");
    if (inner == nullptr) continue;
    const double value = json_number(*inner, 1, fmt::format("{}.rope_theta", key), reader.place());
    C2R_REQUIRE(!theta || *theta == value, kInvalidFile,
                "{}: rope_theta is {}, but in {} it is {}; remove the one that is wrong",
                reader.place(), *theta, key, value);
    theta = value;
  }
  return theta.value_or(family.default_rope_theta);
}

// Where a family has the switch use_sliding_window, the window counts only if that is true; for the
// others the length alone decides.
void check_window(ConfigReader& reader, const ModelConfig& config) {
  const bool is_off =
      config.family->has_window_switch && !reader.boolean_or("use_sliding_window", false);
  const Json* const window = reader.find("sliding_window");
  if (window != nullptr && !is_off) {
    const auto length = json_integer(*window, 0, INT64_MAX, "sliding_window", reader.place());
    C2R_REQUIRE(length >= config.max_positions, kUnsupported,
                "{}: sliding_window is {}, but attention in windows is not supported",
                reader.place(), length);
  }
  const Json* const types = reader.find("layer_types");
  if (types == nullptr) return;
  for (const Json& type : json_array(*types, "layer_types", reader.place())) {
    C2R_REQUIRE(type == Json("full_attention"), kUnsupported,
                "{}: layer_types has {}, but only \"full_attention\" is supported", reader.place(),
                shown_value(type));
  }
}

void read_heads(ConfigReader& reader, ModelConfig& config) {
  config.num_heads = static_cast<std::int32_t>(reader.integer("num_attention_heads", 1, kMaxHeads));
  config.num_kv_heads = static_cast<std::int32_t>(
      reader.integer_or("num_key_value_heads", 1, config.num_heads, config.num_heads));
  C2R_REQUIRE(config.num_heads % config.num_kv_heads == 0, kInvalidFile,
              "{}: {} attention heads cannot share {} key-value heads evenly", reader.place(),
              config.num_heads, config.num_kv_heads);
  config.head_dim = reader.integer_or("head_dim", 2, kMaxHeadDim, 0);
  if (config.head_dim == 0) {
    C2R_REQUIRE(config.hidden % config.num_heads == 0, kInvalidFile,
                "{}: hidden_size {} cannot be split evenly over {} heads, and head_dim is missing",
                reader.place(), config.hidden, config.num_heads);
    config.head_dim = config.hidden / config.num_heads;
  }
  C2R_REQUIRE(config.head_dim % 2 == 0, kInvalidFile,
              "{}: head_dim is {}, but rotary embedding needs an even one", reader.place(),
              config.head_dim);
}

}  // namespace

void read_attention_config(ConfigReader& reader, ModelConfig& config) {
  config.hidden = reader.integer("hidden_size", 1, kMaxWidth);
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.num_layers = static_cast<std::int32_t>(reader.integer("num_hidden_layers", 1, kMaxLayers));
  config.max_positions = reader.integer("max_position_embeddings", 1, kMaxPositions);
  read_heads(reader, config);
  config.rms_norm_eps = reader.find("rms_norm_eps") == nullptr
                            ? config.family->default_rms_norm_eps
                            : static_cast<float>(reader.number("rms_norm_eps", 0));
  config.has_tied_embeddings = reader.boolean_or("tie_word_embeddings", false);
  if (config.family->has_clip_qkv && reader.find("clip_qkv") != nullptr) {
    config.clip_qkv = static_cast<float>(reader.number("clip_qkv", 0));
  }
  config.rope_theta = read_rope_theta(reader, *config.family);
  check_window(reader, config);
}

}  // namespace c2r
