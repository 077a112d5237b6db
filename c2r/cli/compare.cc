// `c2r compare`: plans, baselines and the Pareto front side by side, on the same tokens.
#include <atomic>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/output.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/baselines.h"
#include "c2r/placement/model_front.h"
#include "c2r/report/table.h"

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

// One line of the result.
struct Entry {
  std::string name, kind;  // kind: baseline, plan or front
  std::string fitted_on;   // "-" where the placement looks at no tokens
  bool is_fitted = false;  // on tokens that are reported on
  std::vector<Placement> placements = {};
  Prediction prediction = {};
  std::optional<double> copies_bound = {};  // mean over layers, of any placement with these slots

  std::int32_t slots_per_rank() const { return placements[0].slots_per_rank(); }
};

struct Comparison {
  const CompareOptions& options;
  Trace trace;
  SequencePart on, fit;
  std::vector<TokenRange> ranges_on, ranges_fit;
  Cluster cluster;
  std::vector<Entry> entries = {};
  std::vector<std::string> left_out = {};  // NAME: REASON

  std::int32_t least_slots_per_rank() const {
    const std::int32_t ep_size = cluster.ep_size();
    return (trace.header().num_experts + ep_size - 1) / ep_size;
  }
};

Comparison start(const CompareOptions& options, const std::vector<Plan>& plans) {
  C2R_REQUIRE(!options.cluster.empty() || !plans.empty(), kInvalidArgument,
              "--cluster is required where no plan says what the cluster is");
  const SequencePart on = parse_sequence_part(options.part);
  const SequencePart fit = options.fit.empty() ? other_part(on) : parse_sequence_part(options.fit);
  Trace trace(options.trace);
  Comparison comparison{
      .options = options,
      .trace = std::move(trace),
      .on = on,
      .fit = fit,
      .ranges_on = {},
      .ranges_fit = {},
      .cluster = options.cluster.empty() ? plans[0].cluster : read_cluster(options.cluster)};
  comparison.ranges_on = ranges_of(comparison.trace, on);
  comparison.ranges_fit = ranges_of(comparison.trace, fit);
  for (const auto& [ranges, part] :
       {std::pair(&comparison.ranges_on, on), std::pair(&comparison.ranges_fit, fit)}) {
    C2R_REQUIRE(num_tokens_in(*ranges) > 0, kInvalidArgument, "{}: has no tokens in its part '{}'",
                options.trace, name_of(part));
  }
  return comparison;
}

void add_baselines(Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  const std::vector<std::string> names = parts_of(options.baselines);
  if (names == std::vector<std::string>{"none"}) return;
  const auto counts =
      count_collaboration(comparison.trace, comparison.ranges_fit, options.num_threads);
  for (const std::string& name : names) {
    const bool looks_at_tokens = name != "contiguous" && name != "round-robin" && name != "random";
    Entry entry{.name = name,
                .kind = "baseline",
                .fitted_on = looks_at_tokens ? std::string(name_of(comparison.fit)) : "-",
                .is_fitted = looks_at_tokens && overlap(comparison.fit, comparison.on)};
    try {
      entry.placements = place_layers(
          name, counts,
          {.cluster = comparison.cluster,
           .slots_per_rank = comparison.least_slots_per_rank() + options.redundant_slots,
           .seed = options.seed});
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kUnsupported) throw;
      comparison.left_out.emplace_back(e.what());
      continue;
    }
    comparison.entries.push_back(std::move(entry));
  }
}

// The optimizer's points, and baselines where they are better.
std::vector<std::vector<OptimizedPlacement>> layer_fronts(const Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  std::vector<std::vector<OptimizedPlacement>> fronts(
      static_cast<std::size_t>(comparison.trace.header().num_layers()));
  ProgressLine progress("placing experts");
  std::atomic<std::int64_t> num_done = 0;
  const PlacementObjective objective = objective_for(comparison.cluster);
  parallel_for(std::ssize(fronts), options.num_threads, [&](std::int64_t l, int thread) {
    const auto layer = static_cast<std::size_t>(l);
    const TokenSets sets = collect_token_sets(comparison.trace, l, comparison.ranges_fit);
    auto points = pareto_front(sets, comparison.cluster, objective,
                               {.seed = options.seed,
                                .effort = options.effort,
                                .redundant_slots_per_rank = options.redundant_slots},
                               options.num_front_points);
    for (const Entry& entry : comparison.entries) {
      if (entry.kind != "baseline") continue;
      points.push_back(
          measure_placement(sets, comparison.cluster, objective, entry.placements[layer]));
    }
    fronts[layer] = without_dominated(std::move(points));
    ++num_done;
    if (thread == 0) progress.update(num_done, std::ssize(fronts));
  });
  return fronts;
}

