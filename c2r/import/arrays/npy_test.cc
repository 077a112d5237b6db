// The importer of arrays: axes, element types, weights, sequences, and the message of every
// refusal.
#include <gtest/gtest.h>

#include <cmath>

#include "c2r/import/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::error_of_import;
using testing::ids_of;
using testing::import_as;
using testing::npy_file;
using testing::real_data;
using testing::request_for;
using testing::starts_of;
using testing::text_file;

using Starts = std::vector<std::int64_t>;

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
