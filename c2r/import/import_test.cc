// Tests of every import format: worked examples, and the message of every refusal.
#include "c2r/import/import.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "c2r/import/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::error_of_import;
using testing::error_of_text;
using testing::ids_of;
using testing::import_as;
using testing::real_data;
using testing::request_for;
using testing::starts_of;
using testing::text_file;

using Indices = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

// A version 1 npy file.
std::filesystem::path npy_file(const std::string& name, std::string_view descr,
                               std::string_view shape, std::string_view data) {
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", descr, shape);
  return text_file(name, std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' +
                             header + std::string(data));
}

class RecordedProgress final : public Progress {
 public:
  void update(std::int64_t done, std::int64_t total) override {
    text += fmt::format("{}/{} ", done, total);
  }
  std::string text;
};

TEST(Import, TellsItsProgress) {
  RecordedProgress progress;
  auto request =
      request_for({text_file("a", R"([{"0":[[1]]}])"), text_file("b", R"([{"0":[[2]]}])")});
  request.progress = &progress;
  (void)import_as("orders-in-chaos", request);
  EXPECT_EQ(progress.text, "1/2 2/2 ");

  progress.text.clear();
  request = request_for({npy_file("ids.npy", "|u1", "(3, 1, 1)", std::string_view("\0\1\2", 3))});
  request.sequences = text_file("s.csv", "row_start,n_tokens\n0,2\n2,1\n");
  request.progress = &progress;
  (void)import_as("npy", request);
  EXPECT_EQ(progress.text, "2/3 3/3 ");
}

// 2 layers of 3 tokens, top-2: layer 0 chooses 0 1, 2 3, 4 5, and layer 1 the same backwards.
constexpr std::string_view kLayersFirst("\0\1\2\3\4\5\5\4\3\2\1\0", 12);

TEST(ImportNpy, TakesAxesInTheOrderThatIsSaid) {
  auto request = request_for({npy_file("ids.npy", "|u1", "(2, 3, 2)", kLayersFirst)});
  request.axes = "LTK";
  EXPECT_EQ(import_as("npy", request).num_tokens, 3);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 2 3 4 5");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "5 4 3 2 1 0");
  std::filesystem::remove(request.output);
  request.axes = "LTL";
  EXPECT_EQ(error_of_import("npy", request),
            "axes (c2r import --axes) are T, L and K in the order of the array; not 'LTL'");
}

TEST(ImportNpy, SuggestsOtherAxesWhereTheNumbersSaySo) {
  // 2 layers of 40 tokens, which could be read as 2 tokens of 40 layers.
  std::string ids;
  for (int i = 0; i < 80; ++i) ids += {static_cast<char>(i % 8), static_cast<char>((i + 1) % 8)};
  std::vector<std::string> notes;
  auto request = request_for({npy_file("ids.npy", "|u1", "(2, 40, 2)", ids)});
  request.notes = &notes;
  EXPECT_EQ(import_as("npy", request).num_tokens, 2);
  EXPECT_EQ(notes, (std::vector<std::string>{
                       "check --axes: the shape is [2, 40, 2]; perhaps it is --axes LTK, which is "
                       "40 tokens of 2 layers, top-2"}));
  // Top-2 outermost.
  std::string turned;
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < 80; ++i) turned += static_cast<char>((i / 2 + k) % 8);
  }
  EXPECT_TRUE(error_of_import("npy", request_for({npy_file("k.npy", "|u1", "(2, 40, 2)", turned)}))
                  .ends_with("perhaps it is --axes KTL, which is 40 tokens of 2 layers, top-2"));
}

TEST(ImportNpy, TakesWholeNumbersAsFloats) {
  const auto file = [](const std::string& name, float second) {
    const float values[] = {3, second, -1, 0};
    return npy_file(name, "<f4", "(2, 1, 2)",
                    {reinterpret_cast<const char*>(values), sizeof(values)});
  };
  const auto request = request_for({file("ids.npy", 5)});
  (void)import_as("npy", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3 5 - 0");
  EXPECT_EQ(error_of_import("npy", request_for({file("half.npy", 0.5F)})),
            ": element 1 is 0.5, but ids must be whole numbers");
  EXPECT_EQ(error_of_import("npy", request_for({file("nan.npy", NAN)})),
            ": element 1 is nan, but ids must be whole numbers");
}

TEST(ImportNpy, TurnsTheLayerAxisOutward) {
  // 3 tokens, 2 layers, top-2.
  auto request = request_for({npy_file("ids.npy", "|i1", "(3, 2, 2)",
                                       std::string_view("\0\1\2\3\4\5\6\7\1\xff\3\2", 12))});
  request.layer_indices = {1, 2};
  const auto result = import_as("npy", request);
  EXPECT_EQ(result.num_tokens, 3);
  EXPECT_EQ(result.num_sequences, 1);
  EXPECT_EQ(result.header, (TraceHeader{"test", 8, 2, {1, 2}}));
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "0 1 4 5 1 -");
  EXPECT_EQ(ids_of(trace, 1), "2 3 6 7 3 2");
  EXPECT_FALSE(trace.has_weights());
}

