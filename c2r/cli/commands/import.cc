// `c2r import`: reads routing that other programs recorded into a trace or a statistics file, and
// their placements into a plan.
#include "c2r/import/import.h"

#include <charconv>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/output.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/routing/routing.h"

namespace c2r::cli {
namespace {

struct ImportOptions {
  ImportRequest request;
  std::vector<std::string> inputs, layers;
  std::string output, weights, sequences, cluster, placement, phase;
  std::int32_t top_k = 0, num_hidden_layers = 0;
};

[[noreturn]] void refuse_format(const std::string& name) {
  std::vector<std::string> names;
  for (const ImportFormat& format : import_formats()) names.push_back(format.name);
  const std::string meant = suggestion(name, names);
  C2R_THROW(kInvalidArgument, "unknown format '{}'{} `c2r help import` lists them", name,
            meant.empty() ? ";" : meant);
}

// Parses indices and ranges of them, such as {"0", "3-60"}.
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
                "--layers takes indices up to {} and ranges of them, such as 0,3-60; not '{}'",
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

// "8", or "8 to 9" where layers differ.
std::string slots_text(const ImportResult& result) {
  const std::int32_t min = result.min_slots_per_rank, max = result.max_slots_per_rank;
  return min == max ? std::to_string(min) : fmt::format("{} to {}", min, max);
}

void print_result(const ImportResult& result, const ImportOptions& options) {
  const std::string summary = summary_of(result.header);
  switch (result.makes) {
    case ImportKind::kTrace:
      std::cout << fmt::format("{}: {} tokens in {} sequences, {}\n", options.output,
                               result.num_tokens, result.num_sequences, summary);
      break;
    case ImportKind::kStatistics:
      std::cout << fmt::format("{}: {} of {} tokens, {}\n", options.output,
                               result.has_pairs ? "pair counts" : "loads", result.num_tokens,
                               summary);
      break;
    case ImportKind::kPlan:
      std::cout << fmt::format("{}: {}, {} slots on each of {} ranks\n", options.output, summary,
                               slots_text(result), options.request.cluster->ep_size());
      break;
  }
}

void run_import(ImportOptions& options) {
  std::vector<std::string> inputs = options.inputs;
  inputs.insert(inputs.end(),
                {options.weights, options.sequences, options.cluster, options.placement});
  check_output(options.output, inputs);
  ImportRequest& request = options.request;
  std::vector<std::string> notes;
  request.layer_indices = parse_layers(parts_of(options.layers));
  if (!request.format.empty() && find_import_format(request.format) == nullptr) {
    refuse_format(request.format);
  }
  request.format_option = "--from";
  request.inputs.assign(options.inputs.begin(), options.inputs.end());
  request.output = options.output;
  request.weights = options.weights;
  request.sequences = options.sequences;
  request.placement = options.placement;
  if (!options.phase.empty()) request.phase = parse_phase(options.phase);
  request.c2r_version = version_text();
  if (options.top_k > 0) request.top_k = options.top_k;
  if (options.num_hidden_layers > 0) request.num_hidden_layers = options.num_hidden_layers;
  if (!options.cluster.empty()) request.cluster = read_cluster(options.cluster);
  ImportResult result;
  {
    ProgressLine progress("importing");
    request.progress = &progress;
    request.notes = &notes;
    result = import_file(request);
    request.progress = nullptr;
    request.notes = nullptr;
  }
  print_result(result, options);
  for (const std::string& note : notes) std::cout << note << '\n';
}

std::string lines_of(ImportKind makes, int width) {
  std::string text;
  for (const ImportFormat& format : import_formats()) {
    if (format.makes != makes) continue;
    text += fmt::format("  {:<{}}{}\n", format.name, width, format.summary);
  }
  return text;
}

std::string formats_text() {
  return "Formats that become a trace; all but sglang-recorder need --num-experts, and sglang "
         "without an expert_ids_schema also needs --num-hidden-layers and --top-k:\n" +
         lines_of(ImportKind::kTrace, 20) +
         "Formats that become a statistics file; all but tensorrt-llm-loads need --top-k:\n" +
         lines_of(ImportKind::kStatistics, 20) +
         "Formats that become a plan, in the form that `c2r export` writes; they need "
         "--num-experts, --top-k, --layers and --cluster:\n" +
         lines_of(ImportKind::kPlan, 24) +
         "\nExample:\n"
         "  c2r import --from npy expert_ids.npy --sequences sequences.csv \\\n"
         "      --num-experts 8 --model-name small -o trace.safetensors\n"
         "  c2r import --from sglang-placement map.json --num-experts 8 --top-k 2 \\\n"
         "      --layers 0-3 --cluster 1x2 -o theirs.json";
}

}  // namespace

void add_import(CLI::App& app) {
  auto* const command =
      app.add_subcommand("import", "read routing and placements of other programs");
  auto options = std::make_shared<ImportOptions>();
  ImportRequest& request = options->request;
  command
      ->add_option("inputs", options->inputs,
                   "the files to read; text and npy files also as .xz, .gz or .zst")
      ->required();
  std::vector<std::string> formats;
  for (const ImportFormat& format : import_formats()) formats.push_back(format.name);
  command
      ->add_option("--from", request.format,
                   "the format of the inputs, see below; without it, what the first one looks like")
      ->check(offered(formats))
      ->type_name("FORMAT");
  add_output(*command, options->output, "the file to write")->required();
  command
      ->add_option("--model-name", request.model,
                   "the name of the model, which is written to the file")
      ->type_name("NAME");
  command
      ->add_option(
          "--num-experts", request.num_experts,
          "routed experts of an MoE layer, at most 1024; compared with the input if it has them")
      ->check(in_range(1, kMaxExperts))
      ->type_name("N");
  command
      ->add_option("--top-k", options->top_k,
                   "experts of a token, at most 32; compared with the input if it has them")
      ->check(in_range(1, kMaxTopK))
      ->type_name("K");
  add_list(*command, "--layers", options->layers,
           "the model's own index of each MoE layer if the input does not have it, such as 3-60")
      ->type_name("N,...");
  command
      ->add_option("--num-hidden-layers", options->num_hidden_layers,
                   "sglang, vllm: all layers of the model, dense ones too")
      ->check(in_range(1, INT32_MAX))
      ->type_name("N");
  command->add_option("--weights", options->weights, "npy: the weights of the choices, f2 or f4")
      ->type_name("FILE");
  command
      ->add_option("--sequences", options->sequences,
                   "npy: a CSV file with row_start and n_tokens of each sequence")
      ->type_name("FILE");
  command
      ->add_option("--axes", request.axes,
                   "npy: tokens, layers and top-k in the order of the array, such as LTK; else TLK")
      ->type_name("AXES");
  command->add_option("--cluster", options->cluster, std::string("placements: ") + kClusterHelp)
      ->type_name("CLUSTER");
  command
      ->add_option("--placement", options->placement,
                   "tensorrt-llm-loads: the load balancer's yaml, if it counted slots")
      ->type_name("FILE");
  command->add_flag("--repair", request.repair,
                    "placements: where a rank holds an expert in two slots, give the second slot "
                    "another expert; without it that slot counts as empty");
  command->add_flag("--drop-incomplete", request.drop_incomplete,
                    "megatron: leave out the last step of a file whose recording was cut off");
  command->add_flag("--skip-cached", request.skip_cached,
                    "sglang, vllm: leave out tokens of the prefix cache, which were not sent");
  command
      ->add_option("--phase", options->phase,
                   "sglang, vllm, sglang-recorder, orders-in-chaos: only prefill, or only decode")
      ->check(offered({"prefill", "decode"}))
      ->type_name("PHASE");
  command->footer(formats_text());
  command->callback([options] { run_import(*options); });
}

}  // namespace c2r::cli