std::string front_plan(const CompareOptions& options, std::size_t number) {
  return fmt::format("{}{}.json", options.front_plans, number);
}

void check_front_plans(const CompareOptions& options) {
  if (options.front_plans.empty()) return;
  std::vector<std::string> inputs = options.plans;
  inputs.insert(inputs.end(), {options.trace, options.cluster});
  for (std::size_t p = 1; p <= std::size_t(options.num_front_points); ++p) {
    check_output(front_plan(options, p), inputs);
  }
}

void write_front_plan(const Comparison& comparison, const Entry& entry, std::size_t number) {
  const CompareOptions& options = comparison.options;
  write_plan(plan_of(comparison.trace.header(), comparison.cluster, entry.placements,
                     {.c2r_version = version_text(),
                      .method = "optimize, " + entry.name,
                      .seed = options.seed,
                      .inputs = {{"trace", options.trace + ", " + entry.fitted_on}}}),
             front_plan(options, number));
}

void add_front(Comparison& comparison) {
  const auto fronts = layer_fronts(comparison);
  const auto points =
      model_front(fronts, static_cast<std::size_t>(comparison.options.num_front_points));
  for (std::size_t p = 0; p < points.size(); ++p) {
    Entry entry{.name = fmt::format("front {} of {}", p + 1, points.size()),
                .kind = "front",
                .fitted_on = std::string(name_of(comparison.fit)),
                .is_fitted = overlap(comparison.fit, comparison.on)};
    for (std::size_t layer = 0; layer < fronts.size(); ++layer) {
      entry.placements.push_back(fronts[layer][points[p].chosen[layer]].placement);
    }
    if (!comparison.options.front_plans.empty()) write_front_plan(comparison, entry, p + 1);
    comparison.entries.push_back(std::move(entry));
  }
}

// What the plan says of the tokens that it was fitted on: "TRACE, PART", as `c2r plan` writes it.
// Of another trace we know nothing.
std::pair<std::string, bool> fitted_on(const Plan& plan, const Comparison& comparison) {
  const std::string trace = std::filesystem::path(comparison.options.trace).filename();
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role != "trace") continue;
    for (const SequencePart part : {SequencePart::kAll, SequencePart::kEven, SequencePart::kOdd,
                                    SequencePart::kFirstHalf, SequencePart::kSecondHalf}) {
      const std::string name = fmt::format("{}, {}", trace, name_of(part));
      if (std::filesystem::path(input.name).filename() == name) {
        return {std::string(name_of(part)), overlap(part, comparison.on)};
      }
    }
    return {input.name, false};
  }
  return {"unknown", false};
}

void add_plans(std::vector<Plan> plans, Comparison& comparison) {
  for (std::size_t p = 0; p < plans.size(); ++p) {
    const Cluster &own = plans[p].cluster, &common = comparison.cluster;
    C2R_REQUIRE(own.num_nodes == common.num_nodes && own.ranks_per_node == common.ranks_per_node,
                kInvalidArgument, "{} is for a cluster of {}x{} ranks, but {}x{} are compared",
                comparison.options.plans[p], own.num_nodes, own.ranks_per_node, common.num_nodes,
                common.ranks_per_node);
    try {
      check_fits(plans[p], comparison.trace.header(), comparison.options.trace);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", comparison.options.plans[p], e.what());
    }
    auto [tokens, is_fitted] = fitted_on(plans[p], comparison);
    comparison.entries.push_back({.name = comparison.options.plans[p],
                                  .kind = "plan",
                                  .fitted_on = std::move(tokens),
                                  .is_fitted = is_fitted,
                                  .placements = placements_of(plans[p])});
  }
}

