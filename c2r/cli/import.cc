// `c2r import`: what other programs recorded, as a trace or a statistics file, and where they place
// experts, as a plan.
#include <algorithm>
#include <charconv>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/output.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/core/error.h"
#include "c2r/import/loads.h"
#include "c2r/import/traces.h"
#include "c2r/io/file.h"
#include "c2r/plan/engines/export.h"
#include "c2r/routing/routing.h"

namespace c2r::cli {
namespace {

// The formats that hold counts only, and so become statistics files.
struct CountsFormat {
  std::string_view name, summary;
  CollaborationStatistics (*run)(const LoadsRequest& request);
};

constexpr CountsFormat kCountsFormats[] = {
    {"sglang-loads", "SGLang's logical_count as JSON: loads without pairs", import_sglang_loads},
    {"tensorrt-llm-loads", "a folder of TensorRT-LLM's rank*.safetensors: loads without pairs",
     import_tensorrt_llm_loads},
    {"coactivation", "npy [layers, experts, experts]: pair counts, as C2R's authors publish them",
     import_coactivation},
};

// A placement's format is called as the target of `c2r export` and this.
constexpr std::string_view kPlacementSuffix = "-placement";

struct ImportOptions {
  std::string format;
  ImportRequest request;
  std::vector<std::string> inputs, layers;
  std::string output, weights, sequences, cluster;
  std::int32_t top_k = 0, num_hidden_layers = 0;
};

const ImportFormat* trace_format(std::string_view name) {
  const auto formats = import_formats();
  const auto found = std::ranges::find(formats, name, &ImportFormat::name);
  return found == formats.end() ? nullptr : &*found;
}

const CountsFormat* counts_format(std::string_view name) {
  const auto* const found = std::ranges::find(kCountsFormats, name, &CountsFormat::name);
  return found == std::end(kCountsFormats) ? nullptr : found;
}

std::string placement_format_name(const ExportTarget& target) {
  return fmt::format("{}{}", target.name, kPlacementSuffix);
}

const ExportTarget* placement_format(std::string_view name) {
  const auto targets = export_targets();
  const auto found = std::ranges::find(targets, name, placement_format_name);
  return found == targets.end() ? nullptr : &*found;
}

[[noreturn]] void refuse_format(const std::string& name) {
  std::vector<std::string> names;
  for (const ImportFormat& format : import_formats()) names.emplace_back(format.name);
  for (const CountsFormat& format : kCountsFormats) names.emplace_back(format.name);
  for (const ExportTarget& target : export_targets())
    names.push_back(placement_format_name(target));
  const std::string meant = suggestion(name, names);
  C2R_THROW(kInvalidArgument, "unknown format '{}'{} `c2r help import` lists them", name,
            meant.empty() ? ";" : meant);
}

// Indices and runs of them: {"0", "3-60"}.
std::vector<std::int32_t> parse_layers(const std::vector<std::string>& words) {
  std::vector<std::int32_t> layers;
  for (const std::string& word : words) {
    std::int32_t first = 0, last = 0;
    const char* const end = word.data() + word.size();
    auto parsed = std::from_chars(word.data(), end, first);
    last = first;
    if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, last);
    }
    C2R_REQUIRE(parsed.ec == std::errc() && parsed.ptr == end && 0 <= first && first <= last &&
                    last <= kMaxLayerIndex,
                kInvalidArgument,
                "--layers takes indices up to {} and runs of them, such as 0,3-60; not '{}'",
                kMaxLayerIndex, word);
    for (std::int32_t layer = first; layer <= last; ++layer) layers.push_back(layer);
    C2R_REQUIRE(layers.size() <= kMaxLayers, kInvalidArgument,
                "--layers takes at most {} layers in all", kMaxLayers);
  }
  return layers;
}

std::string summary_of(const TraceHeader& header) {
  return fmt::format("{} MoE layers, {} experts, top-{}", header.num_layers(), header.num_experts,
                     header.top_k);
}

