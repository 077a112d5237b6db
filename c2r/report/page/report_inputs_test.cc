// Tests of what a report reads of other commands' JSON: worked examples, and files that are
// refused.
#include "c2r/report/page/report_inputs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

std::filesystem::path file_with(const std::string& text) {
  const auto path = testing::temporary_path("input.json");
  std::ofstream(path) << text;
  return path;
}

template <class Read>
std::string refusal(Read read, const std::string& text) {
  return error_of([&] { (void)read(file_with(text)); });
}

bool has(const std::string& message, const std::string& words) {
  return message.find(words) != std::string::npos;
}

TEST(ReadComparison, RefusesWhatIsNone) {
  EXPECT_TRUE(has(refusal(read_comparison, "[1]"), "not what `c2r compare --json` prints"));
  EXPECT_TRUE(has(refusal(read_comparison, R"({"placements": []})"), "no placements"));
  const auto wrong = R"({"placements": [{"placement": "a", "wire_copies_per_token": [1],
                                         "imbalance": [1, "x"]}]})";
  EXPECT_TRUE(has(refusal(read_comparison, wrong), "imbalance of a placement"));
}

TEST(ReadScores, AddsUpAllLines) {
  const Json score =
      read_scores(file_with("{\"log_likelihood\": -3, \"num_tokens\": 2, \"input\": \"a\"}\n\n"
                            "{\"log_likelihood\": -1, \"num_tokens\": 6}\n"
                            "{\"run\": {\"num_tokens\": 10}}"));
  EXPECT_EQ(score["num_tokens"], 8);
  EXPECT_EQ(score["log_likelihood"], -4);
  EXPECT_DOUBLE_EQ(score["perplexity"].get<double>(), std::exp(0.5));
}

TEST(ReadScores, RefusesWhatIsNone) {
  EXPECT_TRUE(
      has(refusal(read_scores, "{\"log_likelihood\": -3, \"num_tokens\": 2}\n{}"),
          "line 2 is not what `c2r score --json` prints, an object on each line: it has no"));
  EXPECT_TRUE(has(refusal(read_scores, "{"), "prints, an object on each line"));
  EXPECT_TRUE(
      has(refusal(read_scores, "{\"log_likelihood\": -3, \"num_tokens\": -2}"), "num_tokens"));
  EXPECT_TRUE(has(refusal(read_scores, ""), "no token was scored"));
  EXPECT_TRUE(has(refusal(read_scores, "{\"log_likelihood\": -1e9, \"num_tokens\": 2}"),
                  "has no finite perplexity"));
}

TEST(ReadConstrained, TakesTheStepOfTheConstraint) {
  const Json traffic = read_constrained(file_with(
      R"({"steps": [{"step": "placement", "wire_copies_per_token": [9, 9], "imbalance": [9, 9]},
          {"step": "constraint", "wire_copies_per_token": [1, 2], "imbalance": [1.5, 1]}]})"));
  EXPECT_EQ(traffic["wire_copies_per_token"], 1.5);
  EXPECT_EQ(traffic["imbalance"], 1.25);
}

TEST(ReadConstrained, IsTheSameOfJsonInMemory) {
  const Json steps = {{{"step", "constraint"}, {"wire_copies_per_token", {2}}, {"imbalance", {1}}}};
  EXPECT_EQ(constrained_traffic({{"steps", steps}}, "simulation"),
            (Json{{"name", "simulation"}, {"wire_copies_per_token", 2.0}, {"imbalance", 1.0}}));
  const Json compared = {
      {"placements", {{{"placement", "a"}, {"wire_copies_per_token", {1}}, {"imbalance", {1}}}}}};
  EXPECT_EQ(checked_comparison(compared, "comparison"), compared);
}

TEST(ReadConstrained, RefusesWhatIsNone) {
  for (const char* text :
       {"[1]", "{}", R"({"steps": 1})", R"({"steps": [1, {"step": "placement"}]})"}) {
    EXPECT_TRUE(has(refusal(read_constrained, text), "it has no step 'constraint'")) << text;
  }
  EXPECT_TRUE(has(refusal(read_constrained, R"({"steps": [{"step": "constraint",
      "wire_copies_per_token": [], "imbalance": [1]}]})"),
                  "wire_copies_per_token is empty"));
}

TEST(ReadLayerBench, AddsUpThePhasesOfEachPart) {
  const Json measured = read_layer_bench(file_with(R"({"problem": "olmoe", "what": "layer",
      "ep_size": 2, "tokens_per_rank": 4, "hidden": 64, "variants": [{"name": "plan",
      "median_s": 0.5, "phase_seconds": {"handles": [0.1, 0.3], "wait_dispatch": [1, 2],
      "experts": [3, 5], "local_work": [1, 1], "finish_combine": [0.25, 0.25]}}]})"));
  EXPECT_EQ(measured["ep_size"], 2);
  const Json& variant = measured["variants"][0];
  EXPECT_DOUBLE_EQ(variant["dispatch_s"].get<double>(), 0.2 + 1.5);
  EXPECT_EQ(variant["experts_s"], 5);
  EXPECT_EQ(variant["combine_s"], 0.25);
  EXPECT_EQ(variant["median_s"], 0.5);
}

TEST(ReadLayerBench, RefusesWhatIsNone) {
  EXPECT_TRUE(has(refusal(read_layer_bench, R"({"phases": []})"), "it has no variants"));
  const std::string head =
      R"({"problem": "p", "what": "layer", "ep_size": 2, "tokens_per_rank": 4, "hidden": 64, )";
  EXPECT_TRUE(has(refusal(read_layer_bench, head + R"("variants": []})"), "variants is empty"));
  EXPECT_TRUE(has(refusal(read_layer_bench, head + R"("variants": [{"name": "a", "median_s": 1,
      "phase_seconds": {"waiting": [1]}}]})"),
                  "'waiting' is no phase of a layer"));
}

TEST(ConstraintRows, AreByTAndWithoutItFirst) {
  const Json score = {{"name", "s"}, {"num_tokens", 8}, {"perplexity", 2.0}};
  const Json traffic = {{"name", "t"}, {"wire_copies_per_token", 1.5}, {"imbalance", 1.0}};
  const std::vector<ConstraintInput> scores = {{.top_t = 30, .value = score},
                                               {.top_t = {}, .value = score}};
  const std::vector<ConstraintInput> traffics = {{.top_t = 10, .value = traffic}};
  const Json rows = constraint_rows(scores, traffics);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_TRUE(rows[0]["top_t"].is_null());
  EXPECT_EQ(rows[1]["top_t"], 10);
  EXPECT_EQ(rows[1]["traffic"], traffic);
  EXPECT_FALSE(rows[1].contains("score"));
  EXPECT_EQ(rows[2]["score"], score);
}

TEST(ConstraintRows, RefuseWhatCannotBeCompared) {
  const Json eight = {{"name", "a"}, {"num_tokens", 8}}, nine = {{"name", "b"}, {"num_tokens", 9}};
  const std::vector<ConstraintInput> other = {{.top_t = {}, .value = eight},
                                              {.top_t = 30, .value = nine}};
  EXPECT_EQ(error_of([&] { (void)constraint_rows(other, {}); }),
            "b is of 9 tokens, but a of 8: score the same text");
  const std::vector<ConstraintInput> twice(2, {.top_t = 30, .value = eight});
  EXPECT_EQ(error_of([&] { (void)constraint_rows(twice, {}); }),
            "a: there is another score of T = 30");
}

}  // namespace
}  // namespace c2r
