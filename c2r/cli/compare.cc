// `c2r compare`: plans, baselines and the Pareto front side by side, on the same tokens.
#include <algorithm>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/comparison.h"
#include "c2r/cli/plan_search.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/version.h"
#include "c2r/report/table.h"

namespace c2r::cli {
namespace {

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::vector<std::string> row_of(const Comparison& comparison, const ComparisonEntry& entry) {
  const Prediction& p = entry.prediction;
  const double first = link_cost_per_token(comparison.entries[0].prediction, comparison.cluster);
  std::vector<std::string> row = {
      entry.name,
      entry.fitted_on + (entry.is_by_name ? ", by name" : "") + (entry.is_fitted ? " *" : ""),
      std::to_string(entry.slots_per_rank()),
      fmt::format("{:.3f}", mean(p.copies_per_token)),
      fmt::format("{:.3f}", mean(p.wire_copies_per_token)),
      saved_text(link_cost_per_token(p, comparison.cluster), first),
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
  const ComparisonEntry& first = comparison.entries[0];
  std::vector<std::vector<std::string>> rows = {{"placement", "fitted on", "slots/rank",
                                                 "copies/token", "on the wire", "saved",
                                                 "imbalance"}};
  if (comparison.cluster.num_nodes > 1) rows[0].emplace_back("between nodes");
  if (comparison.options.hidden > 0) rows[0].emplace_back("kB/token");
  if (comparison.options.intermediate > 0) rows[0].emplace_back("predicted ms/layer");
  if (comparison.options.has_bound) rows[0].emplace_back("over bound");
  bool has_fitted = false, replicates = false;
  for (const ComparisonEntry& entry : comparison.entries) {
    rows.push_back(row_of(comparison, entry));
    has_fitted |= entry.is_fitted;
    replicates |= std::ranges::any_of(entry.placements, has_replicas);
  }
  const Prediction& p = first.prediction;
  std::cout << render_table(rows)
            << fmt::format("predicted on {} tokens of {}; copy mode {}, homes {}{}\n", p.num_tokens,
                           p.trace, name_of(p.copy_mode), name_of(p.homes),
                           replicates
                               ? fmt::format(", replicas chosen by {}", name_of(p.replica_rule))
                               : "")
            << saved_line(comparison.cluster, first.name);
  if (has_fitted) std::cout << "* reported on tokens that it was fitted on\n";
  if (first.copies_bound) {
    std::cout << "over bound: no placement with these slots, however unbalanced, makes fewer "
                 "copies than this much less\n";
  }
  for (const std::string& reason : comparison.left_out) std::cout << "left out: " << reason << "\n";
}

Json to_json(const Comparison& comparison) {
  Json placements = Json::array();
  for (const ComparisonEntry& entry : comparison.entries) {
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
  const Comparison comparison = make_comparison(options);
  if (options.is_json) {
    std::cout << json_text(to_json(comparison), 1) << "\n";
  } else {
    print_for_people(comparison);
  }
}

void add_front_options(CLI::App& command, CompareOptions& options) {
  auto* const pareto =
      command
          .add_option("--pareto", options.num_front_points,
                      "also optimize: at most N placements, from the fewest copies to the best "
                      "balance; the baselines are candidates, too")
          ->check(in_range(2, 1000))
          ->type_name("N");
  command
      .add_option("--front-plans", options.front_plans,
                  "with --pareto: write its plans to PREFIX1.json, PREFIX2.json, ...")
      ->needs(pareto)
      ->type_name("PREFIX");
  add_effort(command, options.effort, "with --pareto: multiplies the search")->needs(pareto);
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
  add_front_options(*command, *options);
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
