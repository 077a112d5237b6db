// `c2r collaborators`: the Top-T lists that constrain routing.
#include "c2r/collaboration/collaborators.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/io/json.h"
#include "c2r/model/config.h"
#include "c2r/routing/routing.h"

namespace c2r::cli {
namespace {

struct CollaboratorsOptions {
  std::vector<std::string> inputs;
  std::int32_t top_t = 0;
  std::string config_path;
  std::string output_path;
  int num_threads = 0;
};

void check_top_t_option(std::int32_t top_t, const TraceHeader& header) {
  const std::int32_t least = std::max(header.top_k - 1, 1), most = header.num_experts - 1;
  C2R_REQUIRE(least <= top_t && top_t <= most, kInvalidArgument,
              "--top-t {} is not in [{}, {}]: a token of top-{} needs {} collaborators, and an "
              "expert has {}",
              top_t, least, most, header.top_k, header.top_k - 1, most);
}

// [num_layers][num_experts][length]. `has_self` appends the expert itself, as the official configs.
Json lists(const CollaborationStatistics& statistics, std::int64_t length, bool has_self) {
  Json layers = Json::array();
  for (const CollaborationMatrix& counts : statistics.coactivation) {
    const auto ranked = rank_collaborators(counts);
    Json layer = Json::array();
    for (std::int64_t e = 0; e < ranked.rows(); ++e) {
      Json list = Json::array();
      for (std::int64_t i = 0; i < length; ++i) list.push_back(index(ranked(e, i)));
      if (has_self) list.push_back(e);
      layer.push_back(std::move(list));
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

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

// Whichever of these keys there are say `expected`.
void check_numbers(const Json& config, std::initializer_list<const char*> keys,
                   std::int64_t expected, std::string_view what, const std::string& path) {
  for (const char* const key : keys) {
    if (!config.contains(key) || config[key].is_null()) continue;
    const auto number = json_integer(config[key], 1, INT32_MAX, key, path);
    C2R_REQUIRE(number == expected, kInvalidArgument, "{}: {} is {}, but the statistics are of {}",
                path, key, number, fmt::format(fmt::runtime(what), expected));
  }
}

std::int64_t integer_or(const Json& config, const char* key, std::int64_t value,
                        const std::string& path) {
  if (!config.contains(key) || !config[key].is_number()) return value;
  return json_integer(config[key], 0, INT32_MAX, key, path);
}

// The layers with experts, by the keys of the families that have others, too.
std::vector<std::int32_t> layers_with_experts(const Json& config, const std::string& path) {
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

void check_config(const Json& config, const TraceHeader& header, const std::string& path) {
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
void check_with_reader(const Json& config, const std::string& path) {
  const bool is_known = std::ranges::any_of(families(), [&](const Family& family) {
    return config["model_type"] == Json(family.model_type);
  });
  if (!is_known) return;
  try {
    (void)parse_config(config, path);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnsupported) throw;
    std::cerr << "warning: c2r itself cannot run the model: " << e.what() << "\n";
  }
}

Json config_with_lists(const CollaboratorsOptions& options,
                       const CollaborationStatistics& statistics) {
  const TraceHeader& header = statistics.header;
  Json config = read_json_file(options.config_path);
  check_config(config, header, options.config_path);
  config["top_t"] = options.top_t;
  config["collaborative_list"] = lists(statistics, header.num_experts - 1, true);
  check_with_reader(config, options.config_path);
  return config;
}

Json lists_alone(const CollaboratorsOptions& options, const CollaborationStatistics& statistics) {
  return {{"version", version_text()},
          {"model", statistics.header.model},
          {"num_experts", statistics.header.num_experts},
          {"top_k", statistics.header.top_k},
          {"top_t", options.top_t},
          {"layer_indices", statistics.header.layer_indices},
          {"collaborators", lists(statistics, options.top_t, false)}};
}

void write_collaborators(const CollaboratorsOptions& options) {
  check_output(options.output_path, options.inputs);  // the config may be changed in place
  const Inputs inputs = read_inputs(options.inputs, options.num_threads);
  const CollaborationStatistics& statistics = inputs.statistics;
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "{} holds loads only; collaborators need a trace, or counts of pairs",
              options.inputs.front());
  check_top_t_option(options.top_t, statistics.header);
  const ShortLists lists =
      count_short_lists(statistics.header.layer_indices, statistics.coactivation, options.top_t);
  if (lists.num_short > 0) {
    std::cerr << "warning: " << short_lists_text(lists, options.top_t, "--top-t") << "\n";
  }
  const std::string text = options.config_path.empty()
                               ? json_text(lists_alone(options, statistics)) + "\n"
                               : json_text(config_with_lists(options, statistics), 2) + "\n";
  write_result(options.output_path, text);
  if (options.output_path.empty()) return;
  std::cout << fmt::format("{}: lists of {} collaborators for {} experts in each of {} layers\n",
                           options.output_path, options.top_t, statistics.header.num_experts,
                           statistics.header.num_layers());
}

}  // namespace

void add_collaborators(CLI::App& app) {
  auto* const command =
      app.add_subcommand("collaborators", "write each expert's top-T collaborators");
  auto options = std::make_shared<CollaboratorsOptions>();
  command->add_option("inputs", options->inputs, "routing traces or statistics files of one model")
      ->required();
  command
      ->add_option("--top-t", options->top_t,
                   "collaborators that routing may choose from, at least top_k - 1; the paper "
                   "takes 5 of 8 and 30 of 60")
      ->required()
      ->type_name("T");
  command
      ->add_option("--config", options->config_path,
                   "a Hugging Face config.json: write a copy with the keys top_t and "
                   "collaborative_list instead of the lists alone")
      ->type_name("FILE");
  add_output(*command, options->output_path, "the file to write; default is to print");
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r collaborators trace.safetensors --top-t 5 -o collaborators.json");
  command->callback([options] { write_collaborators(*options); });
}

}  // namespace c2r::cli
