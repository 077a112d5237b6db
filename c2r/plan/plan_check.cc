// Compares the prediction of a plan with those of baselines and with the bound on the imbalance.
#include "c2r/plan/plan_check.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/plan/prediction/predict.h"

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
      fmt::format("{:.3f} copies, {}", mean_over_layers(prediction.copies_per_token),
                  imbalance_text(layer_imbalance(prediction.imbalance, std::nullopt)));
  if (!prediction.predicted_layer_time_s.empty()) {
    text += fmt::format(", {:.4g} ms", 1e3 * mean_over_layers(prediction.predicted_layer_time_s));
  }
  return text;
}

}  // namespace

LayerImbalance layer_imbalance(std::span<const double> imbalance,
                               std::optional<double> max_imbalance) {
  LayerImbalance result{.max_imbalance = max_imbalance};
  if (imbalance.empty()) return result;
  result.mean = mean_over_layers(imbalance);
  result.worst = std::ranges::max(imbalance);
  for (std::size_t layer = 0; layer < imbalance.size() && max_imbalance; ++layer) {
    if (imbalance[layer] > *max_imbalance * (1 + kSameBound)) {
      result.over.push_back(std::int64_t(layer));
    }
  }
  return result;
}

std::string imbalance_text(const LayerImbalance& met) {
  return fmt::format("rank imbalance {:.3f} (worst layer {:.3f})", met.mean, met.worst);
}

std::optional<double> max_imbalance_of(const Plan& plan) {
  const auto found = std::ranges::find(plan.provenance.options, "max_imbalance", &PlanOption::name);
  if (found == plan.provenance.options.end()) return std::nullopt;
  const double* const bound = std::get_if<double>(&found->value);
  return bound == nullptr ? std::nullopt : std::optional(*bound);
}

std::vector<std::int32_t> layer_indices_of(const Plan& plan) {
  std::vector<std::int32_t> indices;
  indices.reserve(plan.layers.size());
  for (const PlanLayer& layer : plan.layers) indices.push_back(layer.layer_index);
  return indices;
}

std::string layers_text(std::span<const std::int64_t> layers,
                        std::span<const std::int32_t> layer_indices) {
  std::string text;
  for (std::size_t first = 0, last = 0; first < layers.size(); first = last + 1) {
    last = first;
    while (last + 1 < layers.size() &&
           at(layer_indices, layers[last + 1]) == at(layer_indices, layers[last]) + 1) {
      ++last;
    }
    if (!text.empty()) text += ", ";
    text += std::to_string(at(layer_indices, layers[first]));
    if (last > first) text += fmt::format("-{}", at(layer_indices, layers[last]));
  }
  return text;
}

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
  if (bound) check.bound = layer_imbalance(planned.imbalance, bound);
  return check;
}

std::string warning_text(const PlanCheck& check, const Prediction& planned,
                         std::span<const std::int32_t> layer_indices) {
  std::string text;
  if (check.better) {
    const Prediction& better =
        *std::ranges::find(check.baselines, *check.better, &Prediction::placement);
    text = fmt::format("{} is better than the plan on the reported tokens: {}; the plan: {}",
                       *check.better, described(better), described(planned));
  }
  if (check.bound && !check.bound->over.empty()) {
    text += fmt::format(
        "{}{} of {} layers exceed the bound of {:.4g} on imbalance on the reported tokens ({}): "
        "mean {:.3f}, worst {:.3f}",
        text.empty() ? "" : "; ", check.bound->over.size(), planned.imbalance.size(),
        *check.bound->max_imbalance, layers_text(check.bound->over, layer_indices),
        check.bound->mean, check.bound->worst);
    for (const Prediction& baseline : check.baselines) {
      text += fmt::format(", {} {:.3f}", baseline.placement, mean_over_layers(baseline.imbalance));
    }
  }
  if (text.empty()) return text;
  return text + "; fit on tokens of all that is to be served, or with a lower bound";
}

}  // namespace c2r
