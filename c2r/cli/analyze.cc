// `c2r analyze`: what the experts of each layer do together.
#include <algorithm>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
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
  std::int64_t heat_map_cells = 64;
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

// The sizes to report: those asked for, or the usual ones that split the experts evenly.
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

std::vector<std::int64_t> layers_to_draw(const AnalyzeOptions& options, const Analysis& analysis) {
  const bool has_pairs = analysis.statistics.has_pairs;
  if (options.heat_map == "none") return {};
  if (options.heat_map == "best") {
    if (!has_pairs) return {};
    return {most_specialized_layer(analysis.metrics)};
  }
  const auto& indices = analysis.statistics.header.layer_indices;
  std::vector<std::int64_t> layers;
  for (std::size_t layer = 0; layer < indices.size(); ++layer) {
    const bool is_meant =
        options.heat_map == "all" || options.heat_map == std::to_string(indices[layer]);
    if (is_meant) layers.push_back(static_cast<std::int64_t>(layer));
  }
  C2R_REQUIRE(!layers.empty(), kInvalidArgument,
              "--heat-map takes best, all, none or the index of an MoE layer in [{}, {}], not '{}'",
              indices.front(), indices.back(), options.heat_map);
  C2R_REQUIRE(has_pairs, kInvalidArgument,
              "--heat-map {} needs a trace or pair counts, but these are loads only",
              options.heat_map);
  return layers;
}

void print_for_people(const AnalyzeOptions& options, const Analysis& analysis,
                      std::span<const std::int64_t> drawn_layers) {
  const TraceHeader& header = analysis.statistics.header;
  const auto& num_tokens = analysis.statistics.num_tokens;
  std::cout << fmt::format("{}: {} MoE layers, {} experts, top-{}, {} tokens\n\n",
                           header.model.empty() ? "unnamed model" : shown(header.model),
                           header.num_layers(), header.num_experts, header.top_k,
                           *std::ranges::max_element(num_tokens))
            << analysis_table(analysis);
  for (const std::int64_t layer : drawn_layers) {
    std::cout << "\n"
              << collaboration_heat_map(analysis.statistics, layer, options.heat_map_cells,
                                        wants_color());
  }
  std::cout
      << "\ncollaborators: the effective number of other experts that an expert is chosen with;"
         "\nspecialization: 0 if it works with all alike, 1 if with one alone";
  if (!analysis.fan_out.empty()) {
    std::cout << ";\nfan-out over N: the ranks that a token must reach if experts are split in "
                 "order over N";
  }
  std::cout << "\n";
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
  const auto drawn_layers = layers_to_draw(options, analysis);
  if (!options.statistics_path.empty()) {
    write_statistics(analysis.statistics, options.statistics_path);
  }
  if (options.is_json) {
    Json json = {{"version", version_text()}, {"inputs", options.inputs}};
    json.update(analysis_json(analysis));
    std::cout << json_text(json, 1) << "\n";
  } else {
    print_for_people(options, analysis, drawn_layers);
  }
}

}  // namespace

void add_analyze(CLI::App& app) {
  auto* const command =
      app.add_subcommand("analyze", "show which experts work together, and how evenly");
  auto options = std::make_shared<AnalyzeOptions>();
  command->add_option("inputs", options->inputs, "routing traces or statistics files of one model")
      ->required();
  add_list(*command, "--ranks", options->ranks,
           "numbers of ranks to report the fan-out for; default 4 and 8 if they divide the experts")
      ->type_name("N,...");
  command
      ->add_option("--heat-map", options->heat_map,
                   "the layers to draw: best (the most specialized), all, none, or a layer's index")
      ->capture_default_str()
      ->type_name("WHICH");
  command
      ->add_option("--heat-map-cells", options->heat_map_cells,
                   "rows and columns to draw at most; of more experts, neighbours are averaged")
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
