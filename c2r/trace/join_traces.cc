// Copies the choices of several traces into one in memory.
#include "c2r/trace/join_traces.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {
namespace {

void check_same_model(const Trace& first, const Trace& other) {
  const TraceHeader &mine = first.header(), &others = other.header();
  C2R_REQUIRE(others.num_experts == mine.num_experts && others.top_k == mine.top_k &&
                  others.num_layers() == mine.num_layers(),
              kInvalidArgument,
              "{} has {} experts, top-{}, in {} layers, but {} has {}, top-{}, in {}: traces that "
              "are fitted together are of one model",
              other.path(), others.num_experts, others.top_k, others.num_layers(), first.path(),
              mine.num_experts, mine.top_k, mine.num_layers());
  C2R_REQUIRE(others.layer_indices == mine.layer_indices, kInvalidArgument,
              "{} has other layers than {}: traces that are fitted together are of one model",
              other.path(), first.path());
}

// The token ids of all traces; none if one trace lacks them.
std::vector<TokenId> joined_token_ids(std::span<const Trace> traces) {
  std::vector<TokenId> joined;
  for (const Trace& trace : traces) {
    if (trace.num_tokens() == 0) continue;
    if (!trace.has_token_ids()) return {};
    const auto ids = trace.token_ids(0, trace.num_tokens());
    joined.insert(joined.end(), ids.begin(), ids.end());
  }
  return joined;
}

}  // namespace

JoinedTraces join_traces(std::span<const Trace> traces) {
  C2R_REQUIRE(!traces.empty(), kInvalidArgument, "there is no trace to join");
  const TraceHeader& header = traces[0].header();
  std::vector<TokenRange> parts;
  std::vector<std::int64_t> starts;
  std::string name;
  std::int64_t num_tokens = 0;
  for (const Trace& trace : traces) {
    check_same_model(traces[0], trace);
    for (const std::int64_t start : trace.sequence_starts()) starts.push_back(num_tokens + start);
    parts.push_back({num_tokens, num_tokens + trace.num_tokens()});
    num_tokens += trace.num_tokens();
    name += (name.empty() ? "" : " + ") + trace.path();
  }
  std::vector<Matrix<ExpertId>> layers;
  for (std::int64_t layer = 0; layer < header.num_layers(); ++layer) {
    Matrix<ExpertId>& choices = layers.emplace_back(num_tokens, header.top_k);
    auto out = choices.all().begin();
    for (const Trace& trace : traces) {
      out = std::ranges::copy(trace.topk_idx(layer, 0, trace.num_tokens()).all(), out).out;
    }
  }
  const std::vector<MatrixView<const ExpertId>> views(layers.begin(), layers.end());
  return {.trace = Trace(header, views, starts, name, joined_token_ids(traces)),
          .parts = std::move(parts)};
}

}  // namespace c2r
