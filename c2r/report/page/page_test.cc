// Tests of reports: their numbers against direct counts, what they advise, and hostile texts.
#include "c2r/report/page/page.h"

#include <gtest/gtest.h>

#include <regex>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/report/page/answer.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

using testing::make_placement;

// Sequences of 10 tokens. Experts 0 and 2 choose each other, and 1 and 3: contiguous experts are
// as bad as can be. In layer 5 the first expert of the pair is chosen first, in layer 7 the other.
Trace crossing_pairs(const std::string& model = "m", std::int32_t num_sequences = 4) {
  const std::int32_t num_tokens = 10 * num_sequences;
  Matrix<ExpertId> first(num_tokens, 2), second(num_tokens, 2);
  for (std::int32_t t = 0; t < num_tokens; ++t) {
    const std::int32_t low = t % 3 == 0 ? 1 : 0;
    first(t, 0) = second(t, 1) = ExpertId{low};
    first(t, 1) = second(t, 0) = ExpertId{low + 2};
  }
  const std::vector<MatrixView<const ExpertId>> layers = {first, second};
  std::vector<std::int64_t> starts;
  for (std::int32_t s = 0; s < num_sequences; ++s) starts.push_back(10 * s);
  return Trace({.model = model, .num_experts = 4, .top_k = 2, .layer_indices = {5, 7}}, layers,
               starts);
}

Plan plan_of_ranks(const Placement& placement, const std::string& model = "m") {
  return {.model = model,
          .num_experts = 4,
          .top_k = 2,
          .cluster = {.ranks_per_node = 2},
          .layers = {{.layer_index = 5, .placement = placement},
                     {.layer_index = 7, .placement = placement}},
          .provenance = {.method = "test", .options = {{"max_imbalance", 1.1}}}};
}

const Placement kTogether = make_placement(4, {{0, 2}, {1, 3}});
const Placement kApart = make_placement(4, {{0, 1}, {2, 3}});

ReportRequest request_for(const Plan& plan) {
  return {.plan_name = "plan.json",
          .trace_name = "trace",
          .predict = {.traffic = {.cluster = plan.cluster}},
          .format = CopyFormat{.hidden = 10}};
}

Json report_of(const Plan& plan, const Trace& trace) {
  NoProgress progress;
  return report_data(plan, trace, request_for(plan), progress);
}

// The counts that were packed, by the definition of the format.
CollaborationMatrix unpacked(const std::string& text, std::int64_t num_experts) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bits;
  for (const char c : text) {
    if (c == '=') break;
    for (int bit = 5; bit >= 0; --bit) bits += (digits.find(c) >> bit & 1) != 0 ? '1' : '0';
  }
  std::vector<std::uint64_t> values;
  std::uint64_t value = 0;
  int shift = 0;
  for (std::size_t at = 0; at + 8 <= bits.size(); at += 8) {
    const auto byte = std::stoul(bits.substr(at, 8), nullptr, 2);
    value |= (byte & 127) << shift;
    shift += 7;
    if ((byte & 128) != 0) continue;
    values.push_back(value);
    value = 0;
    shift = 0;
  }
  CollaborationMatrix counts(num_experts, num_experts);
  std::size_t next = 0;
  for (std::int64_t a = 0; a < num_experts; ++a) {
    for (std::int64_t b = a; b < num_experts; ++b) {
      counts(a, b) = counts(b, a) = static_cast<std::int64_t>(values.at(next++));
    }
  }
  EXPECT_EQ(next, values.size());
  return counts;
}

TEST(ReportData, HoldsTheCountsOfTheTrace) {
  const Trace trace = crossing_pairs();
  const Json report = report_of(plan_of_ranks(kTogether), trace);
  CollaborationMatrix expected(4, 4);
  add_collaboration(trace.topk_idx(1, 0, 40), expected);
  EXPECT_EQ(unpacked(report["layers"][1]["coactivation"], 4), expected);
  EXPECT_EQ(report["layers"][1]["rank_of_expert"], Json({0, 1, 0, 1}));
  EXPECT_EQ(report["trace"]["num_tokens"], 40);
  EXPECT_EQ(report["trace"]["num_sequences"], 4);
}

TEST(ReportData, PacksCountsOfEverySize) {
  // One token on experts 0 and 1, 300 on 0 and 2, so that counts take one byte and two.
  Matrix<ExpertId> ids(301, 2);
  for (std::int32_t t = 0; t < 301; ++t) {
    ids(t, 0) = ExpertId{0};
    ids(t, 1) = ExpertId{t == 7 ? 1 : 2};
  }
  const std::vector<MatrixView<const ExpertId>> layers = {ids, ids};
  const Trace trace({.model = "m", .num_experts = 4, .top_k = 2, .layer_indices = {5, 7}}, layers);
  const Json report = report_of(plan_of_ranks(kTogether), trace);
  const auto counts = unpacked(report["layers"][0]["coactivation"], 4);
  EXPECT_EQ(counts(0, 0), 301);
  EXPECT_EQ(counts(0, 2), 300);
  EXPECT_EQ(counts(1, 0), 1);
  EXPECT_EQ(counts(3, 3), 0);
}

