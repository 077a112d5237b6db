// Tests of traces: round trips through a file and through memory, and the message of every
// refusal.
#include "c2r/trace/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::num_files;
using testing::path_in_empty_folder;
using testing::temporary_path;

std::vector<ExpertId> ids(std::initializer_list<int> values) {
  std::vector<ExpertId> out;
  for (const int value : values) out.push_back(ExpertId{value});
  return out;
}

TEST(Trace, ReturnsWhatWasWritten) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.model = "tiny", .num_experts = 8, .top_k = 2, .layer_indices = {1, 3}};
  TraceWriter writer(path, header, true);
  writer.start_sequence();
  writer.append(0, ids({0, 7, 3, -1}), std::vector<float>{0.75f, 0.25f, 1.0f, 0.0f}, "test");
  writer.append(1, ids({1, 2}), std::vector<float>{0.5f, 0.5f}, "test");
  writer.start_sequence();
  writer.append(0, ids({5, 4}), std::vector<float>{0.1f, 0.2f}, "test");
  writer.append(1, ids({3, 4, -1, -1}), std::vector<float>{0.5f, 0.5f, 0.0f, 0.0f}, "test");
  writer.finish();

  const Trace trace(path);
  EXPECT_EQ(trace.header(), header);
  EXPECT_EQ(trace.num_tokens(), 3);
  EXPECT_TRUE(trace.has_weights());
  EXPECT_TRUE(std::ranges::equal(trace.sequence_starts(), std::vector<std::int64_t>{0, 2}));
  EXPECT_TRUE(std::ranges::equal(trace.topk_idx(0, 0, 3).all(), ids({0, 7, 3, -1, 5, 4})));
  EXPECT_TRUE(std::ranges::equal(trace.topk_idx(1, 1, 3).all(), ids({3, 4, -1, -1})));
  EXPECT_EQ(trace.topk_idx(1, 2, 2).rows(), 0);
  const auto weights = trace.topk_weights(0, 1, 3);
  EXPECT_EQ(weights(0, 0), 1.0f);
  EXPECT_EQ(weights(1, 1), to_float(to_half(0.2f)));
  EXPECT_EQ(trace.stored_topk_idx(0).u8[3], 255);
}

// 255 experts fit beside the mark for "none" in 8 bits, 256 do not.
TEST(Trace, RoundTripsRandomChoicesInEitherWidth) {
  for (const std::int32_t num_experts : {1, 5, 255, 256, 1024}) {
    SCOPED_TRACE(num_experts);
    const std::int32_t top_k = std::min(num_experts, 4);
    const auto path = temporary_path("trace.safetensors");
    std::mt19937 rng(static_cast<unsigned>(num_experts));
    std::vector<ExpertId> experts;
    for (std::int32_t e = 0; e < num_experts; ++e) experts.push_back(ExpertId{e});
    // Larger than the writer's buffers.
    std::vector<std::vector<ExpertId>> layers(3);
    TraceWriter writer(
        path, {.num_experts = num_experts, .top_k = top_k, .layer_indices = {0, 1, 2}}, false);
    for (int batch = 0; batch < 20; ++batch) {
      const auto num_tokens = rng() % 3000;
      for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        std::vector<ExpertId> choices;
        for (unsigned t = 0; t < num_tokens; ++t) {
          for (std::int32_t k = 0; k < top_k; ++k) {
            std::swap(experts[std::size_t(k)],
                      experts[std::size_t(k) + rng() % (experts.size() - std::size_t(k))]);
            choices.push_back(rng() % 10 == 0 ? kNoExpert : experts[std::size_t(k)]);
          }
        }
        writer.append(static_cast<std::int64_t>(layer), choices, {}, "test");
        layers[layer].insert(layers[layer].end(), choices.begin(), choices.end());
      }
    }
    writer.finish();
    const Trace trace(path);
    EXPECT_FALSE(trace.has_weights());
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      const auto read = trace.topk_idx(static_cast<std::int64_t>(layer), 0, trace.num_tokens());
      EXPECT_TRUE(std::ranges::equal(read.all(), layers[layer]));
    }
    EXPECT_EQ(trace.stored_topk_idx(0).u8.empty(), num_experts > 255);
    EXPECT_EQ(trace.stored_topk_idx(0).u16.empty(), num_experts <= 255);
  }
}

TEST(Trace, WithoutTokensHasNoSequence) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 2, .layer_indices = {0}}, false);
  writer.start_sequence();
  writer.finish();
  const Trace trace(path);
  EXPECT_EQ(trace.num_tokens(), 0);
  EXPECT_TRUE(trace.sequence_starts().empty());
  EXPECT_EQ(trace.topk_idx(0, 0, 0).rows(), 0);
}

