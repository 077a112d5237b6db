// `c2r compare`: compares plans, baselines and a Pareto front on the same tokens.
#include "c2r/plan/compare.h"

#include <iostream>
#include <memory>
#include <vector>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/commands/plan_options.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/output.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/io/file.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/report/comparison.h"
#include "c2r/report/engine_traffic.h"
#include "c2r/report/wrap.h"

namespace c2r::cli {
namespace {

struct CompareOptions : PredictionOptions {
  std::string trace;
  std::vector<std::string> plans;
  std::vector<std::string> baselines = {"contiguous", "round-robin", "random",
                                        "eplb",       "affinity",    "grace"};
  std::string fit, front_plans;
  std::int32_t redundant_slots = 0;
  int num_front_points = 0;
  double effort = 1;
  bool has_bound = false;
};

std::string front_plan_path(const CompareOptions& options, std::size_t number) {
  return fmt::format("{}{}.json", options.front_plans, number);
}

void check_front_plans(const CompareOptions& options) {
  if (options.front_plans.empty()) return;
  std::vector<std::string> inputs = options.plans;
  inputs.insert(inputs.end(), {options.trace, options.cluster});
  for (std::size_t p = 1; p <= std::size_t(options.num_front_points); ++p) {
    check_output(front_plan_path(options, p), inputs);
  }
}

CompareRequest request_of(const CompareOptions& options, std::span<const NamedPlan> plans) {
  C2R_REQUIRE(!options.cluster.empty() || !plans.empty(), kInvalidArgument,
              "--cluster is required where no plan says what the cluster is");
  const SequencePart on = parse_sequence_part(options.part);
  const Cluster cluster =
      on_hardware(options.cluster.empty() ? plans[0].plan.cluster : read_cluster(options.cluster),
                  options.hardware);
  CompareRequest request{
      .predict = request_of(options, cluster),
      .on = on,
      .fit = options.fit.empty() ? other_part(on) : parse_sequence_part(options.fit),
      .baselines = parts_of(options.baselines),
      .redundant_slots_per_rank = options.redundant_slots,
      .effort = options.effort,
      .seed = options.seed,
      .bounds_copies = options.has_bound,
      .num_threads = options.num_threads};
  if (request.baselines == std::vector<std::string>{"none"}) request.baselines.clear();
  if (options.num_front_points > 0) request.num_front_points = options.num_front_points;
  const CopyMode mode = request.predict.traffic.copy_mode;
  C2R_REQUIRE(!options.has_bound || mode == CopyMode::kPerRank || mode == CopyMode::kPerNode,
              kInvalidArgument,
              "--bound knows a bound for --copy-mode per-rank and per-node, not {}", name_of(mode));
  return request;
}

void write_front_plans(const CompareOptions& options, std::span<const Plan> plans) {
  std::vector<std::unique_ptr<AtomicFile>> files;  // all are written before the first appears
  for (const Plan& plan : plans) {
    files.push_back(std::make_unique<AtomicFile>(front_plan_path(options, files.size() + 1)));
    files.back()->write(plan_to_text(plan));
  }
  for (const auto& file : files) file->commit();
}

// @returns what the engine sends with each plan; empty without --engine
std::vector<EngineTraffic> engine_traffic(const CompareOptions& options,
                                          std::span<const NamedPlan> plans,
                                          const RoutedTokens& tokens,
                                          const CompareRequest& request) {
  const auto engine = engine_of(options);
  std::vector<EngineTraffic> traffic;
  if (!engine) return traffic;
  C2R_REQUIRE(!tokens.has_loads_only(), kInvalidArgument,
              "{}: what --engine sends is unknown; give a trace, or counts of pairs", tokens.name);
  ProgressLine progress("counting");
  for (const auto& [name, plan] : plans) {
    traffic.push_back(predict_engine_traffic(*engine, placements_of(plan), tokens,
                                             request.predict.traffic, options.num_threads,
                                             progress));
  }
  return traffic;
}

void print_comparison(const CompareOptions& options, const Comparison& comparison,
                      std::span<const NamedPlan> plans, const RoutedTokens& tokens,
                      const CompareRequest& request) {
  const Cluster& cluster = request.predict.traffic.cluster;
  const auto format = format_of(options);
  const auto traffic = engine_traffic(options, plans, tokens, request);
  if (!options.is_json) {
    for (std::size_t p = 0; p < traffic.size(); ++p) {
      std::cout << wrap_text(plans[p].name + ": " +
                             engine_traffic_text(traffic[p], format, options.tokens_per_second));
    }
    std::cout << wrap_text(comparison_table(comparison, cluster, format));
    if (options.prints_layers) std::cout << comparison_layers_table(comparison);
    return;
  }
  Json json = {{"version", version_text()}};
  json.update(comparison_json(comparison, cluster, format));
  for (std::size_t p = 0; p < traffic.size(); ++p) {
    json["engine"].push_back(engine_traffic_json(traffic[p], format));
    json["engine"].back()["plan"] = plans[p].name;
  }
  std::cout << json_text(json, 1) << "\n";
}

void compare_placements(const CompareOptions& options) {
  check_front_plans(options);
  std::vector<NamedPlan> plans;
  for (const std::string& path : options.plans) plans.push_back({path, read_plan(path)});
  CompareRequest request = request_of(options, plans);
  if (is_statistics_file(options.trace)) {
    const CollaborationStatistics statistics = read_statistics(options.trace);
    if (options.fit.empty()) request.fit = SequencePart::kAll;
    ProgressLine progress("comparing");
    const Comparison comparison = compare(statistics, options.trace, plans, request, progress);
    request.predict.traffic.replica_rule = ReplicaRule::kLocalFirst;
    print_comparison(options, comparison, plans, routed_tokens_of(statistics, options.trace),
                     request);
    return;
  }
  const Trace trace(options.trace);
  ProgressLine progress("comparing");
  const Comparison comparison = compare(trace, plans, request, progress);
  if (!options.front_plans.empty()) {
    write_front_plans(options, front_plans(trace, comparison, request));
  }
  print_comparison(options, comparison, plans, routed_tokens_of(trace, request.on), request);
}

void add_front_options(CLI::App& command, CompareOptions& options) {
  auto* const pareto =
      command
          .add_option(
              "--pareto", options.num_front_points,
              "also search for at most N placements, from the fewest copies to the best balance; "
              "the baselines are candidates, too")
          ->check(in_range(2, 1000))
          ->type_name("N");
  command
      .add_option("--front-plans", options.front_plans,
                  "with --pareto: write the plans of the front to PREFIX1.json, PREFIX2.json, ...")
      ->needs(pareto)
      ->type_name("PREFIX");
  add_effort(command, options.effort, "with --pareto: multiplies the work of the search")
      ->needs(pareto);
}

}  // namespace

void add_compare(CLI::App& app) {
  auto* const command = app.add_subcommand("compare", "compare plans and baselines on a trace");
  auto options = std::make_shared<CompareOptions>();
  command
      ->add_option("trace", options->trace,
                   "the routing trace to count on, or statistics: pair counts or loads")
      ->required();
  command->add_option("plans", options->plans,
                      "the plans to compare, made by c2r plan or imported");
  std::vector<std::string> baselines = {"none"};
  for (const std::string_view name : baseline_names()) baselines.emplace_back(name);
  add_list(*command, "--baselines", options->baselines,
           "a list of contiguous, round-robin, random, eplb, balance, affinity, grace and "
           "exhaustive, or none")
      ->allow_extra_args(false)  // a plan may follow
      ->check(offered(baselines))
      ->capture_default_str()
      ->type_name("NAME,...");
  command
      ->add_option(
          "--fit", options->fit,
          "the sequences that baselines and front are fitted on; default is those that --on "
          "does not count")
      ->check(offered_parts())
      ->type_name("PART");
  command
      ->add_option("--redundant-slots", options->redundant_slots,
                   "slots of each rank for replicas, of baselines and front")
      ->capture_default_str()
      ->check(in_range(0, 1024))
      ->type_name("N");
  add_front_options(*command, *options);
  command->add_flag("--bound", options->has_bound,
                    "also print how far the copies are above a lower bound for all placements");
  add_prediction_options(*command, *options);
  add_printing_options(*command, *options);
  command->footer(
      "Example:\n"
      "  c2r compare trace.safetensors plan.json --on odd --hidden 2048\n"
      "  c2r compare trace.safetensors --cluster 1x2 --on odd \\\n"
      "      --baselines contiguous,eplb --pareto 5 --front-plans front");
  command->callback([options] { compare_placements(*options); });
}

}  // namespace c2r::cli