// A short search proves what a long one would: the bound is of the tokens, not of what is found.
double copies_bound(const Comparison& comparison, std::int32_t slots_per_rank) {
  std::vector<double> bounds;
  ProgressLine progress("bounding copies");
  for (const OptimizedPlacement& layer : optimize_placements(
           comparison.trace.header().num_layers(),
           [&](std::int64_t l) {
             return collect_token_sets(comparison.trace, l, comparison.ranges_on);
           },
           comparison.cluster, {},
           {.effort = 0.01,
           .redundant_slots_per_rank = slots_per_rank - comparison.least_slots_per_rank(),
           .num_threads = comparison.options.num_threads},
           progress)) {
    bounds.push_back(layer.copy_cost_bound);
  }
  return mean(bounds);
}

void predict_entries(Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  const PredictRequest request = request_of(options, comparison.cluster);
  C2R_REQUIRE(!options.has_bound || request.copy_mode == CopyMode::kPerRank ||
                  request.copy_mode == CopyMode::kPerNode,
              kInvalidArgument,
              "--bound knows a bound for --transport per-rank and per-node, not {}",
              name_of(request.copy_mode));
  std::map<std::int32_t, double> bounds;  // by slots per rank
  for (Entry& entry : comparison.entries) {
    ProgressLine progress("counting " + entry.name);
    entry.prediction = predict(comparison.trace, comparison.ranges_on, entry.placements, request,
                               options.num_threads, progress);
    entry.prediction.placement = entry.name;
    entry.prediction.trace = fmt::format("{}, {}", options.trace, name_of(comparison.on));
    if (!options.has_bound) continue;
    const std::int32_t slots = entry.slots_per_rank();
    if (!bounds.contains(slots)) bounds[slots] = copies_bound(comparison, slots);
    entry.copies_bound = bounds[slots];
  }
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::vector<std::string> row_of(const Comparison& comparison, const Entry& entry) {
  const Prediction& p = entry.prediction;
  const double wire = mean(p.wire_copies_per_token);
  const double first = mean(comparison.entries[0].prediction.wire_copies_per_token);
  std::vector<std::string> row = {entry.name,
                                  entry.fitted_on + (entry.is_fitted ? " *" : ""),
                                  std::to_string(entry.slots_per_rank()),
                                  fmt::format("{:.3f}", mean(p.copies_per_token)),
                                  fmt::format("{:.3f}", wire),
                                  first > 0 ? percent(1 - wire / first) : "-",
                                  fmt::format("{:.3f}", mean(p.imbalance))};
  if (comparison.cluster.num_nodes > 1) {
    row.push_back(fmt::format("{:.3f}", mean(p.inter_node_copies_per_token)));
  }
  if (const auto format = format_of(comparison.options)) {
    row.push_back(fmt::format("{:.2f}", wire_bytes_per_token(p, *format) / 1e3));
  }
  if (!p.predicted_layer_time_s.empty()) {
    row.push_back(fmt::format("{:.4g}", 1e3 * mean(p.predicted_layer_time_s)));
  }
  if (entry.copies_bound) {
    row.push_back(percent(mean(p.copies_per_token) / *entry.copies_bound - 1));
  }
  return row;
}

void print_for_people(const Comparison& comparison) {
  const Entry& first = comparison.entries[0];
  std::vector<std::vector<std::string>> rows = {{"placement", "fitted on", "slots/rank",
                                                 "copies/token", "on the wire", "saved",
                                                 "max/mean load"}};
  if (comparison.cluster.num_nodes > 1) rows[0].emplace_back("between nodes");
  if (comparison.options.hidden > 0) rows[0].emplace_back("kB/token");
  if (comparison.options.intermediate > 0) rows[0].emplace_back("predicted ms/layer");
  if (comparison.options.has_bound) rows[0].emplace_back("over bound");
  bool has_fitted = false, has_replicas = false;
  for (const Entry& entry : comparison.entries) {
    rows.push_back(row_of(comparison, entry));
    has_fitted |= entry.is_fitted;
    has_replicas |= entry.placements[0].slots.rows() * entry.placements[0].slots.cols() >
                    comparison.trace.header().num_experts;
  }
  const Prediction& p = first.prediction;
  std::cout << render_table(rows)
            << fmt::format("predicted on {} tokens of {}; transport {}, homes {}{}\n", p.num_tokens,
                           p.trace, name_of(p.copy_mode), name_of(p.homes),
                           has_replicas
                               ? fmt::format(", replicas chosen by {}", name_of(p.replica_rule))
                               : "")
            << fmt::format("saved: of the copies of {} on the wire\n", first.name);
  if (has_fitted) std::cout << "* reported on tokens that it was fitted on\n";
  if (first.copies_bound) {
    std::cout << "over bound: no placement with these slots, however unbalanced, makes fewer "
                 "copies than this much less\n";
  }
  for (const std::string& reason : comparison.left_out) std::cout << "left out: " << reason << "\n";
}

Json to_json(const Comparison& comparison) {
  Json placements = Json::array();
  for (const Entry& entry : comparison.entries) {
    Json json = {{"placement", entry.name},
                 {"kind", entry.kind},
                 {"fitted_on", entry.fitted_on},
                 {"is_fitted", entry.is_fitted},
                 {"slots_per_rank", entry.slots_per_rank()}};
    if (entry.copies_bound) json["copies_bound"] = *entry.copies_bound;
    Json numbers = predictions_json({&entry.prediction, 1}, format_of(comparison.options))[0];
    numbers.erase("step");
    json.update(numbers);
    placements.push_back(std::move(json));
  }
  return {{"version", version_text()},
          {"cluster", cluster_to_json(comparison.cluster)},
          {"placements", std::move(placements)},
          {"left_out", comparison.left_out}};
}

void compare(const CompareOptions& options) {
  C2R_REQUIRE(options.front_plans.empty() || options.num_front_points > 0, kInvalidArgument,
              "--front-plans needs --pareto");
  check_front_plans(options);
  std::vector<Plan> plans;
  for (const std::string& path : options.plans) plans.push_back(read_plan(path));
  Comparison comparison = start(options, plans);
  add_baselines(comparison);
  add_plans(std::move(plans), comparison);
  if (options.num_front_points > 0) add_front(comparison);
  C2R_REQUIRE(!comparison.entries.empty(), kInvalidArgument, "there is nothing to compare{}",
              comparison.left_out.empty() ? "" : ": " + comparison.left_out[0]);
  predict_entries(comparison);
  if (options.is_json) {
    std::cout << json_text(to_json(comparison), 1) << "\n";
  } else {
    print_for_people(comparison);
  }
}

}  // namespace

