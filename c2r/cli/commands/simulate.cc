// `c2r simulate`: predicts what a plan saves on a trace, step by step.
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/plan/predict.h"
#include "c2r/report/predictions.h"

namespace c2r::cli {
namespace {

struct SimulateOptions : PredictionOptions {
  std::string plan, tokens, constrained;
};

// A trace, or statistics.
struct Recording {
  std::string path;
  std::optional<Trace> trace;
  CollaborationStatistics statistics;  // without a trace

  RoutedTokens tokens_in(SequencePart part) const {
    if (trace) return routed_tokens_of(*trace, part);
    C2R_REQUIRE(part == SequencePart::kAll, kInvalidArgument,
                "{} holds pair counts, which are of all sequences, not of --on {}", path,
                name_of(part));
    return routed_tokens_of(statistics, path);
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

std::vector<WaterfallStep> waterfall(const SimulateOptions& options, const Plan& plan,
                                     const Cluster& cluster) {
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

void simulate(const SimulateOptions& options) {
  const Plan plan = read_plan(options.plan);
  const Cluster cluster = options.cluster.empty() ? plan.cluster : read_cluster(options.cluster);
  const std::vector<WaterfallStep> steps = waterfall(options, plan, cluster);
  const auto format = format_of(options);
  if (options.is_json) {
    const Json json = {{"version", version_text()},
                       {"plan", options.plan},
                       {"steps", waterfall_json(steps, format)}};
    std::cout << json_text(json, 1) << "\n";
    return;
  }
  std::cout << prediction_table(predictions_of(steps), cluster, format);
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role == "trace") std::cout << "the plan was fitted on " << input.text() << "\n";
  }
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto* const command = app.add_subcommand("simulate", "predict what a plan saves on a trace");
  auto options = std::make_shared<SimulateOptions>();
  command->add_option("plan", options->plan, "the plan")->required();
  command
      ->add_option("trace", options->tokens,
                   "the routing trace to count on, or statistics: with these the copies are exact "
                   "for top-2, "
                   "and otherwise a lower bound")
      ->required();
  command
      ->add_option("--constrained", options->constrained,
                   "a second trace or statistics, recorded with constrained routing: adds a step")
      ->type_name("FILE");
  add_prediction_options(*command, *options);
  command->footer(
      "Example:\n"
      "  c2r simulate plan.json trace.safetensors --on odd --hidden 2048");
  command->callback([options] { simulate(*options); });
}

}  // namespace c2r::cli
