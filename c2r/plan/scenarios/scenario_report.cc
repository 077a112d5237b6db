// Counts placements on the tokens of one scenario after the other.
#include "c2r/plan/scenarios/scenario_report.h"

#include <fmt/format.h>

#include <utility>

namespace c2r {

std::vector<ScenarioReport> predict_scenarios(const RoutedTokens& tokens,
                                              std::span<const Scenario> scenarios,
                                              std::span<const Placement> planned,
                                              std::span<const Placement> eplb,
                                              const PredictRequest& request, int num_threads,
                                              Progress& progress) {
  progress.begin("predicting scenarios");
  const auto contiguous = contiguous_placements(tokens.header(), request.traffic.cluster);
  std::vector<ScenarioReport> reports;
  for (const Scenario& scenario : scenarios) {
    RoutedTokens in_scenario = tokens;
    in_scenario.ranges = scenario.ranges;
    in_scenario.name = fmt::format("{}, {}", tokens.name, scenario.name);
    const auto predicted = [&](std::string name, std::span<const Placement> placements) {
      return predict_step(std::move(name), in_scenario, placements, request, num_threads, progress)
          .prediction;
    };
    ScenarioReport& report = reports.emplace_back();
    report.name = scenario.name;
    report.plan = predicted("plan", planned);
    report.contiguous = predicted("contiguous", contiguous);
    if (!eplb.empty()) report.eplb = predicted("eplb", eplb);
  }
  return reports;
}

}  // namespace c2r
