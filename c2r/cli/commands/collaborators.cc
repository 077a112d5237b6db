// `c2r collaborators`: writes the Top-T lists that constrain routing.
#include "c2r/collaboration/collaborators.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/io/json.h"
#include "c2r/model/collaborator_config.h"
#include "c2r/report/collaborators.h"

namespace c2r::cli {
namespace {

struct CollaboratorsOptions {
  std::vector<std::string> inputs;
  std::int32_t top_t = 0;
  std::string config_path;
  std::string output_path;
  int num_threads = 0;
};

void warn(const std::string& message) {
  std::cerr << "warning: " << message << "\n";
}

std::string result_text(const CollaboratorsOptions& options,
                        const CollaborationStatistics& statistics) {
  const TraceHeader& header = statistics.header;
  if (options.config_path.empty()) {
    Json json = {{"version", version_text()}};
    json.update(collaborators_json(
        header, collaborators_of_layers(statistics.coactivation, options.top_t), options.top_t));
    return json_text(json) + "\n";
  }
  const auto ranked = collaborators_of_layers(statistics.coactivation, header.num_experts - 1);
  return json_text(config_with_lists(read_json_file(options.config_path), header, ranked,
                                     options.top_t, options.config_path, warn),
                   2) +
         "\n";
}

void write_collaborators(const CollaboratorsOptions& options) {
  check_output(options.output_path, options.inputs);  // --config may name the same file
  const Inputs inputs = read_inputs(options.inputs, options.num_threads);
  const CollaborationStatistics& statistics = inputs.statistics;
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "{} holds loads only; collaborators need a trace, or counts of pairs",
              options.inputs.front());
  check_top_t(options.top_t, statistics.header, "--top-t");
  const ShortLists lists =
      count_short_lists(statistics.header.layer_indices, statistics.coactivation, options.top_t);
  if (lists.num_short > 0) warn(short_lists_text(lists, options.top_t, "--top-t"));
  write_result(options.output_path, result_text(options, statistics));
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
      ->add_option(
          "--top-t", options->top_t,
          "the length of a list, at least top_k - 1; the paper takes 5 of 8 experts and 30 of 60")
      ->required()
      ->type_name("T");
  command
      ->add_option("--config", options->config_path,
                   "a Hugging Face config.json: write a copy of it with the keys top_t and "
                   "collaborative_list, instead of the lists alone")
      ->type_name("FILE");
  add_output(*command, options->output_path, "the file to write; default is to print");
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r collaborators trace.safetensors --top-t 5 -o collaborators.json");
  command->callback([options] { write_collaborators(*options); });
}

}  // namespace c2r::cli
