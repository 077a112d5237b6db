// Tests of what a report advises, and of how it explains itself.
#include "c2r/report/page/answer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/page.h"
#include "c2r/report/page/report_data.h"
#include "c2r/report/page/testing_internal.h"

namespace c2r {
namespace {

using testing::crossing_pairs;
using testing::good_plan;
using testing::kApart;
using testing::kTogether;
using testing::make_placement;
using testing::plan_of_ranks;
using testing::report_of;
using testing::report_of_60;
using testing::request_for;

std::string sentence_of(const Json& answer) {
  return answer["sentence"].get<std::string>();
}

bool refuses_for(const Json& answer, const std::string& reason) {
  return !answer["is_advised"].get<bool>() &&
         sentence_of(answer).starts_with("Do not load this plan: ") &&
         answer["reasons"].dump().find(reason) != std::string::npos;
}

TEST(Answer, AdvisesAPlanThatSavesAndNoOther) {
  const Plan plan = good_plan();
  ReportRequest request = request_for(plan);
  request.format = CopyFormat{.hidden = 10000};
  const Json good = report_of_60(plan, request)["answer"];
  EXPECT_TRUE(good["is_advised"].get<bool>()) << good;
  EXPECT_EQ(
      sentence_of(good),
      "This plan is worth loading. In each layer a token sends 40.0 kB over links where experts "
      "are "
      "placed in order and a rank gets one copy of a token, and 20.0 kB under this plan: 50.0 % "
      "less (50.0 % over resampled sequences). The busiest rank computes 1.333 times the mean "
      "(before 1.000), and 1.333 "
      "times in the worst layer (before 1.000).");
  // Contiguous placement again saves nothing.
  const Plan same = plan_of_ranks(kApart);
  EXPECT_TRUE(refuses_for(report_of_60(same, request_for(same))["answer"], "no fewer copies"));
}

TEST(Answer, IsAboutTheEngineItsBackendAndItsBatch) {
  Plan plan = good_plan();
  plan.cluster.device_flop_per_s = 1e12;
  ReportRequest request = request_for(plan);
  request.format = CopyFormat{.hidden = 10000};
  request.engine = find_engine_backend("sglang", "deepep");
  request.predict.layer_time =
      LayerTimeOptions{.format = *request.format, .flop_per_choice = 1, .batch_tokens = 512};
  request.predict = for_engine(*request.engine, request.predict);
  const Json report = report_of_60(plan, request);
  EXPECT_EQ(report["engine"]["export_target"], "sglang");
  const std::string sentence = sentence_of(report["answer"]);
  const auto has = [&](const std::string& words) {
    return sentence.find(words) != std::string::npos;
  };
  EXPECT_TRUE(
      has("Your engine (SGLang, DeepEP normal) sends 40.0 kB a token and layer, and 20.0 "
          "kB under this plan: 50.0 % less."))
      << sentence;
  EXPECT_TRUE(has("time at 256 tokens a rank (over resampled sequences it saves ")) << sentence;
  EXPECT_EQ(report["resampled"]["num_sequences"], 60);
  const std::string page = report_page(report);
  EXPECT_NE(page.find("--to sglang"), std::string::npos);
}

TEST(Answer, RefusesAPlanForAHiddenExchange) {
  const Plan plan = good_plan();
  ReportRequest request = request_for(plan);
  request.engine = find_engine_backend("sglang", "megamoe");
  request.predict = for_engine(*request.engine, request.predict);
  EXPECT_TRUE(refuses_for(report_of_60(plan, request)["answer"],
                          "the exchange is hidden under the experts' products"));
}

TEST(Answer, RefusesAPlanThatIsWorseInAPartOfTheTrace) {
  const Plan plan = good_plan();
  Json report = report_of_60(plan, request_for(plan));
  const auto worsen = [&](std::size_t part) {
    report["drift"][part]["after"] = report["drift"][part]["before"].get<double>() * 1.01;
  };
  worsen(3);
  worsen(4);
  const Json careful = answer_json(report);
  EXPECT_TRUE(careful["is_advised"].get<bool>());
  EXPECT_NE(careful["cautions"].dump().find(
                "in its parts the plan needs from 1.0 % more to 50.0 % fewer copies"),
            std::string::npos)
      << careful;
  EXPECT_NE(careful["how_sure"].dump().find("; in 2 of them more than before."), std::string::npos)
      << careful;
  worsen(5);
  EXPECT_TRUE(refuses_for(answer_json(report),
                          "in 3 of 10 parts of the trace it sends more than before, up to 1.0 %"));
  report = report_of_60(plan, request_for(plan));
  worsen(9);
  EXPECT_TRUE(refuses_for(answer_json(report),
                          "in 1 of 10 parts of the trace, the last one included, it sends more"));
}

TEST(Answer, RefusesAPlanThatMaySaveNothingOfOtherSequences) {
  const Plan plan = good_plan();
  Json report = report_of_60(plan, request_for(plan));
  report["resampled"]["saved_copies"] = {-0.02, 0.3};
  EXPECT_TRUE(refuses_for(answer_json(report),
                          "over resampled sequences it needs from 2.0 % more to 30.0 % fewer "
                          "copies"));
}

TEST(Answer, RefusesAPlanThatSendsMoreHoweverWellItBalances) {
  const Plan plan = good_plan();
  Json report = report_of_60(plan, request_for(plan));
  for (Json& copies : report["steps"].back()["wire_copies_per_token"]) copies = 1.1;
  for (Json& imbalance : report["steps"].back()["imbalance"]) imbalance = 0.9;
  EXPECT_TRUE(refuses_for(answer_json(report), "it sends more copies than before"));
}

TEST(Answer, ExplainsItselfToAReaderOfThePageAlone) {
  const Plan plan = good_plan();
  const Json answer = report_of_60(plan, request_for(plan))["answer"];
  EXPECT_EQ(answer["why"],
            "A token is sent once to each rank that holds some of its 2 experts. Where experts are "
            "placed in order, these are 2.000 ranks in the mean, and 1.000 under the plan, which "
            "puts experts that the same tokens choose on the same rank.");
  EXPECT_EQ(answer["how_sure"],
            "Copies are counted, on 600 tokens of 60 sequences. Another recording of the same "
            "traffic would have other sequences: in 95 % of 200 resamples, which draw as many of "
            "these sequences with replacement, the plan saves 50.0 % of the copies. In the 10 "
            "parts of the trace it saves 50.0 % of the copies.");
}

// The links between the two nodes are eight times as slow as those within a node, by default.
TEST(Answer, CountsLinksBetweenNodesAsTheIntervalDoes) {
  const Placement together = make_placement(4, {{0}, {2}, {1}, {3}});
  Plan plan = plan_of_ranks(together);
  plan.cluster = {.num_nodes = 2, .ranks_per_node = 2};
  ReportRequest request = request_for(plan);
  request.predict.traffic = default_traffic(plan.cluster);
  Json report = report_of_60(plan, request);
  const Json &before = step_before(report), &after = step_after(report);
  const auto cost = [](const Json& step) {
    return mean_of(step, "wire_copies_per_token") +
           7 * mean_of(step, "inter_node_copies_per_token");
  };
  const std::string saved = fmt::format("{:.1f} % less", 100 * (1 - cost(after) / cost(before)));
  EXPECT_NE(sentence_of(report["answer"])
                .find("Where a copy between nodes counts as 8 within a node, it is " + saved),
            std::string::npos)
      << report["answer"];
  EXPECT_TRUE(report["answer"]["why"].get<std::string>().find("copies of a token cross links "
                                                              "between nodes in the mean") !=
              std::string::npos);
  EXPECT_EQ(report_figures(report)[0].pictures.size(), 2U);
}

TEST(Answer, NoticesThatFittedTokensAreAmongTheCounted) {
  Plan plan = good_plan();
  const auto cautions_if_fitted_on = [&](SequencePart fitted, SequencePart counted) {
    plan.provenance.inputs = {{.role = "trace", .name = "trace", .part = fitted}};
    ReportRequest request = request_for(plan);
    request.part = counted;
    return report_of_60(plan, request)["answer"]["cautions"].dump();
  };
  const std::string words = "include those that the plan was fitted on";
  EXPECT_NE(cautions_if_fitted_on(SequencePart::kEven, SequencePart::kFirstHalf).find(words),
            std::string::npos);
  EXPECT_NE(cautions_if_fitted_on(SequencePart::kAll, SequencePart::kOdd).find(words),
            std::string::npos);
  EXPECT_EQ(cautions_if_fitted_on(SequencePart::kEven, SequencePart::kOdd).find(words),
            std::string::npos);
}

TEST(Answer, RefusesAPlanThatUnbalancesRanksWhereNoTimeIsKnown) {
  const Plan plan = good_plan();
  Json report = report_of_60(plan, request_for(plan));
  for (Json& imbalance : report["steps"].back()["imbalance"]) imbalance = 1.6;
  EXPECT_TRUE(refuses_for(answer_json(report), "ranks are loaded less evenly than before"));
}

TEST(Answer, RefusesToKnowFromFewSequences) {
  EXPECT_TRUE(refuses_for(report_of(plan_of_ranks(kTogether), crossing_pairs())["answer"],
                          "4 sequences are too few"));
}

TEST(Answer, NamesWhatToBeCarefulAbout) {
  Plan plan = plan_of_ranks(kTogether);
  plan.provenance.inputs = {{.role = "trace", .name = "trace", .part = SequencePart::kEven}};
  const auto cautions = report_of(plan, crossing_pairs())["answer"]["cautions"].dump();
  EXPECT_TRUE(cautions.find("Only 4 sequences") != std::string::npos) << cautions;
  EXPECT_TRUE(cautions.find("include those that the plan was fitted on") != std::string::npos);
  // Rank 0 has 26 of 40 pairs, 1.3 times the mean.
  EXPECT_TRUE(cautions.find("In 2 of 2 layers") != std::string::npos) << cautions;
  EXPECT_TRUE(cautions.find("bound of 1.1") != std::string::npos);
}

}  // namespace
}  // namespace c2r