void import_trace(const ImportFormat& format, ImportOptions& options) {
  ImportRequest& request = options.request;
  C2R_REQUIRE(request.num_experts > 0, kInvalidArgument,
              "--num-experts is required: format {} does not state it", format.name);
  C2R_REQUIRE(options.cluster.empty(), kInvalidArgument,
              "--cluster is for placements; format {} has none", format.name);
  request.inputs.assign(options.inputs.begin(), options.inputs.end());
  request.output = options.output;
  request.weights = options.weights;
  request.sequences = options.sequences;
  if (options.top_k > 0) request.top_k = options.top_k;
  if (options.num_hidden_layers > 0) request.num_hidden_layers = options.num_hidden_layers;
  ImportResult result;
  {
    ProgressLine progress("importing");
    request.progress = &progress;
    result = format.run(request);
    request.progress = nullptr;
  }
  std::cout << fmt::format("{}: {} tokens in {} sequences, {}\n", options.output, result.num_tokens,
                           result.num_sequences, summary_of(result.header));
  if (result.num_skipped_tokens > 0) {
    std::cout << fmt::format("left out: {} prefix-cached tokens, whose experts are not known\n",
                             result.num_skipped_tokens);
  }
  if (result.num_skipped_records > 0) {
    std::cout << fmt::format("left out: {} records of multi-token prediction layers\n",
                             result.num_skipped_records);
  }
}

void import_counts(const CountsFormat& format, const ImportOptions& options) {
  const bool has_other_options = !options.weights.empty() || !options.sequences.empty() ||
                                 options.num_hidden_layers > 0 || !options.cluster.empty();
  C2R_REQUIRE(options.inputs.size() == 1 && !has_other_options, kInvalidArgument,
              "format {} takes one input, and of the options only --model-name, --num-experts, "
              "--top-k and --layers",
              format.name);
  const auto statistics = format.run({.input = options.inputs[0],
                                      .model = options.request.model,
                                      .top_k = options.top_k,
                                      .layer_indices = options.request.layer_indices});
  const std::int32_t given = options.request.num_experts, found = statistics.header.num_experts;
  C2R_REQUIRE(given == 0 || given == found, kInvalidFile,
              "{}: holds counts of {} experts, but --num-experts is {}", options.inputs[0], found,
              given);
  write_statistics(statistics, options.output);
  std::cout << fmt::format(
      "{}: {} of {} tokens, {}\n", options.output, statistics.has_pairs ? "pair counts" : "loads",
      *std::ranges::max_element(statistics.num_tokens), summary_of(statistics.header));
}

void import_placement(const ExportTarget& format, const ImportOptions& options) {
  const ImportRequest& request = options.request;
  C2R_REQUIRE(options.inputs.size() == 1 && request.num_experts > 0 && options.top_k > 0 &&
                  !request.layer_indices.empty() && !options.cluster.empty(),
              kInvalidArgument,
              "format {} takes one input, and needs --num-experts, --top-k, --layers and --cluster",
              options.format);
  C2R_REQUIRE(
      options.weights.empty() && options.sequences.empty() && options.num_hidden_layers == 0,
      kInvalidArgument, "format {} takes none of --weights, --sequences and --num-hidden-layers",
      options.format);
  const TraceHeader header{.model = request.model,
                           .num_experts = request.num_experts,
                           .top_k = options.top_k,
                           .layer_indices = request.layer_indices};
  const Cluster cluster = read_cluster(options.cluster);
  const std::string& input = options.inputs[0];
  auto placements = format.read(read_text_file(input),
                                {.num_experts = header.num_experts,
                                 .ep_size = cluster.ep_size(),
                                 .layer_indices = header.layer_indices},
                                input);
  const std::int32_t slots_per_rank = placements[0].slots_per_rank();
  write_plan(plan_of(header, cluster, std::move(placements),
                     {.c2r_version = version_text(),
                      .method = options.format,
                      .inputs = {{"placement", input}}}),
             options.output);
  std::cout << fmt::format("{}: {}, {} slots on each of {} ranks\n", options.output,
                           summary_of(header), slots_per_rank, cluster.ep_size());
}

