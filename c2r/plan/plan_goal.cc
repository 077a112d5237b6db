// Names and checks the goals of plans, and makes the objective of the optimizer from a goal.
#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/plan/make_plan.h"

namespace c2r {
namespace {

constexpr EnumName<BoundOn> kBoundsOn[] = {{BoundOn::kFitted, "fitted"},
                                           {BoundOn::kUnseen, "unseen"}};
constexpr EnumName<Goal> kGoals[] = {
    {Goal::kCopies, "copies"}, {Goal::kImbalance, "imbalance"}, {Goal::kTime, "time"}};

void check_goal(const PlanGoal& goal, const Cluster& cluster) {
  const bool is_time = goal.minimize == Goal::kTime;
  C2R_REQUIRE(goal.imbalance_weight >= 0, kInvalidArgument,
              "imbalance_weight is {}, but must be at least 0", goal.imbalance_weight);
  C2R_REQUIRE(goal.imbalance_weight == 0 || goal.minimize == Goal::kCopies, kInvalidArgument,
              "imbalance_weight adds to the copies, so it is for the goal copies, not {}",
              name_of(goal.minimize));
  C2R_REQUIRE(!goal.max_copies || goal.minimize == Goal::kImbalance, kInvalidArgument,
              "max_copies is a bound for the goal imbalance, not {}", name_of(goal.minimize));
  C2R_REQUIRE(goal.bound_on == BoundOn::kFitted || goal.minimize == Goal::kCopies, kInvalidArgument,
              "a bound on unseen tokens is for the goal copies, not {}", name_of(goal.minimize));
  C2R_REQUIRE(!is_time || (goal.hidden > 0 && goal.intermediate > 0), kInvalidArgument,
              "the goal time needs hidden and intermediate above 0, not {} and {}", goal.hidden,
              goal.intermediate);
  C2R_REQUIRE(!is_time || cluster.device_flop_per_s, kInvalidArgument,
              "the goal time needs a cluster with device_flop_per_s");
  C2R_REQUIRE(goal.batch_tokens.value_or(1) >= 1, kInvalidArgument,
              "batch_tokens is {}, but must be at least 1", goal.batch_tokens.value_or(1));
}

}  // namespace

std::string_view name_of(BoundOn bound_on) {
  return name_in(kBoundsOn, bound_on);
}

BoundOn parse_bound_on(std::string_view name) {
  return parse_in(kBoundsOn, "a bound is on tokens that are", name);
}

std::string_view name_of(Goal goal) {
  return name_in(kGoals, goal);
}

Goal parse_goal(std::string_view name) {
  return parse_in(kGoals, "a goal is", name);
}

std::optional<LayerTimeOptions> layer_time_of(const PlanGoal& goal, const Cluster& cluster) {
  if (!cluster.device_flop_per_s || goal.hidden <= 0 || goal.intermediate <= 0) return std::nullopt;
  return LayerTimeOptions{.format = {.hidden = goal.hidden},
                          .flop_per_choice = flop_of_gated_mlp(goal.hidden, goal.intermediate),
                          .overlap = goal.overlap,
                          .batch_tokens = goal.batch_tokens};
}

PlacementObjective objective_of(const PlanGoal& goal, const Cluster& cluster) {
  check_goal(goal, cluster);
  PlacementObjective objective = objective_for(cluster);
  objective.goal = goal.minimize;
  objective.max_imbalance = goal.max_imbalance;
  objective.max_copy_cost = goal.max_copies;
  objective.imbalance_weight = goal.imbalance_weight;
  if (goal.minimize == Goal::kTime) objective.layer_time = layer_time_of(goal, cluster);
  const bool is_copies_alone = goal.minimize == Goal::kCopies && goal.imbalance_weight == 0;
  if (is_copies_alone && !objective.max_imbalance) objective.max_imbalance = kDefaultMaxImbalance;
  C2R_REQUIRE(goal.bound_on == BoundOn::kFitted || objective.max_imbalance, kInvalidArgument,
              "a bound on unseen tokens needs max_imbalance");
  return objective;
}

PlacementObjective objective_of(const PlanRequest& request) {
  PlacementObjective objective = objective_of(request.goal, request.cluster);
  if (objective.goal != Goal::kTime || !request.engine) return objective;
  const ExchangeKernel& kernel = kernel_of(*request.engine);
  objective.copy_mode = kernel.mode;
  objective.layer_time->is_message_per_copy = kernel.is_for_decoding;
  return objective;
}

}  // namespace c2r
