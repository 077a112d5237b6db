// `c2r simulate`: what a plan saves on a trace, step by step.
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/core/error.h"
#include "c2r/plan/predict.h"

namespace c2r::cli {
namespace {

struct Options {
  std::string plan, tokens, constrained, cluster;
  std::string transport = "per-rank", rule = "fewest-ranks", homes = "uniform", part = "all";
  std::string overlap = "added";
  std::int64_t hidden = 0, intermediate = 0;
  std::uint64_t seed = 0;
  bool is_json = false;
  int num_threads = 0;
};

PredictRequest request_of(const Options& options, const Cluster& cluster) {
  PredictRequest request{.reach = {.cluster = cluster,
                                   .rule = parse_replica_rule(options.rule),
                                   .seed = options.seed,
                                   .homes = parse_homes(options.homes)},
                         .copy_mode = parse_copy_mode(options.transport)};
  if (options.intermediate > 0) {
    C2R_REQUIRE(options.hidden > 0, kInvalidArgument, "--intermediate needs --hidden");
    C2R_REQUIRE(
        cluster.device_flop_per_s.has_value(), kInvalidArgument,
        "--intermediate asks for predicted times, but the cluster has no device_flop_per_s; "
        "give --cluster a JSON file with it");
    request.layer_time = {
        .cluster = cluster,
        .format = {.hidden = options.hidden},
        .flop_per_choice = flop_of_gated_mlp(options.hidden, options.intermediate),
        .overlap = parse_overlap(options.overlap)};
  }
  return request;
}

// A recording, in either form.
struct Recording {
  std::string path;
  std::optional<Trace> trace;
  CollaborationStatistics statistics;  // without a trace

  RoutedTokens tokens_in(SequencePart part) const {
    if (trace) {
      return {.trace = &*trace,
              .ranges = ranges_of(*trace, part),
              .name = fmt::format("{}, {}", path, name_of(part))};
    }
    C2R_REQUIRE(part == SequencePart::kAll, kInvalidArgument,
                "{} holds pair counts, which are of all sequences, not of --on {}", path,
                name_of(part));
    return {.statistics = &statistics, .name = path + ", pair counts"};
  }
};

Recording read_recording(const std::string& path) {
  Recording recording{.path = path};
  if (is_statistics_file(path)) {
    recording.statistics = read_statistics(path);
  } else {
    recording.trace.emplace(path);
  }
  return recording;
}

std::vector<WaterfallStep> waterfall(const Options& options, const Plan& plan) {
  const Cluster cluster = options.cluster.empty() ? plan.cluster : read_cluster(options.cluster);
  const PredictRequest request = request_of(options, cluster);
  const SequencePart part = parse_sequence_part(options.part);
  const Recording recording = read_recording(options.tokens);
  const RoutedTokens tokens = recording.tokens_in(part);
  ProgressLine progress("simulating");
  if (options.constrained.empty()) {
    return predict_waterfall(plan, tokens, nullptr, request, options.num_threads, progress);
  }
  const Recording constrained = read_recording(options.constrained);
  const RoutedTokens constrained_tokens = constrained.tokens_in(part);
  return predict_waterfall(plan, tokens, &constrained_tokens, request, options.num_threads,
                           progress);
}

void simulate(const Options& options) {
  const Plan plan = read_plan(options.plan);
  const std::vector<WaterfallStep> steps = waterfall(options, plan);
  std::vector<Prediction> predictions;
  predictions.reserve(steps.size());
  for (const WaterfallStep& step : steps) predictions.push_back(step.prediction);
  std::optional<CopyFormat> format;
  if (options.hidden > 0) format = CopyFormat{.hidden = options.hidden};
  if (options.is_json) {
    Json json = {{"version", version_text()},
                 {"plan", options.plan},
                 {"steps", predictions_json(predictions, format)}};
    for (std::size_t s = 0; s < steps.size(); ++s) {
      json["steps"][s]["counts"] = volumes_json(steps[s].volumes, format);
    }
    std::cout << json.dump(1) << "\n";
    return;
  }
  std::cout << prediction_table(predictions, format);
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role == "trace") std::cout << "the plan was fitted on " << input.name << "\n";
  }
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto* const command = app.add_subcommand("simulate", "say what a plan saves on a trace");
  auto options = std::make_shared<Options>();
  command->add_option("plan", options->plan, "the plan")->required();
  command
      ->add_option("trace", options->tokens,
                   "the routing trace to count on, or statistics: exact for top-2, else estimated")
      ->required();
  command
      ->add_option("--constrained", options->constrained,
                   "a second trace or statistics, recorded with the constraint on: one more step")
      ->type_name("FILE");
  command
      ->add_option("--transport", options->transport,
                   "how copies are sent: per-expert, per-rank, per-node or all-gather")
      ->capture_default_str()
      ->type_name("MODE");
  command
      ->add_option("--replica-rule", options->rule,
                   "which replica serves: fewest-ranks, local-first or random")
      ->capture_default_str()
      ->type_name("RULE");
  command
      ->add_option("--homes", options->homes,
                   "where tokens come from: uniform (in expectation) or sequences (data parallel)")
      ->capture_default_str()
      ->type_name("HOMES");
  command->add_option("--on", options->part, "all, even, odd, first-half or second-half sequences")
      ->capture_default_str()
      ->type_name("PART");
  command->add_option("--cluster", options->cluster, "instead of the plan's own")
      ->type_name("CLUSTER");
  command->add_option("--hidden", options->hidden, "values of a token, in bf16: also print bytes")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      ->add_option("--intermediate", options->intermediate,
                   "the experts' inner width: also print predicted layer times")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--overlap", options->overlap, "for times: added, or overlapped in chunks")
      ->capture_default_str()
      ->type_name("HOW");
  command->add_option("--seed", options->seed, "of the replica rule")
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--json", options->is_json, "print every layer's numbers as one JSON object");
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r simulate plan.json trace.safetensors --on odd --hidden 2048");
  command->callback([options] { simulate(*options); });
}

}  // namespace c2r::cli
