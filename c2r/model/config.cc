// Reads config.json, key by key, and checks that the values agree with each other.
#include "c2r/model/config.h"

#include <algorithm>
#include <string>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/model/config_reader.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxWidth = 1 << 20, kMaxVocab = 1 << 24, kMaxPositions = 1 << 24;
constexpr std::int64_t kMaxHeads = 1024, kMaxHeadDim = 1024;

constexpr RequiredValue kRequired[] = {{"hidden_act", "\"silu\""},
                                       {"attention_bias", "false"},
                                       {"mlp_bias", "false"},
                                       {"add_weight_norm", "false"}};

// Values such as {"rope_type": "default"} mean that positions are not scaled.
void check_rope_type(const Json& rope, std::string_view key, std::string_view place) {
  for (const auto* const name : {"rope_type", "type"}) {
    const auto type = rope.is_object() ? rope.find(name) : rope.end();
    if (type == rope.end()) continue;
    C2R_REQUIRE(*type == Json("default"), kUnsupported,
                "{}: {} asks for the {} {}, but only 'default' is supported", place, key, name,
                type->is_string() ? shown(type->get<std::string>()) : "?");
    return;
  }
  C2R_THROW(kUnsupported, "{}: {} is not supported", place, key);
}

void read_rope(ConfigReader& reader, ModelConfig& config) {
  if (const Json* const scaling = reader.find("rope_scaling")) {
    check_rope_type(*scaling, "rope_scaling", reader.place());
  }
  if (const Json* const rope = reader.find("rope_parameters")) {  // transformers 5 and later
    check_rope_type(*rope, "rope_parameters", reader.place());
    json_check_keys(*rope, {"rope_type", "type", "rope_theta"}, "rope_parameters", reader.place());
    config.rope_theta =
        json_number(json_at(*rope, "rope_theta", reader.place()), 1, "rope_theta", reader.place());
  } else if (!config.family->default_rope_theta.empty() && reader.find("rope_theta") == nullptr) {
    config.rope_theta = std::stod(std::string(config.family->default_rope_theta));
  } else {
    config.rope_theta = reader.number("rope_theta", 1);
  }
}

