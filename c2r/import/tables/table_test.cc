// The importers of long tables: a row for each choice, or for each count.
#include <gtest/gtest.h>

#include "c2r/import/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of_import;
using testing::error_of_text;
using testing::ids_of;
using testing::import_as;
using testing::request_for;
using testing::text_file;

using LayerIndices = std::vector<std::int32_t>;

TEST(ImportTable, TakesRowsInAnyOrder) {
  // Token 9 has one choice in layer 4, and token 12 none.
  constexpr std::string_view kCsv =
      "token,weight,expert,layer\n9,.5,7,4\n10,.1,3,2\n9,.2,5,2\n9,.1,1,2\n10,.2,6,4\n"
      "12,.3,0,2\n10,.4,2,2\n10,.9,4,4\n12,.1,1,2\n";
  constexpr std::string_view kJson =
      R"({"layer":4,"token":9,"expert":7}
{"layer":2,"token":10,"expert":3}
{"layer":2,"token":9,"expert":5}
{"layer":2,"token":9,"expert":1}
{"layer":4,"token":10,"expert":6,"weight":0.5}
{"layer":2,"token":12,"expert":0}
{"layer":2,"token":10,"expert":2}
{"layer":4,"token":10,"expert":4}
{"layer":2,"token":12,"expert":1})";
  for (const std::string_view text : {kCsv, kJson}) {
    auto request = request_for({text_file("table", text)});
    std::vector<std::string> notes;
    request.notes = &notes;
    const auto result = import_as("table", request);
    EXPECT_EQ(result.header.layer_indices, (LayerIndices{2, 4}));
    EXPECT_EQ(result.header.top_k, 2);
    const Trace trace(request.output);
    EXPECT_EQ(ids_of(trace, 0), "5 1 3 2 0 1");
    EXPECT_EQ(ids_of(trace, 1), "7 - 6 4 - -");
    EXPECT_EQ(notes, (std::vector<std::string>{
                         "no expert: 3 of 12 choices, where a token has fewer than 2 in a layer"}));
  }
}

TEST(ImportTable, TakesAFileForASequence) {
  const auto first = text_file("a.csv", "layer,token,expert\n0,0,1\n0,0,2\n"),
             second = text_file("b.csv", "layer,token,expert\n0,0,3\n");
  const auto request = request_for({first, second});
  EXPECT_EQ(import_as("table", request).num_sequences, 2);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2 3 -");
}

TEST(ImportTable, SaysWhatIsWrong) {
  EXPECT_EQ(error_of_text("table", "layer,token\n"), ":1: the header has no column 'expert'");
  EXPECT_EQ(error_of_text("table", "layer,token,expert\n"), ": has no rows");
  EXPECT_EQ(error_of_text("table", "layer,token,expert\n0,0,8\n"),
            ":2: expert is '8', but must be an integer in [0, 7]");
  EXPECT_EQ(error_of_text("table", "layer,token,expert\n0,0,1\n0,0,1\n"),
            ", layer 0, token 0: names expert 1 twice");
  EXPECT_EQ(error_of_text("table", R"({"layer":0,"token":-1,"expert":0})"),
            ": token is -1, but must be an integer in [0, 9007199254740992]");
  auto request = request_for({text_file("table.csv", "layer,token,expert\n0,0,1\n0,0,2\n")});
  request.top_k = 1;
  EXPECT_EQ(error_of_import("table", request),
            ": a token has 2 experts in a layer, but top_k is 1");
}

TEST(ImportTable, TakesWholeNumbersThatAreWrittenAsFloats) {
  import_as("table", request_for({text_file("a.csv", "layer,token,expert\n0.0,0.,1.0\n0,0,2.00\n"),
                                  text_file("b.json",
                                            "\xef\xbb\xbf"
                                            R"([{"layer":0.0,"token":7.0,"expert":3e0},
                                                          {"layer":0,"token":7,"expert":4}])")}));
  EXPECT_EQ(ids_of(Trace(testing::temporary_path("out.safetensors")), 0), "1 2 3 4");
  EXPECT_EQ(error_of_text("table", "layer,token,expert\n0,0,1.5\n"),
            ":2: expert is '1.5', but must be an integer in [0, 7]");
  EXPECT_EQ(error_of_text("table", R"({"layer":0,"token":0.5,"expert":0})"),
            ": token is 0.5, but must be an integer in [0, 9007199254740992]");
  EXPECT_EQ(error_of_text("table", R"({"layer":0,"token":1e300,"expert":0})"),
            ": token is 1e+300, but must be an integer in [0, 9007199254740992]");
}

TEST(ImportTableLoads, AddsUpCounts) {
  ImportRequest request{.format = "table-loads",
                        .inputs = {text_file("a.csv", "layer,expert,count\n3,0,5\n3,2,2\n3,0,1\n"),
                                   text_file("b.csv", "layer,expert,count\n3,1,6\n3,2,2\n")},
                        .top_k = 2};
  const auto statistics = import_statistics(request);
  EXPECT_EQ(statistics.header.num_experts, 3);
  EXPECT_EQ(statistics.header.layer_indices, (LayerIndices{3}));
  EXPECT_EQ(statistics.num_tokens, (std::vector<std::int64_t>{8}));
  EXPECT_EQ(statistics.coactivation[0](0, 0), 6);
  EXPECT_EQ(statistics.coactivation[0](2, 2), 4);
  EXPECT_FALSE(statistics.has_pairs);
}

// Slots 2 and 3 of layer 0 hold replicas of experts 0 and 1 in the second step.
TEST(ImportVllmLoads, FoldsSlotsIntoExperts) {
  constexpr std::string_view kLines =
      R"({"record_type":"eplb_load_meta","version":1}
{"record_type":"eplb_load_stats","version":1,"step":1,"num_ranks":2,"expert_load":[[4,1,2,1],[2,2,2,2]],"p2l_map":[[0,1,2,3],[0,1,2,3]]}
{"record_type":"eplb_load_stats","version":1,"step":2,"num_ranks":2,"expert_load":[[1,2,3,2],[2,2,2,2]],"p2l_map":[[0,1,0,1],[3,2,1,0]]})";
  ImportRequest request{
      .format = "vllm-loads", .inputs = {text_file("loads.jsonl", kLines)}, .top_k = 2};
  request.layer_indices = {1, 4};
  std::vector<std::string> notes;
  request.notes = &notes;
  const auto statistics = import_statistics(request);
  EXPECT_EQ(statistics.header.layer_indices, (LayerIndices{1, 4}));
  EXPECT_EQ(statistics.num_tokens, (std::vector<std::int64_t>{8, 8}));
  std::vector<std::int64_t> loads;
  for (std::int64_t e = 0; e < 4; ++e) loads.push_back(statistics.coactivation[0](e, e));
  EXPECT_EQ(loads, (std::vector<std::int64_t>{8, 5, 2, 1}));
  EXPECT_EQ(notes, (std::vector<std::string>{"left out: 1 records of other types"}));
}

}  // namespace
}  // namespace c2r
