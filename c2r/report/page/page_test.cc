// Tests of reports: their numbers against direct counts, their figures, and hostile texts.
#include "c2r/report/page/page.h"

#include <gtest/gtest.h>

#include <regex>

#include "c2r/core/testing.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/report_data.h"
#include "c2r/report/page/testing_internal.h"

namespace c2r {
namespace {

using testing::crossing_pairs;
using testing::good_plan;
using testing::kTogether;
using testing::plan_of_ranks;
using testing::report_of;
using testing::report_of_60;
using testing::request_for;

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
    for (const std::string& column : figure.table[0]) {
      EXPECT_FALSE(column.starts_with("imbalance")) << "of ranks or of experts?";
    }
    EXPECT_FALSE(figure.pictures.empty());
  }
}

TEST(ReportFigures, DrawTheTimesOfThePartsWhereTheyArePredicted) {
  Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  for (Json& part : report["drift"]) part["time_before_s"] = part["time_after_s"] = 0.004;
  report["drift"][2]["time_after_s"] = 0.005;
  const Figure drift = report_figures(report)[3];
  ASSERT_EQ(drift.name, "drift");
  ASSERT_EQ(drift.pictures.size(), 3U);
  EXPECT_NE(drift.pictures[2].str().find("part 3, under the plan: 5.000 predicted ms a layer"),
            std::string::npos);
  EXPECT_EQ(drift.table[3].size(), drift.table[0].size());
  EXPECT_EQ(drift.table[3].back(), "5.000");
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
       {"layer 7, after: 0.500 copies on the wire", "layer 7, after: 1.300 rank imb", "<style>"}) {
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

TEST(ReportPage, SaysWhatToDoNext) {
  const Plan plan = good_plan();
  const std::string good = report_page(report_of_60(plan, request_for(plan)));
  EXPECT_NE(good.find("Load the plan, and measure"), std::string::npos);
  EXPECT_EQ(good.find("Leave the placement"), std::string::npos);
  const std::string few = report_page(report_of(plan_of_ranks(kTogether), crossing_pairs()));
  EXPECT_NE(few.find("Leave the placement as it is. Record more"), std::string::npos);
  EXPECT_NE(few.find("c2r plan TRACE --cluster 1x2 --fit even"), std::string::npos);
}

TEST(ReportFigures, LeaveMatricesOfManyRanksOut) {
  Json report = report_of(plan_of_ranks(kTogether), crossing_pairs());
  report["links"]["before"] = Json::array();
  for (int r = 0; r < 65; ++r) report["links"]["before"].push_back({0.0});
  EXPECT_EQ(report_figures(report).size(), 4U);
}

}  // namespace
}  // namespace c2r
