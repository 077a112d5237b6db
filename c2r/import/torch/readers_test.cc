// The readers of files that torch.save() wrote, on files that PyTorch made in the layout of each
// engine (tools/make_torch_fixtures.py).
#include <gtest/gtest.h>

#include <random>

#include "c2r/import/testing_internal.h"
#include "c2r/import/torch/recorder_internal.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::ids_of;
using testing::import_as;
using testing::request_for;
using testing::starts_of;

using Indices = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

std::filesystem::path torch_fixture(const std::string& name) {
  return std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "torch" / name;
}

// A request whose inputs say all that is needed, with the notes that its import adds.
ImportRequest request_of_fixtures(const std::vector<std::string>& names,
                                  std::vector<std::string>& notes) {
  std::vector<std::filesystem::path> paths;
  for (const std::string& name : names) paths.push_back(torch_fixture(name));
  ImportRequest request = request_for(paths);
  request.num_experts = 0;
  request.notes = &notes;
  return request;
}

TEST(ImportSglangRecorder, MapsSlotsBackAndLeavesOtherRanksTokensOut) {
  std::vector<std::string> notes;
  const auto request = request_of_fixtures({"per_token_0.pt", "per_token_1.pt"}, notes);
  const auto result = import_as("sglang-recorder", request);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 2, 3})) << "layer 0 is dense";
  EXPECT_EQ(result.header.num_experts, 6);
  EXPECT_EQ(result.header.top_k, 2) << "of 8 columns";
  EXPECT_EQ(result.num_skipped_tokens, 7);
  const Trace trace(request.output);
  // Rank 0: tokens 0, 1 and 2 of a request, then one that decodes. Rank 1: token 3 of that request,
  // one of another, one that decodes.
  EXPECT_EQ(ids_of(trace, 0), "2 3 3 5 4 1 3 4 1 2 2 4 0 2");
  EXPECT_EQ(ids_of(trace, 1), "3 4 4 0 5 2 4 5 2 3 3 5 1 3");
  EXPECT_EQ(ids_of(trace, 2), "4 5 5 1 0 3 5 0 3 4 4 0 2 4");
  EXPECT_EQ(starts_of(trace), (Starts{0, 3, 4, 5, 6}));
  EXPECT_EQ(notes, (std::vector<std::string>{
                       "left out: 7 tokens that are -1 in every layer: padding, or routed by "
                       "another rank",
                       "left out: 2 records of a draft model"}));
}

