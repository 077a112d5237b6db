// Tests of pair counts: a worked example, the definition on random choices, files, and what is
// refused.
#include "c2r/collaboration/collaboration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/collaboration/limits.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::temporary_path;

// The definition, word for word: for each pair, count the tokens that chose both.
CollaborationMatrix by_definition(const Matrix<ExpertId>& topk_idx, std::int32_t num_experts) {
  CollaborationMatrix counts(num_experts, num_experts);
  const auto chose = [&](std::int64_t t, std::int32_t e) {
    return std::ranges::count(topk_idx.row(t), ExpertId{e}) > 0;
  };
  for (std::int32_t a = 0; a < num_experts; ++a) {
    for (std::int32_t b = 0; b < num_experts; ++b) {
      for (std::int64_t t = 0; t < topk_idx.rows(); ++t) counts(a, b) += chose(t, a) && chose(t, b);
    }
  }
  return counts;
}

// Distinct experts a token; about one choice in ten is masked if `has_masked`.
Matrix<ExpertId> random_choices(std::int64_t num_tokens, std::int32_t num_experts,
                                std::int32_t top_k, bool has_masked, unsigned seed) {
  std::mt19937_64 rng(seed);
  std::vector<ExpertId> experts;
  for (std::int32_t e = 0; e < num_experts; ++e) experts.push_back(ExpertId{e});
  Matrix<ExpertId> topk_idx(num_tokens, top_k);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::size_t k = 0; k < std::size_t(top_k); ++k) {
      std::swap(experts[k], experts[k + uniform_below(experts.size() - k, rng)]);
    }
    std::ranges::copy_n(experts.begin(), top_k, topk_idx.row(t).begin());
    for (ExpertId& id : topk_idx.row(t)) {
      if (has_masked && rng() % 10 == 0) id = kNoExpert;
    }
  }
  return topk_idx;
}

Trace trace_of(const std::vector<Matrix<ExpertId>>& layers, std::int32_t num_experts,
               const std::string& name = "trace.safetensors") {
  TraceHeader header{.model = "test",
                     .num_experts = num_experts,
                     .top_k = static_cast<std::int32_t>(layers[0].cols())};
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    header.layer_indices.push_back(static_cast<std::int32_t>(layer));
  }
  const auto path = temporary_path(name);
  TraceWriter writer(path, header, false);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    writer.append(static_cast<std::int64_t>(layer), layers[layer].all(), {}, "test");
  }
  writer.finish();
  return Trace(path);
}

// 3 tokens, 4 experts, top-2, worked by hand: t0 -> {0,1}, t1 -> {1,0}, t2 -> {2, masked}.
TEST(AddCollaboration, CountsAWorkedExample) {
  Matrix<ExpertId> topk_idx(3, 2);
  topk_idx(0, 0) = ExpertId{0}, topk_idx(0, 1) = ExpertId{1};
  topk_idx(1, 0) = ExpertId{1}, topk_idx(1, 1) = ExpertId{0};
  topk_idx(2, 0) = ExpertId{2}, topk_idx(2, 1) = kNoExpert;

  CollaborationMatrix counts(4, 4);
  add_collaboration(topk_idx, counts);

  CollaborationMatrix expected(4, 4);
  expected(0, 0) = expected(1, 1) = expected(0, 1) = expected(1, 0) = 2;
  expected(2, 2) = 1;
  EXPECT_EQ(counts, expected);
}

TEST(AddCollaboration, MatchesTheDefinitionOnRandomChoices) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const auto num_experts = static_cast<std::int32_t>(1 + seed % 17);
    const auto top_k = 1 + static_cast<std::int32_t>(seed) % num_experts;
    const auto topk_idx = random_choices(seed % 64, num_experts, top_k, true, seed);
    CollaborationMatrix counts(num_experts, num_experts);
    add_collaboration(topk_idx, counts);
    EXPECT_EQ(counts, by_definition(topk_idx, num_experts));
  }
}