TEST(Trace, EmptySequencesVanish) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 1, .layer_indices = {0}}, false);
  writer.append(0, ids({3}), {}, "test");  // a sequence that nobody announced
  writer.start_sequence();
  writer.start_sequence();
  writer.append(0, ids({2}), {}, "test");
  writer.start_sequence();
  writer.finish();
  EXPECT_TRUE(std::ranges::equal(Trace(path).sequence_starts(), std::vector<std::int64_t>{0, 1}));
}

TEST(Trace, WithoutSequencesIsOneSequence) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.num_experts = 4, .top_k = 1, .layer_indices = {0}};
  const std::vector<std::uint8_t> choices = {0, 3};
  write_safetensors(path, {tensor_of<std::uint8_t>("layers.0.topk_idx", {2, 1}, choices)},
                    trace_metadata(header, "c2r.trace"));
  EXPECT_TRUE(std::ranges::equal(Trace(path).sequence_starts(), std::vector<std::int64_t>{0}));
}

TEST(Trace, ChecksIdsWhereTheyAreRead) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.num_experts = 4, .top_k = 2, .layer_indices = {0}};
  const std::vector<std::uint8_t> choices = {0, 3, 2, 2, 255, 255, 1, 4};
  write_safetensors(path, {tensor_of<std::uint8_t>("layers.0.topk_idx", {4, 2}, choices)},
                    trace_metadata(header, "c2r.trace"));
  const Trace trace(path);
  EXPECT_TRUE(std::ranges::equal(trace.topk_idx(0, 2, 3).all(), ids({-1, -1})));
  EXPECT_EQ(error_of([&] { (void)trace.topk_idx(0, 1, 3); }),
            path.string() + ": layer 0, token 1 names expert 2 twice");
  EXPECT_EQ(error_of([&] { (void)trace.topk_idx(0, 2, 4); }),
            path.string() + ": layer 0, token 3 names expert 4, but the trace has experts 0 to 3");
  EXPECT_EQ(error_of([&] { (void)trace.topk_weights(0, 0, 1); }),
            path.string() + ": holds no weights");
}

TEST(TraceWriter, LeavesNothingBehindWithoutFinish) {
  const auto path = path_in_empty_folder("trace.safetensors");
  {
    TraceWriter writer(path, {.num_experts = 4, .top_k = 1, .layer_indices = {0}}, false);
    writer.append(0, std::vector<ExpertId>(200'000, ExpertId{3}), {}, "test");
    EXPECT_EQ(num_files(path.parent_path()), 0);
  }
  EXPECT_EQ(num_files(path.parent_path()), 0);
}

TEST(TraceWriter, NeedsFewFilesForManyLayers) {
  const auto path = temporary_path("trace.safetensors");
  TraceHeader header{.num_experts = 300, .top_k = 2, .layer_indices = {}};
  for (std::int32_t layer = 0; layer < 1024; ++layer) header.layer_indices.push_back(layer);
  const auto id = [](std::int64_t layer, int token) {
    return ExpertId{static_cast<std::int32_t>((layer + token) % 299)};
  };
  {
    const testing::ResourceLimit files(RLIMIT_NOFILE, 64);
    TraceWriter writer(path, header, true);
    for (int token = 0; token < 3; ++token) {
      for (std::int64_t layer = 0; layer < 1024; ++layer) {
        const float weight = static_cast<float>(token) / 4;
        writer.append(layer, std::vector{id(layer, token), ExpertId{299}},
                      std::vector{weight, 1 - weight}, "test");
      }
    }
    writer.finish();
  }
  const Trace trace(path);
  for (std::int64_t layer = 0; layer < 1024; ++layer) {
    const auto topk_idx = trace.topk_idx(layer, 0, 3);
    for (int token = 0; token < 3; ++token) ASSERT_EQ(topk_idx(token, 0), id(layer, token));
    ASSERT_EQ(trace.topk_weights(layer, 2, 3)(0, 1), 0.5F);
  }
}

TEST(TraceWriter, JoinsThePiecesOfLayersThatAdvanceInTurn) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 1, .layer_indices = {0, 1}}, false);
  constexpr std::int32_t kPieceTokens = 50'000, kNumSteps = 6;  // a piece is 65,536 ids or more
  for (std::int32_t step = 0; step < kNumSteps; ++step) {
    for (std::int32_t layer = 0; layer < 2; ++layer) {
      writer.append(layer, std::vector(kPieceTokens, ExpertId{(step + layer) % 4}), {}, "test");
    }
  }
  writer.finish();
  const Trace trace(path);
  for (std::int32_t layer = 0; layer < 2; ++layer) {
    const auto topk_idx = trace.topk_idx(layer, 0, kPieceTokens * kNumSteps);
    for (std::int32_t t = 0; t < topk_idx.rows(); ++t) {
      ASSERT_EQ(topk_idx(t, 0), ExpertId{(t / kPieceTokens + layer) % 4});
    }
  }
}

