// Tests of the imbalance in tables and JSON: mean, worst and the layers over the bound.
#include "c2r/report/predictions.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

Prediction reported_prediction(std::string name, std::vector<double> copies,
                               std::vector<double> imbalance) {
  return {.placement = std::move(name),
          .trace = "t, odd",
          .num_tokens = 10,
          .copies_per_token = copies,
          .wire_copies_per_token = copies,
          .inter_node_copies_per_token = std::vector<double>(copies.size()),
          .imbalance = std::move(imbalance)};
}

const std::vector<Prediction> kSteps = {
    reported_prediction("per-expert", {4, 4, 4, 4}, {1.5, 1, 1, 1.1}),
    reported_prediction("placement", {2, 1, 1, 2}, {1.06, 1.2, 1.3, 1.0})};
const JudgedLayers kJudged = {.max_imbalance = 1.1, .layer_indices = {1, 2, 3, 7}};

TEST(PredictionTable, HasMeanWorstAndLayersOverTheBoundBesideEachOther) {
  EXPECT_EQ(prediction_table(kSteps, {.ranks_per_node = 4}, std::nullopt, kJudged),
            "step        copies/token  on the wire   saved  rank imbalance  worst  over\n"
            "per-expert         4.000        4.000   0.0 %           1.150  1.500   1/4\n"
            "placement          1.500        1.500  62.5 %           1.140  1.300   2/4\n"
            "predicted on 10 tokens of t, odd; copy mode per-rank, homes uniform\n"
            "saved: the share of the copies on the wire of per-expert that is saved\n"
            "over in placement: 2 of 4 layers are above the bound of 1.1 on imbalance: 2-3\n");
}

TEST(PredictionTable, JudgesNoLayerWithoutABound) {
  const std::string text = prediction_table(kSteps, {.ranks_per_node = 4}, std::nullopt, {});
  EXPECT_EQ(text.find("over"), std::string::npos);
  EXPECT_NE(text.find("rank imbalance  worst\n"), std::string::npos);
}

TEST(LayersTable, HasARowForEachLayerAndMarksThoseOverTheBound) {
  EXPECT_EQ(layers_table(kSteps, kJudged),
            "layer       per-expert        placement\n"
            "1      4.000 @ 1.500 *  2.000 @ 1.060\n"
            "2      4.000 @ 1.000    1.000 @ 1.200 *\n"
            "3      4.000 @ 1.000    1.000 @ 1.300 *\n"
            "7      4.000 @ 1.100    2.000 @ 1.000\n"
            "copies/token @ rank imbalance; *: above the bound of 1.1\n");
}

TEST(LayersTable, HasNoCopiesOfLoads) {
  Prediction loads = reported_prediction("placement", {}, {1.25});
  EXPECT_EQ(layers_table({&loads, 1}, {.max_imbalance = {}, .layer_indices = {0}}),
            "layer    placement\n"
            "0      - @ 1.250\n"
            "copies/token @ rank imbalance\n");
}

TEST(PredictionsJson, NamesTheLayersOverTheBound) {
  const Json judged = predictions_json(kSteps, std::nullopt, kJudged);
  EXPECT_EQ(judged[1]["layers_over"], Json({2, 3}));
  EXPECT_EQ(judged[1]["max_imbalance"], 1.1);
  EXPECT_EQ(judged[1]["worst_imbalance"], 1.3);
  EXPECT_DOUBLE_EQ(judged[1]["mean_imbalance"], 4.56 / 4);
  const Json free = predictions_json(kSteps, std::nullopt);
  EXPECT_FALSE(free[1].contains("layers_over"));
  EXPECT_EQ(free[1]["worst_imbalance"], 1.3);
}

}  // namespace
}  // namespace c2r