void add_compare(CLI::App& app) {
  auto* const command =
      app.add_subcommand("compare", "set plans and baselines side by side on a trace");
  auto options = std::make_shared<CompareOptions>();
  command->add_option("trace", options->trace, "the routing trace to count on")->required();
  command->add_option("plans", options->plans, "plans to compare, made or imported");
  add_list(*command, "--baselines", options->baselines,
           "of contiguous, round-robin, random, eplb, affinity, grace and exhaustive, or none")
      ->allow_extra_args(false)  // a plan may follow
      ->capture_default_str()
      ->type_name("NAME,...");
  command
      ->add_option("--fit", options->fit,
                   "the sequences that baselines and front are fitted on; default are those not "
                   "counted with --on")
      ->type_name("PART");
  command
      ->add_option("--redundant-slots", options->redundant_slots,
                   "slots of each rank for replicas, in baselines and front")
      ->capture_default_str()
      ->check(in_range(0, 1024))
      ->type_name("N");
  command
      ->add_option(
          "--pareto", options->num_front_points,
          "also optimize: at most N placements, from the fewest copies to the best balance; the "
          "baselines are candidates, too")
      ->check(in_range(2, 1000))
      ->type_name("N");
  command
      ->add_option("--front-plans", options->front_plans,
                   "with --pareto: write its plans to PREFIX1.json, PREFIX2.json, ...")
      ->type_name("PREFIX");
  command->add_option("--effort", options->effort, "with --pareto: multiplies the search")
      ->capture_default_str()
      ->type_name("X");
  command->add_flag("--bound", options->has_bound,
                    "also say how far copies are above a bound on those of any placement");
  add_prediction_options(*command, *options);
  command->footer(
      "Example:\n"
      "  c2r compare trace.safetensors plan.json --on odd --hidden 2048\n"
      "  c2r compare trace.safetensors --cluster 1x2 --on odd --baselines contiguous,eplb --pareto "
      "5 --front-plans front");
  command->callback([options] { compare(*options); });
}

}  // namespace c2r::cli
