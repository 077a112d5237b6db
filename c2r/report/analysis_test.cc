// Checks the JSON, the table and the heat map of an analysis of known numbers.
#include "c2r/report/analysis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

// Layer 1: expert 0 works with 1, 2 and 3 in the ratio 2:1:1, and each of them with it alone. No
// token came to layer 5.
Analysis example() {
  Analysis analysis;
  analysis.statistics =
      empty_statistics({.model = "example", .num_experts = 4, .top_k = 2, .layer_indices = {1, 5}});
  analysis.statistics.num_tokens = {40, 0};
  CollaborationMatrix& counts = analysis.statistics.coactivation[0];
  for (const auto& [e, load] : {std::pair{0, 40}, {1, 20}, {2, 10}, {3, 10}}) {
    counts(e, e) = load;
    if (e != 0) counts(0, e) = counts(e, 0) = load;
  }
  analysis.metrics = model_metrics(analysis.statistics);
  analysis.fan_out = {{.ep_size = 2, .per_layer = {1.5, 0}, .mean = 0.75}};
  return analysis;
}

// exp(H(0)) = 2^1.5 = 2.83, specialization 1 - 1.5 ln 2 / ln 3 = 0.054; 1 and 1 for the others.
TEST(AnalysisTable, HasALineForEachLayerAndTheMeans) {
  EXPECT_EQ(analysis_table(example()),
            "layer  expert imbalance  busiest  collaborators  90 %  specialization  over 2\n"
            "1                  2.00   50.0 %            1.5   1.5           0.763   1.500\n"
            "5                  1.00    0.0 %              -     -               -   0.000\n"
            "mean               1.50   25.0 %            1.5   1.5           0.763   0.750\n");
}

TEST(AnalysisJson, NamesEveryNumber) {
  const Json json = analysis_json(example());
  const Json& layers = json.at("layers");
  const auto head = [](Json object, std::initializer_list<const char*> left_out) {
    for (const char* key : left_out) object.erase(key);
    return json_text(object);
  };
  EXPECT_EQ(
      head(json, {"collaborators", "layers"}),
      R"({"model":"example","num_experts":4,"top_k":2,"num_layers":2,)"
      R"("mean_expert_imbalance":1.5,"max_expert_imbalance":2.0,"mean_busiest_share":0.25,"fan_out":{"2":0.75}})");
  EXPECT_EQ(
      head(layers[0], {"collaborators", "experts"}),
      R"({"layer_index":1,"num_tokens":40,"num_choices":80,"expert_imbalance":2.0,)"
      R"("busiest_share":0.5,"busiest_expert":0,"num_unused_experts":0,"fan_out":{"2":1.5}})");
  EXPECT_EQ(head(layers[1], {"experts"}),
            R"({"layer_index":5,"num_tokens":0,"num_choices":0,"expert_imbalance":1.0,)"
            R"("busiest_share":0.0,"busiest_expert":0,"num_unused_experts":4,)"
            R"("collaborators":null,"fan_out":{"2":0.0}})");
  EXPECT_EQ(json_text(layers[1]["experts"][0]), R"({"load":0,"collaborators":null})");
  EXPECT_EQ(json_text(layers[0]["experts"][3]),
            R"({"load":10,"collaborators":{"effective_collaborators":1.0,)"
            R"("normalized_entropy":0.0,"specialization":1.0,"collaborators_90":1.0}})");
  for (const Json* means : {&json.at("collaborators"), &layers[0].at("collaborators")}) {
    EXPECT_NEAR(means->at("effective_collaborators"), (std::pow(2, 1.5) + 3) / 4, 1e-12);
    EXPECT_NEAR(means->at("normalized_entropy"), 1.5 * std::log(2) / std::log(3) / 4, 1e-12);
    EXPECT_NEAR(means->at("specialization"), 1 - 1.5 * std::log(2) / std::log(3) / 4, 1e-12);
    EXPECT_EQ(means->at("collaborators_90"), 1.5);
  }
}

TEST(AnalysisText, NamesTheModelAndDrawsTheLayersThatAreAskedFor) {
  const Analysis analysis = example();
  const std::string table = analysis_table(analysis);
  const std::string columns =
      "\nexpert imbalance: the load of the busiest expert over the mean; a plan has a\n"
      "rank imbalance\n"
      "busiest: the share of all choices that fall on one expert\n"
      "collaborators: with how many of the 3 other experts an expert effectively works;\n"
      "90 %: how many make up 90 % of its pairs\n"
      "specialization: 0 if an expert works equally with all others, 1 if only with\n"
      "one; 0.19 in gpt-oss-20b, 0.38 in LLaMA-MoE-3.5B";
  const std::string fan_out =
      "\nover N: the fan-out, the ranks that a token must reach if experts are split in\n"
      "order over N ranks\n";
  EXPECT_EQ(analysis_text(analysis, {}),
            "example: 2 MoE layers, 4 experts, top-2, 40 tokens\n\n" + table + columns + fan_out);
  const auto heat_map = [&](std::int64_t layer) {
    return fmt::format(
        "\n{}", collaboration_heat_map(analysis.statistics, layer, 2, HeatMapStyle::kColors));
  };
  EXPECT_EQ(
      analysis_text(analysis, {.layers = {1, 0}, .max_cells = 2, .style = HeatMapStyle::kColors}),
      "example: 2 MoE layers, 4 experts, top-2, 40 tokens\n\n" + table + heat_map(1) + heat_map(0) +
          columns + fan_out);
  Analysis without = example();
  without.fan_out.clear();
  without.statistics.header.model = "";
  const std::string text = analysis_text(without, {});
  EXPECT_TRUE(text.starts_with("unnamed model: "));
  EXPECT_TRUE(text.ends_with(columns + "\n"));
}

TEST(HeatMapLayers, AreTheMostSpecializedAllOrThoseNamedByTheModelsIndex) {
  using Layers = std::vector<std::int64_t>;
  const auto layers = [](std::string_view which, bool has_pairs = true) {
    Analysis analysis = example();
    analysis.statistics.has_pairs = has_pairs;
    return heat_map_layers(analysis, which, "--draw");
  };
  EXPECT_EQ(layers("best"), Layers{0});
  EXPECT_EQ(layers("all"), (Layers{0, 1}));
  EXPECT_EQ(layers("none"), Layers{});
  EXPECT_EQ(layers("5"), Layers{1});
  EXPECT_EQ(layers("best", false), Layers{});
  EXPECT_EQ(error_of([&] { layers("2"); }),
            "--draw takes best, all, none or the index of an MoE layer in [1, 5], not '2'");
  EXPECT_EQ(error_of([&] { layers("5", false); }),
            "--draw 5 needs a trace or pair counts, but these are loads only");
}

TEST(MostSpecializedLayer, IsTheFirstIfNoneHasCollaborators) {
  EXPECT_EQ(most_specialized_layer(example().metrics), 0);
  ModelMetrics metrics = example().metrics;
  std::swap(metrics.layers[0], metrics.layers[1]);
  EXPECT_EQ(most_specialized_layer(metrics), 1);
  metrics.layers[1].collaborators.reset();
  EXPECT_EQ(most_specialized_layer(metrics), 0);
}

TEST(CollaborationHeatMap, SaysSoIfNoTwoExpertsWereChosenTogether) {
  EXPECT_EQ(collaboration_heat_map(example().statistics, 1, 64, HeatMapStyle::kBlocks),
            "no two experts were chosen together\n");
}

}  // namespace
}  // namespace c2r