TEST(ImportNpy, LeavesColumnsOutThatNeverHoldAnExpert) {
  std::vector<std::string> notes;
  auto request = request_for(
      {npy_file("ids.npy", "|i1", "(2, 1, 4)", std::string_view("\0\xff\1\xff\2\xff\3\xff", 8))});
  request.notes = &notes;
  EXPECT_EQ(import_as("npy", request).header.top_k, 4);
  EXPECT_EQ(notes, (std::vector<std::string>{"check --top-k: 2 of 4 columns are -1 in every token "
                                             "and layer; --top-k 2 leaves them out"}));
  request.top_k = 2;
  EXPECT_EQ(import_as("npy", request).header.top_k, 2);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 2 3");
  request.top_k = 3;
  std::filesystem::remove(request.output);
  EXPECT_EQ(error_of_import("npy", request), ": has 4 experts a token, but top_k is given as 3");
}

TEST(ImportPlacements, SayHowManySlotsLayersHave) {
  // omni-infer, 2 ranks x 2 layers x 4 experts: each rank holds 2 experts of layer 0, 3 of layer 1.
  ImportRequest request =
      request_for({npy_file("pattern.npy", "|u1", "(2, 2, 4)",
                            std::string_view("\1\1\0\0\1\1\1\0\0\0\1\1\0\1\1\1", 16))});
  request.num_experts = 4;
  request.top_k = 2;
  request.layer_indices = {0, 1};
  request.cluster = Cluster{.num_nodes = 1, .ranks_per_node = 2};
  const auto result = import_as("omni-infer-placement", request);
  EXPECT_EQ(result.min_slots_per_rank, 2);
  EXPECT_EQ(result.max_slots_per_rank, 3);
}

TEST(ImportNpy, ReadsWeightsAndSequences) {
  auto request =
      request_for({npy_file("ids.npy", "|u1", "(3, 1, 2)", std::string_view("\0\1\2\3\4\5", 6))});
  request.weights =
      npy_file("weights.npy", "<f2", "(3, 1, 2)",
               std::string_view("\x00\x38\x00\x38\x00\x3a\x00\x34\x00\x3c\x00\x00", 12));
  request.sequences = text_file("sequences.csv", "seq,row_start,n_tokens\n0,0,2\n1,2,1\n");
  const auto result = import_as("npy", request);
  EXPECT_EQ(result.num_sequences, 2);
  const Trace trace(request.output);
  EXPECT_EQ(starts_of(trace), (Starts{0, 2}));
  EXPECT_EQ(ids_of(trace, 0), "0 1 2 3 4 5");
  const auto weights = trace.topk_weights(0, 0, 3);
  EXPECT_TRUE(std::ranges::equal(weights.all(), std::vector<float>{0.5, 0.5, 0.75, 0.25, 1, 0}));
}

TEST(ImportNpy, RefusesPartialWeights) {
  auto request =
      request_for({npy_file("ids.npy", "|u1", "(3, 1, 2)", std::string_view("\0\1\2\3\4\5", 6))});
  request.weights = npy_file("weights.npy", "<f2", "(1, 1, 2)", std::string(4, '\0'));
  EXPECT_EQ(error_of([&] { (void)import_as("npy", request); }),
            request.weights.string() +
                ": covers only the first 1 of 3 tokens; a trace has weights of all its tokens or "
                "of none, so cut the ids or leave the weights out");
}

