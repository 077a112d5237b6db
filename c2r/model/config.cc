// Reads config.json, key by key, and checks that the values agree with each other.
#include "c2r/model/config.h"

#include <algorithm>
#include <string>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/model/config/attention_config.h"
#include "c2r/model/config/config_reader.h"
#include "c2r/model/config/unsupported.h"
#include "c2r/model/generation_config.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr RequiredValue kRequired[] = {{"hidden_act", "\"silu\""},
                                       {"attention_bias", "false"},
                                       {"mlp_bias", "false"},
                                       {"add_weight_norm", "false"}};

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

// transformers 5 writes the number of some families under the name of another family.
std::int32_t read_num_experts(ConfigReader& reader, const Family& family) {
  std::string_view key = family.num_experts_key;
  for (const std::string_view other : {"num_experts", "num_local_experts"}) {
    if (other == family.num_experts_key || reader.find(other) == nullptr) continue;
    if (reader.find(key) == nullptr) {
      key = other;
    } else {
      const std::int64_t one = reader.integer(key, 1, kMaxExperts);
      const std::int64_t two = reader.integer(other, 1, kMaxExperts);
      C2R_REQUIRE(one == two, kInvalidFile,
                  "{}: {} is {}, but {} is {}; remove the one that is wrong", reader.place(), key,
                  one, other, two);
    }
  }
  return static_cast<std::int32_t>(reader.integer(key, 1, kMaxExperts));
}

void read_experts(ConfigReader& reader, ModelConfig& config) {
  const Family& family = *config.family;
  config.num_experts = read_num_experts(reader, family);
  config.top_k = static_cast<std::int32_t>(
      reader.integer(family.top_k_key, 1, std::min(kMaxTopK, config.num_experts)));
  config.norm_topk_prob = family.norm_topk == NormTopk::kFromConfig
                              ? reader.boolean_or("norm_topk_prob", false)
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
  check_not_quantized(json, place);
  read_attention_config(reader, config);
  config.eos_ids = parse_eos_ids(reader.find("eos_token_id"), config.vocab_size, place);
  read_experts(reader, config);
  read_constraints(reader, config);
  for (const char* const key : {"dtype", "torch_dtype"}) {
    const Json* const dtype = reader.find(key);
    if (dtype != nullptr && *dtype == Json("float32")) config.weight_bytes = 4;
  }
  reader.require(kRequired);
  reader.require(config.family->required);
  reader.finish(config.family->ignored);
  check_policies(config, place);
  return config;
}

ModelConfig read_config(const std::filesystem::path& folder) {
  check_model_folder(folder);
  const auto path = folder / "config.json";
  ModelConfig config = parse_config(read_json_file(path), path.string());
  check_no_file_of_quantizer(folder);
  if (auto generation = read_generation_config(folder, config.vocab_size)) {
    config.eos_ids = std::move(generation->eos_ids);
    config.unused_settings = std::move(generation->unused);
  }
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