TEST(TraceWriter, RefusesLayersOfDifferentLength) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 1, .layer_indices = {0, 1}}, false);
  writer.append(0, ids({0, 1}), {}, "test");
  writer.append(1, ids({0}), {}, "test");
  EXPECT_EQ(error_of([&] { writer.finish(); }),
            path.string() + ": layer 1 has 1 tokens, but layer 0 has 2");
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TraceWriter, NamesTheTokenOfAnInvalidChoice) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 2, .layer_indices = {0}}, false);
  EXPECT_EQ(error_of([&] {
              writer.append(0, ids({0, 1, 2, 4}), {}, "a.json, layer 5");
            }),
            "a.json, layer 5, token 1: expert 4 is not in [0, 3], the range of 4 experts");
  EXPECT_EQ(error_of([&] {
              writer.append(0, ids({-2, 1}), {}, "a.json");
            }),
            "a.json, token 0: expert -2 is not in [0, 3], the range of 4 experts");
  EXPECT_EQ(error_of([&] {
              writer.append(0, ids({1, 1}), {}, "a.json");
            }),
            "a.json, token 0: names expert 1 twice");
  writer.append(0, ids({-1, -1}), {}, "a.json");
  writer.finish();
  EXPECT_EQ(Trace(path).num_tokens(), 1) << "a refused batch must leave no token behind";
}

TEST(TraceWriter, RefusesTornRowsOtherLayersAndWeightsThatDoNotFit) {
  const auto path = temporary_path("trace.safetensors");
  const TraceHeader header{.num_experts = 4, .top_k = 2, .layer_indices = {3, 4}};
  TraceWriter writer(path, header, false);
  EXPECT_EQ(error_of([&] {
              writer.append(0, ids({0, 1, 2}), {}, "a.json");
            }),
            "a.json: 3 choices do not divide into tokens of top-2");
  for (const std::int64_t layer : {-1, 2}) {
    EXPECT_EQ(error_of([&] {
                writer.append(layer, ids({0, 1}), {}, "a.json");
              }),
              fmt::format("a.json: layer {} is not in [0, 1], the layers of the trace", layer));
  }
  const std::vector<float> weights = {1, 2};
  EXPECT_EQ(error_of([&] {
              writer.append(0, ids({0, 1}), weights, "a.json");
            }),
            "a.json: there are 2 weights of 2 choices, but the trace needs 0");
  TraceWriter weighted(temporary_path("weighted.safetensors"), header, true);
  EXPECT_EQ(error_of([&] {
              weighted.append(0, ids({0, 1, 2, 3}), weights, "a.json");
            }),
            "a.json: there are 2 weights of 4 choices, but the trace needs 4");
  writer.finish();
  EXPECT_EQ(Trace(path).num_tokens(), 0) << "a refused batch must leave no token behind";
}

TEST(Trace, RefusesTokensAndLayersThatItDoesNotHave) {
  const auto path = temporary_path("trace.safetensors");
  TraceWriter writer(path, {.num_experts = 4, .top_k = 1, .layer_indices = {7}}, true);
  const std::vector<float> weights = {1, 2, 3};
  writer.append(0, ids({0, 1, 2}), weights, "test");
  writer.finish();
  const Trace trace(path);
  EXPECT_EQ(trace.topk_idx(0, 3, 3).rows(), 0);
  struct Case {
    std::int64_t begin, end;
  };
  for (const Case& bad : {Case{2, 4}, Case{4, 4}, Case{2, 1}, Case{-1, 2}}) {
    const std::string expected = fmt::format("{}: tokens [{}, {}) are not a range of its 3 tokens",
                                             path.string(), bad.begin, bad.end);
    EXPECT_EQ(error_of([&] { (void)trace.topk_idx(0, bad.begin, bad.end); }), expected);
    EXPECT_EQ(error_of([&] { (void)trace.topk_weights(0, bad.begin, bad.end); }), expected);
  }
  for (const std::int64_t layer : {-1, 1}) {
    const std::string expected = fmt::format("{}: layer {} is not in [0, 0]", path.string(), layer);
    EXPECT_EQ(error_of([&] { (void)trace.topk_idx(layer, 0, 1); }), expected);
    EXPECT_EQ(error_of([&] { (void)trace.topk_weights(layer, 0, 1); }), expected);
    EXPECT_EQ(error_of([&] { (void)trace.stored_topk_idx(layer); }), expected);
  }
}

