// `c2r analyze`: prints which experts of each layer are chosen together.
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/version.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/fan_out.h"
#include "c2r/report/analysis.h"

namespace c2r::cli {
namespace {

struct AnalyzeOptions {
  std::vector<std::string> inputs;
  std::vector<std::string> ranks;
  std::string heat_map = "best";
  std::int64_t heat_map_cells = 40;
  std::string statistics_path;
  bool is_json = false;
  int num_threads = 0;
};

std::vector<std::int32_t> parse_ranks(const std::vector<std::string>& words) {
  std::vector<std::int32_t> sizes;
  for (const std::string& word : words) {
    const auto size = parse_integer(word);
    C2R_REQUIRE(size && 1 <= *size && *size <= kMaxRanks, kInvalidArgument,
                "--ranks takes numbers in [1, {}], not '{}'", kMaxRanks, word);
    sizes.push_back(static_cast<std::int32_t>(*size));
  }
  return sizes;
}

// The numbers of ranks to report: those of --ranks, or 4 and 8 if the experts divide evenly.
std::vector<std::int32_t> splits(const AnalyzeOptions& options, std::int32_t num_experts) {
  std::vector<std::int32_t> sizes = parse_ranks(parts_of(options.ranks));
  if (sizes.empty()) {
    for (const std::int32_t size : {4, 8}) {
      if (num_experts % size == 0) sizes.push_back(size);
    }
  }
  for (const std::int32_t size : sizes) {
    C2R_REQUIRE(num_experts % size == 0, kInvalidArgument,
                "--ranks {}: {} experts cannot be split evenly over {} ranks", size, num_experts,
                size);
  }
  return sizes;
}

void analyze(const AnalyzeOptions& options) {
  check_output(options.statistics_path, options.inputs);
  Inputs inputs = read_inputs(options.inputs, options.num_threads);
  Analysis analysis{.metrics = model_metrics(inputs.statistics)};
  const std::span<const Trace> traces = inputs.traces;
  ProgressLine progress("fan-out");
  for (const std::int32_t ep_size : splits(options, inputs.statistics.header.num_experts)) {
    const auto split = fan_out_of_split(inputs.statistics,
                                        inputs.is_all_traces ? traces : std::span<const Trace>(),
                                        ep_size, options.num_threads, progress);
    C2R_REQUIRE(split || options.ranks.empty(), kInvalidArgument,
                "--ranks needs traces: pair counts do not determine how many ranks a token of "
                "top-{} reaches",
                inputs.statistics.header.top_k);
    if (split) analysis.fan_out.push_back(*split);
  }
  analysis.statistics = std::move(inputs.statistics);
  const HeatMaps heat_maps{.layers = heat_map_layers(analysis, options.heat_map, "--heat-map"),
                           .max_cells = options.heat_map_cells,
                           .style = heat_map_style()};
  if (!options.statistics_path.empty()) {
    write_statistics(analysis.statistics, options.statistics_path);
  }
  if (options.is_json) {
    Json json = {{"version", version_text()}, {"inputs", options.inputs}};
    json.update(analysis_json(analysis));
    std::cout << json_text(json, 1) << "\n";
  } else {
    std::cout << analysis_text(analysis, heat_maps);
  }
}

}  // namespace

void add_analyze(CLI::App& app) {
  auto* const command = app.add_subcommand(
      "analyze", "show which experts are chosen together, and how even their load is");
  auto options = std::make_shared<AnalyzeOptions>();
  command->add_option("inputs", options->inputs, "routing traces or statistics files of one model")
      ->required();
  add_list(*command, "--ranks", options->ranks,
           "the numbers of ranks to report the fan-out for; default is 4 and 8 if the experts can "
           "be split evenly over them")
      ->type_name("N,...");
  command
      ->add_option("--heat-map", options->heat_map,
                   "the layers to draw: best (the most specialized), all, none, or a layer's index")
      ->capture_default_str()
      ->check(offered({"best", "all", "none"}))
      ->type_name("WHICH");
  command
      ->add_option(
          "--heat-map-cells", options->heat_map_cells,
          "the most rows and columns of a heat map; of more experts, neighbours are averaged")
      ->capture_default_str()
      ->check(in_range(2, 1024))
      ->type_name("N");
  add_output(*command, options->statistics_path,
             "write the counts to this statistics file, to be analyzed or merged later");
  command->add_flag("--json", options->is_json, "print every number as one JSON object instead");
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r analyze trace.safetensors --ranks 2,4 -o statistics.safetensors");
  command->callback([options] { analyze(*options); });
}

}  // namespace c2r::cli