TEST(ImportSglangRecorder, TellsThePhasesApart) {
  std::vector<std::string> notes;
  auto request = request_of_fixtures({"per_token_0.pt", "per_token_1.pt"}, notes);
  request.phase = Phase::kDecode;
  (void)import_as("sglang-recorder", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3 4 0 2");
  EXPECT_EQ(notes.at(1), "left out: 10 tokens of passes that do not only decode");
  request.phase = Phase::kPrefill;
  (void)import_as("sglang-recorder", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "2 3 3 5 4 1 1 2 2 4");
}

// Ranks that share the attention's input route all tokens alike.
TEST(ImportSglangRecorder, CountsTokensThatSeveralRanksRecordedOnce) {
  std::vector<std::string> notes;
  const auto request = request_of_fixtures({"per_token_0.pt", "per_token_same_1.pt"}, notes);
  EXPECT_EQ(import_as("sglang-recorder", request).num_tokens, 4);
  EXPECT_EQ(notes.at(0), "left out: the file of rank 1, which recorded the same tokens as rank 0");
}

TEST(ImportSglangRecorder, SaysWhatContradicts) {
  std::vector<std::string> notes;
  auto request = request_of_fixtures({"per_token_0.pt"}, notes);
  request.num_experts = 8;
  const std::string path = request.inputs[0].string();
  const auto error = [&] { return error_of([&] { (void)import_as("sglang-recorder", request); }); };
  EXPECT_EQ(error(),
            path + ": last_physical_to_logical_map has experts 0 to 5, but --num-experts is 8");
  request.num_experts = 6;
  request.top_k = 3;
  EXPECT_EQ(error(), path + ": has 2 experts a token, but top_k is given as 3");
  request.top_k = 2;
  request.layer_indices = {0, 1, 2};
  EXPECT_EQ(error(), path + ": has layers 1, 2, 3, but layers 0, 1, 2 were given");
}

TEST(ImportSglangLoads, AreTheSameFromEveryMode) {
  std::vector<std::string> notes;
  const auto loads_of = [&](const std::vector<std::string>& names) {
    auto request = request_of_fixtures(names, notes);
    request.format = "sglang-loads";
    request.top_k = 2;
    return import_statistics(request);
  };
  const auto stat = loads_of({"stat.pt"});
  EXPECT_EQ(stat.header.layer_indices, (Indices{1, 2, 3}));
  EXPECT_EQ(stat.num_tokens, (Starts{7, 7, 7}));
  std::vector<std::int64_t> loads;
  for (std::int64_t e = 0; e < 6; ++e) loads.push_back(stat.coactivation[0](e, e));
  EXPECT_EQ(loads, (Starts{1, 2, 4, 3, 3, 1}));
  for (const std::string mode : {"per_pass", "per_token"}) {
    const auto sum = loads_of({mode + "_0.pt", mode + "_1.pt"});
    EXPECT_EQ(sum.coactivation, stat.coactivation) << mode;
    EXPECT_EQ(sum.num_tokens, stat.num_tokens) << mode;
  }
  EXPECT_EQ(loads_of({"odd/counts_of_floats.pt"}).coactivation, stat.coactivation);
  EXPECT_EQ(error_of([&] { loads_of({"per_pass_1.pt"}); }),
            torch_fixture("per_pass_1.pt").string() +
                ": files of 1 ranks up to 1 are given, so a rank's file is missing");
}

// Two recordings may have the same content, but hardly with many tokens.
TEST(ImportSglangRecorder, CountsTheContentOfTwoFilesOfARankTwiceAndSaysSo) {
  const auto copy = testing::temporary_path("copy.pt");
  std::filesystem::copy_file(torch_fixture("per_token_0.pt"), copy,
                             std::filesystem::copy_options::overwrite_existing);
  std::vector<std::string> notes;
  auto request = request_of_fixtures({"per_token_0.pt"}, notes);
  request.inputs.push_back(copy);
  EXPECT_EQ(import_as("sglang-recorder", request).num_tokens, 8);
  EXPECT_EQ(notes.at(0), "counted twice: two files of rank 0 recorded the same tokens");
}

TEST(ImportSglangRecorder, ReadsTensorsHoweverTheyAreStored) {
  std::vector<std::string> notes;
  const auto ids_in = [&](const std::string& name) {
    const auto request = request_of_fixtures({name}, notes);
    (void)import_as("sglang-recorder", request);
    return ids_of(Trace(request.output), 0) + "|" + ids_of(Trace(request.output), 2);
  };
  const std::string expected = ids_in("per_token_0.pt");
  for (const char* name : {"strided", "shared", "int64", "cuda"}) {
    EXPECT_EQ(ids_in(fmt::format("odd/{}.pt", name)), expected) << name;
  }
}

TEST(ImportSglangRecorder, SaysWhyItDoesNotReadATensor) {
  const auto error = [](const std::string& name) {
    std::vector<std::string> notes;
    const auto request = request_of_fixtures({fmt::format("odd/{}.pt", name)}, notes);
    return testing::error_of_import("sglang-recorder", request);
  };
  const std::string integers = ", but must be integers of 3 dimensions, the first one 4 layers";
  EXPECT_EQ(error("float"), ": record 0, topk_ids_of_layer is F32 [4, 5, 8]" + integers);
  EXPECT_EQ(error("bfloat16"), ": record 0, topk_ids_of_layer is BF16 [4, 5, 8]" + integers);
  EXPECT_EQ(error("bool"), ": record 0, topk_ids_of_layer is BOOL [4, 5, 8]" + integers);
  EXPECT_EQ(error("expanded"),
            ": record 0, topk_ids_of_layer: has the shape [4, 99, 99], but its storage only 640 "
            "bytes; save it with .contiguous() if it was expanded");
  const auto has = [&](const std::string& name, std::string_view reason) {
    const std::string message = error(name);
    EXPECT_TRUE(message.starts_with(", data.pkl at byte ") && message.ends_with(reason))
        << name << message;
  };
  has("complex", ": holds a tensor of complex numbers");
  has("quantized", ": holds a quantized tensor: save it with .int_repr()");
  has("sparse", ": holds a sparse tensor: save it with .to_dense()");
  has("meta", ": holds a tensor on the device meta, which has no elements");
  has("negated",
      ": holds a tensor whose elements are to be negated or conjugated when they are read: save it "
      "with .resolve_neg() or .resolve_conj()");
}

TEST(ImportFlameMoe, ReadsScoresAndOneSequenceForEachName) {
  std::vector<std::string> notes;
  auto request = request_of_fixtures({"flame"}, notes);
  request.num_experts = 6;
  const auto result = import_as("flame-moe", request);
  EXPECT_EQ(result.header.layer_indices, (Indices{2, 10})) << "by number, not by name";
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "3 0 4 1 3 0 3 0 4 1");
  EXPECT_EQ(ids_of(trace, 1), "5 2 1 3 5 2 5 2 1 3");
  EXPECT_EQ(starts_of(trace), (Starts{0, 3}));
  ASSERT_TRUE(trace.has_weights());
  EXPECT_NEAR(trace.topk_weights(0, 0, 1)(0, 0), 0.3416, 1e-3);
  EXPECT_NEAR(trace.topk_weights(1, 1, 2)(0, 1), 0.2036, 1e-3);

  std::filesystem::remove(request.output);
  request.num_experts = 5;
  EXPECT_EQ(
      error_of([&] { (void)import_as("flame-moe", request); }),
      (request.inputs[0] / "10" / "0-0.pt").string() + ": token 0: expert 5 is not in [0, 4]");
  request.inputs = {torch_fixture("flame/2")};
  EXPECT_EQ(error_of([&] { (void)import_as("flame-moe", request); }),
            request.inputs[0].string() +
                ": has no folder of a layer, such as 2 or layer_02; give the folder of one step");
}