TEST(ReportData, LinksAndPartsAddUpToTheSteps) {
  const Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  for (const char* which : {"before", "after"}) {
    const Json& step = which == std::string("before") ? step_before(report) : step_after(report);
    double wire = 0;
    for (std::size_t src = 0; src < 2; ++src) {
      for (std::size_t dst = 0; dst < 2; ++dst) {
        if (src != dst) wire += report["links"][which][src][dst].get<double>();
      }
    }
    EXPECT_DOUBLE_EQ(wire, mean_of(step, "wire_copies_per_token"));
    double sum = 0;
    std::int64_t num_tokens = 0;
    ASSERT_EQ(report["drift"].size(), 10U);
    for (const Json& part : report["drift"]) {
      sum += part[which].get<double>() * part["num_tokens"].get<double>();
      num_tokens += part["num_tokens"].get<std::int64_t>();
    }
    EXPECT_EQ(num_tokens, 40);
    EXPECT_NEAR(sum / 40, wire, 1e-12);
  }
}

TEST(ReportData, FollowsOneSequence) {
  const Json sequence = report_of(plan_of_ranks(kTogether), crossing_pairs())["sequence"];
  EXPECT_EQ(sequence["num_tokens"], 10);
  // Of the first ten tokens 0, 3, 6 and 9 choose experts 1 and 3, which are on rank 1.
  EXPECT_EQ(sequence["after"], Json({{0.6, 0.4}, {0.6, 0.4}}));
  EXPECT_EQ(sequence["before"], Json({{1.0, 1.0}, {1.0, 1.0}}));
}

// A plan that halves copies and is within its bound on 60 sequences: rank 0 computes 4/3 of the
// mean.
Plan good_plan() {
  Plan plan = plan_of_ranks(kTogether);
  plan.provenance.options = {{"max_imbalance", 1.4}};
  return plan;
}

// What is computed on 60 sequences: enough for an answer.
Json report_of_60(const Plan& plan, const ReportRequest& request) {
  NoProgress progress;
  return report_data(plan, crossing_pairs("m", 60), request, progress);
}

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
      "In each layer a token sends 40.0 kB over links where experts are placed in order and a "
      "rank gets one copy of a token, and 20.0 kB under this plan: 50.0 % less (50.0 % over "
      "resampled "
      "sequences). The busiest rank computes 1.333 times the mean (before 1.000), and 1.333 "
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
  EXPECT_NE(careful["cautions"].dump().find("varies over the trace, from -1.0 % to 50.0 %"),
            std::string::npos)
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
  EXPECT_TRUE(refuses_for(answer_json(report), "over resampled sequences it saves -2.0 to 30.0 %"));
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
  plan.provenance.inputs = {{.role = "trace", .name = "other", .part = SequencePart::kEven}};
  const auto cautions = report_of(plan, crossing_pairs())["answer"]["cautions"].dump();
  EXPECT_TRUE(cautions.find("Only 4 sequences") != std::string::npos) << cautions;
  EXPECT_TRUE(cautions.find("include those that the plan was fitted on") != std::string::npos);
  // Rank 0 has 26 of 40 pairs, 1.3 times the mean.
  EXPECT_TRUE(cautions.find("In 2 of 2 layers") != std::string::npos) << cautions;
  EXPECT_TRUE(cautions.find("bound of 1.1") != std::string::npos);
}

TEST(ReportPage, ShowsHostileNamesAsText) {
  const std::string name = "</script><img src=x onerror=alert(1)><!--";
  Plan plan = plan_of_ranks(kTogether, name);
  plan.provenance.method = name;
  plan.provenance.inputs = {{.role = "trace", .name = name}};
  const Trace trace = crossing_pairs(name);
  NoProgress progress;
  ReportRequest request = request_for(plan);
  request.plan_name = request.trace_name = name;
  const std::string page = report_page(report_data(plan, trace, request, progress));
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_EQ(page.find("<!--"), std::string::npos);
  std::size_t num_ends = 0;
  for (std::size_t at = 0; (at = page.find("</script>", at)) != std::string::npos; ++at) ++num_ends;
  EXPECT_EQ(num_ends, 2U);
}

TEST(ReportPage, HoldsItsDataAndAsksNobody) {
  const Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  const std::string page = report_page(report);
  const std::string begin = "<script type=\"application/json\" id=\"report-data\">";
  const auto at = page.find(begin) + begin.size();
  EXPECT_EQ(Json::parse(page.substr(at, page.find("</script>", at) - at)), report);
  const std::regex address("(src|href)=|https?://(?!www\\.w3\\.org/2000/svg)|@import|url\\(");
  EXPECT_FALSE(std::regex_search(page, address));
}

