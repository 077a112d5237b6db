// The statistics file, which follows the safetensors conventions of a trace, and its checks.
#include <algorithm>
#include <numeric>
#include <string_view>

#include "c2r/collaboration/checks_internal.h"
#include "c2r/collaboration/collaboration.h"
#include "c2r/collaboration/limits.h"
#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r {
namespace {

void check_matrix(const CollaborationMatrix& counts, std::int64_t num_tokens, std::size_t layer,
                  std::string_view place) {
  for (std::int64_t a = 0; a < counts.rows(); ++a) {
    for (std::int64_t b = a; b < counts.cols(); ++b) {
      const std::int64_t count = counts(a, b);
      C2R_REQUIRE(0 <= count && count <= num_tokens, kInvalidFile,
                  "{}: layer {}: {} tokens chose experts {} and {}, but the layer saw {}", place,
                  layer, count, a, b, num_tokens);
      C2R_REQUIRE(count == counts(b, a), kInvalidFile,
                  "{}: layer {}: coactivation is not symmetric: {} at [{}, {}], {} at [{}, {}]",
                  place, layer, count, a, b, counts(b, a), b, a);
      const std::int64_t load = std::min(counts(a, a), counts(b, b));
      C2R_REQUIRE(count <= load, kInvalidFile,
                  "{}: layer {}: {} tokens chose experts {} and {}, but only {} chose one of them",
                  place, layer, count, a, b, load);
    }
  }
}

// A token chooses at most top_k experts, each with at most top_k - 1 others. After check_matrix().
void check_sums(const CollaborationMatrix& counts, std::int64_t num_tokens, std::int64_t top_k,
                std::size_t layer, std::string_view place) {
  std::int64_t num_choices = 0;
  for (std::int64_t e = 0; e < counts.rows(); ++e) {
    const std::int64_t load = counts(e, e);
    const auto row = counts.row(e);
    const std::int64_t others = std::accumulate(row.begin(), row.end(), -load);
    C2R_REQUIRE(others <= (top_k - 1) * load, kInvalidFile,
                "{}: layer {}: {} tokens of top-{} chose expert {}, but {} others with it", place,
                layer, load, top_k, e, others);
    num_choices += load;
  }
  C2R_REQUIRE(num_choices <= top_k * num_tokens, kInvalidFile,
              "{}: layer {}: the loads add up to {}, but the layer saw {} tokens of top-{}", place,
              layer, num_choices, num_tokens, top_k);
}

// What a reader could not accept of one layer, in a file or before it is written.
void check_layer(const CollaborationStatistics& statistics, std::size_t layer,
                 std::string_view place) {
  const std::int64_t tokens = statistics.num_tokens[layer];
  C2R_REQUIRE(0 <= tokens && tokens <= kMaxCountedTokens, kInvalidFile,
              "{}: layer {}: num_tokens is {}, but must be in [0, {}]", place, layer, tokens,
              kMaxCountedTokens);
  const CollaborationMatrix& counts = statistics.coactivation[layer];
  check_matrix(counts, tokens, layer, place);
  check_sums(counts, tokens, statistics.header.top_k, layer, place);
}

void check_to_write(const CollaborationStatistics& statistics, std::string_view place) {
  check_header(statistics.header, place);
  check_extents(statistics, place);
  for (std::size_t layer = 0; layer < statistics.coactivation.size(); ++layer) {
    check_layer(statistics, layer, place);
    const CollaborationMatrix& counts = statistics.coactivation[layer];
    for (std::int64_t a = 0; !statistics.has_pairs && a < counts.rows(); ++a) {
      for (std::int64_t b = 0; b < counts.cols(); ++b) {
        C2R_REQUIRE(a == b || counts(a, b) == 0, kInvalidArgument,
                    "{}: layer {}: {} tokens chose experts {} and {}, but the statistics are said "
                    "to have no pairs",
                    place, layer, counts(a, b), a, b);
      }
    }
  }
}

}  // namespace

void check_extents(const CollaborationStatistics& statistics, std::string_view place) {
  const std::size_t num_layers = statistics.header.layer_indices.size();
  C2R_REQUIRE(
      statistics.num_tokens.size() == num_layers && statistics.coactivation.size() == num_layers,
      kInvalidArgument,
      "{}: there are numbers of tokens for {} layers and counts for {}, but {} layer indices",
      place, statistics.num_tokens.size(), statistics.coactivation.size(), num_layers);
  const std::int64_t num_experts = statistics.header.num_experts;
  for (std::size_t layer = 0; layer < num_layers; ++layer) {
    const CollaborationMatrix& counts = statistics.coactivation[layer];
    C2R_REQUIRE(counts.rows() == num_experts && counts.cols() == num_experts, kInvalidArgument,
                "{}: layer {}: the counts are {}x{}, but there are {} experts", place, layer,
                counts.rows(), counts.cols(), num_experts);
  }
}

CollaborationStatistics read_statistics(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const TraceHeader header = read_trace_metadata(file, kStatisticsFormat, "a statistics file");
  const std::int64_t num_layers = header.num_layers(), num_experts = header.num_experts;
  const bool has_pairs = file.has("coactivation");
  const std::int64_t layers_shape[] = {num_layers};
  const std::int64_t pairs_shape[] = {num_layers, num_experts, num_experts};
  const std::int64_t load_shape[] = {num_layers, num_experts};
  const auto num_tokens = file.elements<std::int64_t>("num_tokens", layers_shape);
  const auto counts = has_pairs ? file.elements<std::int64_t>("coactivation", pairs_shape)
                                : file.elements<std::int64_t>("load", load_shape);

  // Only now is it known that the file is as long as its metadata claims.
  auto statistics = empty_statistics(header, has_pairs);
  std::ranges::copy(num_tokens, statistics.num_tokens.begin());
  const std::size_t stride = counts.size() / static_cast<std::size_t>(num_layers);
  for (std::size_t layer = 0; layer < statistics.coactivation.size(); ++layer) {
    const auto source = counts.subspan(layer * stride, stride);
    CollaborationMatrix& matrix = statistics.coactivation[layer];
    if (has_pairs) {
      std::ranges::copy(source, matrix.all().begin());
    } else {
      for (std::size_t e = 0; e < source.size(); ++e) {
        matrix(static_cast<std::int64_t>(e), static_cast<std::int64_t>(e)) = source[e];
      }
    }
    check_layer(statistics, layer, file.path());
  }
  return statistics;
}

void write_statistics(const CollaborationStatistics& statistics,
                      const std::filesystem::path& path) {
  check_to_write(statistics, path.string());
  const std::int64_t num_layers = statistics.num_layers();
  const std::int64_t num_experts = statistics.header.num_experts;
  std::vector<std::int64_t> counts;
  for (const CollaborationMatrix& matrix : statistics.coactivation) {
    if (statistics.has_pairs) {
      counts.insert(counts.end(), matrix.all().begin(), matrix.all().end());
    } else {
      for (std::int64_t e = 0; e < num_experts; ++e) counts.push_back(matrix(e, e));
    }
  }
  std::vector<TensorToWrite> tensors;
  tensors.push_back(tensor_of<std::int64_t>("num_tokens", {num_layers}, statistics.num_tokens));
  if (statistics.has_pairs) {
    tensors.push_back(
        tensor_of<std::int64_t>("coactivation", {num_layers, num_experts, num_experts}, counts));
  } else {
    tensors.push_back(tensor_of<std::int64_t>("load", {num_layers, num_experts}, counts));
  }
  write_safetensors(path, std::move(tensors), trace_metadata(statistics.header, kStatisticsFormat));
}

}  // namespace c2r