TEST(ImportNpy, WantsSequencesThatTileTheTokens) {
  auto request =
      request_for({npy_file("ids.npy", "|u1", "(3, 1, 2)", std::string_view("\0\1\2\3\4\5", 6))});
  const auto error_of_sequences = [&](std::string_view rows) {
    request.sequences = text_file("sequences.csv", fmt::format("row_start,n_tokens\n{}", rows));
    return error_of([&] { (void)import_as("npy", request); })
        .substr(request.sequences.string().size());
  };
  EXPECT_EQ(error_of_sequences("0,1\n2,1\n"),
            ":3: row_start is 2, but the sequences before it end at 1");
  EXPECT_EQ(error_of_sequences("0,2\n1,2\n"),
            ":3: row_start is 1, but the sequences before it end at 2");
  EXPECT_EQ(error_of_sequences("0,2\n"),
            ": the sequences end at row 2, but the trace has 3 tokens");
  EXPECT_EQ(error_of_sequences("0,4\n"), ":2: n_tokens is '4', but must be an integer in [0, 3]");
}

TEST(ImportNpy, RefusesWeightsThatATraceCannotHold) {
  auto request = request_for({npy_file("ids.npy", "|u1", "(1, 1, 1)", std::string_view("\0", 1))});
  const float too_large = 65520;  // halves end at 65504
  const std::string_view bytes(reinterpret_cast<const char*>(&too_large), sizeof(too_large));
  request.weights = npy_file("weights.npy", "<f4", "(1, 1, 1)", bytes);
  EXPECT_EQ(error_of([&] { (void)import_as("npy", request); }),
            request.weights.string() +
                ", layer 0, token 0: a weight is 65520, but must fit into 16 bits");
}

TEST(ImportNpy, NamesTheTokenOfAWrongId) {
  EXPECT_EQ(error_of_import("npy", request_for({npy_file("ids.npy", "|u1", "(2, 2, 1)",
                                                         std::string_view("\0\1\2\x08", 4))})),
            ", layer 1, token 1: expert 8 is not in [0, 7], nor -1 for none");
  EXPECT_EQ(error_of_import("npy", request_for({npy_file("ids.npy", "|u1", "(2, 1, 2)",
                                                         std::string_view("\0\1\2\2", 4))})),
            ", layer 0, from row 0, token 1: names expert 2 twice");
  EXPECT_EQ(error_of_import("npy", request_for({npy_file("ids.npy", "|u1", "(4, 1)", "1234")})),
            ": is U8 [4, 1], but must be integers [num_tokens, num_layers, top_k]");
}

// 2 layers, 2 steps.
constexpr std::string_view kMegatron =
    R"({"step":0,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[0,1],[2,3]],"hs_offset":0}
{"step":0,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[4,5],[6,7]]}
{"step":0,"stage":"pre_dispatch","block":"mtp","layer":1,"mtp_idx":0,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[0,1],[2,3]]}
{"step":1,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":0,"num_tokens":1,"topk":2,"top_indices":[[7,0]]}
{"step":1,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":0,"num_tokens":1,"topk":2,"top_indices":[[1,6]]}
)";

TEST(ImportMegatron, ConcatenatesStepsAndRanks) {
  const auto rank_0 = text_file("router_trace_rank0.jsonl", kMegatron);
  const auto rank_1 = text_file(
      "router_trace_rank1.jsonl",
      R"({"step":0,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":1,"num_tokens":1,"topk":2,"top_indices":[[3,4]]}
{"step":0,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":1,"num_tokens":1,"topk":2,"top_indices":[[5,6]]})");
  const auto request = request_for({rank_0, rank_1});
  const auto result = import_as("megatron", request);
  EXPECT_EQ(result.num_tokens, 4);
  EXPECT_EQ(result.num_skipped_records, 1);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 2}));
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "0 1 2 3 7 0 5 6");
  EXPECT_EQ(ids_of(trace, 1), "4 5 6 7 1 6 3 4");
  EXPECT_EQ(starts_of(trace), (Starts{0, 3}));
}

TEST(ImportMegatron, JoinsPipelineStagesWhoseLayersAreNumberedThrough) {
  constexpr std::string_view kRecord =
      R"({{"step":0,"stage":"pre_dispatch","block":"decoder","layer":{},"rank":0,"num_tokens":1,"topk":1,"top_indices":[[{}]]}})";
  const auto request = request_for({text_file("rank1", fmt::format(kRecord, 2, 5)),
                                    text_file("rank0", fmt::format(kRecord, 1, 3))});
  EXPECT_EQ(import_as("megatron", request).num_tokens, 1);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "5");
}