// The length of a sliding window counts only if the window is switched on.
void check_window(ConfigReader& reader, std::int64_t max_positions) {
  const bool is_off = !reader.boolean_or("use_sliding_window", true);
  const Json* const window = reader.find("sliding_window");
  if (window != nullptr && !is_off) {
    const auto length = json_integer(*window, 0, INT64_MAX, "sliding_window", reader.place());
    C2R_REQUIRE(length >= max_positions, kUnsupported,
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

void read_attention(ConfigReader& reader, ModelConfig& config) {
  config.hidden = reader.integer("hidden_size", 1, kMaxWidth);
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.num_layers = static_cast<std::int32_t>(reader.integer("num_hidden_layers", 1, kMaxLayers));
  config.max_positions = reader.integer("max_position_embeddings", 1, kMaxPositions);
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
  config.rms_norm_eps = static_cast<float>(reader.number("rms_norm_eps", 0));
  config.has_tied_embeddings = reader.boolean_or("tie_word_embeddings", false);
  if (reader.find("clip_qkv") != nullptr) {
    config.clip_qkv = static_cast<float>(reader.number("clip_qkv", 0));
  }
  read_rope(reader, config);
  check_window(reader, config.max_positions);
}

void read_eos(ConfigReader& reader, ModelConfig& config) {
  const Json* const eos = reader.find("eos_token_id");
  if (eos == nullptr) return;
  const auto add = [&](const Json& id) {
    config.eos_ids.push_back(TokenId{static_cast<std::int32_t>(
        json_integer(id, 0, config.vocab_size - 1, "eos_token_id", reader.place()))});
  };
  if (!eos->is_array()) return add(*eos);
  for (const Json& id : *eos) add(id);
}

void read_moe_layers(ConfigReader& reader, ModelConfig& config) {
  std::int64_t step = 1;
  std::vector<bool> is_dense(static_cast<std::size_t>(config.num_layers));
  if (config.family->has_dense_layers) {
    step = reader.integer_or("decoder_sparse_step", 1, kMaxLayers, 1);
    if (const Json* const dense = reader.find("mlp_only_layers")) {
      for (const Json& layer : json_array(*dense, "mlp_only_layers", reader.place())) {
        is_dense[static_cast<std::size_t>(json_integer(
            layer, 0, config.num_layers - 1, "a layer of mlp_only_layers", reader.place()))] = true;
      }
    }
  }
  for (std::int32_t layer = 0; layer < config.num_layers; ++layer) {
    if (!is_dense[static_cast<std::size_t>(layer)] && (layer + 1) % step == 0) {
      config.moe_layers.push_back(layer);
    }
  }
  C2R_REQUIRE(!config.moe_layers.empty(), kInvalidFile, "{}: no layer has experts", reader.place());
  const bool has_dense = config.num_moe_layers() < config.num_layers;
  const std::int64_t dense =
      config.family->has_dense_layers ? reader.integer_or("intermediate_size", 1, kMaxWidth, 0) : 0;
  C2R_REQUIRE(!has_dense || dense > 0, kInvalidFile,
              "{}: the key 'intermediate_size' is missing, but some layers have no experts",
              reader.place());
  config.dense_intermediate = has_dense ? dense : 0;
}

// The sizes of sliced experts: [num_layers][num_experts], or equal parts of the whole.
void read_slices(ConfigReader& reader, std::int64_t all, ModelConfig& config) {
  const Json* const sizes = reader.find("size_experts");
  if (sizes == nullptr) {
    C2R_REQUIRE(all % config.num_experts == 0, kInvalidFile,
                "{}: {} is {}, which {} experts cannot share evenly, and size_experts is missing",
                reader.place(), config.family->intermediate_key, all, config.num_experts);
    for (std::int64_t& size : config.intermediate.all()) size = all / config.num_experts;
    return;
  }
  const auto& layers = json_array(*sizes, "size_experts", reader.place());
  C2R_REQUIRE(std::ssize(layers) == config.num_layers, kInvalidFile,
              "{}: size_experts has {} layers, but the model {}", reader.place(), layers.size(),
              config.num_layers);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto& row = json_array(layers[static_cast<std::size_t>(layer)], "a layer of size_experts",
                                 reader.place());
    C2R_REQUIRE(std::ssize(row) == config.num_experts, kInvalidFile,
                "{}: layer {} of size_experts has {} experts, but the model {}", reader.place(),
                layer, row.size(), config.num_experts);
    for (std::int64_t e = 0; e < config.num_experts; ++e) {
      config.intermediate(layer, e) = json_integer(row[static_cast<std::size_t>(e)], 1, kMaxWidth,
                                                   "a size of size_experts", reader.place());
    }
  }
}

// One number for all layers, or one number for each layer.
void read_routing_scale(ConfigReader& reader, ModelConfig& config) {
  config.routing_scale.assign(config.moe_layers.size(), 1.0f);
  const Json* const scale = config.family->is_sliced ? reader.find("score_scale_factor") : nullptr;
  if (scale == nullptr) return;
  C2R_REQUIRE(!scale->is_array() || scale->size() == config.moe_layers.size(), kInvalidFile,
              "{}: score_scale_factor has {} numbers, but there are {} layers", reader.place(),
              scale->size(), config.moe_layers.size());
  for (std::size_t layer = 0; layer < config.routing_scale.size(); ++layer) {
    const Json& value = scale->is_array() ? (*scale)[layer] : *scale;
    config.routing_scale[layer] =
        static_cast<float>(json_number(value, 0, "score_scale_factor", reader.place()));
  }
}

// transformers 5 writes Qwen3-MoE's number under Mixtral's name.
std::string_view num_experts_key(ConfigReader& reader, const Family& family) {
  constexpr std::string_view kOther = "num_local_experts";
  if (reader.find(family.num_experts_key) != nullptr) return family.num_experts_key;
  return reader.find(kOther) != nullptr ? kOther : family.num_experts_key;
}

void read_experts(ConfigReader& reader, ModelConfig& config) {
  const Family& family = *config.family;
  config.num_experts =
      static_cast<std::int32_t>(reader.integer(num_experts_key(reader, family), 1, kMaxExperts));
  config.top_k = static_cast<std::int32_t>(
      reader.integer(family.top_k_key, 1, std::min(kMaxTopK, config.num_experts)));
  config.norm_topk_prob = family.norm_topk == NormTopk::kFromConfig
                              ? reader.boolean("norm_topk_prob")
                              : family.norm_topk == NormTopk::kAlways;
  read_moe_layers(reader, config);
  config.intermediate = {config.num_moe_layers(), config.num_experts};
  const std::int64_t intermediate = reader.integer(family.intermediate_key, 1, kMaxWidth);
  if (family.is_sliced) {
    read_slices(reader, intermediate, config);
  } else {
    for (std::int64_t& size : config.intermediate.all()) size = intermediate;
  }
  if (family.has_shared_expert) {
    config.shared_intermediate = reader.integer("shared_expert_intermediate_size", 1, kMaxWidth);
  }
  read_routing_scale(reader, config);
}

// T of a layer: `top_t`, or the length of its lists where all of them are shorter.
std::int32_t top_t_of_layer(const Json::array_t& rows, std::int32_t top_t,
                            const std::string& place) {
  const auto length = [&](const Json& row) {
    return std::ssize(json_array(row, "an expert's list", place));
  };
  const auto shortest = std::ranges::min_element(rows, {}, length);
  if (length(*shortest) >= top_t) return top_t;
  const auto longest = std::ranges::max_element(rows, {}, length);
  C2R_REQUIRE(length(*longest) == length(*shortest), kInvalidFile,
              "{}: the list of expert {} has {} entries, but top_t is {}", place,
              shortest - rows.begin(), length(*shortest), top_t);
  return static_cast<std::int32_t>(length(*shortest));
}

CollaborationConstraint read_constraint(const Json& lists, std::int32_t top_t,
                                        const ModelConfig& config, const std::string& place) {
  const auto& rows = json_array(lists, "a layer's lists", place);
  C2R_REQUIRE(std::ssize(rows) == config.num_experts, kInvalidFile,
              "{}: has lists for {} experts, but the model has {}", place, rows.size(),
              config.num_experts);
  CollaborationConstraint constraint{.top_t = top_t_of_layer(rows, top_t, place)};
  constraint.collaborators = {config.num_experts, constraint.top_t};
  for (std::int64_t e = 0; e < config.num_experts; ++e) {
    const auto& row = json_array(rows[static_cast<std::size_t>(e)], "an expert's list", place);
    for (std::size_t i = 0; i < row.size(); ++i) {  // entries beyond top_t must be experts, too
      const auto id = json_integer(row[i], 0, config.num_experts - 1, "a collaborator", place);
      const auto rank = static_cast<std::int64_t>(i);
      if (rank < constraint.top_t) {
        constraint.collaborators(e, rank) = ExpertId{static_cast<int>(id)};
      }
    }
  }
  return constraint;
}

// The keys of the official C2R configs.
void read_constraints(ConfigReader& reader, ModelConfig& config) {
  const Json* const lists = reader.find("collaborative_list");
  if (reader.find("top_t") == nullptr || lists == nullptr) {
    C2R_REQUIRE(reader.find("top_t") == nullptr && lists == nullptr, kInvalidFile,
                "{}: top_t and collaborative_list must be there together", reader.place());
    return;
  }
  const auto top_t = static_cast<std::int32_t>(reader.integer("top_t", 1, kMaxExperts));
  const auto& layers = json_array(*lists, "collaborative_list", reader.place());
  C2R_REQUIRE(std::ssize(layers) == config.num_moe_layers(), kInvalidFile,
              "{}: collaborative_list has {} layers, but {} layers have experts", reader.place(),
              layers.size(), config.num_moe_layers());
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const auto place = fmt::format("{}, collaborative_list, layer {}", reader.place(), layer);
    config.constraints.push_back(read_constraint(layers[layer], top_t, config, place));
  }
  const auto largest = std::ranges::max(config.constraints, {}, &CollaborationConstraint::top_t);
  C2R_REQUIRE(largest.top_t == top_t, kInvalidFile,
              "{}: top_t is {}, but the longest lists of collaborative_list have {} entries",
              reader.place(), top_t, largest.top_t);
}

// Checks the policies here, where messages can name the file.
void check_policies(const ModelConfig& config, std::string_view place) {
  for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
    try {
      check_policy(routing_policy(config, layer), config.num_experts);
    } catch (const Error& e) {
      C2R_THROW(kInvalidFile, "{}, MoE layer {}: {}", place, layer, e.what());
    }
  }
}

}  // namespace

