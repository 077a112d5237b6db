// Writes and reads omni-infer's pattern: a .npy file of integers [ep_size, num_layers,
// num_experts], 1 where the rank holds the expert of the MoE layer, else 0. The reader puts experts
// into a rank's slots in ascending order, because the array does not say their order.
#include <fmt/format.h>

#include <bit>

#include "c2r/core/error.h"
#include "c2r/io/npy.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

static_assert(std::endian::native == std::endian::little, "write_pattern() writes <i4 as is");

std::string npy_header(std::int64_t ranks, std::int64_t layers, std::int64_t experts) {
  std::string header =
      fmt::format("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, {}, {}), }}", ranks,
                  layers, experts);
  const std::size_t preamble = 10;  // magic, version, length of the header
  header.append(64 - (preamble + header.size() + 1) % 64, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());
  std::string bytes = "\x93NUMPY";
  for (const int byte : {1, 0, length & 0xff, length >> 8}) bytes += static_cast<char>(byte);
  return bytes + header;
}

std::string write_pattern(const Plan& plan, const ExportOptions&) {
  const std::int64_t ranks = plan.cluster.ep_size(), layers = plan.num_layers();
  std::vector<std::int32_t> pattern(static_cast<std::size_t>(ranks * layers * plan.num_experts));
  for (std::int64_t l = 0; l < layers; ++l) {
    for (std::int64_t r = 0; r < ranks; ++r) {
      for (const ExpertId e : plan.layers[static_cast<std::size_t>(l)].placement.slots.row(r)) {
        const auto row = static_cast<std::size_t>((r * layers + l) * plan.num_experts);
        pattern[row + index(e)] = 1;
      }
    }
  }
  std::string bytes = npy_header(ranks, layers, plan.num_experts);
  bytes.append(reinterpret_cast<const char*>(pattern.data()), pattern.size() * sizeof(pattern[0]));
  return bytes;
}

// @returns the experts of MoE layer `l`, rank by rank; every rank must have the same number
std::vector<std::int64_t> slots_of_pattern(const NpyView& array, std::int64_t l,
                                           const MapShape& shape, std::string_view place) {
  std::vector<std::int64_t> slots;
  for (std::int64_t r = 0; r < shape.ep_size; ++r) {
    const std::size_t before = slots.size();
    for (std::int64_t e = 0; e < shape.num_experts; ++e) {
      const std::int64_t value =
          integer_at(array, (r * shape.num_layers() + l) * shape.num_experts + e);
      C2R_REQUIRE(value == 0 || value == 1, kInvalidFile,
                  "{}: rank {}, row {}, expert {} is {}, but must be 0 or 1", place, r, l, e,
                  value);
      if (value == 1) slots.push_back(e);
    }
    C2R_REQUIRE(slots.size() == static_cast<std::size_t>(r + 1) * (slots.size() - before),
                kInvalidFile,
                "{}: row {}: rank {} holds {} experts, which is not what rank 0 holds", place, l, r,
                slots.size() - before);
  }
  return slots;
}

std::vector<Placement> read_pattern(std::string_view bytes, const MapShape& shape,
                                    std::string_view place, std::vector<std::string>& /*notes*/) {
  const auto file_bytes = std::as_bytes(std::span(bytes));
  const NpyFile file(std::string(place), {file_bytes.begin(), file_bytes.end()});
  const NpyView& array = file.array();
  const std::vector<std::int64_t> expected = {shape.ep_size, shape.num_layers(), shape.num_experts};
  C2R_REQUIRE(is_integer(array.dtype) && array.shape == expected, kInvalidFile,
              "{}: the array is {} {}, but must be integers {}: ranks, MoE layers, experts", place,
              dtype_name(array.dtype), shape_text(array.shape), shape_text(expected));
  std::vector<Placement> placements;
  for (std::int64_t l = 0; l < shape.num_layers(); ++l) {
    placements.push_back(placement_of_slots(slots_of_pattern(array, l, shape, place), shape,
                                            row_name(static_cast<std::size_t>(l)), place));
  }
  return placements;
}

std::string omni_infer_usage(const Plan&, std::string_view path) {
  return fmt::format("pattern_path: {}", path);
}

constexpr std::string_view kOmniInferCautions[] = {
    "the file says which rank holds an expert, not in which slot"};

constexpr PlacementFile kOmniInferFiles[] = {{.name = "omni-infer",
                                              .suffix = ".npy",
                                              .usage = omni_infer_usage,
                                              .write = write_pattern,
                                              .read = read_pattern,
                                              .cautions = kOmniInferCautions,
                                              .keeps_slot_order = false,
                                              .has_slots_by_layer = true}};

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr ExchangeKernel kOmniInferDispatchCombine[] = {
    with_setting(read_in(kTorchAllToAll,
                         "omni-infer omni/models/common/layers/moe/fused_moe/fused_moe.py, "
                         "moe_infer_fusion, at c8bc2bbbaa10"),
                 "with prefill_dispatch_combine"),
    with_setting(read_in(kMc2,
                         "omni-infer omni/models/common/layers/moe/deepseek_moe.py, "
                         "_forward_decode_dispatch_combine, at c8bc2bbbaa10, and CANN "
                         "ops-transformer moe_distribute_dispatch_v2.h at bfbbec839121"),
                 "while it decodes")};
constexpr ExchangeKernel kOmniInferAllGather[] = {kAllGather};
constexpr Backend kOmniInferBackends[] = {{"dispatch_combine", kOmniInferDispatchCombine},
                                          {"allgather", kOmniInferAllGather}};

}  // namespace

EngineRow engine_rows::omni_infer() {
  return {.name = "omni-infer",
          .title = "omni-infer",
          .files = kOmniInferFiles,
          .backends = kOmniInferBackends};
}

}  // namespace c2r