TEST(ImportMegatron, NamesTheLineOfABrokenRecord) {
  const auto with = [](std::string_view from, std::string_view to) {
    std::string text(kMegatron);
    text.replace(text.find(from), from.size(), to);
    return error_of_text("megatron", text);
  };
  EXPECT_EQ(with("[2,3]", "[2,8]"),
            ":1, layer 1, token 1: an expert id is 8, but must be an integer in [0, 7]");
  EXPECT_EQ(with("[2,3]", "[2,2]"), ":1, layer 1, token 1: names expert 2 twice");
  EXPECT_EQ(with("[2,3]", "[2]"),
            ":1, layer 1, token 1: has 1 experts a token, but what was read before it has 2");
  EXPECT_EQ(with("\"num_tokens\":2", "\"num_tokens\":3"),
            ":1: num_tokens is 3, but top_indices has 2 rows");
  EXPECT_EQ(with("\"mtp\"", "\"vision\""), ":3: block is 'vision', but must be 'decoder' or 'mtp'");
  const std::string cut(kMegatron.substr(0, kMegatron.rfind('{')));
  EXPECT_EQ(error_of_text("megatron", cut),
            ": layer 2 has 2 tokens, but layer 1 has 3; was the recording cut off?");
}

TEST(ImportOrdersInChaos, JoinsPrefillAndDecodeSteps) {
  const auto first = text_file("1.json", R"([{"0":null,"1":[[0],[1]],"3":[[2],[3]]},
      {"0":null,"1":[[4]],"3":[[5]]}])");
  const auto second = text_file("2.json", R"([{"3":[[7]],"1":[[6]],"0":null}])");
  const auto request = request_for({first, second});
  const auto result = import_as("orders-in-chaos", request);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 3}));
  EXPECT_EQ(result.num_sequences, 2);
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "0 1 4 6");
  EXPECT_EQ(ids_of(trace, 1), "2 3 5 7");
  EXPECT_EQ(starts_of(trace), (Starts{0, 3}));
}

TEST(ImportOrdersInChaos, NamesTheStepOfAnError) {
  EXPECT_EQ(error_of_text("orders-in-chaos", R"([{"1":[[0]]},{"1":null}])"),
            ", step 1: has 0 MoE layers, which are not the 1 of step 0");
  EXPECT_EQ(error_of_text("orders-in-chaos", R"([{"1":[[0]],"2":[[0],[1]]}])"),
            ", step 0: layer 2 has 2 tokens, but layer 1 has 1");
  EXPECT_EQ(error_of_text("orders-in-chaos", R"([{"1":[[0]]},{"1":[[9]]}])"),
            ", layer 1, token 1: an expert id is 9, but must be an integer in [0, 7]");
  EXPECT_EQ(error_of_text("orders-in-chaos", R"([{"one":[[0]]}])"),
            ", step 0: 'one' is not the index of a layer");
  EXPECT_EQ(error_of_text("orders-in-chaos", "[]"), ": has no tokens to import");
  EXPECT_EQ(error_of_text("orders-in-chaos", R"([{"1":[[]]}])"),
            ", layer 1, token 0: has 0 experts a token, but must have from 1 to 8");
}

constexpr std::string_view kMoeBeyond =
    "Layer ID,Batch Number,Token,Activated Expert IDs\r\n"
    "1,0,very,\"[0, 5]\"\r\n1,0,\"a \"\"b\",\"[1, 2]\"\r\n"
    "2,0,very,\"[7, 6]\"\r\n2,0,\"a \"\"b\",\"[3, 4]\"\r\n";

TEST(ImportMoeBeyond, ReadsLayerAfterLayer) {
  const auto request =
      request_for({text_file("1.csv", kMoeBeyond), text_file("2.csv", kMoeBeyond)});
  const auto result = import_as("moe-beyond", request);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 2}));
  EXPECT_EQ(result.num_sequences, 2);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 5 1 2 0 5 1 2");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "7 6 3 4 7 6 3 4");
}

TEST(ImportMoeBeyond, ComparesTheTokensOfTheLayers) {
  const std::string header = "Layer ID,Batch Number,Token,Activated Expert IDs\n";
  EXPECT_EQ(error_of_text("moe-beyond", header + "1,0,a,[0]\n2,0,b,[1]\n"),
            ":3: token 0 of layer 2 is 'b', but in layer 1 it is 'a'");
  EXPECT_EQ(error_of_text("moe-beyond", header + "1,0,a,[0]\n1,0,b,[1]\n2,0,a,[1]\n"),
            ": layer 2 has 1 tokens, but layer 1 has 2");
  EXPECT_EQ(error_of_text("moe-beyond", header + "1,0,a,[0]\n2,0,a,[1]\n2,0,b,[1]\n"),
            ":4: layer 2 has more tokens than layer 1, which has 1");
  EXPECT_EQ(error_of_text("moe-beyond", header + "1,0,a,[0]\n1,1,b,[1]\n"),
            ":3: Batch Number is 1 after 0; a file must hold one sequence");
  EXPECT_EQ(error_of_text("moe-beyond", header + "1,0,a,\"[0, 8]\"\n"),
            ":2, layer 1, token 0: an expert id is 8, but must be an integer in [0, 7]");
}

