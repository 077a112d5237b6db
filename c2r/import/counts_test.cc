// Imports of counts: loads and co-activation.
#include <gtest/gtest.h>

#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/import/import.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::real_data;
using testing::temporary_path;
using testing::text_file;

std::vector<std::int64_t> loads_of(const CollaborationStatistics& statistics, std::size_t layer) {
  std::vector<std::int64_t> loads;
  const CollaborationMatrix& counts = statistics.coactivation[layer];
  for (std::int64_t e = 0; e < counts.rows(); ++e) loads.push_back(counts(e, e));
  return loads;
}

using Loads = std::vector<std::int64_t>;
using Indices = std::vector<std::int32_t>;

// What an import says about its input, without the input's path.
std::string error_of_request(const ImportRequest& request) {
  const auto message = error_of([&] { (void)import_statistics(request); });
  const auto path = request.inputs[0].string();
  return message.starts_with(path) ? message.substr(path.size()) : message;
}

TEST(ImportSglangLoads, AddsUpStepsAndLeavesDenseLayersOut) {
  // Layer 0 is dense, step 1 was never used.
  const auto path = text_file("counts.json", R"({"rank":0,"logical_count":
      [[[0,0,0],[4,3,1],[2,2,2]],[[0,0,0],[0,0,0],[0,0,0]],[[0,0,0],[1,0,1],[2,2,0]]]})");
  const auto statistics =
      import_statistics({.format = "sglang-loads", .inputs = {path}, .model = "m", .top_k = 2});
  EXPECT_EQ(statistics.header, (TraceHeader{"m", 3, 2, {1, 2}}));
  EXPECT_FALSE(statistics.has_pairs);
  EXPECT_EQ(loads_of(statistics, 0), (Loads{5, 3, 2}));
  EXPECT_EQ(loads_of(statistics, 1), (Loads{4, 4, 2}));
  EXPECT_EQ(statistics.num_tokens, (Loads{5, 5}));

  const auto out = temporary_path("statistics.safetensors");
  write_statistics(statistics, out);
  EXPECT_EQ(read_statistics(out), statistics);
}

TEST(ImportSglangLoads, TakesCountsWithoutSteps) {
  const auto path = text_file("counts.json", R"({"logical_count":[[1,1],[2,0]]})");
  const auto statistics =
      import_statistics({.format = "sglang-loads", .inputs = {path}, .top_k = 1});
  EXPECT_EQ(statistics.num_tokens, (Loads{2, 2}));
  EXPECT_EQ(statistics.header.layer_indices, (Indices{0, 1}));
}

// As published statistics have them.
TEST(ImportSglangLoads, TakesWholeFloatsAndApproximateCounts) {
  std::vector<std::string> notes;
  const auto import_counts = [&](std::string_view counts) {
    const auto path = text_file("counts.json", fmt::format(R"({{"logical_count":{}}})", counts));
    return import_statistics(
        {.format = "sglang-loads", .inputs = {path}, .top_k = 2, .notes = &notes});
  };
  EXPECT_EQ(loads_of(import_counts("[[4.0,2.0,1.0,1.0]]"), 0), (Loads{4, 2, 1, 1}));
  EXPECT_EQ(notes, (std::vector<std::string>{}));
  EXPECT_EQ(import_counts("[[3,2,1,1],[1,1,0,0]]").num_tokens, (Loads{4, 1}));
  EXPECT_EQ(notes,
            (std::vector<std::string>{
                "check --top-k: in 1 of 2 layers the loads do not add up to a multiple of 2; "
                "counts are approximate, or top-k is another"}));
}

TEST(ImportSglangLoads, RefusesCountsThatNoTokensHave) {
  const auto error_of_counts = [](std::string_view counts, std::int32_t top_k) {
    const auto path = text_file("counts.json", fmt::format(R"({{"logical_count":{}}})", counts));
    return error_of_request({.format = "sglang-loads", .inputs = {path}, .top_k = top_k});
  };
  EXPECT_EQ(error_of_counts("[[1.5,1]]", 2),
            ", layer 0: a count is 1.5, but must be a whole number of at most 2^53");
  EXPECT_EQ(error_of_counts("[[1e300,1]]", 2),
            ", layer 0: a count is 1e+300, but must be a whole number of at most 2^53");
  EXPECT_EQ(error_of_counts("[[0,0],[3,1]]", 2),
            ", layer 1: expert 0 has the load 3, but the layer saw 2 tokens of 2 experts each");
  EXPECT_EQ(error_of_counts("[[[1,1]],[[1,1],[1,1]]]", 2),
            ", step 1: has 2 layers, but step 0 has 1");
  EXPECT_EQ(error_of_counts("[[1,1],[1,1,1]]", 2),
            ", layer 1: has 3 experts, but the rows before it have 2");
  EXPECT_EQ(error_of_counts("[[0,0]]", 2),
            ": every count is 0; was the recording started before the requests?");
  EXPECT_EQ(error_of_counts("[[9223372036854775807,1]]", 1),
            ", layer 0: the counts add up to more than 2^63 - 1");
  EXPECT_EQ(error_of_counts("[[1,1]]", 3), ": top_k is 3, but must be in [1, 2]");
  const auto path = text_file("counts.json", R"({"logical_count":[[1,1]]})");
  EXPECT_EQ(error_of_request({.format = "sglang-loads", .inputs = {path}}),
            "format sglang-loads needs --top-k");
  EXPECT_EQ(
      error_of_request({.format = "sglang-loads", .inputs = {path}, .num_experts = 3, .top_k = 1}),
      ": holds counts of 2 experts, but --num-experts is 3");
}