TEST(CheckHeader, NamesTheLimitThatIsBroken) {
  const auto error_of_header = [](TraceHeader header) {
    return error_of([&] { check_header(header, "a"); });
  };
  const TraceHeader good{.num_experts = 4, .top_k = 4, .layer_indices = {0}};
  EXPECT_EQ(error_of_header(good), "no error");
  TraceHeader bad = good;
  bad.num_experts = 1025;
  EXPECT_EQ(error_of_header(bad), "a: num_experts is 1025, but must be in [1, 1024]");
  bad = good;
  bad.top_k = 5;
  EXPECT_EQ(error_of_header(bad), "a: top_k is 5, but must be in [1, 4]");
  bad = good;
  bad.layer_indices = {};
  EXPECT_EQ(error_of_header(bad), "a: has no MoE layer");
  bad.layer_indices = {-1, 0};
  EXPECT_EQ(error_of_header(bad), "a: layer_indices begin with -1, but must not be negative");
  bad.layer_indices = {0, 2, 2};
  EXPECT_EQ(error_of_header(bad), "a: layer_indices must ascend, but 2 is followed by 2");
  bad = good;
  bad.model = "a\xff";
  EXPECT_EQ(error_of_header(bad), "a: the model's name 'a\\xff' is not UTF-8");
}

// One byte a choice up to 255 experts, two with more.
TEST(TraceInMemory, ReturnsTheArraysAsAFileDoes) {
  for (const std::int32_t num_experts : {8, 300}) {
    SCOPED_TRACE(num_experts);
    Matrix<ExpertId> first(3, 2, kNoExpert), second(3, 2, kNoExpert);
    first(0, 0) = ExpertId{num_experts - 1}, first(0, 1) = ExpertId{2};
    second(2, 1) = ExpertId{5};
    const MatrixView<const ExpertId> layers[] = {first, second};
    const std::int64_t starts[] = {0, 2};
    const TraceHeader header{
        .model = "tiny", .num_experts = num_experts, .top_k = 2, .layer_indices = {1, 3}};
    const Trace trace(header, layers, starts, "arrays");
    EXPECT_EQ(trace.path(), "arrays");
    EXPECT_TRUE(trace.is_in_memory());
    EXPECT_EQ(trace.header(), header);
    EXPECT_EQ(trace.num_tokens(), 3);
    EXPECT_FALSE(trace.has_weights());
    EXPECT_EQ(std::vector(trace.sequence_starts().begin(), trace.sequence_starts().end()),
              (std::vector<std::int64_t>{0, 2}));
    EXPECT_EQ(trace.topk_idx(0, 0, 3), first);
    EXPECT_EQ(trace.topk_idx(1, 0, 3), second);
    EXPECT_EQ(trace.topk_idx(1, 2, 3).rows(), 1);
    EXPECT_EQ(error_of([&] { (void)trace.topk_weights(0, 0, 1); }), "arrays: holds no weights");
    const Trace one_sequence(header, layers);
    EXPECT_EQ(one_sequence.sequence_starts().size(), 1u);
    EXPECT_EQ(one_sequence.path(), "memory");
  }
}

TEST(TraceInMemory, RefusesArraysThatDoNotFit) {
  const TraceHeader header{.num_experts = 4, .top_k = 2, .layer_indices = {0, 1}};
  Matrix<ExpertId> good(3, 2, kNoExpert);
  const auto error_with = [&](const Matrix<ExpertId>& second, std::vector<std::int64_t> starts = {},
                              std::size_t num_layers = 2) {
    const MatrixView<const ExpertId> layers[] = {good, second};
    return error_of([&] { Trace(header, std::span(layers).first(num_layers), starts); });
  };
  EXPECT_EQ(error_with(good, {}, 1), "memory: there are arrays of 1 layers, but the header has 2");
  EXPECT_EQ(error_with(Matrix<ExpertId>(2, 2)),
            "memory: layer 1 has an array of 2 x 2, but must have 3 x 2, tokens and top_k");
  Matrix<ExpertId> bad = good;
  bad(2, 1) = ExpertId{900};
  EXPECT_EQ(error_with(bad),
            "memory, layer 1, token 2: expert 900 is not in [0, 3], the range of 4 experts");
  bad(2, 0) = bad(2, 1) = ExpertId{3};
  EXPECT_EQ(error_with(bad), "memory, layer 1, token 2: names expert 3 twice");
  EXPECT_EQ(error_with(good, {0, 3}),
            "memory: sequence_starts must ascend from 0 and stay below 3, the number of tokens");
  TraceHeader wrong = header;
  wrong.top_k = 0;
  EXPECT_NE(error_of([&] { Trace(wrong, {}); }), "");
}

}  // namespace
}  // namespace c2r