TEST(Import, ChecksTheRequest) {
  ImportRequest request = request_for({text_file("a.json", "[[[0,1]]]")});
  request.top_k = 3;
  EXPECT_EQ(error_of_import("vllm", request),
            ", layer 0, token 0: has 2 experts a token, but top_k is given as 3");
  request.top_k = {};
  request.layer_indices = {0, 1};
  EXPECT_EQ(
      error_of_import("vllm", request),
      ": has 1 layers, which are neither the 2 given nor all layers of the model: layer index 1 "
      "is not in [0, 0]");
  request.layer_indices = {1, 0};
  EXPECT_EQ(error_of_import("vllm", request),
            "layer_indices (c2r import --layers) must ascend from 0 or more");
  request.layer_indices = {};
  request.num_experts = 0;
  EXPECT_EQ(error_of_import("vllm", request), "format vllm needs --num-experts");
  request.num_experts = 1025;
  EXPECT_EQ(error_of_import("vllm", request), "num_experts is 1025, but must be in [1, 1024]");
  request.num_experts = 8;
  request.weights = "weights.npy";
  EXPECT_EQ(error_of_import("vllm", request), "weights and sequences are for the npy format only");
}

TEST(Import, HoldsLaterFilesToTheShapeOfTheFirst) {
  const auto first = text_file("1.json", "[[[0,1]]]");
  const auto second = text_file("2.json", "[[[0,1],[2,3]]]");
  const auto request = request_for({first, second});
  EXPECT_EQ(error_of([&] { (void)import_as("vllm", request); }),
            second.string() +
                ": layer 1 was taken to be dense, but has ids other than 0; name the MoE "
                "layers with layer_indices (c2r import --layers)");
}

TEST(ImportFormats, AreNamedAsDocumented) {
  std::string traces, statistics, plans;
  for (const ImportFormat& format : import_formats()) {
    EXPECT_EQ(find_import_format(format.name), &format);
    EXPECT_EQ((format.write_trace != nullptr) + (format.statistics != nullptr) +
                  (format.placement_file != nullptr),
              1);
    std::string& names = format.makes == ImportKind::kTrace        ? traces
                         : format.makes == ImportKind::kStatistics ? statistics
                                                                   : plans;
    names += format.name + " ";
  }
  EXPECT_EQ(traces,
            "npy megatron orders-in-chaos moe-beyond table vllm sglang sglang-recorder flame-moe ");
  EXPECT_EQ(statistics, "sglang-loads vllm-loads tensorrt-llm-loads table-loads coactivation ");
  EXPECT_EQ(plans,
            "sglang-placement tensorrt-llm-placement vllm-41141-placement vllm-49572-placement "
            "vllm-ascend-placement omni-infer-placement eplb-placement permutation-placement ");
  EXPECT_EQ(find_import_format("gguf"), nullptr);
}

TEST(Import, MakesAPlanOfAPlacement) {
  const auto map = text_file("map.json", "[[0,3,1,2],[3,2,1,0]]");
  const ImportRequest request{.format = "vllm-49572-placement",
                              .inputs = {map},
                              .output = testing::temporary_path("plan.json"),
                              .model = "test",
                              .num_experts = 4,
                              .top_k = 2,
                              .layer_indices = {1, 3},
                              .cluster = parse_cluster("1x2"),
                              .c2r_version = "c2r 1"};
  const Plan plan = import_plan(request);
  EXPECT_EQ(plan.layers[1].placement.slots(0, 1), ExpertId{2});
  EXPECT_EQ(plan.layers[1].layer_index, 3);
  EXPECT_EQ(plan.provenance.method, "vllm-49572-placement");
  EXPECT_EQ(plan.provenance.c2r_version, "c2r 1");
  const ImportResult result = import_file(request);
  EXPECT_EQ(result.makes, ImportKind::kPlan);
  EXPECT_EQ(result.max_slots_per_rank, 2);
  EXPECT_EQ(result.header, (TraceHeader{"test", 4, 2, {1, 3}}));
  EXPECT_EQ(read_plan(request.output), plan);
  EXPECT_EQ(error_of([&] { (void)import_statistics(request); }),
            "format vllm-49572-placement does not make statistics");
}

