// `c2r simulate`: predicts what a plan saves on a trace, step by step.
#include <iostream>
#include <memory>
#include <optional>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/prediction/reroute.h"
#include "c2r/plan/prediction/resample.h"
#include "c2r/report/engine_traffic.h"
#include "c2r/report/homes.h"
#include "c2r/report/predictions.h"
#include "c2r/report/savings.h"
#include "c2r/report/wrap.h"
#include "c2r/routing/routing.h"

namespace c2r::cli {
namespace {

struct SimulateOptions : PredictionOptions {
  std::string plan, tokens, constrained, constrained_plan, policy;
  std::int32_t top_t = 0;
  std::int64_t home_window = 0;
};

// A trace, or statistics.
struct Recording {
  std::string path;
  std::optional<Trace> trace;
  CollaborationStatistics statistics;  // without a trace

  RoutedTokens tokens_in(SequencePart part) const {
    if (trace) return routed_tokens_of(*trace, part);
    C2R_REQUIRE(part == SequencePart::kAll, kInvalidArgument,
                "{} holds counts, which are of all sequences, not of --on {}", path, name_of(part));
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

struct Simulated {
  std::vector<WaterfallStep> steps;
  std::optional<SavedIntervals> saved;  // of the plan; of traces
  std::optional<EngineTraffic> engine;  // of --engine
  std::optional<LayerTimeOptions> layer_time;
  std::optional<HomesComparison> homes;  // of --homes signature
  // Recorded choices, and those that are not the top-k of their logits; with --top-t or --policy.
  std::int64_t num_choices = 0, num_other_choices = 0;
};

// Adds the steps of --top-t and --policy.
void add_rerouted(const SimulateOptions& options, const Plan& plan, const RoutedTokens& tokens,
                  const PredictRequest& request, ProgressLine& progress, Simulated& result) {
  std::vector<Rerouting> rules;
  if (options.top_t > 0) rules.push_back({.rule = RerouteRule::kTopT, .limit = options.top_t});
  if (!options.policy.empty()) rules.push_back(parse_rerouting(options.policy));
  for (const Rerouting& rule : rules) {
    ReroutedStep rerouted = predict_rerouted(rule, tokens, plan, result.steps[0], request,
                                             options.num_threads, progress);
    result.steps.push_back(std::move(rerouted.step));
    result.num_choices = rerouted.num_choices;
    result.num_other_choices = rerouted.num_other_choices;
  }
}

Simulated simulated(const SimulateOptions& options, const Plan& plan, const Cluster& cluster) {
  PredictRequest request = request_of(options, cluster);
  request.home_window = options.home_window;
  C2R_REQUIRE(options.home_window == 0 || request.traffic.homes == Homes::kSignature,
              kInvalidArgument, "--home-window is for --homes signature");
  const SequencePart part = parse_sequence_part(options.part);
  const Recording recording = read_recording(options.tokens);
  const RoutedTokens tokens = recording.tokens_in(part);
  ProgressLine progress("simulating");
  Simulated result{.layer_time = request.layer_time};
  if (options.constrained.empty()) {
    result.steps = predict_waterfall(plan, tokens, nullptr, request, options.num_threads, progress);
  } else {
    const Recording constrained = read_recording(options.constrained);
    const RoutedTokens constrained_tokens = constrained.tokens_in(part);
    std::optional<Plan> own_plan;
    if (!options.constrained_plan.empty()) own_plan = read_plan(options.constrained_plan);
    const ConstrainedTokens under_plan{.tokens = constrained_tokens,
                                       .plan = own_plan ? *own_plan : plan};
    result.steps =
        predict_waterfall(plan, tokens, &under_plan, request, options.num_threads, progress);
  }
  add_rerouted(options, plan, tokens, request, progress, result);
  if (request.traffic.homes == Homes::kSignature) {
    result.homes =
        compare_homes(plan, tokens, request, request.home_window, options.num_threads, progress);
  }
  result.saved =
      resample_savings(tokens, placements_of(plan), request, options.num_threads, progress);
  if (const auto engine = engine_of(options)) {
    C2R_REQUIRE(!tokens.has_loads_only(), kInvalidArgument,
                "{} holds loads only: what --engine sends is unknown; give a trace, or counts of "
                "pairs",
                options.tokens);
    result.engine = predict_engine_traffic(*engine, placements_of(plan), tokens, request.traffic,
                                           options.num_threads, progress);
  }
  return result;
}

Json simulation_json(const SimulateOptions& options, const Simulated& result,
                     const JudgedLayers& layers) {
  const auto format = format_of(options);
  Json json = {{"version", version_text()},
               {"plan", options.plan},
               {"base", result.steps[0].prediction.placement},
               {"steps", waterfall_json(result.steps, format, layers)}};
  if (result.homes) json["homes"] = homes_json(*result.homes);
  if (result.saved) json["resampled"] = savings_json(*result.saved);
  if (result.engine) json["engine"] = engine_traffic_json(*result.engine, format);
  if (result.num_choices > 0) {
    json["num_choices"] = result.num_choices;
    json["num_other_choices"] = result.num_other_choices;
  }
  return json;
}

std::string simulation_text(const SimulateOptions& options, const Simulated& result,
                            const Plan& plan, const Cluster& cluster, const JudgedLayers& layers) {
  const auto format = format_of(options);
  const auto predictions = predictions_of(result.steps);
  std::string text;
  if (result.engine) {
    text += engine_traffic_text(*result.engine, format, options.tokens_per_second);
  }
  text += prediction_table(predictions, cluster, format, layers);
  if (options.prints_layers) text += layers_table(predictions, layers);
  if (result.homes) text += homes_table(*result.homes);
  if (result.layer_time) text += time_table(result.steps, *result.layer_time);
  if (result.num_other_choices > 0) {
    text += fmt::format(
        "{} of {} recorded choices are not the top-{} of their logits: the router looked at more "
        "than the logits, so the steps that route again may differ from what it would choose\n",
        result.num_other_choices, result.num_choices, plan.top_k);
  }
  if (const auto wasted = wasted_slots_text(plan)) text += *wasted + "\n";
  text += savings_line("the plan", result.saved);
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role == "trace") text += "the plan was fitted on " + input.text() + "\n";
  }
  return text;
}

void simulate(const SimulateOptions& options) {
  const Plan plan = read_plan(options.plan);
  const Cluster cluster = on_hardware(
      options.cluster.empty() ? plan.cluster : read_cluster(options.cluster), options.hardware);
  const Simulated result = simulated(options, plan, cluster);
  const JudgedLayers layers = judged_layers_of(plan);
  if (options.is_json) {
    std::cout << json_text(simulation_json(options, result, layers), 1) << "\n";
  } else {
    std::cout << wrap_text(simulation_text(options, result, plan, cluster, layers));
  }
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto* const command = app.add_subcommand("simulate", "predict what a plan saves on a trace");
  auto options = std::make_shared<SimulateOptions>();
  command->add_option("plan", options->plan, "the plan")->required();
  command
      ->add_option("trace", options->tokens,
                   "the routing trace to count on, or statistics: with pair counts the copies are "
                   "exact for top-2, and otherwise a lower bound; with loads they are unknown")
      ->required();
  auto* const constrained =
      command
          ->add_option(
              "--constrained", options->constrained,
              "a second trace or statistics, recorded with constrained routing: adds a step")
          ->type_name("FILE");
  command
      ->add_option("--constrained-plan", options->constrained_plan,
                   "the plan that --constrained is counted under; by default the first")
      ->type_name("FILE")
      ->needs(constrained);
  command
      ->add_option("--top-t", options->top_t,
                   "from a trace with logits: adds a step that routes by the plan's lists of "
                   "collaborators, cut to T entries")
      ->check(in_range(1, kMaxExperts - 1))
      ->type_name("T");
  command
      ->add_option("--policy", options->policy,
                   "from a trace with logits: adds a step that routes by device-limited:M, which "
                   "chooses among the experts of M ranks, or by top-t:T")
      ->type_name("RULE");
  add_prediction_options(*command, *options);
  add_printing_options(*command, *options);
  command
      ->add_option("--home-window", options->home_window,
                   "with --homes signature: the sequences that run at the same time, among which "
                   "homes are spread evenly; default is 64 for each rank")
      ->check(in_range(1, INT64_C(1) << 40))
      ->type_name("N");
  command->footer(
      "Example:\n"
      "  c2r simulate plan.json trace.safetensors --on odd --hidden 2048\n"
      "  c2r simulate plan.json trace.safetensors --engine sglang --backend deepep \\\n"
      "      --hidden 7168");
  command->callback([options] { simulate(*options); });
}

}  // namespace c2r::cli
