// Tests of the table of scenarios.
#include "c2r/report/scenarios.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

Prediction predicted_scenario(double copies, double imbalance, double layer_s = 0) {
  Prediction prediction{.num_tokens = 1000, .copies_per_token = {copies}, .imbalance = {imbalance}};
  if (layer_s > 0) prediction.predicted_layer_time_s = {layer_s};
  return prediction;
}

TEST(ScenariosTable, HasTheBaselinesBesideThePlanAndNamesWhereTheyAreBetter) {
  EXPECT_EQ(scenarios_table({}), "");
  const std::vector<ScenarioReport> scenarios = {{.name = "1 of 2",
                                                  .plan = predicted_scenario(1.5, 1.1),
                                                  .contiguous = predicted_scenario(2, 1.2),
                                                  .eplb = predicted_scenario(1.8, 1.05)},
                                                 {.name = "2 of 2",
                                                  .plan = predicted_scenario(1.5, 1.1),
                                                  .contiguous = predicted_scenario(1.4, 1)}};
  const std::string text = scenarios_table(scenarios);
  EXPECT_NE(text.find("2.000 @ 1.200"), text.npos) << text;
  EXPECT_NE(text.find("1.800 @ 1.050"), text.npos) << text;
  EXPECT_NE(text.find("a baseline is better than the plan in 2 of 2\n"), text.npos) << text;
  EXPECT_NE(text.find("copies a token @ rank imbalance, the mean over layers\n"), text.npos);
}

TEST(ScenariosTable, HasTimesWhereTheyArePredicted) {
  const std::vector<ScenarioReport> scenarios = {{.name = "even",
                                                  .plan = predicted_scenario(1.5, 1.1, 0.002),
                                                  .contiguous = predicted_scenario(1.4, 1, 0.003)}};
  const std::string text = scenarios_table(scenarios);
  EXPECT_NE(text.find("2.00 ms"), text.npos) << text;
  EXPECT_NE(text.find("predicted time of a layer, the mean over layers\n"), text.npos);
  EXPECT_EQ(text.find("better"), text.npos) << "a time is what is compared";
}

}  // namespace
}  // namespace c2r