TEST(ImportSglangPlacement, ReadsATorchFileAsTheSameMapInJson) {
  const auto plan_of_map = [](const std::filesystem::path& path) {
    return import_plan({.format = "sglang-placement",
                        .inputs = {path},
                        .num_experts = 6,
                        .top_k = 2,
                        .layer_indices = {1, 2, 3},
                        .cluster = Cluster{.num_nodes = 1, .ranks_per_node = 2}});
  };
  const auto json = testing::text_file(
      "map.json",
      R"({"physical_to_logical_map":[[],[1,2,3,4,5,0,1,2],[2,3,4,5,0,1,2,3],[3,4,5,0,1,2,3,4]]})");
  const Plan expected = plan_of_map(json);
  for (const char* name : {"map.pt", "view.pt"}) {
    const Plan plan = plan_of_map(torch_fixture(name));
    ASSERT_EQ(plan.layers.size(), 3u);
    for (std::size_t layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(plan.layers[layer].placement, expected.layers[layer].placement) << name << layer;
    }
  }
  EXPECT_EQ(error_of([&] { (void)plan_of_map(torch_fixture("stat.pt")); }),
            torch_fixture("stat.pt").string() +
                ": it has loads (logical_count), from which SGLang places by EPLB itself, and no "
                "placement");
}

TEST(TorchFile, SaysWhatItCannotRead) {
  const auto error = [](const std::filesystem::path& path) {
    const std::string message = error_of([&] { torch::TorchFile file(path); });
    return message.substr(std::min(message.size(), path.string().size()));
  };
  EXPECT_EQ(error(torch_fixture("old.pt")),
            ": is in the format that torch had before version 1.6; load and save it with a newer "
            "one");
  EXPECT_EQ(error(testing::text_file("text.pt", "{}")),
            ": is not a file of torch.save(): it does not begin like a zip archive");
}

// Whatever is cut off or changed, there is an Error or a result, and no crash.
TEST(TorchFile, SurvivesTruncationAndDamage) {
  const std::string good = read_text_file(torch_fixture("per_token_0.pt"));
  const auto read = [&](std::string_view text) {
    const auto path = testing::text_file("damaged.pt", text);
    return error_of([&] {
      torch::RecorderFile file(path);
      for (std::int64_t i = 0; i < file.num_records(); ++i) {
        (void)file.tensor(i, "topk_ids_of_layer", 3);
      }
    });
  };
  EXPECT_EQ(read(good), "no error");
  for (std::size_t size = 0; size < good.size(); size += 47) {
    EXPECT_NE(read(std::string_view(good).substr(0, size)), "no error") << size;
  }
  std::mt19937 rng(1);
  for (int change = 0; change < 150; ++change) {
    std::string damaged = good;
    damaged[rng() % damaged.size()] = static_cast<char>(rng());
    (void)read(damaged);
  }
}

}  // namespace
}  // namespace c2r