bool ModelConfig::is_moe(std::int32_t layer) const {
  return std::ranges::binary_search(moe_layers, layer);
}

ModelConfig parse_config(const Json& json, std::string_view place) {
  ConfigReader reader(json, place);
  ModelConfig config;
  config.family =
      &find_family(json_string(json_at(json, "model_type", place), "model_type", place), place);
  read_attention(reader, config);
  read_eos(reader, config);
  read_experts(reader, config);
  read_constraints(reader, config);
  reader.require(kRequired);
  reader.require(config.family->required);
  reader.finish(config.family->ignored);
  check_policies(config, place);
  return config;
}

void check_plan_is_for(const Plan& plan, std::string_view place, const ModelConfig& config) {
  C2R_REQUIRE(plan.num_experts == config.num_experts && plan.top_k == config.top_k, kInvalidFile,
              "{}: the plan is for {} experts and top-{}, but the model has {} and top-{}", place,
              plan.num_experts, plan.top_k, config.num_experts, config.top_k);
  C2R_REQUIRE(std::ranges::equal(plan.layers, config.moe_layers, {}, &PlanLayer::layer_index),
              kInvalidFile, "{}: the plan's {} layers are not the model's {} with experts", place,
              plan.layers.size(), config.moe_layers.size());
}

bool apply_plan(const Plan& plan, std::string_view place, ModelConfig& config) {
  check_plan_is_for(plan, place, config);
  if (!plan.top_t) return false;
  const bool had_lists = !config.constraints.empty();
  config.constraints.clear();
  for (const PlanLayer& layer : plan.layers) {
    config.constraints.push_back({.top_t = static_cast<std::int32_t>(layer.collaborators.cols()),
                                  .collaborators = layer.collaborators});
  }
  check_policies(config, place);
  return had_lists;
}

RoutingPolicy routing_policy(const ModelConfig& config, std::int64_t moe_layer) {
  C2R_REQUIRE(0 <= moe_layer && moe_layer < config.num_moe_layers(), kInvalidArgument,
              "there is no MoE layer {} in a model with {}", moe_layer, config.num_moe_layers());
  RoutingPolicy policy{.scoring = config.family->scoring,
                       .top_k = config.top_k,
                       .norm_topk_prob = config.norm_topk_prob,
                       .scale = config.routing_scale[static_cast<std::size_t>(moe_layer)]};
  if (!config.constraints.empty()) {
    policy.constraint = config.constraints[static_cast<std::size_t>(moe_layer)];
  }
  return policy;
}

}  // namespace c2r
