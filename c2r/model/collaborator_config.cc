// Collaborator lists for a config.json: the checks that it is of the lists' model, and its new
// keys.
#include "c2r/model/collaborator_config.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/matrix_json.h"
#include "c2r/model/config.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// "0-3, 5".
std::string runs_text(std::span<const std::int32_t> layers) {
  std::string text;
  for (std::size_t first = 0, last = 0; first < layers.size(); first = ++last) {
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", layers[first]);
    if (last > first) text += fmt::format("-{}", layers[last]);
  }
  return text;
}

// Checks that each of these keys that the config has is `expected`.
void check_numbers(const Json& config, std::initializer_list<const char*> keys,
                   std::int64_t expected, std::string_view what, std::string_view path) {
  for (const char* const key : keys) {
    if (!config.contains(key) || config[key].is_null()) continue;
    const auto number = json_integer(config[key], 1, INT32_MAX, key, path);
    C2R_REQUIRE(number == expected, kInvalidArgument, "{}: {} is {}, but the statistics are of {}",
                path, key, number, fmt::format(fmt::runtime(what), expected));
  }
}

std::int64_t integer_or(const Json& config, const char* key, std::int64_t value,
                        std::string_view path) {
  if (!config.contains(key) || !config[key].is_number()) return value;
  return json_integer(config[key], 0, INT32_MAX, key, path);
}

// The layers with experts, by the keys of the families that have others, too.
std::vector<std::int32_t> layers_with_experts(const Json& config, std::string_view path) {
  const auto num_layers =
      json_integer(config["num_hidden_layers"], 1, kMaxLayers, "num_hidden_layers", path);
  const auto first = integer_or(config, "first_k_dense_replace", 0, path);  // DeepSeek, GLM
  const auto frequency = std::max<std::int64_t>(integer_or(config, "moe_layer_freq", 1, path), 1);
  auto step = integer_or(config, "decoder_sparse_step", 1, path);  // Qwen
  step = std::max<std::int64_t>(integer_or(config, "interleave_moe_layer_step", step, path), 1);
  const Json dense = config.value("mlp_only_layers", Json());
  std::vector<std::int32_t> layers;
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    const bool is_dense = std::ranges::find(dense, Json(layer)) != dense.end();
    if (layer >= first && layer % frequency == 0 && (layer + 1) % step == 0 && !is_dense) {
      layers.push_back(static_cast<std::int32_t>(layer));
    }
  }
  return layers;
}

void check_config(const Json& config, const TraceHeader& header, std::string_view path) {
  C2R_REQUIRE(config.is_object() && config.contains("model_type"), kInvalidFile,
              "{}: is no config.json of a model, which has a model_type", path);
  check_numbers(config, {"num_experts", "num_local_experts", "n_routed_experts"},
                header.num_experts, "{} experts", path);
  check_numbers(config, {"num_experts_per_tok", "num_selects"}, header.top_k, "top-{}", path);
  if (!config.contains("num_hidden_layers")) return;
  const auto layers = layers_with_experts(config, path);
  C2R_REQUIRE(layers == header.layer_indices, kInvalidArgument,
              "{}: {} of its layers have experts ({}), but the statistics are of {} ({})", path,
              layers.size(), runs_text(layers), header.num_layers(),
              runs_text(header.layer_indices));
}

// What c2r itself would say of the new config, where it knows the family.
void check_with_reader(const Json& config, std::string_view path,
                       const std::function<void(const std::string& message)>& warn) {
  const bool is_known = std::ranges::any_of(families(), [&](const Family& family) {
    return config["model_type"] == Json(family.model_type);
  });
  if (!is_known) return;
  try {
    (void)parse_config(config, path);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnsupported) throw;
    if (warn) warn(std::string("c2r itself cannot run the model: ") + e.what());
  }
}

Json official_lists(const Matrix<ExpertId>& ranked) {
  Json lists = matrix_to_json(ranked);
  for (std::size_t e = 0; e < lists.size(); ++e) lists[e].push_back(e);
  return lists;
}

}  // namespace

Json config_with_lists(Json config, const TraceHeader& header,
                       std::span<const Matrix<ExpertId>> ranked, std::int32_t top_t,
                       std::string_view place,
                       const std::function<void(const std::string& message)>& warn) {
  check_config(config, header, place);
  config["top_t"] = top_t;
  Json& layers = config["collaborative_list"] = Json::array();
  for (const Matrix<ExpertId>& layer : ranked) layers.push_back(official_lists(layer));
  check_with_reader(config, place, warn);
  return config;
}

}  // namespace c2r