// A folder as TensorRT-LLM leaves it: `ranks[r]` are the tensors of rank r.
std::filesystem::path tensorrt_llm_folder(const std::vector<std::map<std::string, Loads>>& ranks,
                                          std::int32_t num_experts = 3) {
  const auto folder = temporary_path("any").parent_path() / "statistics";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  write_text_file(folder / "meta_info.json",
                  fmt::format(R"({{"num_experts":{},"num_experts_per_token":2}})", num_experts));
  write_text_file(folder / "rank0_raw.safetensors", "not read");
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, loads] : ranks[rank]) {
      tensors.push_back(tensor_of<std::int64_t>(name, {std::ssize(loads)}, loads));
    }
    write_safetensors(folder / fmt::format("rank{}.safetensors", rank), tensors, {});
  }
  return folder;
}

TEST(ImportTensorrtLlmLoads, AddsUpRanksAndIterations) {
  const auto folder = tensorrt_llm_folder(
      {{{"5_3", {1, 1, 0}}, {"5_10", {2, 1, 1}}, {"6_3", {0, 1, 1}}, {"6_10", {0, 1, 1}}},
       {{"5_3", {1, 0, 1}}, {"5_10", {0, 0, 0}}}});
  const auto statistics =
      import_statistics({.format = "tensorrt-llm-loads", .inputs = {folder}, .model = "m"});
  EXPECT_EQ(statistics.header, (TraceHeader{"m", 3, 2, {3, 10}}));
  EXPECT_EQ(loads_of(statistics, 0), (Loads{2, 2, 2}));
  EXPECT_EQ(loads_of(statistics, 1), (Loads{2, 2, 2}));
  EXPECT_EQ(statistics.num_tokens, (Loads{3, 3}));
  EXPECT_FALSE(statistics.has_pairs);
}

// With a load balancer, what is counted are slots.
TEST(ImportTensorrtLlmLoads, FoldsSlotsIntoExperts) {
  const auto folder = tensorrt_llm_folder(
      {{{"0_3", {1, 1, 1, 1, 1, 1}}}, {{"0_3", {1, 1, 2, 0, 1, 1}}}}, /*num_experts=*/6);
  const auto yaml = text_file("balancer.yaml",
                              "num_slots: 6\nlayer_updates_per_iter: 0\n"
                              "initial_global_assignments:\n  3: [0, 1, 2, 3, 0, 1]\n");
  std::vector<std::string> notes;
  ImportRequest request{.format = "tensorrt-llm-loads",
                        .inputs = {folder},
                        .num_experts = 4,
                        .placement = yaml,
                        .notes = &notes};
  const auto statistics = import_statistics(request);
  EXPECT_EQ(statistics.header, (TraceHeader{"", 4, 2, {3}}));
  EXPECT_EQ(loads_of(statistics, 0), (Loads{4, 4, 3, 1}));
  EXPECT_EQ(notes, (std::vector<std::string>{}));

  request.placement.clear();
  EXPECT_EQ(error_of_request(request),
            "/meta_info.json: num_experts is 6, but --num-experts is 4: with a load balancer "
            "TensorRT-LLM counts slots; give its file with --placement");
  request.num_experts = 0;
  EXPECT_EQ(loads_of(import_statistics(request), 0), (Loads{2, 2, 3, 1, 2, 2}));
  EXPECT_EQ(notes, (std::vector<std::string>{
                       "taken for granted: loads of 6 experts; with a load balancer they are of "
                       "slots, and its file has to be given with --placement"}));
  request.placement = yaml;
  EXPECT_EQ(error_of([&] { (void)import_statistics(request); }),
            "--placement needs --num-experts, for " + (folder / "meta_info.json").string() +
                " has the number of slots");
}