TEST(Import, TakesTheFormatThatTheFirstInputHas) {
  const auto response =
      text_file("response.json", R"({"choices":[{"routed_experts":[[[0,1]],[[2,3]]]}]})");
  std::vector<std::string> notes;
  ImportRequest request = request_for({response});
  request.notes = &notes;
  EXPECT_EQ(import_file(request).num_tokens, 2);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_TRUE(notes[0].starts_with("read as format vllm: ")) << notes[0];

  request.format_option = "--from";
  request.format = "vllm";
  notes.clear();
  recognize_format(request);  // a name is left as it is
  EXPECT_TRUE(notes.empty());
  request.format.clear();
  recognize_format(request);
  EXPECT_EQ(request.format, "vllm");
  EXPECT_TRUE(notes.at(0).starts_with("read as --from vllm: ")) << notes[0];

  request.format.clear();
  request.inputs = {text_file("notes.txt", "some notes\n")};
  EXPECT_EQ(error_of([&] { (void)import_plan(request); }),
            request.inputs[0].string() +
                " looks like text that begins with 'some notes'; `c2r help import` lists the "
                "formats that --from can name");
  EXPECT_EQ(error_of([] { (void)import_statistics({}); }), "there is no file to import");
}

TEST(Import, NamesThePhases) {
  EXPECT_EQ(parse_phase("prefill"), Phase::kPrefill);
  EXPECT_EQ(parse_phase("decode"), Phase::kDecode);
  EXPECT_EQ(error_of([] { (void)parse_phase("train"); }),
            "a phase is prefill or decode; not 'train'");
}

TEST(Import, RefusesFieldsThatAFormatNeedsOrDoesNotUse) {
  const auto input = text_file("a", "[[0,1]]");
  const auto error = [&](ImportRequest request) {
    request.inputs = {input};
    return error_of([&] { (void)import_file(request); });
  };
  EXPECT_EQ(error({.format = "gguf"}), "unknown format 'gguf'");
  EXPECT_EQ(error({.format = "vllm"}), "format vllm needs --num-experts");
  EXPECT_EQ(error({.format = "vllm", .num_experts = -1}),
            "num_experts is -1, but must be in [1, 1024]");
  EXPECT_EQ(error({.format = "eplb-placement", .num_experts = 4}),
            "format eplb-placement takes one input, and needs --num-experts, --top-k, --layers and "
            "--cluster");
  EXPECT_EQ(
      error({.format = "npy", .num_experts = 4, .num_hidden_layers = 2}),
      "num_hidden_layers (c2r import --num-hidden-layers) is for the formats sglang and vllm");
  EXPECT_EQ(error({.format = "coactivation", .top_k = 2, .cluster = parse_cluster("1x2")}),
            "--cluster is for placements; format coactivation has none");
  EXPECT_EQ(error_of([] { (void)import_file({.format = "vllm", .num_experts = 4}); }),
            "there is no file to import");
  EXPECT_EQ(error_of([&] {
              (void)import_file({.format = "tensorrt-llm-loads", .inputs = {input, input}});
            }),
            "format tensorrt-llm-loads takes one input");
}

TEST(ImportNpyOnRealData, ReadsTheGptOssTrace) {
  const auto folder = real_data("traces/gpt-oss-20b");
  C2R_SKIP_WITHOUT(folder);
  auto request = request_for({folder / "expert_ids_u8.npy.xz"});
  request.num_experts = 32;
  request.sequences = folder / "sequences.csv";
  const auto result = import_as("npy", request);
  EXPECT_EQ(result.num_tokens, 215'438);
  EXPECT_EQ(result.num_sequences, 703);
  EXPECT_EQ(result.header.num_layers(), 24);
  EXPECT_EQ(result.header.top_k, 4);
  const Trace trace(request.output);
  EXPECT_EQ(trace.sequence_starts()[1], 511);
  for (std::int64_t layer = 0; layer < 24; ++layer) {
    EXPECT_EQ(trace.topk_idx(layer, 0, trace.num_tokens()).rows(), 215'438);  // all are valid
  }

  request.weights = folder / "expert_probs_f16_first_40000.npy.xz";
  EXPECT_EQ(error_of([&] { (void)import_as("npy", request); }),
            request.weights.string() +
                ": covers only the first 40000 of 215438 tokens; a trace has weights of all its "
                "tokens or of none, so cut the ids or leave the weights out");
}

}  // namespace
}  // namespace c2r
