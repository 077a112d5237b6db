// Writes scenarios as a table.
#include "c2r/report/scenarios.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "c2r/plan/prediction/predict.h"
#include "c2r/report/table.h"

namespace c2r {
namespace {

bool has_time(const Prediction& prediction) {
  return !prediction.predicted_layer_time_s.empty();
}

std::string scenario_cell(const Prediction& prediction) {
  if (has_time(prediction)) {
    return fmt::format("{:.2f} ms", 1e3 * mean_over_layers(prediction.predicted_layer_time_s));
  }
  return fmt::format("{:.3f} @ {:.3f}", mean_over_layers(prediction.copies_per_token),
                     mean_over_layers(prediction.imbalance));
}

bool is_better(const Prediction& baseline, const Prediction& plan) {
  if (has_time(plan)) {
    return mean_over_layers(baseline.predicted_layer_time_s) <
           mean_over_layers(plan.predicted_layer_time_s);
  }
  return mean_over_layers(baseline.copies_per_token) < mean_over_layers(plan.copies_per_token) &&
         mean_over_layers(baseline.imbalance) < mean_over_layers(plan.imbalance);
}

}  // namespace

std::string scenarios_table(std::span<const ScenarioReport> scenarios) {
  if (scenarios.empty()) return "";
  std::vector<std::vector<std::string>> rows = {
      {"scenario", "tokens", "contiguous", "eplb", "plan"}};
  std::string worse;
  for (const ScenarioReport& of : scenarios) {
    rows.push_back({of.name, std::to_string(of.plan.num_tokens), scenario_cell(of.contiguous),
                    of.eplb ? scenario_cell(*of.eplb) : "-", scenario_cell(of.plan)});
    if (is_better(of.contiguous, of.plan) || (of.eplb && is_better(*of.eplb, of.plan))) {
      worse += (worse.empty() ? "" : ", ") + of.name;
    }
  }
  std::string text = render_table(rows) + "scenarios of the fitted tokens: " +
                     (has_time(scenarios[0].plan) ? "predicted time of a layer"
                                                  : "copies a token @ rank imbalance") +
                     ", the mean over layers\n";
  if (!worse.empty()) text += fmt::format("a baseline is better than the plan in {}\n", worse);
  return text;
}

}  // namespace c2r
