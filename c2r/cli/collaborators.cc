// `c2r collaborators`: the Top-T lists that constrain routing.
#include "c2r/collaboration/collaborators.h"

#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/cli/version.h"
#include "c2r/core/error.h"
#include "c2r/io/json.h"

namespace c2r::cli {
namespace {

struct CollaboratorsOptions {
  std::vector<std::string> inputs;
  std::int32_t top_t = 0;
  std::string config_path;
  std::string output_path;
  int num_threads = 0;
};

void check_top_t(std::int32_t top_t, const TraceHeader& header) {
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

Json config_with_lists(const CollaboratorsOptions& options,
                       const CollaborationStatistics& statistics) {
  const TraceHeader& header = statistics.header;
  Json config = read_json_file(options.config_path);
  C2R_REQUIRE(config.is_object(), kInvalidFile, "{}: is not a JSON object", options.config_path);
  for (const char* const key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (!config.contains(key)) continue;
    const auto experts = json_integer(config[key], 1, INT32_MAX, key, options.config_path);
    C2R_REQUIRE(experts == header.num_experts, kInvalidArgument,
                "{}: {} is {}, but the statistics are of {} experts", options.config_path, key,
                experts, header.num_experts);
  }
  config["top_t"] = options.top_t;
  config["collaborative_list"] = lists(statistics, header.num_experts - 1, true);
  return config;
}

void write_collaborators(const CollaboratorsOptions& options) {
  check_output(options.output_path, options.inputs);  // the config may be changed in place
  const Inputs inputs = read_inputs(options.inputs, options.num_threads);
  const CollaborationStatistics& statistics = inputs.statistics;
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "{} holds loads only; collaborators need a trace, or counts of pairs",
              options.inputs.front());
  check_top_t(options.top_t, statistics.header);
  if (!options.config_path.empty()) {
    write_result(options.output_path, json_text(config_with_lists(options, statistics), 2) + "\n");
    return;
  }
  const Json json = {{"version", version_text()},
                     {"model", statistics.header.model},
                     {"num_experts", statistics.header.num_experts},
                     {"top_k", statistics.header.top_k},
                     {"top_t", options.top_t},
                     {"layer_indices", statistics.header.layer_indices},
                     {"collaborators", lists(statistics, options.top_t, false)}};
  write_result(options.output_path, json_text(json) + "\n");
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
