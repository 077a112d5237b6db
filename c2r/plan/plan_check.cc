// Compares the prediction of a plan with those of baselines and with the bound on the imbalance.
#include "c2r/plan/plan_check.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/plan/predict.h"

namespace c2r {
namespace {

constexpr double kSameBound = 1e-9;  // as rounding may exceed a bound

// What a prediction is judged by: means over layers.
struct Judged {
  double time_s = 0, cost = 0, imbalance = 1;
};

Judged judged(const Prediction& prediction, const Cluster& cluster) {
  return {.time_s = mean_over_layers(prediction.predicted_layer_time_s),
          .cost = link_cost_per_token(prediction, cluster),
          .imbalance = mean_over_layers(prediction.imbalance)};
}

// @returns how much less the baseline's value is than the plan's; 0 or less if it is not better
double advantage(const Judged& baseline, const Judged& plan, const PlacementObjective& objective,
                 std::optional<double> bound) {
  if (plan.time_s > 0) return plan.time_s - baseline.time_s;
  if (objective.goal == Goal::kImbalance) {
    const bool is_affordable = baseline.cost <= plan.cost;
    return is_affordable ? plan.imbalance - baseline.imbalance : 0;
  }
  if (baseline.imbalance > std::max(plan.imbalance, bound.value_or(1))) return 0;
  const auto value = [&](const Judged& of) {
    return of.cost + objective.imbalance_weight * (of.imbalance - 1);
  };
  return value(plan) - value(baseline);
}

std::string described(const Prediction& prediction) {
  std::string text =
      fmt::format("{:.3f} copies, imbalance {:.3f}", mean_over_layers(prediction.copies_per_token),
                  mean_over_layers(prediction.imbalance));
  if (!prediction.predicted_layer_time_s.empty()) {
    text += fmt::format(", {:.4g} ms", 1e3 * mean_over_layers(prediction.predicted_layer_time_s));
  }
  return text;
}

}  // namespace

PlanCheck check_predictions(const Prediction& planned, std::vector<Prediction> baselines,
                            const Cluster& cluster, const PlacementObjective& objective,
                            std::optional<double> bound) {
  PlanCheck check{.baselines = std::move(baselines)};
  const Judged plan = judged(planned, cluster);
  double most = 0;
  for (const Prediction& baseline : check.baselines) {
    const double gain = advantage(judged(baseline, cluster), plan, objective, bound);
    if (gain > most) check.better = baseline.placement;
    most = std::max(most, gain);
  }
  if (bound) {
    check.bound = ReportedBound{
        .max_imbalance = *bound,
        .mean = plan.imbalance,
        .worst = std::ranges::max(planned.imbalance),
        .num_over = std::ranges::count_if(
            planned.imbalance, [&](double met) { return met > *bound * (1 + kSameBound); })};
  }
  return check;
}

std::string warning_text(const PlanCheck& check, const Prediction& planned) {
  std::string text;
  if (check.better) {
    const Prediction& better =
        *std::ranges::find(check.baselines, *check.better, &Prediction::placement);
    text = fmt::format("{} is better than the plan on the reported tokens: {}; the plan: {}",
                       *check.better, described(better), described(planned));
  }
  if (check.bound && check.bound->num_over > 0) {
    text += fmt::format(
        "{}{} of {} layers exceed the bound of {:.4g} on imbalance on the reported tokens: mean "
        "{:.3f}, worst {:.3f}",
        text.empty() ? "" : "; ", check.bound->num_over, planned.imbalance.size(),
        check.bound->max_imbalance, check.bound->mean, check.bound->worst);
    for (const Prediction& baseline : check.baselines) {
      text += fmt::format(", {} {:.3f}", baseline.placement, mean_over_layers(baseline.imbalance));
    }
  }
  if (text.empty()) return text;
  return text + "; fit on tokens of all that is to be served, or with a lower bound";
}

}  // namespace c2r
