#include "c2r/cli/plan_goal.h"

#include <fmt/format.h>

#include <CLI/Validators.hpp>
#include <iostream>

#include "c2r/cli/app.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

constexpr double kDefaultMaxImbalance = 1.1;

void check_goal(const GoalOptions& options) {
  C2R_REQUIRE(options.imbalance_weight == 0 || options.minimize == "copies", kInvalidArgument,
              "--imbalance-weight adds to the copies, so it needs --minimize copies");
  C2R_REQUIRE(!options.max_copies || options.minimize == "imbalance", kInvalidArgument,
              "--max-copies is a bound for --minimize imbalance");
  const bool is_time = options.minimize == "time";
  C2R_REQUIRE(!is_time || (options.hidden > 0 && options.intermediate > 0), kInvalidArgument,
              "--minimize time needs --hidden and --intermediate");
  C2R_REQUIRE(is_time || (options.hidden == 0 && options.intermediate == 0), kInvalidArgument,
              "--hidden and --intermediate are for --minimize time");
  (void)parse_overlap(options.overlap);  // a wrong name is an error of other goals, too
  C2R_REQUIRE(options.bound_on == "fitted" || options.minimize == "copies", kInvalidArgument,
              "--bound-on unseen is for --minimize copies");
}

LayerTimeOptions time_options(const GoalOptions& options, const Cluster& cluster) {
  return {.cluster = cluster,
          .format = {.hidden = options.hidden},
          .flop_per_choice = flop_of_gated_mlp(options.hidden, options.intermediate),
          .overlap = parse_overlap(options.overlap)};
}

std::string value_text(const PlacementObjective& objective, double value) {
  switch (objective.goal) {
    case Goal::kTime:
      return fmt::format("{:.1f} us predicted", 1e6 * value);
    case Goal::kImbalance:
      return fmt::format("an imbalance of {:.4f}", value);
    case Goal::kCopies:
      break;
  }
  if (objective.imbalance_weight > 0) {
    return fmt::format("copies + {} x (imbalance - 1) of {:.4f}", objective.imbalance_weight,
                       value);
  }
  return fmt::format("{} of {:.4f}",
                     objective.node_copy_cost > 0 ? "weighted copies" : "copies per token", value);
}

void add_bounds(CLI::App& command, GoalOptions& options) {
  command
      .add_option(
          "--max-imbalance", options.max_imbalance,
          fmt::format("bound on the imbalance of each layer; {} for copies alone, else none",
                      kDefaultMaxImbalance))
      ->check(number_in(1, 1e9))
      ->type_name("X");
  command
      .add_option(
          "--bound-on", options.bound_on,
          "fitted: the bound holds on the fitted tokens; unseen: it is lowered, by how much "
          "halves of them miss it on each other, so as to hold on others too")
      ->check(CLI::IsMember({"fitted", "unseen"}))
      ->capture_default_str()
      ->type_name("TOKENS");
  command
      .add_option("--max-copies", options.max_copies,
                  "for --minimize imbalance: bound on the (weighted) copies of a token")
      ->check(number_in(1, 1e9))
      ->type_name("X");
}

void add_time_options(CLI::App& command, GoalOptions& options) {
  command.add_option("--hidden", options.hidden, "for --minimize time: values of a token, in bf16")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--intermediate", options.intermediate,
                  "for --minimize time: the experts' inner width")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--overlap", options.overlap,
                  "for --minimize time: communication and experts added, or overlapped in chunks")
      ->capture_default_str()
      ->type_name("HOW");
}

std::string_view name_of_goal(Goal goal) {
  switch (goal) {
    case Goal::kTime:
      return "time";
    case Goal::kImbalance:
      return "imbalance";
    case Goal::kCopies:
      break;
  }
  return "copies";
}

}  // namespace

void add_goal_options(CLI::App& command, GoalOptions& options) {
  command
      .add_option("--minimize", options.minimize,
                  "copies: of a token, those between nodes weighted by their links' time; "
                  "imbalance: the busiest rank's load over the mean; time: of a layer, predicted "
                  "from the cluster's rates")
      ->check(CLI::IsMember({"copies", "imbalance", "time"}))
      ->capture_default_str()
      ->type_name("GOAL");
  add_bounds(command, options);
  command
      .add_option("--imbalance-weight", options.imbalance_weight,
                  "minimize copies + W x (imbalance - 1)")
      ->check(number_in(0, 1e9))
      ->type_name("W");
  add_time_options(command, options);
}