TEST(AddCollaboration, RefusesInvalidChoicesAndLeavesTheCounts) {
  CollaborationMatrix counts(4, 4);
  const auto error = [&](std::initializer_list<int> ids) {
    Matrix<ExpertId> topk_idx(std::ssize(ids) / 2, 2);
    std::ranges::transform(ids, topk_idx.all().begin(), [](int id) { return ExpertId{id}; });
    return error_of([&] { add_collaboration(topk_idx, counts); });
  };
  EXPECT_EQ(error({0, 1, 3, 9}),
            "token 1 names expert 9 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({0, 1, 4, 0}),
            "token 1 names expert 4 in column 0, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({0, 1, -2, 0}),
            "token 1 names expert -2 in column 0, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error({0, 1, 3, 3}), "token 1 names expert 3 twice, in columns 0 and 1");
  EXPECT_EQ(counts, CollaborationMatrix(4, 4));
  CollaborationMatrix narrow(4, 3);
  EXPECT_EQ(error_of([&] { add_collaboration(Matrix<ExpertId>(1, 1, ExpertId{0}), narrow); }),
            "a collaboration matrix is square, not 4x3");
}

// Every specialised top-k, ids of 8 and 16 bits, chunks that do and do not end evenly, and layers
// with masked choices, which take the slow path.
TEST(CountCollaboration, EqualsTheReferenceForAnyNumberOfThreads) {
#ifdef C2R_SANITIZED  // which takes ten times as long
  const std::vector<std::int32_t> top_ks = {2, 6};
#else
  const std::vector<std::int32_t> top_ks = {1, 2, 3, 4, 6, 8};
#endif
  for (const std::int32_t top_k : top_ks) {
    for (const std::int32_t num_experts : {8, 60, 300}) {
      SCOPED_TRACE(::testing::Message() << "top_k " << top_k << ", experts " << num_experts);
      const auto seed = static_cast<unsigned>(top_k * 1000 + num_experts);
      const auto clean = random_choices(70'000, num_experts, top_k, false, seed);
      const auto masked = random_choices(70'000, num_experts, top_k, true, seed + 1);
      const Trace trace = trace_of({clean, masked}, num_experts);
      NoProgress progress;
      const auto one = count_collaboration(trace, 1, progress);
      EXPECT_EQ(one, count_collaboration(trace, 3, progress));
      auto expected = empty_statistics(trace.header());
      expected.num_tokens = {70'000, 70'000};
      add_collaboration(clean, expected.coactivation[0]);
      add_collaboration(masked, expected.coactivation[1]);
      EXPECT_EQ(one, expected);
    }
  }
}

TEST(CountCollaboration, AcceptsATraceWithoutTokens) {
  const Trace trace = trace_of({Matrix<ExpertId>(0, 2)}, 4);
  NoProgress progress;
  EXPECT_EQ(count_collaboration(trace, 2, progress), empty_statistics(trace.header()));
}

class CountingProgress final : public Progress {
 public:
  void update(std::int64_t done, std::int64_t total) override {
    EXPECT_EQ(done, ++num_updates);
    EXPECT_EQ(total, 4);
  }
  std::int64_t num_updates = 0;
};

TEST(CountCollaboration, ReportsProgressToTheEnd) {
  const auto choices = random_choices(70'000, 4, 2, false, 1);
  CountingProgress progress;
  count_collaboration(trace_of({choices, choices}, 4), 2, progress);
  EXPECT_EQ(progress.num_updates, 4);
}

// Writes the trace, then damages one id in the file itself, which TraceWriter would refuse.
TEST(CountCollaboration, ReportsAnInvalidChoiceInTheFile) {
  const auto choices = random_choices(1000, 8, 2, false, 1);
  const std::string path = trace_of({choices}, 8).path();
  std::string bytes = read_text_file(path);
  const auto last = bytes.size() - 1;
  NoProgress progress;
  const auto error_with = [&](char last_id) {
    bytes[last] = last_id;
    write_text_file(path, bytes);
    return error_of([&] { count_collaboration(Trace(path), 1, progress); });
  };
  const char partner = bytes[last - 1];
  EXPECT_EQ(error_with(8),
            path + ": layer 0, token 999 names expert 8, but the trace has experts 0 to 7");
  EXPECT_EQ(error_with(partner),
            path + ": layer 0, token 999 names expert " + std::to_string(int{partner}) + " twice");
}

TEST(CountCollaboration, CountsTheTokensOfSomeRangesAlone) {
  const auto choices = random_choices(300, 8, 2, true, 3);
  const Trace trace = trace_of({choices, choices}, 8, "a");
  const auto counts = count_pairs(trace, {{TokenRange{20, 50}, TokenRange{200, 300}}}, 2);
  CollaborationMatrix expected(8, 8);
  add_collaboration(trace.topk_idx(0, 20, 50), expected);
  add_collaboration(trace.topk_idx(0, 200, 300), expected);
  EXPECT_EQ(counts, std::vector(2, expected));
}

TEST(Merge, AddsAsIfCountedTogether) {
  const auto first = random_choices(500, 8, 2, true, 1),
             second = random_choices(300, 8, 2, true, 2);
  NoProgress progress;
  auto merged = count_collaboration(trace_of({first}, 8, "a"), 1, progress);
  merge(count_collaboration(trace_of({second}, 8, "b"), 1, progress), merged);
  EXPECT_EQ(merged.num_tokens[0], 800);
  CollaborationMatrix expected(8, 8);
  add_collaboration(first, expected);
  add_collaboration(second, expected);
  EXPECT_EQ(merged.coactivation[0], expected);
}

TEST(Merge, RefusesAnotherModel) {
  const TraceHeader header{.model = "a", .num_experts = 8, .top_k = 2, .layer_indices = {0}};
  auto into = empty_statistics(header);
  const auto error_with = [&](const TraceHeader& other, bool has_pairs = true) {
    return error_of([&] { merge(empty_statistics(other, has_pairs), into); });
  };
  auto other = header;
  other.num_experts = 16;
  EXPECT_EQ(error_with(other),
            "cannot merge statistics of 8 experts, top-2 with 16 experts, top-2");
  other = header;
  other.layer_indices = {1};
  EXPECT_EQ(error_with(other),
            "cannot merge statistics of different layers: 1 and 1 MoE layers, or other indices");
  other = header;
  other.model = "b";
  EXPECT_EQ(error_with(other), "cannot merge statistics of 'a' and 'b'");
  EXPECT_EQ(error_with(header, false),
            "cannot merge statistics with and without co-activation counts");
}

TEST(Merge, AddsNothingIfOneLayerWouldHaveTooManyTokens) {
  auto into =
      empty_statistics({.model = "a", .num_experts = 8, .top_k = 2, .layer_indices = {0, 1}});
  auto from = into;
  into.num_tokens = {1, std::int64_t{1} << 47};
  from.num_tokens = {1, 1};
  const auto before = into;
  EXPECT_EQ(error_of([&] { merge(from, into); }),
            "cannot merge statistics of more than 140737488355328 tokens together");
  EXPECT_EQ(into, before);
}

TEST(StatisticsFile, ReturnsWhatWasWritten) {
  const TraceHeader header{.model = "m", .num_experts = 3, .top_k = 2, .layer_indices = {1, 4}};
  for (const bool has_pairs : {true, false}) {
    auto statistics = empty_statistics(header, has_pairs);
    statistics.num_tokens = {5, 7};
    statistics.coactivation[1](0, 0) = 5;
    statistics.coactivation[1](2, 2) = 6;
    if (has_pairs) statistics.coactivation[1](0, 2) = statistics.coactivation[1](2, 0) = 4;
    const auto path = temporary_path("statistics.safetensors");
    write_statistics(statistics, path);
    EXPECT_EQ(read_statistics(path), statistics);
  }
}

// The file of statistics that write_statistics() may refuse.
void write_unchecked(const CollaborationStatistics& statistics, const std::filesystem::path& path) {
  const std::int64_t num_experts = statistics.header.num_experts;
  std::vector<std::int64_t> counts;
  for (const CollaborationMatrix& matrix : statistics.coactivation) {
    for (std::int64_t a = 0; a < num_experts; ++a) {
      for (std::int64_t b = 0; b < num_experts; ++b) {
        if (statistics.has_pairs || a == b) counts.push_back(matrix(a, b));
      }
    }
  }
  const std::int64_t num_layers = statistics.num_layers();
  std::vector<TensorToWrite> tensors;
  tensors.push_back(tensor_of<std::int64_t>("num_tokens", {num_layers}, statistics.num_tokens));
  if (statistics.has_pairs) {
    tensors.push_back(
        tensor_of<std::int64_t>("coactivation", {num_layers, num_experts, num_experts}, counts));
  } else {
    tensors.push_back(tensor_of<std::int64_t>("load", {num_layers, num_experts}, counts));
  }
  write_safetensors(path, tensors, trace_metadata(statistics.header, kStatisticsFormat));
}

// What the reader says about such a file, and the writer about what is in memory.
std::string error_of_statistics(const CollaborationStatistics& statistics,
                                const std::filesystem::path& path) {
  std::filesystem::remove(path);
  const std::string written = error_of([&] { write_statistics(statistics, path); });
  EXPECT_EQ(std::filesystem::exists(path), written == "no error");
  write_unchecked(statistics, path);
  EXPECT_EQ(error_of([&] { read_statistics(path); }), written);
  return written;
}

TEST(StatisticsFile, RefusesCountsThatCannotBe) {
  const TraceHeader header{.model = "m", .num_experts = 3, .top_k = 2, .layer_indices = {0}};
  const auto path = temporary_path("statistics.safetensors");
  const auto error_with = [&](std::int64_t above, std::int64_t below) {
    auto statistics = empty_statistics(header);
    statistics.num_tokens = {5};
    statistics.coactivation[0](0, 0) = statistics.coactivation[0](1, 1) = 4;
    statistics.coactivation[0](0, 1) = above;
    statistics.coactivation[0](1, 0) = below;
    return error_of_statistics(statistics, path);
  };
  const std::string place = path.string();
  EXPECT_EQ(error_with(-1, -1),
            place + ": layer 0: -1 tokens chose experts 0 and 1, but the layer saw 5");
  EXPECT_EQ(error_with(6, 6),
            place + ": layer 0: 6 tokens chose experts 0 and 1, but the layer saw 5");
  EXPECT_EQ(error_with(3, 2),
            place + ": layer 0: coactivation is not symmetric: 3 at [0, 1], 2 at [1, 0]");
  EXPECT_EQ(error_with(5, 5),
            place + ": layer 0: 5 tokens chose experts 0 and 1, but only 4 chose one of them");
  EXPECT_EQ(error_with(3, 3), "no error");
}

TEST(StatisticsFile, RefusesSumsThatCannotBe) {
  const TraceHeader header{.model = "m", .num_experts = 3, .top_k = 2, .layer_indices = {0}};
  const auto path = temporary_path("statistics.safetensors");
  const auto error_of_file = [&](const CollaborationStatistics& statistics) {
    return error_of_statistics(statistics, path);
  };
  const std::string place = path.string() + ": layer 0: ";
  auto loads = empty_statistics(header, /*has_pairs=*/false);
  loads.num_tokens = {10};
  for (std::int64_t e = 0; e < 3; ++e) loads.coactivation[0](e, e) = 7;
  EXPECT_EQ(error_of_file(loads),
            place + "the loads add up to 21, but the layer saw 10 tokens of top-2");
  loads.coactivation[0](2, 2) = 6;
  EXPECT_EQ(error_of_file(loads), "no error");

  auto pairs = empty_statistics(header);
  pairs.num_tokens = {10};
  for (std::int64_t e = 0; e < 3; ++e) pairs.coactivation[0](e, e) = 4;
  for (const auto& [a, b] : {std::pair(0, 1), std::pair(1, 0), std::pair(0, 2), std::pair(2, 0)}) {
    pairs.coactivation[0](a, b) = 3;
  }
  EXPECT_EQ(error_of_file(pairs), place + "4 tokens of top-2 chose expert 0, but 6 others with it");

  loads.num_tokens = {INT64_MAX};
  EXPECT_EQ(error_of_file(loads),
            place + "num_tokens is 9223372036854775807, but must be in [0, 140737488355328]");
  loads.num_tokens = {kMaxCountedTokens};
  EXPECT_EQ(error_of_file(loads), "no error");
  auto sum = loads;
  EXPECT_EQ(error_of([&] { merge(loads, sum); }),
            "cannot merge statistics of more than 140737488355328 tokens together");
}

TEST(StatisticsFile, IsNotWrittenFromPartsThatDoNotFit) {
  const TraceHeader header{.model = "m", .num_experts = 3, .top_k = 2, .layer_indices = {0, 4}};
  const auto path = temporary_path("statistics.safetensors");
  const auto error = [&](const CollaborationStatistics& statistics) {
    const std::string message = error_of([&] { write_statistics(statistics, path); });
    EXPECT_FALSE(std::filesystem::exists(path)) << message;
    EXPECT_TRUE(message.starts_with(path.string())) << message;
    return message.substr(std::min(message.size(), path.string().size()));
  };
  auto statistics = empty_statistics(header);
  statistics.coactivation.pop_back();
  EXPECT_EQ(error(statistics),
            ": there are numbers of tokens for 2 layers and counts for 1, but 2 layer indices");
  auto other = empty_statistics(header);
  EXPECT_EQ(error_of([&] { merge(statistics, other); }),
            "the statistics to merge: there are numbers of tokens for 2 layers and counts for 1, "
            "but 2 layer indices");
  statistics.coactivation.push_back(CollaborationMatrix(3, 2));
  EXPECT_EQ(error(statistics), ": layer 1: the counts are 3x2, but there are 3 experts");
  EXPECT_EQ(error_of([&] { merge(statistics, other); }),
            "the statistics to merge: layer 1: the counts are 3x2, but there are 3 experts");
  statistics = empty_statistics(header, /*has_pairs=*/false);
  statistics.num_tokens = {0, 1};
  for (const std::int64_t e : {0, 2}) statistics.coactivation[1](e, e) = 1;
  statistics.coactivation[1](0, 2) = statistics.coactivation[1](2, 0) = 1;
  EXPECT_EQ(error(statistics),
            ": layer 1: 1 tokens chose experts 0 and 2, but the statistics are said to have no "
            "pairs");
  statistics = empty_statistics(header);
  statistics.header.top_k = 4;
  EXPECT_EQ(error(statistics), ": top_k is 4, but must be in [1, 3]");
}

}  // namespace
}  // namespace c2r
