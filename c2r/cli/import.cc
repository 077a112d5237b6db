// `c2r import`: routing that other programs recorded, as a trace or a statistics file.
#include "c2r/routing/import.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/progress_line.h"
#include "c2r/collaboration/import_loads.h"
#include "c2r/core/error.h"
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

struct Options {
  std::string format;
  ImportRequest request;
  std::vector<std::string> inputs;
  std::string output, weights, sequences;
  std::int32_t top_k = 0, num_hidden_layers = 0;
};

const ImportFormat* trace_format(std::string_view name) {
  const auto formats = import_formats();
  const auto found = std::ranges::find(formats, name, &ImportFormat::name);
  return found == formats.end() ? nullptr : &*found;
}

const CountsFormat& counts_format(const std::string& name) {
  const auto* const found = std::ranges::find(kCountsFormats, name, &CountsFormat::name);
  if (found != std::end(kCountsFormats)) return *found;
  std::vector<std::string> names;
  for (const ImportFormat& format : import_formats()) names.emplace_back(format.name);
  for (const CountsFormat& format : kCountsFormats) names.emplace_back(format.name);
  C2R_THROW(kInvalidArgument,
            "unknown format '{}'; did you mean '{}'? `c2r help import` lists them", name,
            nearest(name, names));
}

std::string summary_of(const TraceHeader& header) {
  return fmt::format("{} MoE layers, {} experts, top-{}", header.num_layers(), header.num_experts,
                     header.top_k);
}

void import_trace(const ImportFormat& format, Options& options) {
  ImportRequest& request = options.request;
  C2R_REQUIRE(request.num_experts > 0, kInvalidArgument,
              "--num-experts is required: format {} does not state it", format.name);
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

void import_counts(const CountsFormat& format, const Options& options) {
  const bool has_other_options = options.request.num_experts > 0 || !options.weights.empty() ||
                                 !options.sequences.empty() || options.num_hidden_layers > 0;
  C2R_REQUIRE(options.inputs.size() == 1 && !has_other_options, kInvalidArgument,
              "format {} takes one input, and of the options only --model, --top-k and --layers",
              format.name);
  const auto statistics = format.run({.input = options.inputs[0],
                                      .model = options.request.model,
                                      .top_k = options.top_k,
                                      .layer_indices = options.request.layer_indices});
  write_statistics(statistics, options.output);
  std::cout << fmt::format(
      "{}: {} of {} tokens, {}\n", options.output, statistics.has_pairs ? "pair counts" : "loads",
      *std::ranges::max_element(statistics.num_tokens), summary_of(statistics.header));
}

void import_file(Options& options) {
  if (const ImportFormat* const format = trace_format(options.format)) {
    import_trace(*format, options);
  } else {
    import_counts(counts_format(options.format), options);
  }
}

std::string footer() {
  std::string text = "Formats that become a trace:\n";
  for (const ImportFormat& format : import_formats()) {
    text += fmt::format("  {:<20}{}\n", format.name, format.summary);
  }
  text += "Formats that become a statistics file:\n";
  for (const CountsFormat& format : kCountsFormats) {
    text += fmt::format("  {:<20}{}\n", format.name, format.summary);
  }
  return text +
         "\nExample:\n"
         "  c2r import --from npy expert_ids.npy --sequences sequences.csv --num-experts 8 --model "
         "small -o trace.safetensors";
}

}  // namespace

void add_import(CLI::App& app) {
  auto* const command = app.add_subcommand("import", "read routing that other programs recorded");
  auto options = std::make_shared<Options>();
  ImportRequest& request = options->request;
  command->add_option("inputs", options->inputs, "what to read; text and npy files also as .xz")
      ->required();
  command->add_option("--from", options->format, "the format of the inputs, see below")
      ->required()
      ->type_name("FORMAT");
  command->add_option("-o,--output", options->output, "the file to write")
      ->required()
      ->type_name("FILE");
  command->add_option("--model", request.model, "the model's name, kept in the file")
      ->type_name("NAME");
  command
      ->add_option("--num-experts", request.num_experts,
                   "routed experts of an MoE layer, at most 1024")
      ->check(in_range(1, kMaxExperts))
      ->type_name("N");
  command
      ->add_option("--top-k", options->top_k,
                   "experts of a token, at most 32, where the input does not say")
      ->check(in_range(1, kMaxTopK))
      ->type_name("K");
  command
      ->add_option("--layers", request.layer_indices,
                   "the model's own index of each MoE layer, where the input does not say")
      ->delimiter(',')
      ->check(in_range(0, INT32_MAX))
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
  command->footer(footer());
  command->callback([options] { import_file(*options); });
}

}  // namespace c2r::cli