PlacementObjective objective_of(const GoalOptions& options, const Cluster& cluster) {
  check_goal(options);
  PlacementObjective objective = objective_for(cluster);
  objective.max_imbalance = options.max_imbalance;
  objective.max_copy_cost = options.max_copies;
  objective.imbalance_weight = options.imbalance_weight;
  if (options.minimize == "imbalance") objective.goal = Goal::kImbalance;
  if (options.minimize == "time" && cluster.device_flop_per_s) {
    objective.goal = Goal::kTime;
    objective.layer_time = time_options(options, cluster);
  }
  const bool is_copies_alone = objective.goal == Goal::kCopies && objective.imbalance_weight == 0;
  if (is_copies_alone && !objective.max_imbalance) objective.max_imbalance = kDefaultMaxImbalance;
  C2R_REQUIRE(options.bound_on == "fitted" || objective.max_imbalance, kInvalidArgument,
              "--bound-on unseen needs --max-imbalance");
  if (options.minimize == "time" && is_copies_alone) {
    std::cerr << fmt::format(
        "warning: the cluster has no device_flop_per_s, so no time can be predicted; minimizing "
        "copies within --max-imbalance {} instead\n",
        *objective.max_imbalance);
  }
  return objective;
}

std::vector<PlanOption> resolved_goal(const GoalOptions& options,
                                      const PlacementObjective& objective) {
  std::vector<PlanOption> resolved = {{"minimize", std::string(name_of_goal(objective.goal))},
                                      {"rank_copy_cost", objective.rank_copy_cost},
                                      {"node_copy_cost", objective.node_copy_cost}};
  const auto add_if = [&](bool is_set, const char* name, const PlanOption::Value& value) {
    if (is_set) resolved.push_back({name, value});
  };
  add_if(objective.imbalance_weight > 0, "imbalance_weight", objective.imbalance_weight);
  const bool is_lowered = options.bound_on == "unseen";
  const double fitted = objective.max_imbalance.value_or(0);
  add_if(objective.max_imbalance.has_value(), "max_imbalance",
         is_lowered ? options.max_imbalance.value_or(kDefaultMaxImbalance) : fitted);
  add_if(is_lowered, "bound_on", options.bound_on);
  add_if(is_lowered, "fitted_max_imbalance", fitted);
  add_if(objective.max_copy_cost.has_value(), "max_copies", objective.max_copy_cost.value_or(0));
  if (objective.goal != Goal::kTime) return resolved;
  resolved.push_back({"hidden", static_cast<double>(options.hidden)});
  resolved.push_back({"intermediate", static_cast<double>(options.intermediate)});
  resolved.push_back({"overlap", options.overlap});
  return resolved;
}

std::string reached_text(const PlacementObjective& objective,
                         const std::vector<OptimizedPlacement>& layers) {
  double value = 0, bound = 0;
  std::int64_t num_proved = 0, num_missed = 0;
  for (const OptimizedPlacement& layer : layers) {
    value += layer.value / static_cast<double>(layers.size());
    bound += layer.value_bound / static_cast<double>(layers.size());
    num_proved += layer.is_proved_optimal ? 1 : 0;
    num_missed += layer.meets_bounds ? 0 : 1;
  }
  std::string text = fmt::format("on the fitted tokens, {}", value_text(objective, value));
  if (num_proved == std::ssize(layers)) {
    text += "; every layer is proved optimal\n";
  } else {
    text += fmt::format(
        "; no placement of these slots{} can be below {:.1f} % of it; {} of {} layers are proved "
        "optimal\n",
        objective.max_imbalance || objective.max_copy_cost ? " within the bound" : "",
        value > 0 ? 100 * bound / value : 100, num_proved, layers.size());
  }
  if (num_missed > 0) {
    text += fmt::format(
        "{} of {} layers miss {}: the best found is kept\n", num_missed, layers.size(),
        objective.max_copy_cost ? fmt::format("--max-copies {}", *objective.max_copy_cost)
                                : fmt::format("--max-imbalance {:.4}", *objective.max_imbalance));
  }
  return text;
}

}  // namespace c2r::cli