void import_file(ImportOptions& options) {
  std::vector<std::string> inputs = options.inputs;
  inputs.insert(inputs.end(), {options.weights, options.sequences, options.cluster});
  check_output(options.output, inputs);
  options.request.layer_indices = parse_layers(parts_of(options.layers));
  if (const ImportFormat* const trace = trace_format(options.format)) {
    import_trace(*trace, options);
  } else if (const CountsFormat* const counts = counts_format(options.format)) {
    import_counts(*counts, options);
  } else if (const ExportTarget* const placement = placement_format(options.format)) {
    import_placement(*placement, options);
  } else {
    refuse_format(options.format);
  }
}

std::string formats_text() {
  std::string text =
      "Formats that become a trace; they need --num-experts, and sglang also --num-hidden-layers "
      "and\n"
      "--top-k where no expert_ids_schema says them:\n";
  for (const ImportFormat& format : import_formats()) {
    text += fmt::format("  {:<20}{}\n", format.name, format.summary);
  }
  text += "Formats that become a statistics file; they need --top-k, but for tensorrt-llm-loads:\n";
  for (const CountsFormat& format : kCountsFormats) {
    text += fmt::format("  {:<20}{}\n", format.name, format.summary);
  }
  text +=
      "Formats that become a plan, as `c2r export` writes them for the engine; they need\n"
      "--num-experts, --top-k, --layers and --cluster:\n";
  for (const ExportTarget& target : export_targets()) {
    text += fmt::format("  {:<24}{}\n", placement_format_name(target), target.suffix);
  }
  return text +
         "\nExample:\n"
         "  c2r import --from npy expert_ids.npy --sequences sequences.csv --num-experts 8 "
         "--model-name small -o trace.safetensors\n"
         "  c2r import --from sglang-placement map.json --num-experts 8 --top-k 2 --layers 0-3 "
         "--cluster 1x2 -o theirs.json";
}

}  // namespace

void add_import(CLI::App& app) {
  auto* const command =
      app.add_subcommand("import", "read routing and placements of other programs");
  auto options = std::make_shared<ImportOptions>();
  ImportRequest& request = options->request;
  command->add_option("inputs", options->inputs, "what to read; text and npy files also as .xz")
      ->required();
  command->add_option("--from", options->format, "the format of the inputs, see below")
      ->required()
      ->type_name("FORMAT");
  add_output(*command, options->output, "the file to write")->required();
  command->add_option("--model-name", request.model, "the model's name, kept in the file")
      ->type_name("NAME");
  command
      ->add_option("--num-experts", request.num_experts,
                   "routed experts of an MoE layer, at most 1024; checked where the input says it")
      ->check(in_range(1, kMaxExperts))
      ->type_name("N");
  command
      ->add_option("--top-k", options->top_k,
                   "experts of a token, at most 32; checked where the input says it")
      ->check(in_range(1, kMaxTopK))
      ->type_name("K");
  add_list(*command, "--layers", options->layers,
           "the model's own index of each MoE layer, where the input does not say: 3-60")
      ->type_name("N,...");
  command
      ->add_option("--num-hidden-layers", options->num_hidden_layers,
                   "sglang: all layers of the model, dense ones too")
      ->check(in_range(1, INT32_MAX))
      ->type_name("N");
  command->add_option("--weights", options->weights, "npy: the weights of the choices, f2 or f4")
      ->type_name("FILE");
  command
      ->add_option("--sequences", options->sequences,
                   "npy: CSV with row_start and n_tokens of each sequence")
      ->type_name("FILE");
  command->add_option("--cluster", options->cluster, std::string("placements: ") + kClusterHelp)
      ->type_name("CLUSTER");
  command->footer(formats_text());
  command->callback([options] { import_file(*options); });
}

}  // namespace c2r::cli
