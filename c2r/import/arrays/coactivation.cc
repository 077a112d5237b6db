// A .npy array of integers [num_layers, num_experts, num_experts]: how many tokens chose both
// experts, as C2R's authors publish it, with 0 or -1 on the diagonal. A token that chose an expert
// chose top_k - 1 others, so the load is the row's sum over top_k - 1, exactly.
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/io/npy.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using namespace counts;  // NOLINT(google-build-using-namespace)

// What a file of co-activation counts holds, after the checks of its shape.
TraceHeader coactivation_header(const NpyFile& file, const ImportRequest& request) {
  const NpyView& array = file.array();
  const auto& shape = array.shape;
  C2R_REQUIRE(is_integer(array.dtype) && shape.size() == 3 && shape[1] == shape[2], kInvalidFile,
              "{}: is {} {}, but must be integers [num_layers, num_experts, num_experts]",
              file.path(), dtype_name(array.dtype), shape_text(shape));
  C2R_REQUIRE(1 <= shape[0] && shape[0] <= kMaxLayers && shape[1] <= kMaxExperts, kInvalidFile,
              "{}: has {} layers of {} experts, but must have 1 to {} layers of at most {}",
              file.path(), shape[0], shape[1], kMaxLayers, kMaxExperts);
  C2R_REQUIRE(*request.top_k >= 2, kInvalidArgument,
              "top_k is {}, but tokens with co-activated experts have at least 2", *request.top_k);
  TraceHeader header{.model = request.model,
                     .num_experts = static_cast<std::int32_t>(shape[1]),
                     .top_k = *request.top_k,
                     .layer_indices = request.layer_indices};
  if (header.layer_indices.empty()) {
    header.layer_indices.resize(static_cast<std::size_t>(shape[0]));
    std::iota(header.layer_indices.begin(), header.layer_indices.end(), 0);
  }
  C2R_REQUIRE(header.num_layers() == shape[0], kInvalidFile,
              "{}: has {} layers, but {} layer indices were given", file.path(), shape[0],
              header.num_layers());
  check_header(header, file.path());
  return header;
}

// The pairs of one layer of `array`: symmetric, and nothing on the diagonal.
void read_pairs(const NpyView& array, std::int64_t layer, const std::string& place,
                CollaborationMatrix& counts) {
  const std::int64_t num_experts = array.shape[1];
  const auto at = [&](std::int64_t a, std::int64_t b) {
    return integer_at(array, (layer * num_experts + a) * num_experts + b);
  };
  for (std::int64_t a = 0; a < num_experts; ++a) {
    C2R_REQUIRE(at(a, a) == 0 || at(a, a) == -1, kInvalidFile,
                "{}: the diagonal has {} at expert {}, but must have 0 or -1", place, at(a, a), a);
    for (std::int64_t b = 0; b < num_experts; ++b) {
      if (a == b) continue;
      C2R_REQUIRE(at(a, b) == at(b, a), kInvalidFile,
                  "{}: is not symmetric: {} at [{}, {}], {} at [{}, {}]", place, at(a, b), a, b,
                  at(b, a), b, a);
      counts(a, b) = at(a, b);
    }
  }
}

// Each token of an expert is in top_k - 1 of its pairs.
std::int64_t load_of_row(const CollaborationMatrix& counts, std::int64_t expert, std::int32_t top_k,
                         const std::string& place) {
  const auto row = counts.row(expert);
  const std::int64_t others = top_k - 1;
  std::int64_t sum = 0;
  for (const std::int64_t count : row) counts::add(count, sum, place);
  C2R_REQUIRE(sum % others == 0, kInvalidFile,
              "{}: the row of expert {} adds up to {}, which is not a multiple of top_k - 1 = "
              "{}; is top_k right?",
              place, expert, sum, others);
  const std::int64_t load = sum / others;
  for (std::size_t other = 0; other < row.size(); ++other) {
    C2R_REQUIRE(row[other] <= load, kInvalidFile,
                "{}: {} tokens chose experts {} and {}, but only {} chose expert {}", place,
                row[other], expert, other, load, expert);
  }
  return load;
}

CollaborationStatistics read_coactivation(const ImportRequest& request) {
  const NpyFile file(request.inputs[0]);
  const TraceHeader header = coactivation_header(file, request);
  auto statistics = empty_statistics(header);
  const std::int64_t num_experts = header.num_experts;
  for (std::int64_t layer = 0; layer < header.num_layers(); ++layer) {
    const std::string place = fmt::format("{}, layer {}", file.path(), layer);
    CollaborationMatrix& counts = statistics.coactivation[static_cast<std::size_t>(layer)];
    read_pairs(file.array(), layer, place, counts);
    Loads loads;
    for (std::int64_t e = 0; e < num_experts; ++e) {
      loads.push_back(load_of_row(counts, e, header.top_k, place));
    }
    C2R_REQUIRE(set_loads(loads, static_cast<std::size_t>(layer), place, statistics), kInvalidFile,
                "{}: the loads do not add up to a multiple of top_k = {}; is top_k right?", place,
                header.top_k);
  }
  return statistics;
}

}  // namespace

ImportFormat import_rows::coactivation() {
  return {.name = "coactivation",
          .summary = "npy [layers, experts, experts]: pair counts, as C2R's authors publish them",
          .makes = ImportKind::kStatistics,
          .needs = {ImportField::kTopK},
          .uses = {ImportField::kNumExperts, ImportField::kLayerIndices},
          .takes_many_inputs = false,
          .statistics = read_coactivation};
}

}  // namespace c2r