TEST(ReportFigures, TableRowsAreThoseOfTheData) {
  Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  const auto figures = report_figures(report);
  ASSERT_EQ(figures.size(), 6U);
  EXPECT_EQ(figures[0].name, "waterfall");
  EXPECT_EQ(figures[0].table.back()[2], "0.500");
  EXPECT_EQ(figures[5].name, "sequence");
  EXPECT_EQ(figures[5].table[1], (std::vector<std::string>{"5", "0", "1.000", "0.600"}));
  EXPECT_EQ(figures[1].table[2],
            (std::vector<std::string>{"7", "1.000", "0.500", "1.000", "1.300"}));
  for (const Figure& figure : figures) {
    for (const auto& row : figure.table) EXPECT_EQ(row.size(), figure.table[0].size());
    EXPECT_FALSE(figure.pictures.empty());
  }
}

TEST(ReportFigures, ShowWhatWasGivenBesides) {
  const Plan plan = plan_of_ranks(kTogether);
  ReportRequest request = request_for(plan);
  request.scores = {
      {.top_t = {}, .value = {{"name", "s"}, {"num_tokens", 8}, {"perplexity", 2.0}}},
      {.top_t = 3, .value = {{"name", "s3"}, {"num_tokens", 8}, {"perplexity", 2.5}}}};
  request.constrained = {
      {.top_t = 3,
       .value = {{"name", "t3"}, {"wire_copies_per_token", 0.25}, {"imbalance", 1.125}}}};
  request.bench = {{"name", "b"},
                   {"problem", "olmoe"},
                   {"what", "layer"},
                   {"ep_size", 2},
                   {"tokens_per_rank", 4},
                   {"hidden", 10},
                   {"variants",
                    {{{"name", "<plan>"},
                      {"median_s", 0.25},
                      {"dispatch_s", 0.0625},
                      {"experts_s", 0.125},
                      {"combine_s", 0.03125}}}}};
  NoProgress progress;
  const Json report = report_data(plan, crossing_pairs(), request, progress);
  const auto figures = report_figures(report);
  ASSERT_EQ(figures.size(), 8U);
  EXPECT_EQ(figures[4].name, "constraint");
  EXPECT_EQ(figures[4].pictures.size(), 2U);
  EXPECT_EQ(figures[4].table[1],
            (std::vector<std::string>{"no constraint", "0.500", "1.300", "2.000", "8"}));
  EXPECT_EQ(figures[4].table[2],
            (std::vector<std::string>{"T = 3", "0.250", "1.125", "2.500", "8"}));
  EXPECT_EQ(figures[5].name, "measured");
  EXPECT_EQ(figures[5].table[1],
            (std::vector<std::string>{"<plan>", "62.5", "125", "31.25", "250"}));
  EXPECT_EQ(report_page(report).find("<plan>"), std::string::npos);
  (*request.bench)["ep_size"] = 4;
  EXPECT_EQ(
      testing::error_of([&] { (void)report_data(plan, crossing_pairs(), request, progress); }),
      "b is of 4 ranks, but the plan is counted on 2");
}

TEST(FigureSvg, HasAllPicturesOfAFigureBelowEachOther) {
  const Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  const std::string layers = figure_svg(report, "layers");
  EXPECT_NE(layers.find("viewBox=\"0 0 960 440\""), std::string::npos);  // two of 220 pixels
  for (const char* mark :
       {"layer 7, after: 0.500 copies on the wire", "layer 7, after: 1.300 imb", "<style>"}) {
    EXPECT_NE(layers.find(mark), std::string::npos) << mark;
  }
  EXPECT_EQ(testing::error_of([&] { (void)figure_svg(report, "front"); }),
            "a figure of this report is waterfall, layers, loads, drift, links, sequence; not "
            "'front'");
}

TEST(ReportPage, SaysFirstWhatWasCounted) {
  const std::string page = report_page(report_of(plan_of_ranks(kTogether), crossing_pairs()));
  const std::size_t counted = page.find(
      "Counted: 40 tokens in 4 sequences of trace (all sequences), 2 MoE layers, 4 experts");
  ASSERT_NE(counted, std::string::npos);
  EXPECT_LT(counted, page.find("Do not load this plan"));
}

TEST(ReportFigures, LeaveMatricesOfManyRanksOut) {
  Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  report["links"]["before"] = Json::array();
  for (int r = 0; r < 65; ++r) report["links"]["before"].push_back({0.0});
  EXPECT_EQ(report_figures(report).size(), 4U);
}

}  // namespace
}  // namespace c2r
