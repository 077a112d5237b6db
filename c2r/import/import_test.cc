// Tests of every import format: worked examples, and the message of every refusal.
#include "c2r/import/import.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/import/testing_internal.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::error_of_import;
using testing::error_of_text;
using testing::ids_of;
using testing::import_as;
using testing::npy_file;
using testing::request_for;
using testing::starts_of;
using testing::text_file;

using Indices = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

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

// Rank 0 holds expert 0 twice, in the only layer.
TEST(ImportPlacement, CountsAnExpertThatARankHoldsTwiceOnceAndRepairsItOnRequest) {
  std::vector<std::string> notes;
  ImportRequest request{.format = "vllm-49572-placement",
                        .inputs = {text_file("map.json", "[[0,1,0,2,3,1]]")},
                        .num_experts = 4,
                        .top_k = 2,
                        .layer_indices = {3},
                        .cluster = Cluster{.ranks_per_node = 2},
                        .notes = &notes};
  const Plan found = import_plan(request);
  EXPECT_EQ(found.layers[0].wasted_slots, (std::vector<WastedSlot>{{RankId{0}, 2, ExpertId{0}}}));
  EXPECT_EQ(notes,
            std::vector<std::string>{
                "1 slots in 1 of 1 layers are wasted: their rank holds the expert in another "
                "slot, too (the first is slot 2 of rank 0 in layer 3); c2r counts them as "
                "empty, and exports them as they were found; --repair gives them other "
                "experts"});
  notes.clear();
  request.repair = true;
  const Plan repaired = import_plan(request);
  // Slot 2 of rank 0 changes places with the first slot of rank 1 whose expert rank 0 lacks and
  // whose share of the load is the most similar: expert 0 has two replicas, as expert 1, which
  // rank 0 has; experts 2 and 3 have one.
  EXPECT_EQ(repaired.layers[0].wasted_slots, std::vector<WastedSlot>());
  const std::vector<std::vector<std::int32_t>> ranks = {{0, 1, 2}, {0, 3, 1}};
  EXPECT_EQ(repaired.layers[0].placement, placement_of_ranks(4, ranks));
  EXPECT_EQ(notes, std::vector<std::string>{"repaired: 1 slots in 1 of 1 layers, whose rank held "
                                            "the expert in another slot, too"});
  request.inputs = {text_file("narrow.json", "[[0,0,0,1,1,1]]")};
  request.num_experts = 2;
  EXPECT_EQ(error_of([&] { (void)import_plan(request); }),
            "a rank has 3 slots, which 2 experts cannot fill without repeating one");
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

TEST(Import, CountsAFileOnceByWhateverNamesItIsFound) {
  const auto folder = testing::temporary_path("responses");
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto first = folder / "a.json", second = folder / "b.json";
  write_text_file(first, "[[[0,1]]]");
  write_text_file(second, "[[[2,3]]]");
  write_text_file(folder / "b.json.gz", "not read");
  std::filesystem::create_symlink("a.json", folder / "link.json");
  std::filesystem::create_hard_link(first, folder / "hard.json");
  std::vector<std::string> notes;
  auto request = request_for({folder / "." / "a.json", folder, second});
  request.notes = &notes;
  EXPECT_EQ(import_as("vllm", request).num_tokens, 2);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 2 3");
  const auto same = [&](const std::string& name, const std::filesystem::path& as) {
    return fmt::format("left out: {}, which is the same file as {}", (folder / name).string(),
                       as.string());
  };
  const auto given = folder / "." / "a.json";
  EXPECT_EQ(notes, (std::vector<std::string>{same("a.json", given),
                                             fmt::format("left out: {}.gz, for {} is there as well",
                                                         second.string(), second.string()),
                                             same("hard.json", given), same("link.json", given),
                                             same("b.json", second)}));
}

// All formats that take several inputs go through one place.
TEST(Import, CountsAFileOnceInEveryFormat) {
  const auto loads = text_file("loads.json", R"({"logical_count":[[2,1,1]]})");
  const auto table = text_file("counts.csv", "layer,expert,count\n0,0,2\n0,1,1\n0,2,1\n");
  for (const auto& [format, path] : {std::pair("sglang-loads", loads), {"table-loads", table}}) {
    std::vector<std::string> notes;
    const auto statistics =
        import_statistics({.format = format, .inputs = {path, path}, .top_k = 2, .notes = &notes});
    EXPECT_EQ(statistics.num_tokens, Starts{2}) << format;
    EXPECT_EQ(notes, std::vector<std::string>{"left out: " + path.string() +
                                              ", which is the same file as " + path.string()});
  }
  const auto step = std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "torch" / "flame";
  auto request = request_for({step, step / "."});
  EXPECT_EQ(import_as("flame-moe", request).num_tokens, 5);
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

}  // namespace
}  // namespace c2r
