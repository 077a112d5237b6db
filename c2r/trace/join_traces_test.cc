// Tests of joined traces: the choices and sequences of each, in order, and what does not fit.
#include "c2r/trace/join_traces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

// Token t of layer l chooses the experts first + t and first + t + l + 1, modulo the experts.
Trace counting_trace(std::int64_t num_tokens, std::int32_t first, std::vector<std::int64_t> starts,
                     TraceHeader header = {.num_experts = 8, .top_k = 2, .layer_indices = {1, 3}}) {
  std::vector<Matrix<ExpertId>> layers;
  for (std::int32_t layer = 0; layer < header.num_layers(); ++layer) {
    Matrix<ExpertId>& choices = layers.emplace_back(num_tokens, 2);
    for (std::int64_t t = 0; t < num_tokens; ++t) {
      const auto expert = first + static_cast<std::int32_t>(t);
      choices(t, 0) = ExpertId{expert % header.num_experts};
      choices(t, 1) = ExpertId{(expert + layer + 1) % header.num_experts};
    }
  }
  const std::vector<MatrixView<const ExpertId>> views(layers.begin(), layers.end());
  return Trace(header, views, starts, "t" + std::to_string(first));
}

TEST(JoinTraces, HasTheTokensAndSequencesOfEachInOrder) {
  std::vector<Trace> traces;
  traces.push_back(counting_trace(5, 0, {0, 2}));
  traces.push_back(counting_trace(0, 1, {}));
  traces.push_back(counting_trace(4, 3, {0, 1, 3}));
  const JoinedTraces joined = join_traces(traces);
  EXPECT_EQ(joined.trace.path(), "t0 + t1 + t3");
  EXPECT_EQ(joined.trace.header(), traces[0].header());
  EXPECT_EQ(joined.parts, (std::vector<TokenRange>{{0, 5}, {5, 5}, {5, 9}}));
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(joined.trace.topk_idx(layer, 0, 5), traces[0].topk_idx(layer, 0, 5));
    EXPECT_EQ(joined.trace.topk_idx(layer, 5, 9), traces[2].topk_idx(layer, 0, 4));
  }
  const auto starts = joined.trace.sequence_starts();
  EXPECT_EQ(std::vector(starts.begin(), starts.end()), (std::vector<std::int64_t>{0, 2, 5, 6, 8}));
}

TEST(JoinTraces, TakesTracesOfOneModelOnly) {
  EXPECT_EQ(testing::error_of([] { join_traces({}); }), "there is no trace to join");
  std::vector<Trace> traces;
  traces.push_back(counting_trace(5, 0, {0}));
  traces.push_back(counting_trace(
      5, 1, {0}, {.model = "named", .num_experts = 8, .top_k = 2, .layer_indices = {1, 3}}));
  EXPECT_NO_THROW(join_traces(traces)) << "a name is no difference";
  traces.push_back(
      counting_trace(5, 2, {0}, {.num_experts = 12, .top_k = 2, .layer_indices = {1, 3}}));
  EXPECT_EQ(testing::error_of([&] { join_traces(traces); }),
            "t2 has 12 experts, top-2, in 2 layers, but t0 has 8, top-2, in 2: traces that are "
            "fitted together are of one model");
  traces.pop_back();
  traces.push_back(
      counting_trace(5, 2, {0}, {.num_experts = 8, .top_k = 2, .layer_indices = {1, 4}}));
  EXPECT_EQ(testing::error_of([&] { join_traces(traces); }),
            "t2 has other layers than t0: traces that are fitted together are of one model");
}

}  // namespace
}  // namespace c2r