TEST(ImportTensorrtLlmLoads, NamesWhatIsMissingOrWrong) {
  auto folder = tensorrt_llm_folder({{{"0_0", {1, 1, 0}}}, {{"0_0", {1, 1, 0}}}});
  const auto error = [&] {
    return error_of_request({.format = "tensorrt-llm-loads", .inputs = {folder}});
  };
  EXPECT_EQ(error_of_request({.format = "tensorrt-llm-loads", .inputs = {folder}, .top_k = 4}),
            "/meta_info.json: num_experts_per_token is 2, but top_k is given as 4");
  std::filesystem::remove(folder / "rank0.safetensors");
  EXPECT_EQ(error(), ": has 1 files of ranks up to 1, so a rank's file is missing");
  folder = tensorrt_llm_folder({{{"0_0", {1, 1, 0}}}});
  write_text_file(folder / "rank00.safetensors", "");
  EXPECT_TRUE(error().ends_with(".safetensors are of rank 0")) << error();
  folder = tensorrt_llm_folder({{{"layer0", {1, 1, 0}}}});
  EXPECT_EQ(error(), "/rank0.safetensors: tensor 'layer0' is not named ITERATION_LAYER");
  folder = tensorrt_llm_folder({{{"0_0", {1, 1}}}});
  EXPECT_EQ(error(), "/rank0.safetensors: tensor '0_0' is I64 [2], not I64 [3]");
  folder = tensorrt_llm_folder({});
  EXPECT_EQ(error(), ": has no rank0.safetensors");
}

// A version 1 npy file of int64.
std::filesystem::path npy_file(std::string_view shape, const Loads& values) {
  std::string header =
      fmt::format("{{'descr': '<i8', 'fortran_order': False, 'shape': {}, }}\n", shape);
  return text_file(
      "counts.npy",
      std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' + header +
          std::string(reinterpret_cast<const char*>(values.data()), values.size() * 8));
}

TEST(ImportCoactivation, RecoversTheLoads) {
  // Tokens {0, 1}, {0, 1}, {1, 2}.
  const auto path = npy_file("(1, 3, 3)", {-1, 2, 0, 2, -1, 1, 0, 1, -1});
  const auto statistics = import_statistics(
      {.format = "coactivation", .inputs = {path}, .model = "m", .top_k = 2, .layer_indices = {4}});
  EXPECT_TRUE(statistics.has_pairs);
  EXPECT_EQ(loads_of(statistics, 0), (Loads{2, 3, 1}));
  EXPECT_EQ(statistics.num_tokens, (Loads{3}));
  EXPECT_EQ(statistics.coactivation[0](0, 1), 2);
  EXPECT_EQ(statistics.header.layer_indices, (Indices{4}));
  // Two tokens that chose all three.
  const auto all = npy_file("(1, 3, 3)", {0, 2, 2, 2, 0, 2, 2, 2, 0});
  EXPECT_EQ(loads_of(import_statistics({.format = "coactivation", .inputs = {all}, .top_k = 3}), 0),
            (Loads{2, 2, 2}));
}

TEST(ImportCoactivation, RefusesCountsThatNoTokensHave) {
  const auto error = [](const Loads& values, std::int32_t top_k) {
    return error_of_request(
        {.format = "coactivation", .inputs = {npy_file("(1, 3, 3)", values)}, .top_k = top_k});
  };
  EXPECT_EQ(error({0, 2, 0, 1, 0, 1, 0, 1, 0}, 2),
            ", layer 0: is not symmetric: 2 at [0, 1], 1 at [1, 0]");
  EXPECT_EQ(error({5, 2, 0, 2, 0, 1, 0, 1, 0}, 2),
            ", layer 0: the diagonal has 5 at expert 0, but must have 0 or -1");
  EXPECT_EQ(
      error({0, 2, 1, 2, 0, 1, 1, 1, 0}, 3),
      ", layer 0: the row of expert 0 adds up to 3, which is not a multiple of top_k - 1 = 2; "
      "is top_k right?");
  EXPECT_EQ(error({0, 2, 0, 2, 0, 0, 0, 0, 0}, 3),
            ", layer 0: 2 tokens chose experts 0 and 1, but only 1 chose expert 0");
  EXPECT_EQ(error({0, -1, 0, -1, 0, 0, 0, 0, 0}, 2),
            ", layer 0: has the count -1, but counts must not be negative");
  EXPECT_EQ(error({0, 0, 0, 0, 0, 0, 0, 0, 0}, 1),
            "top_k is 1, but tokens with co-activated experts have at least 2");
}

TEST(ImportCoactivationOnRealData, RecoversTheLoadsOfTheC2rMatrices) {
  const auto folder = real_data("c2r-official");
  C2R_SKIP_WITHOUT(folder);
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".npy") continue;
    SCOPED_TRACE(entry.path());
    ++num_files;
    const auto statistics =
        import_statistics({.format = "coactivation", .inputs = {entry.path()}, .top_k = 2});
    ASSERT_EQ(statistics.num_layers(), 32);
    for (std::size_t layer = 0; layer < 32; ++layer) {
      const auto loads = loads_of(statistics, layer);
      EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), std::int64_t{0}), 409'600);
      EXPECT_EQ(statistics.num_tokens[layer], 204'800);
    }
  }
  EXPECT_EQ(num_files, 7);
  const auto base = import_statistics({.format = "coactivation",
                                       .inputs = {folder / "llama_moe_3_5b_2_8_base_i64.npy"},
                                       .top_k = 2});
  EXPECT_EQ(base.coactivation[0](0, 3), 15'105);
}

}  // namespace
}  // namespace c2r
